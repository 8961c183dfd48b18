//! A fleet over a real broker and a real store: whatever happens to its workers, its broker and its store, it comes to what an
//! undisturbed one comes to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Running,
    fleet::{Bucket, Fleet, Mishap, Mood, digests, millrace},
    http::{Client, Reply},
    kafka::{InTopics, Shop},
};
use millrace_e2e::{
    broker::Broker,
    rng::Rng,
    trace::{TraceConfig, write_trace},
};
use serde_json::Value;

/// Partitions of both sources, events partitions, models.
fn tasks(topics: &InTopics, folder: &Path) -> usize {
    topics.files(folder).len() + common::files_below(&folder.join("tills")).len() + 8 + 2
}

/// Parts in which the topic is filled while one mishap goes on, and how long each waits for: events come all the time.
const PARTS: usize = 16;
const PART: Duration = Duration::from_millis(100);

/// Fills the topic little by little, while mishaps happen one after the other.
fn disturbed(seed: u64, events: u64, mishaps: &[Mishap]) {
    let folder = tempfile::tempdir().unwrap();
    write_trace(folder.path(), &TraceConfig { events, users: events / 50, ..TraceConfig::default() }).unwrap();
    let broker = Broker::start().unwrap();
    let shop = Shop::on(&broker);
    let topics = InTopics::new(&shop, folder.path());
    let bucket = Bucket::start(&folder.path().join("store"));
    let mut fleet = Fleet::start(&bucket.pipeline(&topics.pipeline, "disturbed"), 3);
    let (parts, begun) = (PARTS * mishaps.len(), AtomicUsize::new(0));
    let mut resident_kib: Vec<Vec<u64>> = Vec::new();
    thread::scope(|scope| {
        let fill = scope.spawn(|| {
            topics.fill_in_parts(&shop, folder.path(), parts, |part| {
                thread::sleep(PART);
                // Not ahead of the mishaps, nor long after them.
                while part >= PARTS * begun.load(Ordering::Acquire) {
                    thread::sleep(Duration::from_millis(10));
                }
            });
        });
        // Also if one of them fails: then nobody waits for ever.
        let _all = Begun(&begun);
        let mut rng = Rng::new(seed);
        for (n, mishap) in mishaps.iter().enumerate() {
            resident_kib.push(fleet.resident_kib());
            println!("{n}: {mishap:?}; resident KiB {:?}", resident_kib[n]);
            begun.store(n + 1, Ordering::Release);
            mishap.happen(&mut fleet, &broker, &bucket, &mut rng);
            thread::sleep(Duration::from_millis(rng.range(0, 3_000)));
        }
        fill.join().unwrap();
    });
    is_flat(&resident_kib);
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

/// Does no worker's memory grow, once what it keeps is there? A worker that was given more tasks needs more.
fn is_flat(resident_kib: &[Vec<u64>]) {
    let quarter = resident_kib.len() / 4;
    let most = |quarter: &[Vec<u64>]| quarter.iter().flatten().max().copied();
    let (Some(second), Some(last)) =
        (most(&resident_kib[quarter..2 * quarter]), most(&resident_kib[resident_kib.len() - quarter..]))
    else {
        return;
    };
    println!("resident at most: {} MiB in the second quarter, {} MiB in the last", second >> 10, last >> 10);
    assert!(quarter < 10 || last < second * 3 / 2 + (32 << 10), "memory grows");
}

/// All mishaps have begun when this is dropped.
struct Begun<'a>(&'a AtomicUsize);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.store(usize::MAX / PARTS, Ordering::Release);
    }
}

#[test]
fn a_fleet_comes_to_the_same_whatever_happens() {
    disturbed(11, 60_000, &Mishap::ALL);
}

