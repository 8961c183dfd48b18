//! The topics of our own logs: made with the settings that we need, or checked for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    kafka::{
        cluster::{ANSWER_WITHIN, cause_of},
        health::Context,
    },
    log::{LogPartition, MAX_RECORD_BYTES},
};

/// A record with what Kafka puts around it.
pub const MAX_MESSAGE_BYTES: usize = MAX_RECORD_BYTES + (64 << 10);

/// How the pipeline's topics are called and made.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    pub prefix: String,
    pub replication_factor: u32,
    /// Make what is missing.
    pub create: bool,
    /// Partitions of each log; one that is not listed has one.
    pub partitions: BTreeMap<String, u32>,
}

/// Why our topics cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("there is no topic {topic}; create it with {settings}, or set spec.kafka.topics.create")]
    Missing { topic: String, settings: String },
    #[error(
        "topic {topic} has {found} partitions and needs {wanted}; what is in it was written for another pipeline or by \
         somebody else: choose another spec.kafka.topics.prefix"
    )]
    Partitions { topic: String, found: usize, wanted: u32 },
    #[error(
        "topic {topic} would lose or refuse records: {}; alter it (kafka-configs --alter --entity-type topics \
         --entity-name {topic} --add-config {})", told(.wrong), wanted(.wrong)
    )]
    Settings { topic: String, wrong: Vec<WrongSetting> },
    #[error("topic {topic} cannot be made: {cause}")]
    NotMade { topic: String, cause: String },
    #[error("topics cannot be looked at: {cause}")]
    NoAnswer { cause: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSetting {
    pub name: &'static str,
    pub found: String,
    pub wanted: String,
}

fn told(wrong: &[WrongSetting]) -> String {
    wrong.iter().map(|w| format!("{} is {}", w.name, w.found)).collect::<Vec<_>>().join(", ")
}
fn wanted(wrong: &[WrongSetting]) -> String {
    wrong.iter().map(|w| format!("{}={}", w.name, w.wanted)).collect::<Vec<_>>().join(",")
}

/// Retention is ours: what no checkpoint needs is deleted by offset.
fn settings() -> [(&'static str, String); 4] {
    [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
    ]
}

/// Does this value of a setting do?
fn does(name: &str, found: &str, wanted: &str) -> bool {
    match name {
        "max.message.bytes" => found.parse::<usize>().is_ok_and(|found| found >= MAX_MESSAGE_BYTES),
        _ => found == wanted,
    }
}

/// Until a topic that was made can be written everywhere.
const MADE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub struct Topics {
    plan: TopicPlan,
    admin: AdminClient<Context>,
    /// Logs whose topics are as they have to be.
    ready: Mutex<BTreeSet<String>>,
}

impl Topics {
    pub fn new(plan: TopicPlan, admin: AdminClient<Context>) -> Self {
        Self { plan, admin, ready: Mutex::default() }
    }

    pub fn admin(&self) -> &AdminClient<Context> {
        &self.admin
    }
    pub fn prefix(&self) -> &str {
        &self.plan.prefix
    }
    pub fn name(&self, log: &str) -> String {
        format!("{}{log}", self.plan.prefix)
    }
    fn partitions(&self, log: &str) -> u32 {
        self.plan.partitions.get(log).copied().unwrap_or(1)
    }
    /// Could the log have this partition?
    pub fn has(&self, partition: &LogPartition) -> bool {
        partition.partition < self.partitions(&partition.log)
    }
    /// All logs that are known to have a topic.
    pub fn planned(&self) -> impl Iterator<Item = &String> {
        self.plan.partitions.keys()
    }

    fn ready(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the log's topic, or checks it; once.
    pub fn ensure(&self, consumer: &BaseConsumer<Context>, log: &str) -> Result<(), TopicError> {
        if self.ready().contains(log) {
            return Ok(());
        }
        let (topic, wanted) = (self.name(log), self.partitions(log));
        let found = match partitions_of(consumer, &topic)? {
            0 => {
                self.make(&topic, wanted)?;
                wait_for(consumer, &topic)?
            }
            found => found,
        };
        if found != wanted as usize {
            return Err(TopicError::Partitions { topic, found, wanted });
        }
        self.check_settings(&topic)?;
        self.ready().insert(log.to_owned());
        Ok(())
    }

    fn make(&self, topic: &str, partitions: u32) -> Result<(), TopicError> {
        let settings = settings();
        if !self.plan.create {
            let settings = settings.map(|(name, value)| format!("{name}={value}")).join(", ");
            let settings = format!("{partitions} partitions, {settings}");
            return Err(TopicError::Missing { topic: topic.to_owned(), settings });
        }
        let replication = TopicReplication::Fixed(self.plan.replication_factor as i32);
        let mut new = NewTopic::new(topic, partitions as i32, replication);
        for (name, value) in &settings {
            new = new.set(name, value);
        }
        let failed = |cause: String| TopicError::NotMade { topic: topic.to_owned(), cause };
        let made = block_on(self.admin.create_topics([&new], &options())).map_err(|error| failed(cause_of(&error)))?;
        match made.into_iter().next() {
            // Somebody was faster.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor))) => Err(failed(format!(
                "there are fewer brokers than spec.kafka.topics.replicationFactor, {}",
                self.plan.replication_factor
            ))),
            Some(Err((_, code))) => Err(failed(code.to_string())),
            None => Err(failed("no answer".to_owned())),
        }
    }

    fn check_settings(&self, topic: &str) -> Result<(), TopicError> {
        let no_answer = |cause: String| TopicError::NoAnswer { cause };
        let specifier = ResourceSpecifier::Topic(topic);
        let described = block_on(self.admin.describe_configs([&specifier], &options()));
        let described = described.map_err(|error| no_answer(cause_of(&error)))?;
        let described = described.into_iter().next().ok_or_else(|| no_answer("no answer".to_owned()))?;
        let described = described.map_err(|code| no_answer(format!("{topic}: {code}")))?;
        let wrong = settings().into_iter().filter_map(|(name, wanted)| {
            let found = described.get(name)?.value.clone().unwrap_or_default();
            (!does(name, &found, &wanted)).then_some(WrongSetting { name, found, wanted })
        });
        let wrong: Vec<WrongSetting> = wrong.collect();
        if wrong.is_empty() { Ok(()) } else { Err(TopicError::Settings { topic: topic.to_owned(), wrong }) }
    }
}

pub fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN))
}

/// How many a topic has, all of them with a leader; 0: there is no such topic, or not everywhere yet.
pub fn partitions_of(consumer: &BaseConsumer<Context>, topic: &str) -> Result<usize, TopicError> {
    match consumer.fetch_metadata(Some(topic), ANSWER_WITHIN) {
        Ok(metadata) => {
            let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
            let partitions = found.map_or(&[][..], |found| found.partitions());
            let all_led = partitions.iter().all(|partition| partition.leader() >= 0);
            Ok(if all_led { partitions.len() } else { 0 })
        }
        Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)) => Ok(0),
        Err(error) => Err(TopicError::NoAnswer { cause: cause_of(&error) }),
    }
}

fn wait_for(consumer: &BaseConsumer<Context>, topic: &str) -> Result<usize, TopicError> {
    let asked = Instant::now();
    loop {
        match partitions_of(consumer, topic)? {
            0 if asked.elapsed() > MADE_WITHIN => {
                let cause = format!("it has no leaders {} s after it was made", MADE_WITHIN.as_secs());
                return Err(TopicError::NotMade { topic: topic.to_owned(), cause });
            }
            0 => thread::sleep(LOOK_AGAIN),
            found => return Ok(found),
        }
    }
}
