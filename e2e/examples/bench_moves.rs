//! What a move costs while events flow: `make bench-moves` (RATE, MOVES). A fleet of three over a real broker and a real store reads
//! a steady stream; one worker after the other is told to end, and comes back: tasks go from it, and to it again. When each task
//! told how far it had come is read from the logs afterwards, by the timestamps of its frames: the pause of a task is what lies
//! between the last frame of one owner and the first of the next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;
mod streaming;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    fleet::{Bucket, Fleet},
    http::Client,
};
use millrace_e2e::{broker::Broker, rng::Rng};
use millrace_engine::{
    event::Seq,
    frame::{Frame, Kind, Origin},
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::json;
use streaming::{PARTITIONS, Stop, client, create_topic, now_ms, percentiles, pipeline, setting, stream};

/// When a task told how far it had come, and as whose.
#[derive(Clone, Copy)]
struct Told {
    at_ms: i64,
    epoch: u64,
    to: Seq,
}

type Tasks = BTreeMap<Origin, Vec<Told>>;

/// Reads all that tasks have told in one log partition.
fn told(broker: &Broker, topic: &str, kind: Kind, is_wanted: impl Fn(&Origin) -> bool, tasks: &mut Tasks) {
    let consumer: BaseConsumer = client(broker).set("group.id", "bench").create().unwrap();
    let (start, end) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(30)).unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(topic, 0, Offset::Offset(start)).unwrap();
    consumer.assign(&all).unwrap();
    let mut next = start;
    while next < end {
        let Some(message) = consumer.poll(Duration::from_secs(10)) else { panic!("{topic} does not come") };
        let message = message.unwrap();
        next = message.offset() + 1;
        let at_ms = message.timestamp().to_millis().unwrap();
        for section in Frame::read(message.payload().unwrap(), kind).unwrap().sections() {
            let head = section.unwrap().head;
            let of_task = tasks.entry(head.origin).or_default();
            // What a former owner still told is dropped by readers, too.
            let goes_on = of_task.last().is_none_or(|last| last.epoch <= head.epoch && last.to < head.to);
            if is_wanted(&head.origin) && goes_on {
                of_task.push(Told { at_ms, epoch: head.epoch, to: head.to });
            }
        }
    }
    tasks.retain(|_, told| !told.is_empty());
}

/// Around a move.
const BESIDE_MS: i64 = 500;

/// From `from` to `to`, when these tasks moved or stood: (pauses of those that moved, the longest gap of each other meanwhile), in ms.
fn gaps(tasks: &Tasks, from: i64, to: i64) -> (Vec<f64>, Vec<f64>) {
    let moves = |told: &[Told]| -> Vec<(i64, i64)> {
        let pairs = told.windows(2).filter(|pair| pair[0].epoch < pair[1].epoch);
        let moves = pairs.map(|pair| (pair[0].at_ms, pair[1].at_ms));
        moves.filter(|(last, first)| (from..to).contains(last) && (from..to).contains(first)).collect()
    };
    let (mut pauses, mut others) = (Vec::new(), Vec::new());
    for (origin, of_task) in tasks {
        for (last, first) in moves(of_task) {
            pauses.push((first - last) as f64);
            let (from, to) = (last - BESIDE_MS, first + BESIDE_MS);
            for (_, other) in tasks.iter().filter(|(other, _)| *other != origin) {
                let near: Vec<&Told> = other.iter().filter(|told| (from..to).contains(&told.at_ms)).collect();
                let epochs: BTreeSet<u64> = near.iter().map(|told| told.epoch).collect();
                if epochs.len() == 1 {
                    let gap = near.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).max();
                    others.extend(gap.map(|gap| gap as f64));
                }
            }
        }
    }
    (pauses, others)
}

fn share_within(all: &[f64], ms: f64) -> f64 {
    all.iter().filter(|one| **one < ms).count() as f64 / all.len().max(1) as f64
}

