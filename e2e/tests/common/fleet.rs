//! A fleet of worker processes over a real broker and a real store, and what may happen to both.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_e2e::{
    broker::Broker,
    rng::Rng,
    s3::{self, Fault, Proxy},
};
use serde_json::Value;

use super::{DEADLINE, Running, binary, http::Client};

/// A bucket that may be away for a while, or slow.
pub struct Bucket {
    _server: s3::Server,
    proxy: Proxy,
    mood: Arc<AtomicU8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Well,
    Away,
    Slow,
}

impl Bucket {
    pub fn start(folder: &Path) -> Self {
        let server = s3::Server::start(folder).unwrap();
        let mood = Arc::new(AtomicU8::new(Mood::Well as u8));
        let felt = mood.clone();
        let proxy = Proxy::start(server.address(), move |request| match felt.load(Ordering::Acquire) {
            mood if mood == Mood::Away as u8 => Fault::Lost,
            mood if mood == Mood::Slow as u8 => {
                // Differs from request to request.
                thread::sleep(Duration::from_millis(200 + request.target.len() as u64 % 8 * 100));
                Fault::None
            }
            _ => Fault::None,
        });
        Self { _server: server, proxy: proxy.unwrap(), mood }
    }

    pub fn be(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Release);
    }

    /// The pipeline with its checkpoints there, and topics of its own, beside the original.
    pub fn pipeline(&self, original: &Path, name: &str) -> PathBuf {
        let place = format!(
            "checkpoints: {{s3: {{bucket: {}, prefix: {name}, endpoint: \"{}\", pathStyle: true}}, interval: 1s",
            s3::BUCKET,
            self.proxy.endpoint()
        );
        let yaml = fs::read_to_string(original).unwrap();
        assert!(yaml.contains("checkpoints: {interval: 200ms") && yaml.contains("prefix: own."));
        let yaml =
            yaml.replace("checkpoints: {interval: 200ms", &place).replace("prefix: own.", &format!("prefix: {name}."));
        let file = original.with_file_name(format!("{name}.yaml"));
        fs::write(&file, yaml).unwrap();
        file
    }
}

/// `millrace COMMAND`, with what opens the bucket.
pub fn millrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// `millrace fleet`, running.
pub struct Fleet {
    pipeline: PathBuf,
    running: Running,
    /// By shard.
    addresses: Vec<SocketAddr>,
    /// How much of what it has told was looked at.
    heard: usize,
    pids: BTreeMap<String, u32>,
}

impl Fleet {
    pub fn start(pipeline: &Path, workers: usize) -> Self {
        let mut command = millrace(&["fleet"]);
        command.arg(pipeline).args(["--workers", &workers.to_string(), "--lost-after", "2", "--output", "json"]);
        let running = Running::start(&mut command);
        let mut fleet =
            Self { pipeline: pipeline.to_owned(), running, addresses: Vec::new(), heard: 0, pids: BTreeMap::new() };
        fleet.until("all workers are started", |fleet| {
            fleet.hear();
            fleet.pids.len() == workers
        });
        fleet
    }

    pub fn pipeline(&self) -> &Path {
        &self.pipeline
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Looks again and again until this holds; fails if the fleet ends before, or at the deadline.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(!self.running.ended_within(Duration::from_millis(50)), "it ended before {what}: {}", self.said());
            assert!(started.elapsed() < DEADLINE, "not in time: {what}: {}", self.said());
        }
    }

    /// The last that it told.
    pub fn said(&self) -> String {
        let said = self.running.said();
        said[said.len().saturating_sub(6_000)..].to_owned()
    }

    /// Which process each worker is, as it was told.
    fn hear(&mut self) {
        let _ = self.running.ended_within(Duration::ZERO);
        let said = self.running.said();
        let end = said.rfind('\n').map_or(0, |at| at + 1);
        for line in said[self.heard..end].lines() {
            let told: Value = serde_json::from_str(line).unwrap();
            let text = told["text"].as_str().unwrap();
            if told["kind"] != "started" {
                continue;
            }
            // worker-0 starts as process 17: http://127.0.0.1:8080/
            let mut words = text.split_whitespace();
            let (shard, rest): (&str, Vec<&str>) = (words.next().unwrap(), words.collect());
            let pid = rest[3].trim_end_matches(':').parse().unwrap();
            let address = rest[4].trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
            if self.pids.insert(shard.to_owned(), pid).is_none() {
                self.addresses.push(address);
            }
        }
        self.heard = end;
    }

    /// kill -9, SIGSTOP, SIGCONT: sent to a worker, if it is there.
    pub fn signal(&mut self, worker: usize, signal: &str) -> bool {
        self.hear();
        let pid = self.pids[&format!("worker-{worker}")];
        Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success()
    }

    /// Resident memory of each worker that lives, in the order of their names.
    pub fn resident_kib(&mut self) -> Vec<u64> {
        self.hear();
        let resident = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        self.pids.values().filter_map(resident).collect()
    }

    /// What a worker has; `None`: it does not answer.
    pub fn tasks(&self, worker: usize) -> Option<Value> {
        Client::new(self.addresses[worker]).request("GET", "/v1/tasks", None).map(|reply| reply.json())
    }

    /// Is each task owned by one worker, and level with what it reads?
    pub fn is_level(&self, tasks: usize) -> bool {
        let all: Vec<Value> = (0..self.addresses.len()).filter_map(|worker| self.tasks(worker)).collect();
        let owned: Vec<(&str, Option<u64>)> = all
            .iter()
            .flat_map(|said| said["tasks"].as_array().unwrap())
            .filter(|task| task["role"] == "owns")
            .map(|task| (task["task"].as_str().unwrap(), task["lagRecords"].as_u64()))
            .collect();
        let lags: BTreeMap<&str, Option<u64>> = owned.iter().copied().collect();
        // How far files reach is not known.
        let is_done =
            |(task, lag): (&&str, &Option<u64>)| *lag == Some(0) || (lag.is_none() && task.starts_with("ingest/tills"));
        (owned.len(), lags.len()) == (tasks, tasks) && lags.iter().all(is_done)
    }

    /// Waits until some task has been given to another worker since it had told so much, if any is to be.
    fn until_taken_over(&mut self, told: usize) {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let _ = self.running.ended_within(Duration::from_millis(50));
            if self.running.said()[told..].contains(" goes to ") {
                return;
            }
        }
        // It had none.
    }

    /// Has every worker saved and released everything?
    pub fn stop(self) {
        self.running.terminate();
        let ended = self.running.finish();
        assert!(ended.status.success(), "{ended:?}");
    }
}

