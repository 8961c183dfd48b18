//! A Kafka cluster, as our own logs and the topics of sources need it: what is read comes ahead of time, in order and at
//! the offsets that are asked for; groups and their rebalancing are not used.
//!
//! [`cluster`] connects, [`fetch`] reads, [`ends`] knows how far partitions reach, [`health`] whether brokers answer.

pub mod cluster;
pub mod ends;
pub mod fetch;
pub mod health;

pub use cluster::{Cluster, SetupError};
pub use fetch::{FetchError, Fetcher, Message};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<String>, partition: u32) -> Self {
        Self { topic: topic.into(), partition: partition as i32 }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}
