//! Pipelines in memory: what is posted, through topic, ingest and profiles.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_engine::event::Time;

use super::{status::Totals, task::Task, *};
use crate::{
    configuration::Configuration,
    log::{Log, memory::MemoryLog},
    pipeline::Pipeline,
    source::{
        http::Posted,
        partitions::{Partition, Registry},
    },
    store::{checkpoint::Claimant, memory::MemoryStore},
};

pub const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: t}
spec:
  partitions: 2
  privacy:
    pseudonymKeys: {file: keys.txt, active: demo}
    user: {field: user}
    consent: {event: consent, grantedIf: {ok: true}}
  sources:
  - name: shop
    http: {partitions: 3}
    format: Json
    eventTime: {field: ts, maxOutOfOrderness: 1h}
    eventId: {field: id, dedupWithin: 1d}
    events:
    - {name: consent, when: {type: consent}}
    - {name: impression, when: {type: shown}, fields: {items: skus}}
    - {name: click, when: {type: click}, fields: {items: sku}}
  features:
    clicks: {count: click}
    seen: {lastN: impression, of: item, n: 3}
  outcomes:
    click: {event: click, join: item, within: 5m}
  models:
  - {name: ctr, outcome: click, features: [item, clicks]}
"#;

/// A pipeline's world: a folder for its files, a log and a store in memory.
pub struct World {
    folder: tempfile::TempDir,
    pub pipeline: Arc<Pipeline>,
    /// Canonical specs of before.
    earlier: Vec<String>,
    pub log: Arc<dyn Log>,
    pub store: Arc<MemoryStore>,
    registry: Registry,
}

/// What was left when everything had ended.
#[derive(Debug, PartialEq)]
pub struct Left {
    profiles: Vec<u128>,
    models: Vec<u128>,
    accepted: u64,
    duplicate: u64,
}

impl World {
    pub fn new(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.yaml");
        fs::write(&file, yaml).unwrap();
        fs::write(folder.path().join("keys.txt"), format!("demo: {}", "a".repeat(32))).unwrap();
        let pipeline = Arc::new(Pipeline::load(&file, &BTreeMap::new()).unwrap());
        let (log, store) = (Arc::new(MemoryLog::default()), Arc::new(MemoryStore::default()));
        Self { folder, pipeline, earlier: Vec::new(), log, store, registry: Registry::default() }
    }

    /// From the next start on the pipeline is another one.
    fn change(&mut self, yaml: &str) {
        let file = self.folder.path().join("pipeline.yaml");
        fs::write(&file, yaml).unwrap();
        let changed = Arc::new(Pipeline::load(&file, &BTreeMap::new()).unwrap());
        let before = std::mem::replace(&mut self.pipeline, changed);
        self.earlier.push(before.validated.result_digest_text().to_owned());
    }

    fn configuration(&self) -> Configuration {
        let earlier: Vec<&str> = self.earlier.iter().map(String::as_str).collect();
        let last = self.pipeline.validated.result_digest_text();
        Configuration::new(last, &earlier, &self.pipeline.plan).unwrap()
    }

    pub fn post(&self, records: &[String], received: Time) {
        self.post_to("shop", records, received);
    }

