//! From a pipeline to its topics.

use std::{collections::BTreeMap, sync::Arc};

use millrace_crds::spec::Kafka;

use super::{KafkaLog, OpenError, topics::TopicPlan};
use crate::{
    host::Tasks,
    kafka::{Cluster, Fetcher, cluster::cause_of},
    log::{FIRST_OFFSET, LogPartition, ReadError},
    pipeline::Pipeline,
    source::partitions::FoundPartition,
};

/// What reaches a pipeline's brokers.
#[derive(Clone)]
pub struct Connected {
    pub log: Arc<KafkaLog>,
    pub fetcher: Arc<Fetcher>,
}

impl Connected {
    /// Connects to the brokers of `kafka`, and makes or checks the topics of the pipeline, those of a fleet among them.
    pub fn to(kafka: &Kafka, pipeline: &Pipeline, tasks: Tasks) -> Result<Self, OpenError> {
        let cluster = Cluster::new(kafka, &pipeline.folder)?;
        let fetcher = Arc::new(Fetcher::start(&cluster, &group(pipeline))?);
        let plan = TopicPlan {
            prefix: prefix(kafka, pipeline),
            replication_factor: kafka.topics.replication_factor,
            create: kafka.topics.create,
            partitions: partitions(pipeline, tasks),
        };
        let log = Arc::new(KafkaLog::open(&cluster, plan, fetcher.clone())?);
        Ok(Self { log, fetcher })
    }

    /// Partitions of topics of others, in the topics' order.
    ///
    /// # Errors
    /// (the topic, what is wrong with it)
    pub fn find(&self, topics: &[String]) -> Result<Vec<FoundPartition>, (String, String)> {
        let mut all = Vec::new();
        for topic in topics {
            let failed = |cause: String| (topic.clone(), cause);
            let found = super::topics::partitions_of(self.fetcher.consumer(), topic);
            let found = found.map_err(|error| failed(error.to_string()))?;
            if found == 0 {
                return Err(failed(
                    "the brokers have no such topic; create it, or mend the name in spec.sources".into(),
                ));
            }
            for partition in 0..found as u32 {
                let bounds = self.fetcher.bounds(&crate::kafka::TopicPartition::new(topic, partition));
                let (_, end) = bounds.map_err(|error| failed(cause_of(&error)))?;
                all.push(FoundPartition { topic: topic.clone(), partition, end: end.max(0) as u64 });
            }
        }
        Ok(all)
    }

    /// A topic of ours that is not empty, if there is one.
    pub fn not_empty(&self) -> Result<Option<String>, ReadError> {
        let found = self.log.partitions()?.into_iter().find(|found| found.end > FIRST_OFFSET);
        Ok(found.map(|found| self.log.topic(&found.partition.log)))
    }
}

/// To which positions are told.
fn group(pipeline: &Pipeline) -> String {
    format!("millrace.{}.{}", pipeline.validated.namespace(), pipeline.validated.name())
}

/// What the names of the pipeline's topics begin with.
pub fn prefix(kafka: &Kafka, pipeline: &Pipeline) -> String {
    kafka.topics.prefix.clone().unwrap_or_else(|| format!("{}.", group(pipeline)))
}

/// Partitions of each of the pipeline's logs.
fn partitions(pipeline: &Pipeline, tasks: Tasks) -> BTreeMap<String, u32> {
    use crate::host::logs;
    let spec = pipeline.spec();
    let name = |partition: LogPartition| partition.log;
    let mut all = BTreeMap::from([(name(logs::events(0)), spec.partitions), (name(logs::dead_letters()), 1)]);
    all.extend(pipeline.plan.models.iter().map(|model| (name(logs::examples(&model.name)), 1)));
    let posted = spec.sources.iter().filter_map(|source| Some((source, source.http.as_ref()?)));
    if tasks == Tasks::AsTold && pipeline.plan.serves() {
        all.extend(pipeline.plan.models.iter().map(|model| (name(logs::models(&model.name)), 1)));
    }
    all.extend(posted.map(|(source, http)| (name(logs::http(&source.name, 0)), http.partitions)));
    all
}
