//! How soon an event counts, and what a steady stream costs: `make bench-fresh` (RATE, SECONDS). A producer sends events to a
//! topic of six partitions at a steady rate; `millrace run` reads them, trains and decides. Two latencies:
//! a click produced until a decision is made with it; and the end of an impression's outcome window, out-of-orderness
//! included, until decisions are made with a model that has learned from it. Before that, without probes, the process's share of a
//! core, and its memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    env, fs,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use common::{Running, binary, http::Client, root};
use millrace_e2e::{broker::Broker, rng::Rng};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

const PARTITIONS: i32 = 6;
const USERS: u64 = 20_000;
const ITEMS: u64 = 10_000;
const TOPIC: &str = "fresh";
/// Of the changed pipeline.
const WITHIN_MS: i64 = 2_000;
const OUT_OF_ORDER_MS: i64 = 500;
/// Not counted.
const WARM_UP: Duration = Duration::from_secs(15);

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The pipeline that is compared with Flink, with short windows and a placement.
fn pipeline(folder: &Path, broker: &Broker) -> std::path::PathBuf {
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

fn event(n: u64, kind: &str, ts: i64, user: &str, item: u64) -> String {
    format!(
        r#"{{"v":1,"id":"{n:032x}","type":"{kind}","ts":{ts},"user":"{user}","item":"i{item}","category":"c{}","placement":"home","policy":"p1","propensity":0.1,"value":12.5,"consent":true,"session":"s1","platform":"web"}}"#,
        item % 50
    )
}

fn send(producer: &BaseProducer, partition: i32, event: &str) {
    let mut next = BaseRecord::<(), [u8]>::to(TOPIC).partition(partition).payload(event.as_bytes());
    while let Err((_, again)) = producer.send(next) {
        next = again;
        producer.poll(Duration::from_millis(1));
    }
}

/// Sends at a steady rate until told to stop; keeps when each impression happened.
fn stream(broker: &Broker, rate: u64, impressions: &Mutex<Vec<i64>>, stop: &AtomicBool) {
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

fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address());
    config
}

fn decide(worker: &mut Client, user: &str) -> Value {
    let body = json!({"user": user, "placement": "home", "candidates": ["i1", "i2", "i3"], "explain": true});
    worker.post("/v1/decisions", &body).expect(200)
}

/// From when a click was handed to the producer until a decision is made with it.
fn click_to_decision(worker: &mut Client, producer: &BaseProducer, probe: u64) -> Duration {
    let user = format!("probe{probe}");
    let partition = (probe % PARTITIONS as u64) as i32;
    let clicks = |worker: &mut Client| decide(worker, &user)["items"][0]["values"]["ctr"]["sameItem"].clone();
    let before = clicks(worker);
    let began = Instant::now();
    send(producer, partition, &event(1 << 40 | probe, "click", now_ms(), &user, 1));
    while clicks(worker) == before {
        producer.poll(Duration::ZERO);
        assert!(began.elapsed() < Duration::from_secs(30), "a click does not count: {}", decide(worker, &user));
        thread::sleep(Duration::from_micros(300));
    }
    began.elapsed()
}

/// (user and system time in s, resident KiB) of a process.
fn used(pid: u32) -> (f64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (ticks as f64 / 100.0, resident.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Ends the stream, also when something goes wrong.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn percentiles(mut all: Vec<f64>) -> Value {
    all.sort_by(f64::total_cmp);
    let at = |share: f64| (all[((all.len() - 1) as f64 * share) as usize] * 10.0).round() / 10.0;
    json!({"samples": all.len(), "p50": at(0.5), "p99": at(0.99), "most": at(1.0)})
}

fn main() {
    let (rate, seconds) = (setting("RATE", 5_000), setting("SECONDS", 30));
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start().unwrap();
    let admin: AdminClient<DefaultClientContext> = client(&broker).create().unwrap();
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
    futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(binary());
    command.arg("run").arg(pipeline(folder.path(), &broker)).arg("--data").arg(folder.path().join("data"));
    let running = &mut Running::start(command.args(["--quiet", "--listen", &address.to_string()]));
    let mut worker = Client::new(address);
    running.until("ready", || Client::new(address).request("GET", "/readyz", None).is_some_and(|r| r.status == 200));
    let (impressions, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let producer: BaseProducer = client(&broker).set("linger.ms", "0").create().unwrap();
    let (clicks, learned, used) = thread::scope(|scope| {
        scope.spawn(|| stream(&broker, rate, &impressions, &stop));
        let _stop = Stop(&stop);
        thread::sleep(WARM_UP);
        // First without anybody who asks.
        let (began, (cpu, _)) = (Instant::now(), used(running.id()));
        thread::sleep(Duration::from_secs(seconds));
        let (after, resident_kib) = used(running.id());
        let used = ((after - cpu) / began.elapsed().as_secs_f64(), resident_kib);
        let began = Instant::now();
        let (mut clicks, mut learned, mut probe) = (Vec::new(), Vec::new(), 0);
        while began.elapsed() < Duration::from_secs(seconds) {
            probe += 1;
            clicks.push(click_to_decision(&mut worker, &producer, probe).as_secs_f64() * 1e3);
            let version = decide(&mut worker, "u1")["models"][0]["version"].as_u64().unwrap();
            let now = now_ms();
            let newest = impressions.lock().unwrap().get(version.saturating_sub(1) as usize).copied().unwrap_or(now);
            learned.push((now - newest - WITHIN_MS - OUT_OF_ORDER_MS) as f64);
            thread::sleep(Duration::from_millis(20));
        }
        (clicks, learned, used)
    });
    let peak_kib = running.peak_kib();
    running.terminate();
    let result = json!({
        "eventsPerSecond": rate, "clickToDecisionMs": percentiles(clicks), "windowToServedMs": percentiles(learned),
        "cores": (used.0 * 1000.0).round() / 1000.0, "residentMiB": used.1 / 1024, "peakMiB": peak_kib.map(|kib| kib / 1024),
    });
    println!("{result:#}");
}
