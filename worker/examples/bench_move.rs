//! How long a task with about 1 GB of state is not worked on while it moves between two hosts, how long other tasks wait
//! meanwhile, and how soon a standby goes on without its owner.
//!
//! `cargo run --release -p millrace --example bench_move [USERS [MOVES [LOG]]]`. Two hosts of one process over one log and one
//! store, both on disk, in temporary folders; the log's in the folder LOG, if that is given: what is synced beside a
//! gigabyte on one disk waits. One events partition has almost all users. Times are of the clock.
//!
//! A *pause* is from the last frame that the former owner has told of the task's effects to the first one of the next owner,
//! both durable. A *gap* of another task is the time between two looks at its log in which it found something to apply, from
//! the beginning of a move to a second after it.
#![allow(clippy::disallowed_types, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use millrace::{
    configuration::Configuration,
    host::{
        Host, HostConfig, Tasks, Work, logs,
        make::{ingest_task, model_task, profile_task},
        status::Totals,
    },
    log::{
        AppendError, Log, LogPartition, LogStatus, ReadError, Record, TrimError,
        embedded::{EmbeddedLog, Options},
    },
    pipeline::Pipeline,
    source::partitions::Registry,
    store::{Store, folder::FolderStore},
};
use millrace_engine::{
    ENGINE_VERSION,
    frame::{Frame, Kind, Origin},
    ingest::partition_of,
};
use millrace_lifecycle::{
    keys::TaskId,
    lineage::Claimant,
    placement::{Order, Role},
};

const USERS: u64 = 1_200_000;
const MOVES: usize = 10;
/// Of the other partition.
const OTHERS: u64 = 20_000;
const EVENTS_A_SECOND: u64 = 2_000;
const TICK: Duration = Duration::from_millis(10);
/// Records behind the end of its log at which a target counts as level.
const LEVEL_RECORDS: u64 = 20;
const FIRST_MS: u64 = 1_760_000_000_000;

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: moves}
spec:
  partitions: 2
  checkpoints: {interval: 10s, retain: 1m}
  privacy:
    pseudonymKeys: {file: keys.txt, active: k}
    user: {field: user}
    consent: {assumed: "there are no people"}
  sources:
  - name: events
    file: {path: events.jsonl}
    format: Json
    eventTime: {field: ts, unit: ms, maxOutOfOrderness: 100ms, notAfter: "2030-01-01T00:00:00Z"}
    events:
    - {name: impression, when: {type: shown}, fields: {items: sku}}
    - {name: click, when: {type: click}, fields: {items: sku}}
  features:
    clicks: {count: click, window: 64h, buckets: 64}
    views: {count: impression, window: 64h, buckets: 64}
    clicksSlow: {count: click, window: 64d, buckets: 64}
    seen: {lastN: impression, of: item, n: 16}
  outcomes:
    click: {event: click, join: item, within: 2s}
  models:
  - {name: ctr, outcome: click, features: [item, clicks, views, clicksSlow]}
"#;

/// When a host found something to apply, and told effects.
#[derive(Default)]
struct Seen {
    applied: BTreeMap<LogPartition, Vec<Instant>>,
    /// Of the task that is moved.
    told: Vec<(Instant, u64)>,
    appends: Vec<(Instant, Instant)>,
}

struct Watched {
    log: Arc<dyn Log>,
    seen: Mutex<Seen>,
}

impl Log for Watched {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        let began = Instant::now();
        let offsets = self.log.append(batch)?;
        self.seen.lock().unwrap().appends.push((began, Instant::now()));
        for (_, frame) in batch.iter().filter(|(partition, _)| *partition == logs::examples("ctr")) {
            let frame = Frame::read(frame, Kind::Examples).unwrap();
            let heads = frame.sections().map(|section| section.unwrap().head);
            for head in heads.filter(|head| head.origin == Origin::of_profile(0)) {
                self.seen.lock().unwrap().told.push((Instant::now(), head.epoch));
            }
        }
        Ok(offsets)
    }
    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let records = self.log.read(partition, from, max_bytes)?;
        if !records.is_empty() {
            self.seen.lock().unwrap().applied.entry(partition.clone()).or_default().push(Instant::now());
        }
        Ok(records)
    }
    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.log.end(partition)
    }
    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.log.start(partition)
    }
    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError> {
        self.log.trim(partition, before)
    }
    fn status(&self) -> LogStatus {
        self.log.status()
    }
}