const SHOP: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: fleet-shop}
spec:
  partitions: 4
  kafka: {bootstrapServers: "BROKER", topics: {prefix: own.}}
  checkpoints: {interval: 200ms, retain: 1h}
  privacy:
    pseudonymKeys: {file: keys.txt, active: k1}
    user: {field: user}
    consent: {event: consent, grantedIf: {personalize: true}}
    allowedAttributes: []
  sources:
  - name: shop
    kafka: {topics: [TOPIC]}
    format: Json
    eventTime: &time {field: at, unit: ms, maxOutOfOrderness: 500ms, maxAhead: 1m}
    idleAfter: 1s
    events: &events
    - {name: consent, when: {type: consent}}
    - {name: click, when: {type: click}, fields: {items: sku}}
  - name: web
    http: {partitions: 2}
    format: Json
    eventTime: *time
    idleAfter: 1s
    events: *events
  features:
    clicks: {count: click, bucket: {max: 10}}
  outcomes:
    click: {event: click, join: item, within: 1s}
  models:
  - {name: ctr, outcome: click, features: [clicks, item], learner: {ftrl: {alpha: 0.1, beta: 1, l1: 0, l2: 1, bits: 16}}}
  policies:
    best: {score: {ctr: 1.0}}
  placements:
  - {name: home, slots: 2, candidates: {fromRequest: 20}, impressions: decision, default: RequestOrder, policy: best}
"#;

