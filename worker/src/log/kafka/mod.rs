//! Our logs as topics of a Kafka cluster.
//!
//! An offset here is Kafka's and one: the first is [`super::FIRST_OFFSET`]. Appends are in order and once, as long as the
//! process lives (idempotent producer); what a process that ended had under way may still come, and is dropped by
//! readers for its epoch. A batch is not appended as a whole: after an error a part of it may be there.

pub mod connect;
mod tail;
pub mod topics;

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    ClientContext, Message as _, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use self::{
    tail::{Kept, Tails},
    topics::{MAX_MESSAGE_BYTES, TopicError, TopicPlan, Topics},
};
use super::{
    AppendError, Cause, FIRST_OFFSET, Log, LogPartition, LogStatus, PartitionStatus, ReadError, Record, TrimError,
    embedded::check_batch,
};
use crate::kafka::{
    Cluster, FetchError, Fetcher, SetupError, TopicPartition,
    cluster::{ANSWER_WITHIN, cause_of},
    health::Context,
};

/// Why the log on a cluster was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Topic(#[from] TopicError),
}

pub struct KafkaLog {
    topics: Topics,
    producer: ThreadedProducer<Deliveries>,
    fetcher: Arc<Fetcher>,
    tails: Arc<Tails>,
}

impl KafkaLog {
    /// Connects, and makes or checks all topics of the plan.
    pub fn open(cluster: &Cluster, plan: TopicPlan, fetcher: Arc<Fetcher>) -> Result<Self, OpenError> {
        let tails = Arc::<Tails>::default();
        let context = Context { health: cluster.health() };
        let deliveries = Deliveries { context, fetcher: fetcher.clone(), tails: tails.clone() };
        let producer = cluster.producer(deliveries, MAX_MESSAGE_BYTES)?;
        let topics = Topics::new(plan, cluster.admin()?);
        for log in topics.planned() {
            topics.ensure(fetcher.consumer(), log)?;
        }
        Ok(Self { topics, producer, fetcher, tails })
    }

    /// Of all topics with our prefix, those that are empty too; in ascending order.
    ///
    /// # Errors
    /// Brokers do not answer.
    pub fn partitions(&self) -> Result<Vec<PartitionStatus>, ReadError> {
        let metadata = self.fetcher.consumer().fetch_metadata(None, ANSWER_WITHIN).map_err(|error| {
            let partition = LogPartition::new(self.topics.prefix(), 0);
            Self::unavailable(&partition, cause_of(&error))
        })?;
        let mut partitions = Vec::new();
        for topic in metadata.topics() {
            let Some(log) = topic.name().strip_prefix(self.topics.prefix()) else { continue };
            for partition in topic.partitions() {
                let partition = LogPartition::new(log, partition.id() as u32);
                let bounds = self.fetcher.bounds(&self.topic_partition(&partition));
                let (start, end) = bounds.map_err(|error| Self::unavailable(&partition, cause_of(&error)))?;
                partitions.push(PartitionStatus { partition, start: ours(start), end: ours(end) });
            }
        }
        partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(partitions)
    }

    /// The topic of a log.
    pub fn topic(&self, log: &str) -> String {
        self.topics.name(log)
    }

    fn topic_partition(&self, partition: &LogPartition) -> TopicPartition {
        TopicPartition::new(self.topics.name(&partition.log), partition.partition)
    }

    /// The topic is there, as it has to be.
    fn ensured(&self, partition: &LogPartition) -> Result<TopicPartition, String> {
        if !self.topics.has(partition) {
            return Err(format!("there is no partition {} of this log", partition.partition));
        }
        self.topics.ensure(self.fetcher.consumer(), &partition.log).map_err(|error| error.to_string())?;
        Ok(self.topic_partition(partition))
    }

    fn unavailable(partition: &LogPartition, cause: String) -> ReadError {
        ReadError::Unavailable { partition: partition.clone(), cause }
    }

    fn bounds(&self, partition: &LogPartition) -> Result<(u64, u64), ReadError> {
        let topic_partition = self.ensured(partition).map_err(|cause| Self::unavailable(partition, cause))?;
        let bounds = self.fetcher.bounds(&topic_partition);
        let (start, end) = bounds.map_err(|error| Self::unavailable(partition, cause_of(&error)))?;
        Ok((ours(start), ours(end)))
    }
}