/// A host with what it is told.
struct Worker {
    host: Host,
    log: Arc<Watched>,
    orders: BTreeMap<TaskId, Order>,
}

impl Worker {
    fn start(name: &str, pipeline: &Arc<Pipeline>, log: Arc<dyn Log>, store: Arc<dyn Store>) -> Self {
        let log = Arc::new(Watched { log, seen: Mutex::default() });
        let sources = pipeline.spec().sources.iter().zip(&pipeline.locations);
        let mut registry = Registry::default();
        let partitions = sources.map(|(source, at)| registry.resolve(&source.name, at, 1).unwrap()).collect();
        let work = Work {
            pipeline: pipeline.clone(),
            configuration: Configuration::first_of(pipeline),
            partitions,
            fetcher: None,
            log: log.clone(),
            store,
            member: None,
            elsewhere: None,
            claimant: Claimant { pipeline: "moves".into(), owner: name.into(), engine_version: ENGINE_VERSION },
        };
        let config =
            HostConfig { threads: 1, frame_bytes: 64 << 10, max_rate: None, until_end: false, read_order: None };
        Self { host: Host::start(work, Tasks::AsTold, &config).unwrap(), log, orders: BTreeMap::new() }
    }

    fn order(&mut self, task: &TaskId, order: Option<Order>) {
        match order {
            Some(order) => self.orders.insert(task.clone(), order),
            None => self.orders.remove(task),
        };
        self.host.fleet().obey(&self.orders).unwrap();
    }

    fn until(&self, what: &str, task: &TaskId, is: impl Fn(&Role) -> bool) -> Instant {
        let began = Instant::now();
        while !self.host.fleet().reports().get(task).is_some_and(|report| is(&report.role)) {
            assert!(began.elapsed() < Duration::from_secs(300), "{task} {what}: {:?}", self.host.fleet().reports());
            assert!(!self.host.is_failing(), "the host has failed");
            thread::sleep(Duration::from_millis(1));
        }
        Instant::now()
    }
}

fn own(epoch: u64) -> Option<Order> {
    Some(Order::Own { epoch, rolled_back: false })
}

fn line(user: u64, n: u64, at_ms: u64) -> String {
    let kind = if n.is_multiple_of(5) { "click" } else { "shown" };
    format!("{{\"type\":\"{kind}\",\"user\":\"u{user}\",\"ts\":{at_ms},\"sku\":\"i{}\"}}\n", n % 1_000)
}

/// Users of each partition.
fn users(pipeline: &Pipeline, most: u64) -> [Vec<u64>; 2] {
    let mut of = [Vec::new(), Vec::new()];
    let mut n = 0;
    while (of[0].len() as u64) < most {
        let partition = partition_of(pipeline.keys.user_of(&format!("u{n}")), 2);
        if partition == 0 || (of[1].len() as u64) < OTHERS {
            of[partition].push(n);
        }
        n += 1;
    }
    of
}

/// Writes events until told to stop.
fn traffic(path: &Path, users: &[Vec<u64>; 2], first_ms: u64, stop: &AtomicBool) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    let (began, mut n) = (Instant::now(), 0);
    while !stop.load(Ordering::Acquire) {
        let due = began.elapsed().as_millis() as u64 * EVENTS_A_SECOND / 1000;
        let mut lines = String::new();
        while n < due {
            let of = &users[(n % 2) as usize];
            let user = of[(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize % of.len()];
            lines.push_str(&line(user, n, first_ms + n * 1000 / EVENTS_A_SECOND));
            n += 1;
        }
        file.write_all(lines.as_bytes()).unwrap();
        thread::sleep(TICK);
    }
}

/// The longest time between two of the moments within a span.
fn longest_gap(moments: &[Instant], from: Instant, to: Instant) -> Duration {
    let within: Vec<Instant> = moments.iter().copied().filter(|at| *at >= from && *at <= to).collect();
    within.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(to - from)
}

