//! How soon an event counts, and what a steady stream costs: `make bench-fresh` (RATE, SECONDS). A producer sends events to a
//! topic of six partitions at a steady rate; `millrace run` reads them, trains and decides. Two latencies:
//! a click produced until a decision is made with it; and the end of an impression's outcome window, out-of-orderness
//! included, until decisions are made with a model that has learned from it. Before that, without probes, the process's share of a
//! core, and its memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;
mod streaming;

use std::{
    fs,
    net::TcpListener,
    process::Command,
    sync::{Mutex, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use common::{Running, binary, http::Client};
use millrace_e2e::broker::Broker;
use rdkafka::producer::BaseProducer;
use serde_json::{Value, json};
use streaming::{
    OUT_OF_ORDER_MS, PARTITIONS, Stop, WITHIN_MS, client, create_topic, event, now_ms, percentiles, pipeline, send,
    setting, stream,
};

/// Not counted.
const WARM_UP: Duration = Duration::from_secs(15);

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

fn main() {
    let (rate, seconds) = (setting("RATE", 5_000), setting("SECONDS", 30));
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start().unwrap();
    create_topic(&broker);
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
