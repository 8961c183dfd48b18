//! Our logs on a real broker.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use millrace_crds::spec;
use millrace_e2e::broker::Broker;
use rdkafka::admin::AdminOptions;

use super::*;
use crate::log::{read_some, suite};

/// Names that no other log of these tests has.
fn fresh_prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}.", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn cluster(broker: &Broker) -> Cluster {
    let kafka = spec::Kafka {
        bootstrap_servers: broker.address(),
        tls: None,
        auth: None,
        topics: spec::KafkaTopics::default(),
    };
    Cluster::new(&kafka, std::path::Path::new(".")).unwrap()
}

fn plan(prefix: &str) -> TopicPlan {
    let partitions = BTreeMap::from([("events".to_owned(), 4)]);
    TopicPlan { prefix: prefix.to_owned(), replication_factor: 1, create: true, partitions }
}

fn open(cluster: &Cluster, plan: TopicPlan) -> Result<KafkaLog, OpenError> {
    KafkaLog::open(cluster, plan, Arc::new(Fetcher::start(cluster, "tests").unwrap()))
}

/// Reads wait for what is on its way, as those of the suite expect.
struct Patient(KafkaLog);

impl Log for Patient {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        self.0.append(batch)
    }
    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        read_some(&self.0, partition, from, max_bytes)
    }
    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.0.end(partition)
    }
    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.0.start(partition)
    }
    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError> {
        self.0.trim(partition, before)
    }
    fn status(&self) -> LogStatus {
        self.0.status()
    }
}

#[test]
fn it_keeps_the_contract() {
    let cluster = cluster(Broker::shared());
    let fetcher = Arc::new(Fetcher::start(&cluster, "tests").unwrap());
    let new = || KafkaLog::open(&cluster, plan(&fresh_prefix()), fetcher.clone()).unwrap();
    suite::run(&|| Box::new(Patient(new())));
}

#[test]
fn what_was_appended_is_there_for_the_next_process() {
    let cluster = cluster(Broker::shared());
    let (prefix, partition) = (fresh_prefix(), suite::events(2));
    let log = open(&cluster, plan(&prefix)).unwrap();
    log.append(&[(partition.clone(), vec![1]), (partition.clone(), vec![2])]).unwrap();
    assert_eq!(log.known_end(&partition).or_else(|| log.end(&partition).ok()), Some(3));
    drop(log);
    let log = open(&cluster, plan(&prefix)).unwrap();
    assert_eq!(log.append(&[(partition.clone(), vec![3])]), Ok(vec![3]));
    assert_eq!(read_some(&log, &partition, 1, 100), Ok(vec![(1, vec![1]), (2, vec![2]), (3, vec![3])]));
    assert_eq!(read_some(&log, &partition, 2, 1), Ok(vec![(2, vec![2])]), "back again");
    assert_eq!(read_some(&log, &partition, 4, 1), Ok(vec![]));
}

#[test]
fn topics_that_would_lose_records_are_refused() {
    let cluster = cluster(Broker::shared());
    let prefix = fresh_prefix();
    let topic = format!("{prefix}events");
    let missing = open(&cluster, TopicPlan { create: false, ..plan(&prefix) });
    assert!(matches!(missing, Err(OpenError::Topic(TopicError::Missing { .. }))));
    let new = rdkafka::admin::NewTopic::new(&topic, 4, rdkafka::admin::TopicReplication::Fixed(1))
        .set("retention.ms", "1000")
        .set("max.message.bytes", "70000000");
    let admin = cluster.admin().unwrap();
    block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    let Err(OpenError::Topic(TopicError::Settings { wrong, .. })) = open(&cluster, plan(&prefix)) else {
        panic!("a topic that forgets is accepted");
    };
    let wrong: Vec<_> = wrong.iter().map(|w| (w.name, w.found.as_str(), w.wanted.as_str())).collect();
    assert_eq!(wrong, [("retention.ms", "1000", "-1")]);
    let other = TopicPlan { partitions: BTreeMap::from([("events".to_owned(), 5)]), ..plan(&prefix) };
    let other = open(&cluster, other);
    assert!(matches!(other, Err(OpenError::Topic(TopicError::Partitions { found: 4, wanted: 5, .. }))));
    let too_many = open(&cluster, TopicPlan { replication_factor: 3, ..plan(&fresh_prefix()) });
    let text = too_many.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("replicationFactor"), "{text}");
}

#[test]
fn a_broker_that_is_not_there_is_told_of() {
    let kafka = spec::Kafka {
        bootstrap_servers: "127.0.0.1:9".to_owned(),
        tls: None,
        auth: None,
        topics: spec::KafkaTopics::default(),
    };
    let cluster = Cluster::new(&kafka, std::path::Path::new(".")).unwrap();
    let error = Fetcher::start(&cluster, "tests").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("127.0.0.1:9") && error.contains("no connection"), "{error}");
}

/// Appends wait while the broker is away, and are there once, in order, when it is back.
#[test]
fn a_broker_may_be_killed_and_come_back() {
    let broker = Broker::start().unwrap();
    let cluster = cluster(&broker);
    let log = Arc::new(open(&cluster, plan("k.")).unwrap());
    let partition = suite::events(0);
    log.append(&[(partition.clone(), vec![0])]).unwrap();
    let appending = {
        let (log, partition) = (log.clone(), partition.clone());
        std::thread::spawn(move || {
            for n in 1..=200u8 {
                log.append(&[(partition.clone(), vec![n]), (suite::events(1), vec![n])]).unwrap();
            }
        })
    };
    for _ in 0..2 {
        let before = log.known_end(&partition).unwrap_or(1);
        while !appending.is_finished() && log.known_end(&partition).unwrap_or(1) < before + 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        broker.kill();
        // Nothing is known, so nothing is idle; and reading goes on without an error.
        while log.known_end(&partition).is_some() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let read = log.read(&partition, 1, 1);
        assert!(read.is_ok(), "{read:?}");
        assert!(cluster.health().trouble().is_some());
        broker.go_on().unwrap();
    }
    appending.join().unwrap();
    let expected: Vec<_> = (0..=200u8).map(|n| (u64::from(n) + 1, vec![n])).collect();
    assert_eq!(suite::read_all(&Patient(Arc::into_inner(log).unwrap()), &partition, 50), Ok(expected));
    assert!(cluster.health().trouble().is_none());
}