fn ours(offset: i64) -> u64 {
    offset.max(0) as u64 + FIRST_OFFSET
}
fn theirs(offset: u64) -> i64 {
    offset.saturating_sub(FIRST_OFFSET) as i64
}

impl Log for KafkaLog {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        check_batch(batch)?;
        let failed = |cause: String| AppendError::Failed(Cause::Remote(cause));
        let mut places = Vec::with_capacity(batch.len());
        for (partition, _) in batch {
            places.push(self.ensured(partition).map_err(|cause| failed(format!("{partition}: {cause}")))?);
        }
        let awaited = Arc::new(Awaited::of(places));
        for (n, (place, (_, bytes))) in awaited.places.iter().zip(batch).enumerate() {
            let mut record = BaseRecord::<(), [u8], _>::with_opaque_to(&place.topic, Box::new((awaited.clone(), n)))
                .partition(place.partition)
                .payload(bytes);
            self.tails.sent(place);
            let failed_at_once = loop {
                match self.producer.send(record) {
                    Ok(()) => break None,
                    Err((error, again)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                        record = again;
                        thread::sleep(QUEUE_FULL_FOR);
                    }
                    Err((error, _)) => break Some(cause_of(&error)),
                }
            };
            if let Some(cause) = failed_at_once {
                self.tails.not_acknowledged(place);
                return Err(if n == 0 { failed(cause) } else { AppendError::Unknown(Cause::Remote(cause)) });
            }
        }
        let offsets = awaited.all().map_err(|cause| AppendError::Unknown(Cause::Remote(cause)))?;
        Ok(offsets.into_iter().map(ours).collect())
    }

    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        if from < FIRST_OFFSET {
            let oldest = self.start(partition)?;
            return Err(ReadError::Trimmed { partition: partition.clone(), from, oldest });
        }
        let place = match self.ensured(partition) {
            Ok(place) => place,
            Err(cause) => return Err(Self::unavailable(partition, cause)),
        };
        match self.tails.read(&place, theirs(from), max_bytes, Instant::now()) {
            Kept::Records(records) => return Ok((from..).zip(records).collect()),
            // What somebody else appends shows in the end that brokers tell of, once what is under way is acknowledged.
            Kept::Nothing { under_way }
                if (self.fetcher.confirmed_end(&place))
                    .is_some_and(|end| (theirs(from)..=theirs(from) + under_way as i64).contains(&end)) =>
            {
                return Ok(records);
            }
            Kept::Lost { end } => {
                return Err(ReadError::BeyondEnd { partition: partition.clone(), from, end: ours(end) });
            }
            Kept::Nothing { .. } | Kept::Unknown => {}
        }
        let mut next = from;
        let mut hole = None;
        let read = self.fetcher.read(&place, theirs(from), max_bytes, |message| {
            let offset = ours(message.offset);
            if offset != next && hole.is_none() {
                hole = Some(offset);
            }
            next = offset + 1;
            records.push((offset, message.value.to_vec()));
        });
        let partition = partition.clone();
        match (read, hole) {
            (Ok(()), None) => Ok(records),
            (Ok(()), Some(offset)) => Err(ReadError::Damaged {
                partition,
                offset: from,
                cause: format!("records before offset {offset} are gone from the middle of the topic"),
            }),
            (Err(FetchError::Trimmed { oldest, .. }), _) => {
                Err(ReadError::Trimmed { partition, from, oldest: ours(oldest) })
            }
            (Err(FetchError::BeyondEnd { end, .. }), _) => {
                Err(ReadError::BeyondEnd { partition, from, end: ours(end) })
            }
            (Err(error @ (FetchError::Refused { .. } | FetchError::Another { .. })), _) => {
                Err(ReadError::Unavailable { partition, cause: error.to_string() })
            }
        }
    }

    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        let place = self.ensured(partition).map_err(|cause| Self::unavailable(partition, cause))?;
        self.fetcher.ends.now(&place).map(ours).map_err(|cause| Self::unavailable(partition, cause))
    }

    fn known_end(&self, partition: &LogPartition) -> Option<u64> {
        self.fetcher.confirmed_end(&self.topic_partition(partition)).map(ours)
    }

    fn end_since(&self, partition: &LogPartition, asked: Instant) -> Option<u64> {
        self.fetcher.ends.since(&self.topic_partition(partition), asked).map(ours)
    }

    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        Ok(self.bounds(partition)?.0)
    }

    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError> {
        let failed = |cause: String| TrimError { partition: partition.clone(), cause: Cause::Remote(cause) };
        let (start, end) = self.bounds(partition).map_err(|error| failed(error.to_string()))?;
        let before = before.min(end);
        if before <= start {
            return Ok(());
        }
        let place = self.topic_partition(partition);
        self.tails.trim(&place, theirs(before));
        let TopicPartition { topic, partition: number } = place;
        let mut list = TopicPartitionList::new();
        let listed = list.add_partition_offset(&topic, number, Offset::Offset(theirs(before)));
        listed.map_err(|error| failed(error.to_string()))?;
        let deleted = block_on(self.topics.admin().delete_records(&list, &topics::options()));
        let deleted = deleted.map_err(|error| failed(cause_of(&error)))?;
        match deleted.find_partition(&topic, number) {
            Some(found) => found.error().map_err(|error| failed(cause_of(&error))),
            None => Err(failed("it was not answered".to_owned())),
        }
    }

    /// How many bytes brokers hold is not known.
    fn status(&self) -> LogStatus {
        let mut partitions = self.partitions().unwrap_or_default();
        partitions.retain(|found| found.end > FIRST_OFFSET);
        LogStatus { bytes_on_disk: 0, partitions }
    }
}