fn main() {
    let (rate, rounds) = (setting("RATE", 20_000), setting("MOVES", 6));
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start().unwrap();
    create_topic(&broker);
    let bucket = Bucket::start(&folder.path().join("store"));
    let original = pipeline(folder.path(), &broker);
    let yaml = fs::read_to_string(&original).unwrap();
    let yaml = yaml.replace("checkpoints: {interval: 10s", "checkpoints: {interval: 200ms");
    fs::write(&original, yaml.replace("prefix: millrace-peer.", "prefix: own.")).unwrap();
    let pipeline = bucket.pipeline(&original, "moves");
    fs::write(&pipeline, fs::read_to_string(&pipeline).unwrap().replace("interval: 1s", "interval: 10s")).unwrap();
    let mut fleet = Fleet::start(&pipeline, 3);
    let addresses = fleet.addresses().to_vec();
    let (impressions, stop, ending) = (Mutex::new(Vec::new()), AtomicBool::new(false), AtomicUsize::new(usize::MAX));
    let (answers, from, to) = thread::scope(|scope| {
        scope.spawn(|| stream(&broker, rate, &impressions, &stop));
        let _stop = Stop(&stop);
        let owns = |fleet: &Fleet, worker: usize| {
            let said = fleet.tasks(worker);
            said.map_or(0, |said| {
                said["tasks"].as_array().unwrap().iter().filter(|task| task["role"] == "owns").count()
            })
        };
        let all = PARTITIONS as usize * 2 + 1;
        fleet.until("all tasks are owned", |fleet| (0..3).map(|worker| owns(fleet, worker)).sum::<usize>() == all);
        thread::sleep(Duration::from_secs(10));
        let from = now_ms();
        let asking = scope.spawn(|| {
            let (mut rng, mut answers) = (Rng::new(7), Vec::new());
            while !stop.load(Ordering::Acquire) {
                // Whoever is told to end is asked no more, as with any other service.
                let asked = (0..3)
                    .filter(|worker| *worker != ending.load(Ordering::Acquire))
                    .nth(rng.below(2) as usize)
                    .unwrap();
                let body =
                    json!({"user": format!("u{}", rng.below(20_000)), "placement": "home", "candidates": ["i1", "i2"]});
                let began = Instant::now();
                let reply = Client::new(addresses[asked]).request(
                    "POST",
                    "/v1/decisions",
                    Some(("application/json", body.to_string().as_bytes())),
                );
                answers.push((reply.is_some_and(|reply| reply.status == 200), began.elapsed().as_secs_f64() * 1e3));
                thread::sleep(Duration::from_millis(5));
            }
            answers
        });
        for round in 0..rounds {
            let worker = round as usize % 3;
            ending.store(worker, Ordering::Release);
            thread::sleep(Duration::from_millis(100));
            fleet.signal(worker, "-TERM");
            fleet.until("it has ended", |fleet| owns(fleet, worker) == 0);
            fleet.until("it is back", |fleet| owns(fleet, worker) > 1);
            ending.store(usize::MAX, Ordering::Release);
            thread::sleep(Duration::from_secs(5));
        }
        let to = now_ms();
        stop.store(true, Ordering::Release);
        (asking.join().unwrap(), from, to)
    });
    fleet.stop();
    let (mut profiles, mut ingests) = (Tasks::new(), Tasks::new());
    let of_profile = |origin: &Origin| origin.source == u16::MAX;
    told(&broker, "moves.examples.ctr", Kind::Examples, of_profile, &mut profiles);
    told(&broker, "moves.events", Kind::Events, |origin| origin.source == 0, &mut ingests);
    let of = |tasks: &Tasks| {
        let (pauses, others) = gaps(tasks, from, to);
        json!({
            "pauseMs": percentiles(pauses.clone()), "pausesBelow1s": share_within(&pauses, 1_000.0),
            "othersLongestGapMs": percentiles(others.clone()), "othersBelow100ms": share_within(&others, 100.0),
        })
    };
    let (refused, took): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(is_answered, _)| !is_answered);
    let result = json!({
        "eventsPerSecond": rate, "sent": impressions.lock().unwrap().len() * 125 / 100,
        "profileTasks": of(&profiles), "ingestTasks": of(&ingests),
        "decisions": {"notAnswered": refused.len(), "ms": percentiles(took.into_iter().map(|(_, ms)| ms).collect())},
    });
    println!("{result:#}");
}
