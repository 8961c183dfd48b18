//! From a pipeline to its topics.

use std::{collections::BTreeMap, sync::Arc};

use millrace_crds::spec::Kafka;

use super::{KafkaLog, OpenError, ours, theirs, topics::TopicPlan};
use crate::{
    host::{Tasks, elsewhere::Elsewhere, logs},
    kafka::{Cluster, FetchError, Fetcher, TopicPartition, cluster::cause_of, fetch::Message},
    log::{FIRST_OFFSET, LogPartition, ReadError},
    pipeline::Pipeline,
    source::partitions::FoundPartition,
};

/// Read at once.
const ELSEWHERE_BYTES: usize = 1 << 20;

/// What reaches a pipeline's brokers.
#[derive(Clone)]
pub struct Connected {
    cluster: Cluster,
    group: String,
    pub log: Arc<KafkaLog>,
    pub fetcher: Arc<Fetcher>,
}

impl Connected {
    /// Connects to the brokers of `kafka`, and makes or checks the topics of the pipeline, those of a fleet among them.
    pub fn to(kafka: &Kafka, pipeline: &Pipeline, tasks: Tasks) -> Result<Self, OpenError> {
        let cluster = Cluster::new(kafka, &pipeline.folder)?;
        let group = group(pipeline);
        let fetcher = Arc::new(Fetcher::start(&cluster, &group)?);
        let plan = TopicPlan {
            prefix: prefix(kafka, pipeline),
            replication_factor: kafka.topics.replication_factor,
            create: kafka.topics.create,
            partitions: partitions(pipeline, tasks),
        };
        let log = Arc::new(KafkaLog::open(&cluster, plan, fetcher.clone())?);
        Ok(Self { cluster, group, log, fetcher })
    }

    /// One events partition, read by a client of its own.
    pub fn elsewhere(&self, partition: u32) -> Result<Elsewhere, OpenError> {
        let fetcher = Arc::new(Fetcher::start(&self.cluster, &self.group)?);
        let partition = logs::events(partition);
        let place = TopicPartition::new(self.log.topic(&partition.log), partition.partition);
        let (of_end, at, here) = (fetcher.clone(), place.clone(), partition.clone());
        let end = move || {
            let unavailable = |cause| ReadError::Unavailable { partition: here.clone(), cause };
            of_end.ends.now(&at).map(ours).map_err(unavailable)
        };
        let read = move |from: u64| {
            let (mut records, partition) = (Vec::new(), partition.clone());
            let each = |message: Message<'_>| records.push((ours(message.offset), message.value.to_vec()));
            match fetcher.read(&place, theirs(from), ELSEWHERE_BYTES, each) {
                Ok(()) => Ok(records),
                Err(FetchError::Trimmed { oldest, .. }) => {
                    Err(ReadError::Trimmed { partition, from, oldest: ours(oldest) })
                }
                Err(error) => Err(ReadError::Unavailable { partition, cause: error.to_string() }),
            }
        };
        Ok(Elsewhere { end: Box::new(end), read: Box::new(read) })
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
                let bounds = self.fetcher.bounds(&TopicPartition::new(topic, partition));
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