struct Asked<'f> {
    addresses: &'f [SocketAddr],
    shop: &'f Shop<'f>,
    topic: &'f str,
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Asked<'_> {
    fn produce(&self, user: usize, json: &str) {
        let at = now_ms();
        let record = format!(r#"{{"user": "u{user}", "at": {at}, {json}}}"#);
        self.shop.produce(self.topic, user % 2, at, [record]);
    }

    /// `None`: the worker is not there.
    fn decide(&self, worker: usize, user: usize) -> Option<Reply> {
        let body = format!(r#"{{"user": "u{user}", "placement": "home", "candidates": ["a", "b", "c"]}}"#);
        let body = Some(("application/json", body.as_bytes()));
        Client::new(self.addresses[worker]).request("POST", "/v1/decisions", body)
    }

    fn is_personal(&self, worker: usize, user: usize) -> bool {
        self.decide(worker, user).is_some_and(|reply| reply.expect(200)["personalized"] == true)
    }
}

/// A pipeline for a shop's topic of two partitions, in `folder`.
fn shop_pipeline(folder: &Path, shop: &Shop<'_>, topic: &str) -> PathBuf {
    shop.create(topic, 2);
    let file = folder.join("pipeline.yaml");
    std::fs::write(&file, SHOP.replace("BROKER", &shop.broker.address()).replace("TOPIC", topic)).unwrap();
    std::fs::write(folder.join("keys.txt"), format!("k1: {}", "7".repeat(32))).unwrap();
    file
}

/// Any worker answers for any user, also while profiles go from one worker to another.
#[test]
fn any_worker_answers_for_any_user() {
    const USERS: usize = 24;
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::on(Broker::shared());
    let topic = "fleet-shop";
    let original = shop_pipeline(folder.path(), &shop, topic);
    let bucket = Bucket::start(&folder.path().join("store"));
    let mut fleet = Fleet::start(&bucket.pipeline(&original, "fleet-shop"), 3);
    let addresses = fleet.addresses().to_vec();
    let asked = Asked { addresses: &addresses, shop: &shop, topic };
    (0..USERS).for_each(|user| asked.produce(user, r#""type": "consent", "personalize": true"#));
    fleet.until("everybody is known everywhere", |_| {
        (0..3).all(|worker| (0..USERS).all(|user| asked.is_personal(worker, user)))
    });
    // What one worker has learned, all serve with.
    let version =
        |worker: usize| asked.decide(worker, 0).map(|reply| reply.expect(200)["models"][0]["version"].as_u64());
    fleet.until("all serve with what was learned", |_| {
        asked.produce(0, r#""type": "click", "sku": "a""#);
        (0..3).all(|worker| version(worker).flatten().is_some_and(|version| version > 50))
    });
    // A withdrawal counts at once, wherever it was posted and whoever is asked.
    for (user, address) in addresses.iter().enumerate() {
        let withdrawn =
            format!(r#"{{"user": "u{user}", "at": {}, "type": "consent", "personalize": false}}"#, now_ms());
        let posted = Client::new(*address).post("/v1/events", &serde_json::from_str(&withdrawn).unwrap());
        posted.expect(202);
        assert!((0..3).all(|worker| !asked.is_personal(worker, user)), "user {user}");
    }
    // An erasure, too.
    for user in 3..6 {
        Client::new(addresses[user % 3]).delete(&format!("/v1/users/u{user}")).expect(200);
        assert!((0..3).all(|worker| !asked.is_personal(worker, user)), "user {user}");
        let gone = (0..3).map(|worker| Client::new(addresses[worker]).get(&format!("/v1/profiles/u{user}")).status);
        assert!(gone.into_iter().all(|status| status == 404), "user {user}");
    }
    // Whoever is asked answers, whatever happens to the others.
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut rng = Rng::new(5);
            while !stop.load(Ordering::Acquire) {
                // The first worker is left alone.
                let user = rng.below(USERS as u64) as usize;
                let reply = asked.decide(0, user).expect("the first worker is there");
                reply.expect(200);
                answered.fetch_add(1, Ordering::AcqRel);
            }
        });
        for worker in [1, 2, 1] {
            fleet.signal(worker, "-KILL");
            let before = answered.load(Ordering::Acquire);
            fleet.until("it is back", |fleet| {
                let has = |worker: usize| {
                    fleet
                        .tasks(worker)
                        .is_some_and(|said| said["tasks"].as_array().unwrap().iter().any(|task| task["role"] == "owns"))
                };
                assert!(!asking.is_finished());
                has(worker) && answered.load(Ordering::Acquire) > before + 100
            });
        }
        stop.store(true, Ordering::Release);
        asking.join().unwrap();
    });
    fleet.until("everybody is known again", |_| {
        (0..3).all(|worker| (6..USERS).all(|user| asked.is_personal(worker, user)))
    });
    assert!((0..3).all(|worker| (0..6).all(|user| !asked.is_personal(worker, user))), "what was taken back stays so");
    let pipeline = fleet.pipeline().to_owned();
    fleet.stop();
    assert_eq!(digests(&pipeline).len(), 5);
}

/// The state goes on under it: models first, then profiles.
#[test]
fn a_fleet_takes_a_changed_pipeline_over() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::on(Broker::shared());
    let original = shop_pipeline(folder.path(), &shop, "changed-shop");
    let bucket = Bucket::start(&folder.path().join("store"));
    let pipeline = bucket.pipeline(&original, "changed-shop");
    let begun = |fleet: &mut Fleet| {
        let addresses = fleet.addresses().to_vec();
        let asked = Asked { addresses: &addresses, shop: &shop, topic: "changed-shop" };
        asked.produce(1, r#""type": "consent", "personalize": true"#);
        fleet.until("the user is known", |_| (0..2).all(|worker| asked.is_personal(worker, 1)));
    };
    let mut fleet = Fleet::start(&pipeline, 2);
    begun(&mut fleet);
    fleet.stop();
    let yaml = std::fs::read_to_string(&pipeline).unwrap();
    let changed = yaml
        .replace("features: [clicks, item]", "features: [clicks, clickedLast, item]")
        .replace("  outcomes:", "    clickedLast: {last: click, of: item}\n  outcomes:");
    std::fs::write(&pipeline, changed).unwrap();
    let worker = ["work", pipeline.to_str().unwrap(), "--shard", "a", "--listen", "127.0.0.1:0"];
    Running::start(&mut millrace(&worker)).finish().refused(&["another version", "features.clickedLast"]);
    let mut fleet = Fleet::start(&pipeline, 2);
    begun(&mut fleet);
    fleet.until("all know the change", |fleet| {
        let said: Vec<Value> = (0..2).filter_map(|worker| fleet.tasks(worker)).collect();
        let owned =
            said.iter().flat_map(|said| said["tasks"].as_array().unwrap()).filter(|task| task["role"] == "owns");
        let reads_logs = owned.filter(|task| !task["task"].as_str().unwrap().starts_with("ingest/"));
        reads_logs.filter(|task| task["generation"] == 2).count() == 5
    });
    fleet.stop();
    assert_eq!(digests(&pipeline).len(), 5);
}

/// A mishap, and what comes after it, takes 6 s on average.
const MISHAPS_A_MINUTE: usize = 10;

/// `make soak`: `MISHAPS` one after the other, or about as many as fit in `MINUTES`, drawn by `SEED`.
#[test]
#[ignore = "takes as long as it is told"]
fn soak() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let mishaps = number("MINUTES").map(|minutes| minutes * MISHAPS_A_MINUTE).or(number("MISHAPS")).unwrap_or(200);
    let seed = number("SEED").unwrap_or(1) as u64;
    let mut rng = Rng::new(seed);
    let mishaps: Vec<Mishap> = (0..mishaps).filter_map(|_| rng.pick(&Mishap::ALL).copied()).collect();
    disturbed(seed, 10_000 * mishaps.len() as u64, &mishaps);
}

