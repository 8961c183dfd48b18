//! How brokers are reached: addresses, TLS and credentials, from the spec and files beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_crds::spec::{Kafka, KafkaAuthType, SecretText};
use rdkafka::{
    ClientConfig,
    admin::AdminClient,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{ProducerContext, ThreadedProducer},
};

use super::health::{Context, Health};

/// Until brokers must have answered a question of ours.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A cluster that can be connected to.
#[derive(Clone)]
pub struct Cluster {
    config: ClientConfig,
    servers: String,
    pub health: Health,
}

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("spec.kafka.{field}: a Secret exists only in a cluster; give `file` for a local run")]
    NoFile { field: &'static str },
    #[error("spec.kafka.{field}: cannot read {}: {cause}", path.display())]
    File { field: &'static str, path: PathBuf, cause: io::Error },
    #[error("spec.kafka.{field}: {} is empty", path.display())]
    Empty { field: &'static str, path: PathBuf },
    #[error("the Kafka client cannot be set up: {0}; look at spec.kafka")]
    Client(KafkaError),
    #[error(
        "the Kafka brokers at {servers} did not answer within {} s: {cause}; are they there, and are spec.kafka.tls and \
         spec.kafka.auth what they want?", ANSWER_WITHIN.as_secs()
    )]
    NoAnswer { servers: String, cause: String },
}

fn secret(text: &SecretText, field: &'static str, beside: &Path) -> Result<PathBuf, SetupError> {
    text.file.as_ref().map(|file| beside.join(file)).ok_or(SetupError::NoFile { field })
}

impl Cluster {
    /// `beside`: the folder to which files are relative. Nothing is connected yet.
    pub fn new(kafka: &Kafka, beside: &Path) -> Result<Self, SetupError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &kafka.bootstrap_servers)
            .set("client.id", "millrace")
            .set("allow.auto.create.topics", "false")
            .set("socket.timeout.ms", ANSWER_WITHIN.as_millis().to_string())
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "30000");
        let (is_tls, is_sasl) = (kafka.tls.is_some(), kafka.auth.is_some());
        let protocol = match (is_tls, is_sasl) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(ca) = kafka.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
            let path = secret(ca, "tls.ca", beside)?;
            // So that a missing file is told as such.
            read(&path, "tls.ca")?;
            config.set("ssl.ca.location", path.to_string_lossy());
        }
        if let Some(auth) = &kafka.auth {
            let path = secret(&auth.password, "auth.password", beside)?;
            let password = read(&path, "auth.password")?;
            let mechanism = match auth.kind {
                KafkaAuthType::Plain => "PLAIN",
                KafkaAuthType::ScramSha256 => "SCRAM-SHA-256",
                KafkaAuthType::ScramSha512 => "SCRAM-SHA-512",
            };
            config.set("sasl.mechanism", mechanism).set("sasl.username", &auth.username).set("sasl.password", password);
        }
        Ok(Self { config, servers: kafka.bootstrap_servers.clone(), health: Health::default() })
    }

    pub fn servers(&self) -> &str {
        &self.servers
    }

    fn context(&self) -> Context {
        Context { health: self.health.clone() }
    }

    /// A consumer of partitions that are assigned by hand. `group`: where its positions are told to others.
    pub fn consumer(&self, group: &str) -> Result<BaseConsumer<Context>, SetupError> {
        let mut config = self.config.clone();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            // Ends are those of committed records.
            .set("isolation.level", "read_committed")
            .set("queued.min.messages", "10000")
            // An answer for every few records would cost more than all that is done with them.
            .set("fetch.min.bytes", "16384")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "100")
            // Of each partition, since each has a queue of its own.
            .set("queued.max.messages.kbytes", "2048");
        config.create_with_context(self.context()).map_err(SetupError::Client)
    }

    /// A producer whose appends are in order and once, as long as it lives (KIP-98).
    pub fn producer<C: ProducerContext + 'static>(
        &self,
        context: C,
        max_message_bytes: usize,
    ) -> Result<ThreadedProducer<C>, SetupError> {
        let mut config = self.config.clone();
        config
            .set("enable.idempotence", "true")
            // What follows a record that failed must not arrive without it: readers would find a hole.
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("message.max.bytes", max_message_bytes.to_string())
            .set("queue.buffering.max.kbytes", (512 << 10).to_string())
            .set("message.timeout.ms", APPENDED_WITHIN.as_millis().to_string());
        config.create_with_context(context).map_err(SetupError::Client)
    }

    pub fn admin(&self) -> Result<AdminClient<Context>, SetupError> {
        self.config.create_with_context(self.context()).map_err(SetupError::Client)
    }

    /// Do brokers answer, and let us in?
    pub fn check(&self, consumer: &BaseConsumer<Context>) -> Result<(), SetupError> {
        match consumer.fetch_metadata(None, ANSWER_WITHIN) {
            Ok(_) => Ok(()),
            Err(error) => Err(SetupError::NoAnswer { servers: self.servers.clone(), cause: cause_of(&error) }),
        }
    }

    /// For a producer's own context.
    pub fn health(&self) -> Health {
        self.health.clone()
    }
}

/// Brokers may be away for that long, and appends wait.
pub const APPENDED_WITHIN: Duration = Duration::from_secs(300);

/// A file's text without white space around it.
fn read(path: &Path, field: &'static str) -> Result<String, SetupError> {
    let text = fs::read_to_string(path).map_err(|cause| SetupError::File { field, path: path.to_owned(), cause })?;
    let text = text.trim();
    if text.is_empty() { Err(SetupError::Empty { field, path: path.to_owned() }) } else { Ok(text.to_owned()) }
}

/// What a broker or the client said, in words.
pub fn cause_of(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {
            "no connection to any broker".to_owned()
        }
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}
