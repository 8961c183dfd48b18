//! A steady stream of a shop's events into a topic, for benchmarks.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use millrace_e2e::{broker::Broker, rng::Rng};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use super::common::root;

pub const PARTITIONS: i32 = 6;
pub const USERS: u64 = 20_000;
pub const ITEMS: u64 = 10_000;
pub const TOPIC: &str = "fresh";
/// Of the changed pipeline.
pub const WITHIN_MS: i64 = 2_000;
pub const OUT_OF_ORDER_MS: i64 = 500;

pub fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The pipeline that is compared with Flink, with short windows and a placement.
pub fn pipeline(folder: &Path, broker: &Broker) -> PathBuf {
    let peer = root().join("e2e/peers/flink");
    let yaml = fs::read_to_string(peer.join("pipeline.yaml")).unwrap();
    let placements = "  policies:\n    best: {score: {ctr: 1.0}}\n  placements:\n  - {name: home, slots: 2, \
                      candidates: {fromRequest: 20}, default: RequestOrder, policy: best}\n  outcomes:";
    let replaced = [
        ("127.0.0.1:9092", broker.address()),
        ("topics: [events]", format!("topics: [{TOPIC}]")),
        ("maxOutOfOrderness: 5s", format!("maxOutOfOrderness: {OUT_OF_ORDER_MS}ms")),
        ("within: 10m", format!("within: {WITHIN_MS}ms")),
        ("fields: &fields {items: item,", "fields: &fields {decision: decision, items: item,".to_owned()),
        ("  outcomes:", placements.to_owned()),
    ];
    let yaml = replaced.into_iter().fold(yaml, |yaml, (from, to)| {
        assert!(yaml.contains(from), "{from}");
        yaml.replacen(from, &to, 1)
    });
    fs::copy(peer.join("keys.txt"), folder.join("keys.txt")).unwrap();
    let file = folder.join("pipeline.yaml");
    fs::write(&file, yaml).unwrap();
    file
}

pub fn event(n: u64, kind: &str, ts: i64, user: &str, item: u64) -> String {
    format!(
        r#"{{"v":1,"id":"{n:032x}","type":"{kind}","ts":{ts},"user":"{user}","item":"i{item}","category":"c{}","placement":"home","policy":"p1","propensity":0.1,"value":12.5,"consent":true,"session":"s1","platform":"web"}}"#,
        item % 50
    )
}

pub fn send(producer: &BaseProducer, partition: i32, event: &str) {
    let mut next = BaseRecord::<(), [u8]>::to(TOPIC).partition(partition).payload(event.as_bytes());
    while let Err((_, again)) = producer.send(next) {
        next = again;
        producer.poll(Duration::from_millis(1));
    }
}

/// Sends at a steady rate until told to stop; keeps when each impression happened.
pub fn stream(broker: &Broker, rate: u64, impressions: &Mutex<Vec<i64>>, stop: &AtomicBool) {
    let producer: BaseProducer = client(broker).set("linger.ms", "5").create().unwrap();
    let (mut rng, began, mut sent) = (Rng::new(3), Instant::now(), 0u64);
    while !stop.load(Ordering::Acquire) {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        let mut shown = impressions.lock().unwrap();
        while sent < due {
            // Of 125 events: 100 impressions, 18 views, 6 clicks, an order.
            let kind = match rng.below(125) {
                0..100 => "impression",
                100..118 => "view",
                118..124 => "click",
                _ => "order",
            };
            let (ts, user) = (now_ms(), rng.below(USERS));
            if kind == "impression" {
                shown.push(ts);
            }
            let item = rng.below(ITEMS).min(rng.below(ITEMS));
            send(&producer, (user % PARTITIONS as u64) as i32, &event(sent, kind, ts, &format!("u{user}"), item));
            sent += 1;
        }
        drop(shown);
        producer.poll(Duration::ZERO);
        thread::sleep(Duration::from_millis(2));
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// Makes the topic that events are sent to.
pub fn create_topic(broker: &Broker) {
    let admin: AdminClient<DefaultClientContext> = client(broker).create().unwrap();
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
    futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
}

pub fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address());
    config
}

/// Ends the stream, also when something goes wrong.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

pub fn percentiles(mut all: Vec<f64>) -> Value {
    if all.is_empty() {
        return Value::Null;
    }
    all.sort_by(f64::total_cmp);
    let at = |share: f64| (all[((all.len() - 1) as f64 * share) as usize] * 10.0).round() / 10.0;
    json!({"samples": all.len(), "p50": at(0.5), "p99": at(0.99), "most": at(1.0)})
}