/// `make soak`: decisions go on from what is known, memory stays as it was, readiness says what is wrong, and all is well again
/// without a hand.
#[test]
#[ignore = "takes five minutes"]
fn brokers_and_store_may_be_away_for_two_minutes() {
    const AWAY: Duration = Duration::from_secs(120);
    const USERS: usize = 24;
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start().unwrap();
    let shop = Shop::on(&broker);
    let original = shop_pipeline(folder.path(), &shop, "away-shop");
    let bucket = Bucket::start(&folder.path().join("store"));
    let mut fleet = Fleet::start(&bucket.pipeline(&original, "away-shop"), 3);
    let addresses = fleet.addresses().to_vec();
    let asked = Asked { addresses: &addresses, shop: &shop, topic: "away-shop" };
    (0..USERS).for_each(|user| asked.produce(user, r#""type": "consent", "personalize": true"#));
    let known = || (0..3).all(|worker| (0..USERS).all(|user| asked.is_personal(worker, user)));
    fleet.until("everybody is known everywhere", |_| known());
    let before = fleet.resident_kib();
    let mut rng = Rng::new(9);
    let mut decide_for = |fleet: &mut Fleet, time: Duration| {
        let (until, mut answered) = (Instant::now() + time, 0);
        while Instant::now() < until {
            let (worker, user) = (rng.below(3) as usize, rng.below(USERS as u64) as usize);
            assert!(asked.is_personal(worker, user), "{}", fleet.said());
            answered += 1;
            thread::sleep(Duration::from_millis(20));
        }
        println!("{answered} decisions; resident KiB before {before:?}, now {:?}", fleet.resident_kib());
    };
    let ready = |worker: usize| Client::new(addresses[worker]).request("GET", "/readyz", None).unwrap();
    broker.kill();
    fleet.until("brokers are missed", |_| {
        (0..3).all(|worker| ready(worker).text().contains("brokers have not answered"))
    });
    decide_for(&mut fleet, AWAY);
    assert!((0..3).all(|worker| ready(worker).status == 200), "it goes on from what it knows");
    broker.go_on().unwrap();
    fleet.until("brokers are there", |_| (0..3).all(|worker| ready(worker).text() == "ready\n"));
    bucket.be(Mood::Away);
    decide_for(&mut fleet, AWAY);
    bucket.be(Mood::Well);
    let after = fleet.resident_kib();
    assert_eq!(before.len(), after.len());
    assert!(before.iter().zip(&after).all(|(before, after)| *after < before + (64 << 10)), "{before:?} {after:?}");
    asked.produce(1, r#""type": "click", "sku": "a""#);
    fleet.until("all has been read", |fleet| fleet.is_level(2 + 2 + 4 + 1));
    assert!(known());
    let pipeline = fleet.pipeline().to_owned();
    fleet.stop();
    assert_eq!(digests(&pipeline).len(), 5);
}
