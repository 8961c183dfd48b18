//! A fleet over a real broker and a real store: whatever happens to its workers, its broker and its store, it comes to what an
//! undisturbed one comes to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    env,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    fleet::{Bucket, Fleet, Mishap, digests},
    kafka::{InTopics, Shop},
};
use millrace_e2e::{
    broker::Broker,
    rng::Rng,
    trace::{TraceConfig, write_trace},
};

/// Partitions of both sources, events partitions, models.
fn tasks(topics: &InTopics, folder: &Path) -> usize {
    topics.files(folder).len() + common::files_below(&folder.join("tills")).len() + 8 + 2
}

/// Fills the topic little by little, while mishaps happen one after the other.
fn disturbed(seed: u64, events: u64, mishaps: &[Mishap], parts: usize) {
    let folder = tempfile::tempdir().unwrap();
    write_trace(folder.path(), &TraceConfig { events, users: events / 50, ..TraceConfig::default() }).unwrap();
    let broker = Broker::start().unwrap();
    let shop = Shop::on(&broker);
    let topics = InTopics::new(&shop, folder.path());
    let bucket = Bucket::start(&folder.path().join("store"));
    let mut fleet = Fleet::start(&bucket.pipeline(&topics.pipeline, "disturbed"), 3);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let fill = scope.spawn(|| {
            for part in 0..parts {
                topics.fill(&shop, folder.path(), part * 100 / parts, (part + 1) * 100 / parts);
                let next = Instant::now() + Duration::from_millis(500);
                while !is_over.load(Ordering::Acquire) && Instant::now() < next {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let mut rng = Rng::new(seed);
        for (n, mishap) in mishaps.iter().enumerate() {
            println!("{n}: {mishap:?}");
            mishap.happen(&mut fleet, &broker, &bucket, &mut rng);
            thread::sleep(Duration::from_millis(rng.range(0, 3_000)));
        }
        is_over.store(true, Ordering::Release);
        fill.join().unwrap();
    });
    let all = tasks(&topics, folder.path());
    fleet.until("all has been read", |fleet| fleet.is_level(all));
    let pipeline = fleet.pipeline().to_owned();
    fleet.stop();
    let found = digests(&pipeline);
    let mut calm = Fleet::start(&bucket.pipeline(&topics.pipeline, "calm"), 1);
    calm.until("all has been read", |fleet| fleet.is_level(all));
    let pipeline = calm.pipeline().to_owned();
    calm.stop();
    assert_eq!(found, digests(&pipeline));
}

#[test]
fn a_fleet_comes_to_the_same_whatever_happens() {
    disturbed(11, 60_000, &Mishap::ALL, 40);
}

/// `make soak`: as long as `MINUTES` says, with as many mishaps as there is time for.
#[test]
#[ignore = "takes as long as it is told"]
fn soak() {
    let mishaps: usize = env::var("MISHAPS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let seed = env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut rng = Rng::new(seed);
    let mishaps: Vec<Mishap> = (0..mishaps).filter_map(|_| rng.pick(&Mishap::ALL).copied()).collect();
    disturbed(seed, 2_000_000, &mishaps, 4 * mishaps.len().max(1));
}