    fn post_to(&self, source: &str, records: &[String], received: Time) {
        let (posted, thread) = Posted::start(&self.pipeline, self.log.clone(), Arc::new(|| ()), || ()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for request in records.chunks(7) {
            let batch = posted.decode(posted.find(Some(source)).unwrap(), request, received);
            runtime.block_on(posted.append(batch)).unwrap();
        }
        drop(posted);
        thread.join().unwrap();
    }

    pub fn partitions(&mut self) -> Vec<Vec<Partition>> {
        let sources = self.pipeline.spec().sources.iter().zip(&self.pipeline.locations);
        let generation = self.earlier.len() as u32 + 1;
        sources.map(|(s, at)| self.registry.resolve(&s.name, at, generation).unwrap()).collect()
    }

    /// Begins to read everything to its end, in an order that depends on `seed`.
    fn start(&mut self, seed: u64, max_rate: Option<f64>) -> Host {
        let read_order = Some(seed);
        let config = HostConfig { threads: 2, frame_bytes: 512, max_rate, until_end: true, read_order };
        Host::start(self.work(claimant()), Tasks::All, &config).unwrap()
    }

    pub fn work(&mut self, claimant: Claimant) -> Work {
        Work {
            pipeline: self.pipeline.clone(),
            configuration: self.configuration(),
            partitions: self.partitions(),
            fetcher: None,
            log: self.log.clone(),
            store: self.store.clone(),
            member: None,
            elsewhere: None,
            claimant,
        }
    }

    /// Stops in good order once `read` records have been read, which is before the end.
    fn run_until(&mut self, read: u64, seed: u64) {
        let host = self.start(seed, Some(500.0));
        wait(&host, |host| Totals::of(&host.statuses()).read >= read);
        assert!(!host.is_done());
        host.stop().unwrap();
    }

    pub fn run(&mut self, seed: u64) -> Left {
        let host = self.start(seed, None);
        wait(&host, Host::is_done);
        let mut left = Left { profiles: Vec::new(), models: Vec::new(), accepted: 0, duplicate: 0 };
        for task in host.stop().unwrap().tasks {
            match task {
                Task::Profile(mut profile, ..) => {
                    left.profiles.push(profile.digest());
                    left.accepted += profile.counts().accepted;
                    left.duplicate += profile.counts().duplicate;
                }
                Task::Model(mut model, ..) => left.models.push(model.digest()),
                Task::Ingest(..) => {}
            }
        }
        left
    }
}

fn claimant() -> Claimant {
    Claimant { pipeline: "t".into(), owner: "o".into(), engine_version: 1 }
}

fn wait(host: &Host, until: impl Fn(&Host) -> bool) {
    let began = Instant::now();
    while !until(host) {
        assert!(!host.is_failing() && began.elapsed() < Duration::from_secs(60), "{:?}", host.statuses());
        std::thread::sleep(POLL);
    }
}

/// Records of 30 users who agreed, one of each ten times twice; times ascend.
pub fn records() -> Vec<String> {
    let mut records: Vec<String> =
        (0..30).map(|u| format!(r#"{{"type":"consent","user":"u{u}","id":"c{u}","ts":{u},"ok":true}}"#)).collect();
    for n in 0..900 {
        let (user, item, ts) = (n * 7 % 31, n * 13 % 11, 1_000 + n * 977);
        let body = match n % 3 {
            0 => format!(r#""type":"click","sku":"i{item}""#),
            _ => format!(r#""type":"shown","skus":["i{item}","i{}"]"#, (item + 1) % 11),
        };
        let record = format!(r#"{{"user":"u{user}","id":"e{n}","ts":{ts},{body}}}"#);
        records.extend((n % 10 == 0).then(|| record.clone()));
        records.push(record);
    }
    records
}

pub const RECEIVED: Time = Time(900_000_000);

#[test]
fn what_is_posted_ends_as_what_a_file_holds() {
    let records = records();
    let mut posted = World::new(PIPELINE);
    posted.post(&records, RECEIVED);
    let left = posted.run(1);
    assert_eq!((left.accepted, left.duplicate), (30 + 871, 87), "one user of 31 never agreed");

    let from_file = PIPELINE
        .replace("http: {partitions: 3}", "file: {path: events.jsonl}")
        .replace("maxOutOfOrderness: 1h", "maxOutOfOrderness: 1h, notAfter: \"1970-01-01T00:20:00Z\"");
    let mut file = World::new(&from_file);
    fs::write(file.folder.path().join("events.jsonl"), records.join("\n")).unwrap();
    assert_eq!(file.run(2), left);
}

#[test]
fn a_topic_is_read_on_where_it_was_left() {
    let records = records();
    let mut whole = World::new(PIPELINE);
    whole.post(&records, RECEIVED);
    let mut parts = World::new(PIPELINE);
    parts.post(&records, RECEIVED);
    parts.run_until(200, 8);
    parts.run_until(300, 9);
    assert_eq!(parts.run(10), whole.run(11));
}

mod fleet;
mod generations;
mod tables;
