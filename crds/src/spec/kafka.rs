//! Brokers, and what is kept on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OneOrMany, SecretText, Source, When};
use crate::scalar::Scalar;

/// Brokers of a Kafka cluster. With them, sources may be topics, and the pipeline's own logs are topics too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kafka {
    /// `HOST:PORT` of some of the brokers, with commas between them.
    pub bootstrap_servers: String,
    /// Encrypted connections. Without it they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<KafkaAuth>,
    #[serde(default)]
    pub topics: KafkaTopics,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KafkaTls {
    /// PEM: who may have signed the brokers' certificates. Default: those whom the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretText>,
}

/// SASL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaAuth {
    #[serde(rename = "type")]
    pub kind: KafkaAuthType,
    pub username: String,
    pub password: SecretText,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaAuthType {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// The pipeline's own topics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KafkaTopics {
    /// Their names begin with it. Default: `millrace.NAMESPACE.NAME.` of the pipeline. Cannot be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[schemars(range(min = 1, max = 9))]
    pub replication_factor: u32,
    /// Topics that are missing are created. Otherwise they are an error.
    pub create: bool,
}

impl Default for KafkaTopics {
    fn default() -> Self {
        Self { prefix: None, replication_factor: 1, create: true }
    }
}

/// Topics that are read. Each of their partitions is one of the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSource {
    /// Their order is part of what results depend on.
    #[schemars(length(min = 1, max = 32))]
    pub topics: Vec<String>,
}

/// In the conditions of a source of topics: the topic that a record came from.
pub const TOPIC: &str = "topic";

impl Source {
    /// The source as records of one of its topics see it: conditions on the topic are decided.
    pub fn of_topic(&self, topic: &str) -> Self {
        let decided = |when: &When| -> Option<When> {
            let mut when = when.clone();
            let is_met = match when.remove(TOPIC) {
                None => true,
                Some(OneOrMany::One(wanted)) => is_text(&wanted, topic),
                Some(OneOrMany::Many(wanted)) => wanted.iter().any(|wanted| is_text(wanted, topic)),
            };
            is_met.then_some(when)
        };
        let mut source = self.clone();
        source.drop = self.drop.iter().filter_map(decided).collect();
        source.events.retain_mut(|event| match decided(&event.when) {
            Some(when) => {
                event.when = when;
                true
            }
            None => false,
        });
        source
    }
}

fn is_text(scalar: &Scalar, text: &str) -> bool {
    matches!(scalar, Scalar::Text(given) if given == text)
}