/// How long an append waits for room among what is under way.
const QUEUE_FULL_FOR: Duration = Duration::from_millis(1);

/// What became of the records of one append.
struct Awaited {
    /// Of each record.
    places: Vec<TopicPartition>,
    state: Mutex<AwaitedState>,
    done: Condvar,
}

struct AwaitedState {
    offsets: Vec<i64>,
    left: usize,
    failed: Option<String>,
}

impl Awaited {
    fn of(places: Vec<TopicPartition>) -> Self {
        let state = AwaitedState { offsets: vec![-1; places.len()], left: places.len(), failed: None };
        Self { places, state: Mutex::new(state), done: Condvar::new() }
    }

    fn delivered(&self, n: usize, result: Result<i64, String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left -= 1;
        match result {
            Ok(offset) => state.offsets[n] = offset,
            Err(cause) => {
                state.failed.get_or_insert(cause);
            }
        }
        if state.left == 0 {
            self.done.notify_all();
        }
    }

    /// Waits for the last one, which the producer tells of within `message.timeout.ms`.
    fn all(&self) -> Result<Vec<i64>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.left > 0 {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.failed.take() {
            Some(cause) => Err(cause),
            None => Ok(std::mem::take(&mut state.offsets)),
        }
    }
}

/// Takes what brokers say of appends.
struct Deliveries {
    context: Context,
    fetcher: Arc<Fetcher>,
    tails: Arc<Tails>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }
    fn stats(&self, _: Statistics) {}
    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<(Arc<Awaited>, usize)>;

    fn delivery(&self, result: &DeliveryResult<'_>, awaited: Self::DeliveryOpaque) {
        let (awaited, n) = *awaited;
        match result {
            Ok(message) => {
                let (place, offset) = (&awaited.places[n], message.offset());
                self.fetcher.ends.reaches(place, offset);
                self.tails.acknowledged(place, offset, message.payload().unwrap_or_default(), Instant::now());
                awaited.delivered(n, Ok(offset));
            }
            Err((error, _)) => {
                self.tails.not_acknowledged(&awaited.places[n]);
                awaited.delivered(n, Err(cause_of(error)));
            }
        }
    }
}

impl Drop for KafkaLog {
    /// What is under way was not acknowledged to anybody, and nobody waits for it.
    fn drop(&mut self) {
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

#[cfg(test)]
mod tests;