/// The digests of all tasks with one, once a fleet has stopped; its log says the same of them.
pub fn digests(pipeline: &Path) -> BTreeMap<String, String> {
    let ended = Running::start(millrace(&["replay", "--fleet"]).arg(pipeline).args(["--output", "json"])).finish();
    let replayed = ended.summary();
    assert_eq!(replayed["equal"], true, "{replayed}");
    let tasks = replayed["tasks"].as_array().unwrap().iter();
    let text = |task: &Value, member: &str| task[member].as_str().unwrap().to_owned();
    tasks.map(|task| (text(task, "task"), text(task, "kept"))).collect()
}

/// What may happen, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    Killed,
    /// Past a takeover.
    StoodStill,
    BrokerKilled,
    BrokerStoodStill,
    StoreAway,
    StoreSlow,
    /// Another process that calls itself by a worker's name, and wants to have what that has.
    Double,
}

impl Mishap {
    pub const ALL: [Self; 7] = [
        Self::Killed,
        Self::StoodStill,
        Self::BrokerKilled,
        Self::BrokerStoodStill,
        Self::StoreAway,
        Self::StoreSlow,
        Self::Double,
    ];

    /// Happens, and is over.
    pub fn happen(self, fleet: &mut Fleet, broker: &Broker, bucket: &Bucket, rng: &mut Rng) {
        let worker = rng.below(fleet.addresses().len() as u64) as usize;
        let moment = Duration::from_millis(rng.range(200, 4_000));
        match self {
            Self::Killed => drop(fleet.signal(worker, "-KILL")),
            Self::StoodStill => {
                let told = fleet.running.said().len();
                if fleet.signal(worker, "-STOP") {
                    fleet.until_taken_over(told);
                    thread::sleep(moment);
                    fleet.signal(worker, "-CONT");
                }
            }
            Self::BrokerKilled => {
                broker.kill();
                thread::sleep(moment);
                broker.go_on().unwrap();
            }
            Self::BrokerStoodStill => {
                broker.pause();
                thread::sleep(moment);
                broker.wake();
            }
            Self::StoreAway | Self::StoreSlow => {
                bucket.be(if self == Self::StoreAway { Mood::Away } else { Mood::Slow });
                thread::sleep(2 * moment);
                bucket.be(Mood::Well);
            }
            Self::Double => double(fleet, worker),
        }
    }
}

/// A second process of a worker's name, with the orders that the worker has: it is told that they are another's.
fn double(fleet: &Fleet, worker: usize) {
    let Some(said) = fleet.tasks(worker) else { return };
    let owned = said["tasks"].as_array().unwrap().iter().filter(|task| task["role"] == "owns");
    let orders: Vec<Value> =
        owned.map(|task| serde_json::json!({"task": task["task"], "do": "own", "epoch": task["epoch"]})).collect();
    let count = orders.len();
    let file = fleet.pipeline().with_extension("orders.json");
    fs::write(&file, serde_json::json!({"formatVersion": 1, "orders": orders}).to_string()).unwrap();
    let (shard, incarnation) =
        (said["member"]["shard"].as_str().unwrap(), said["member"]["incarnation"].as_str().unwrap());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut second = millrace(&["work"]);
    second.arg(fleet.pipeline()).args(["--shard", shard, "--incarnation", incarnation]);
    let mut second = Running::start(second.args(["--listen", &address.to_string()]).arg("--orders").arg(&file));
    second.until("all orders are refused", || {
        let Some(reply) = Client::new(address).request("GET", "/v1/tasks", None) else { return false };
        let said = reply.json();
        said["tasks"].as_array().unwrap().iter().filter(|task| task["role"] == "outdated").count() == count
    });
    second.kill();
}
