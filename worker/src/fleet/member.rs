//! What a worker of a fleet works with: topics and a bucket that all of them reach, and who it is.

use std::{collections::hash_map::RandomState, hash::BuildHasher, sync::Arc};

use millrace_crds::spec::Kafka;
use millrace_engine::ENGINE_VERSION;
use millrace_lifecycle::{lineage::Claimant, placement::Member};

use super::registration::{self, Change, Registration, RegistrationError};
use crate::{
    configuration::Configuration,
    data,
    host::{Tasks, Work},
    log::{
        ReadError,
        kafka::{
            self,
            connect::{Connected, prefix},
        },
    },
    pipeline::Pipeline,
    source::partitions::{Partition, PartitionsError},
    store::{Store, s3},
};

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the workers of a fleet need {what} that all of them reach; give {field}, or use `millrace run`")]
    NotShared { what: &'static str, field: &'static str },
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(transparent)]
    Store(#[from] s3::OpenError),
    #[error(transparent)]
    Kafka(#[from] kafka::OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Partitions(#[from] PartitionsError),
    #[error(
        "topic {topic} has records, and the store at spec.checkpoints.s3 is empty: they belong to state that is elsewhere or \
         lost; choose another spec.kafka.topics.prefix"
    )]
    NotOurs { topic: String },
}

/// All that the workers of a fleet, and whoever places their tasks, have in common.
pub struct Common {
    pub store: Arc<dyn Store>,
    pub connected: Connected,
    pub registration: Registration,
    pub configuration: Configuration,
    /// Of each source.
    pub partitions: Vec<Vec<Partition>>,
}

impl Common {
    /// For looking, at what is there. Registers nothing, and makes no topic.
    ///
    /// # Errors
    /// Likewise; or nothing is there.
    pub fn look(pipeline: &Pipeline) -> Result<Self, JoinError> {
        let (store, kafka) = Self::shared(pipeline)?;
        let registration = registration::find(store.as_ref(), pipeline, &prefix(kafka, pipeline))?;
        let connected = Connected::to(&without_new_topics(kafka), pipeline, Tasks::AsTold)?;
        let configuration = registration.configuration(pipeline).map_err(RegistrationError::from)?;
        let sources = pipeline.spec().sources.iter().zip(&pipeline.locations);
        let partitions = sources.map(|(source, at)| registration.sources.of(&source.name, at)).collect();
        Ok(Self { store, connected, registration, configuration, partitions })
    }

    fn shared(pipeline: &Pipeline) -> Result<(Arc<dyn Store>, &Kafka), JoinError> {
        let not_shared = |what, field| JoinError::NotShared { what, field };
        let store = data::in_bucket(pipeline.spec())?.ok_or(not_shared("a checkpoint store", "spec.checkpoints.s3"))?;
        let kafka = pipeline.spec().kafka.as_ref().ok_or(not_shared("brokers", "spec.kafka"))?;
        Ok((store, kafka))
    }

    /// # Errors
    /// The brokers or the store cannot be reached, or what is there is not of this version of this pipeline.
    pub fn open(pipeline: &Pipeline, change: Change) -> Result<Self, JoinError> {
        let (store, kafka) = Self::shared(pipeline)?;
        let is_new = || Ok::<_, RegistrationError>(registration::read(store.as_ref())?.is_none());
        let register = || registration::open(store.as_ref(), pipeline, &prefix(kafka, pipeline), change);
        // Before any topic is made for a version of the pipeline that is refused.
        let registered = if is_new()? { None } else { Some(register()?) };
        let connected = Connected::to(kafka, pipeline, Tasks::AsTold)?;
        if registered.is_none()
            && let Some(topic) = connected.not_empty()?
            && is_new()?
        {
            return Err(JoinError::NotOurs { topic });
        }
        let registration = registered.map_or_else(register, Ok)?;
        let configuration = registration.configuration(pipeline).map_err(RegistrationError::from)?;
        let generation = configuration.generation();
        let partitions = registration::update::<_, JoinError>(store.as_ref(), |registration| {
            Ok(data::resolve(&mut registration.sources, pipeline, Some(&connected), generation)?)
        })?;
        Ok(Self { store, connected, registration, configuration, partitions })
    }

    /// For a host of this member.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn work(self, pipeline: Arc<Pipeline>, member: Member) -> Result<Work, JoinError> {
        // Any events partition will do; not all workers take the same.
        let partition = xxhash_rust::xxh3::xxh3_64(member.shard.as_bytes()) % u64::from(pipeline.plan.partitions);
        let elsewhere = self.connected.elsewhere(partition as u32)?;
        let claimant = Claimant {
            pipeline: self.registration.identity.identity.clone(),
            // A container that starts again within its pod is another owner.
            owner: format!("{}/{}/{:016x}", member.shard, member.incarnation, drawn()),
            engine_version: ENGINE_VERSION,
        };
        Ok(Work {
            pipeline,
            configuration: self.configuration,
            partitions: self.partitions,
            log: self.connected.log.clone(),
            fetcher: Some(self.connected.fetcher.clone()),
            store: self.store,
            member: Some(member),
            elsewhere: Some(elsewhere),
            claimant,
        })
    }
}

fn without_new_topics(kafka: &Kafka) -> Kafka {
    let mut kafka = kafka.clone();
    kafka.topics.create = false;
    kafka
}

/// No two processes draw the same: the key is the operating system's.
pub fn drawn() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
