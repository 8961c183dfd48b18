//! Whether brokers answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Shared by all clients of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<Mutex<Option<Trouble>>>,
}

/// Since when brokers do not answer, and what the client said.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub since: Instant,
    pub cause: String,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the Kafka brokers have not answered for {} s ({})", self.lasts().as_secs(), self.cause)
    }
}

impl Trouble {
    pub fn lasts(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker has answered.
    pub fn answered(&self) {
        if let Some(trouble) = self.state().take() {
            tracing::info!(after_seconds = trouble.lasts().as_secs(), "the Kafka brokers answer again");
        }
    }

    /// None has.
    pub fn failed(&self, cause: &str) {
        let mut state = self.state();
        if state.is_none() {
            tracing::warn!(cause, "the Kafka brokers do not answer; it is tried again until they do");
            *state = Some(Trouble { since: Instant::now(), cause: cause.to_owned() });
        }
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.state().clone()
    }
}

/// What a client tells goes to our own log and to [`Health`].
#[derive(Clone, Debug)]
pub struct Context {
    pub health: Health,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "{message}");
            }
            // A broker that went away is in `Health`, once.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                tracing::debug!(facility, "{message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::trace!(facility, "{message}"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.health.failed(reason),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                tracing::error!(reason, "the Kafka brokers refuse our credentials; look at spec.kafka.auth");
            }
            _ => tracing::debug!(%error, reason, "of the Kafka client"),
        }
    }
}

impl ConsumerContext for Context {}