fn longest_append(logs: &[&Watched], from: Instant) -> Duration {
    let of = |log: &&Watched| {
        let seen = log.seen.lock().unwrap();
        seen.appends.iter().filter(|(began, _)| *began >= from).map(|(began, ended)| *ended - *began).max()
    };
    logs.iter().filter_map(of).max().unwrap_or_default()
}

fn told(worker: &Worker, epoch: u64) -> Vec<Instant> {
    let seen = worker.log.seen.lock().unwrap();
    seen.told.iter().filter(|(_, of)| *of == epoch).map(|(at, _)| *at).collect()
}

fn quantile(of: &[Duration], quantile: f64) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort();
    sorted[((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1]
}

fn ms(of: Duration) -> f64 {
    of.as_secs_f64() * 1e3
}

/// Both hosts, and what is moved between them.
struct Fleet {
    hosts: [Worker; 2],
    moved: TaskId,
    epoch: u64,
}

/// What a move came to.
struct Moved {
    level: Duration,
    released: Duration,
    owned: Duration,
    pause: Duration,
    /// Of the other profile task, and of the model task.
    gaps: [Duration; 2],
    longest_append: Duration,
}

impl Fleet {
    fn state_bytes(&self, host: usize) -> u64 {
        self.hosts[host].host.fleet().reports().get(&self.moved).map_or(0, |report| report.state_bytes)
    }

    /// How many checkpoints of the task this host has written.
    fn checkpoints(&self, host: usize) -> u64 {
        let statuses = self.hosts[host].host.statuses();
        let of_moved = statuses.iter().find(|status| status.task == self.moved.to_string());
        of_moved.map_or(0, |status| status.checkpoints.count)
    }

    fn wait(&self, until: impl Fn(&Self) -> bool) {
        while !until(self) {
            assert!(!self.hosts.iter().any(|worker| worker.host.is_failing()), "a host has failed");
            thread::sleep(TICK);
        }
    }

    fn follow(&mut self, to: usize) -> Instant {
        self.hosts[to].order(&self.moved, Some(Order::Follow { epoch: self.epoch }));
        let is_level = |role: &Role| matches!(role, Role::Follows { lag_records, .. } if *lag_records <= LEVEL_RECORDS);
        self.hosts[to].until("follows", &self.moved, is_level)
    }

    fn own(&mut self, to: usize) -> Instant {
        self.epoch += 1;
        self.hosts[to].order(&self.moved, own(self.epoch));
        self.hosts[to].until("is owned", &self.moved, |role| *role == Role::Owns)
    }

    fn gap(&self, host: usize, partition: &LogPartition, from: Instant, to: Instant) -> Duration {
        let seen = self.hosts[host].log.seen.lock().unwrap();
        longest_gap(seen.applied.get(partition).map_or(&[], Vec::as_slice), from, to)
    }

    fn move_to(&mut self, to: usize) -> Moved {
        let (from, began) = (1 - to, Instant::now());
        let level = self.follow(to);
        self.hosts[from].order(&self.moved, Some(Order::Release { epoch: self.epoch }));
        let released = self.hosts[from].until("is released", &self.moved, |role| matches!(role, Role::Released { .. }));
        let owned = self.own(to);
        self.hosts[from].order(&self.moved, None);
        thread::sleep(Duration::from_secs(1));
        let ended = Instant::now();
        let last = told(&self.hosts[from], self.epoch - 1).last().copied().unwrap();
        let first = told(&self.hosts[to], self.epoch).first().copied().unwrap();
        Moved {
            level: level - began,
            released: released - level,
            owned: owned - released,
            pause: first - last,
            gaps: [self.gap(1, &logs::events(1), began, ended), self.gap(0, &logs::examples("ctr"), began, ended)],
            longest_append: longest_append(&[&self.hosts[0].log, &self.hosts[1].log], began),
        }
    }

    /// Nothing more of the owner becomes durable, and nothing is released: how soon its standby tells effects.
    fn promote(&mut self, to: usize) -> Duration {
        self.follow(to);
        self.hosts[1 - to].host.abandoner()();
        let lost = Instant::now();
        self.own(to);
        while told(&self.hosts[to], self.epoch).is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        told(&self.hosts[to], self.epoch)[0] - lost
    }
}

/// The task to be moved is on the first host, with the source and the model; the other profile task is on the second.
fn fleet(pipeline: &Arc<Pipeline>, log: &Arc<dyn Log>, store: &Arc<dyn Store>) -> Fleet {
    let [mut a, mut b] = ["a", "b"].map(|name| Worker::start(name, pipeline, log.clone(), store.clone()));
    let moved = profile_task(0);
    for task in [ingest_task("events", 0), moved.clone(), model_task("ctr")] {
        a.order(&task, own(1));
    }
    b.order(&profile_task(1), own(1));
    Fleet { hosts: [a, b], moved, epoch: 1 }
}

fn report(moves: &[Moved], promoted: Duration) {
    let told = |what: &str, of: Vec<Duration>, upper: f64| {
        let [median, high, most] = [0.5, upper, 1.0].map(|q| ms(quantile(&of, q)));
        println!("{what}: median {median:.0} ms, p{:.0} {high:.0}, most {most:.0}", upper * 100.0);
    };
    told("level after", moves.iter().map(|moved| moved.level).collect(), 0.95);
    told("pause", moves.iter().map(|moved| moved.pause).collect(), 0.95);
    told("longest gap of another task", moves.iter().flat_map(|moved| moved.gaps).collect(), 0.99);
    println!("a standby whose owner is gone tells its first effects after {:.0} ms", ms(promoted));
}

fn main() {
    let mut args = std::env::args().skip(1);
    let most = args.next().map_or(USERS, |arg| arg.parse().unwrap());
    let moves = args.next().map_or(MOVES, |arg| arg.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let of_log = args.next().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let (file, events) = (folder.path().join("pipeline.yaml"), folder.path().join("events.jsonl"));
    fs::write(&file, PIPELINE).unwrap();
    fs::write(folder.path().join("keys.txt"), format!("k: {}", "a".repeat(32))).unwrap();
    let mut out = BufWriter::new(File::create(&events).unwrap());
    let pipeline = Arc::new(Pipeline::load(&file, &BTreeMap::new()).unwrap());
    let users = users(&pipeline, most);
    for (n, user) in users.iter().flatten().enumerate() {
        out.write_all(line(*user, n as u64, FIRST_MS + n as u64 / 1_000).as_bytes()).unwrap();
    }
    out.flush().unwrap();
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&of_log.path().join("log"), Options::default()).unwrap());
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(&folder.path().join("store")).unwrap());
    let mut fleet = fleet(&pipeline, &log, &store);
    let count = users.iter().flatten().count() as u64;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        fleet.wait(|fleet| Totals::of(&fleet.hosts[0].host.statuses()).read >= count);
        scope.spawn(|| traffic(&events, &users, FIRST_MS + count / 1_000 + 1_000, &stop));
        // What is replayed is what comes, not what was there at the beginning.
        fleet.wait(|fleet| Totals::of(&fleet.hosts[0].host.statuses()).lag <= LEVEL_RECORDS);
        let wanted = fleet.checkpoints(0) + 2;
        fleet.wait(|fleet| fleet.checkpoints(0) >= wanted);
        println!("{} MB of state, {count} users", fleet.state_bytes(0) >> 20);
        let mut all = Vec::new();
        for n in 0..moves {
            thread::sleep(Duration::from_secs(2));
            let moved = fleet.move_to((n + 1) % 2);
            println!(
                "move {:>2}: level after {:>6.0} ms, released after {:>4.0}, owned after {:>4.0}; pause {:>5.0} ms; longest gap of \
                 the other profile task {:>4.0} ms, of the model task {:>4.0} ms; longest append {:>4.0} ms",
                n + 1,
                ms(moved.level),
                ms(moved.released),
                ms(moved.owned),
                ms(moved.pause),
                ms(moved.gaps[0]),
                ms(moved.gaps[1]),
                ms(moved.longest_append),
            );
            all.push(moved);
        }
        let promoted = fleet.promote((moves + 1) % 2);
        stop.store(true, Ordering::Release);
        report(&all, promoted);
    });
}
