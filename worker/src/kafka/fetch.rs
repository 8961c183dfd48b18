//! Reads partitions from any offset on. One client fetches for all readers of a host, each partition into a queue of its
//! own, ahead of whoever reads it and up to a bound.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    SetupError, TopicPartition,
    cluster::{Cluster, cause_of},
    ends::Ends,
    health::{Context, Health},
};

/// A record as it lies in its partition.
pub struct Message<'a> {
    /// As Kafka counts: from 0.
    pub offset: i64,
    /// In ms since 1970, when it was made or appended; absent of very old logs.
    pub timestamp_ms: Option<i64>,
    /// Empty for a record without a value.
    pub value: &'a [u8],
}

/// Why a partition cannot be read from an offset on. Brokers that do not answer are none of these: then there is nothing to
/// read for a while.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("{partition} begins at offset {oldest}; {from} was deleted")]
    Trimmed { partition: TopicPartition, from: i64, oldest: i64 },
    #[error("{partition} ends before offset {end}; {from} is not there any more, or not yet")]
    BeyondEnd { partition: TopicPartition, from: i64, end: i64 },
    #[error("the record at offset {offset} of {partition} is another one: the topic was deleted and made again")]
    Another { partition: TopicPartition, offset: i64 },
    #[error("{partition}: {cause}")]
    Refused { partition: TopicPartition, cause: String },
}

/// One partition being read.
struct Feed {
    queue: PartitionQueue<Context>,
    /// Offset of the next message in the queue, if it is known.
    next: Option<i64>,
    /// When brokers were heard to say that nothing follows.
    eof: Option<Instant>,
    /// Nothing comes of what is said to be there.
    withheld: Option<Withheld>,
    read_at: Instant,
}

/// The partition ends behind `next`. If it is said again that nothing follows, what lies between are marks of transactions.
#[derive(Clone, Copy)]
struct Withheld {
    end: i64,
    since: Instant,
    /// Sought anew, so that it is said again.
    sought: Option<Instant>,
}

type Feeds = HashMap<TopicPartition, Arc<Mutex<Feed>>>;

pub struct Fetcher {
    consumer: Arc<BaseConsumer<Context>>,
    feeds: Arc<Mutex<Feeds>>,
    pub ends: Ends,
    health: Health,
    stop: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

/// A partition that nobody reads any more is fetched no longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// What brokers said longer ago is not known to hold any more.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);
/// How long a record that is there may be on its way. To seek costs all that was fetched ahead.
const ARRIVES_WITHIN: Duration = Duration::from_millis(500);
const SERVE_EVERY: Duration = Duration::from_millis(100);
/// For a question whose answer depends on who leads a partition: the client looks again for that only when it is asked anew.
const ASKED_ANEW_AFTER: Duration = Duration::from_secs(3);
const BOUNDS_WITHIN: Duration = Duration::from_secs(20);
/// Between two questions for a partition that has no leader yet.
const LEADER_ELECTED_WITHIN: Duration = Duration::from_millis(50);
/// For what the client does by itself, without a broker.
const AT_ONCE: Duration = Duration::from_secs(2);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fetcher {
    /// # Errors
    /// Brokers do not answer, or do not let us in.
    pub fn start(cluster: &Cluster, group: &str) -> Result<Self, SetupError> {
        let consumer = Arc::new(cluster.consumer(group)?);
        cluster.check(&consumer)?;
        let cannot = |cause: std::io::Error| SetupError::Client(KafkaError::ClientCreation(cause.to_string()));
        let ends = Ends::start(consumer.clone()).map_err(cannot)?;
        let (feeds, stop) = (Arc::<Mutex<Feeds>>::default(), Arc::<AtomicBool>::default());
        let serve = {
            let (consumer, feeds, stop) = (consumer.clone(), feeds.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Acquire) {
                    serve(&consumer, &feeds);
                }
            }
        };
        let serving = thread::Builder::new().name("kafka-events".into()).spawn(serve).map_err(cannot)?;
        Ok(Self { consumer, feeds, ends, health: cluster.health(), stop, serving: Some(serving) })
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }

    /// Gives messages from `from` on to `each`, in order, about `max_bytes` of them: those that are here. None may mean that
    /// the partition ends there, or that what follows is still on its way. Offsets may be left out where others append in
    /// transactions, or the topic is compacted.
    ///
    /// # Errors
    /// The partition does not reach back, or not on, to there; or it is gone.
    pub fn read(
        &self,
        partition: &TopicPartition,
        from: i64,
        max_bytes: usize,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<(), FetchError> {
        let feed = self.feed(partition, from)?;
        let mut feed = lock(&feed);
        feed.read_at = Instant::now();
        if feed.next != Some(from) {
            (feed.next, feed.eof) = (None, None);
            if let Err(error) = self.consumer.seek(&partition.topic, partition.partition, Offset::Offset(from), AT_ONCE)
            {
                tracing::debug!(%partition, %error, "it cannot be sought yet");
                return Ok(());
            }
            feed.next = Some(from);
        }
        let Feed { queue, next: known, eof, withheld, .. } = &mut *feed;
        let (mut bytes, mut next, mut failure) = (0, from, None);
        while bytes < max_bytes.max(1) {
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    // What was on its way before a seek.
                    if message.offset() < next {
                        continue;
                    }
                    next = message.offset() + 1;
                    (*eof, *withheld) = (None, None);
                    let value = message.payload().unwrap_or_default();
                    bytes += value.len().max(1);
                    let timestamp_ms = message.timestamp().to_millis();
                    each(Message { offset: message.offset(), timestamp_ms, value });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => *eof = Some(Instant::now()),
                Some(Err(error)) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        *known = Some(next);
        drop(feed);
        if failure.as_ref().is_some_and(is_over) {
            // Nothing comes any more before it is assigned anew.
            self.forget(partition);
        }
        if next > from {
            self.ends.reaches(partition, next - 1);
            return Ok(());
        }
        failure.map_or(Ok(()), |error| self.explain(partition, from, &error))
    }

    /// The feed of a partition; a new one begins at `from`.
    fn feed(&self, partition: &TopicPartition, from: i64) -> Result<Arc<Mutex<Feed>>, FetchError> {
        let mut feeds = lock(&self.feeds);
        if let Some(feed) = feeds.get(partition) {
            return Ok(feed.clone());
        }
        let refused = |cause: String| FetchError::Refused { partition: partition.clone(), cause };
        // Before it is assigned, so that nothing goes to the queue of all.
        let queue = self.consumer.split_partition_queue(&partition.topic, partition.partition);
        let queue = queue.ok_or_else(|| refused("it has no queue".to_owned()))?;
        let mut assigned = TopicPartitionList::new();
        assigned
            .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(from))
            .and_then(|()| self.consumer.incremental_assign(&assigned))
            .map_err(|error| refused(error.to_string()))?;
        let feed =
            Arc::new(Mutex::new(Feed { queue, next: Some(from), eof: None, withheld: None, read_at: Instant::now() }));
        feeds.insert(partition.clone(), feed.clone());
        Ok(feed)
    }

    /// Where the partition ends, if brokers have told just now.
    pub fn confirmed_end(&self, partition: &TopicPartition) -> Option<i64> {
        let end = self.ends.known(partition)?;
        let is_new = end.trouble.is_none() && end.as_of.is_some_and(|as_of| as_of.elapsed() < CONFIRMED_WITHIN);
        is_new.then_some(end.offset)
    }

    /// Do brokers confirm that nothing follows before `next`, up to which all has been read?
    pub fn is_at_end(&self, partition: &TopicPartition, next: i64) -> bool {
        let Some(end) = self.confirmed_end(partition) else { return false };
        if end == next {
            return true;
        }
        let Some(feed) = lock(&self.feeds).get(partition).cloned() else { return false };
        let mut feed = lock(&feed);
        let Some(eof) = feed.eof.filter(|_| feed.next == Some(next)) else { return false };
        let now = Instant::now();
        let mut withheld =
            feed.withheld.filter(|of| of.end == end).unwrap_or(Withheld { end, since: now, sought: None });
        match withheld.sought {
            Some(sought) if eof > sought => return true,
            None if now.saturating_duration_since(withheld.since) >= ARRIVES_WITHIN => {
                withheld.sought = Some(now);
                (feed.next, feed.eof) = (None, None);
            }
            _ => {}
        }
        feed.withheld = Some(withheld);
        false
    }

    /// The partition is fetched no longer.
    fn forget(&self, partition: &TopicPartition) {
        let mut feeds = lock(&self.feeds);
        feeds.remove(partition);
        unassign(&self.consumer, partition);
    }

    /// Does the partition reach there? If brokers do not answer, that shows later.
    fn check_offset(&self, partition: &TopicPartition, from: i64) -> Result<(), FetchError> {
        match self.bounds(partition) {
            Ok((start, _)) if from < start => {
                Err(FetchError::Trimmed { partition: partition.clone(), from, oldest: start })
            }
            Ok((_, end)) if from > end => Err(FetchError::BeyondEnd { partition: partition.clone(), from, end }),
            _ => Ok(()),
        }
    }

    /// (oldest offset, offset of the next record), as brokers have them now.
    ///
    /// # Errors
    /// What was said instead.
    pub fn bounds(&self, partition: &TopicPartition) -> Result<(i64, i64), KafkaError> {
        let asked = Instant::now();
        loop {
            match self.consumer.fetch_watermarks(&partition.topic, partition.partition, ASKED_ANEW_AFTER) {
                Err(error) if is_passing(&error) && asked.elapsed() < BOUNDS_WITHIN => {
                    thread::sleep(LEADER_ELECTED_WITHIN)
                }
                found => return found,
            }
        }
    }

    /// What an error in a partition's queue means to whoever reads at `from`.
    fn explain(&self, partition: &TopicPartition, from: i64, error: &KafkaError) -> Result<(), FetchError> {
        use RDKafkaErrorCode as Code;
        let refused = || FetchError::Refused { partition: partition.clone(), cause: cause_of(error) };
        match error.rdkafka_error_code() {
            _ if is_over(error) => {
                self.check_offset(partition, from)?;
                let cause = "it was cut off and has grown again: what was read may not be in it any more".to_owned();
                Err(FetchError::Refused { partition: partition.clone(), cause })
            }
            Some(
                Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::UnknownTopic
                | Code::UnknownTopicId
                | Code::TopicAuthorizationFailed
                | Code::MessageSizeTooLarge
                | Code::BadMessage,
            ) => Err(refused()),
            _ => {
                tracing::warn!(%partition, %error, "a partition cannot be read now; it is tried again");
                Ok(())
            }
        }
    }

    /// Tells the group of this client, for those who look at lag with Kafka's own tools, that all before `next` was read.
    pub fn commit(&self, positions: impl IntoIterator<Item = (TopicPartition, i64)>) {
        let mut list = TopicPartitionList::new();
        for (TopicPartition { topic, partition }, next) in positions {
            let _ = list.add_partition_offset(&topic, partition, Offset::Offset(next));
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "positions could not be told to the consumer group");
        }
    }
}

/// Is it that no broker leads the partition, as just after its topic was made or a broker came back, or none is there?
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{BrokerTransportFailure, LeaderNotAvailable, NotLeaderForPartition, OperationTimedOut};
    let code = error.rdkafka_error_code();
    matches!(code, Some(LeaderNotAvailable | NotLeaderForPartition | OperationTimedOut | BrokerTransportFailure))
}

/// Has the client given up fetching where it was?
fn is_over(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(OffsetOutOfRange | AutoOffsetReset))
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// Serves what the client wants served, and lets go of what nobody reads.
fn serve(consumer: &BaseConsumer<Context>, feeds: &Mutex<Feeds>) {
    match consumer.poll(SERVE_EVERY) {
        // Went past the partition's own queue: it is read again.
        Some(Ok(message)) => {
            let partition = TopicPartition { topic: message.topic().to_owned(), partition: message.partition() };
            tracing::debug!(%partition, offset = message.offset(), "read past its queue");
            let feed = lock(feeds).get(&partition).cloned();
            if let Some(feed) = feed {
                lock(&feed).next = None;
            }
        }
        Some(Err(error)) => tracing::debug!(%error, "of the Kafka client"),
        None => {}
    }
    // Whoever has it is just reading.
    let unread = |feed: &Arc<Mutex<Feed>>| feed.try_lock().is_ok_and(|feed| feed.read_at.elapsed() > FORGOTTEN_AFTER);
    let mut feeds = lock(feeds);
    let forgotten: Vec<TopicPartition> =
        feeds.iter().filter(|(_, feed)| unread(feed)).map(|(partition, _)| partition.clone()).collect();
    for partition in forgotten {
        feeds.remove(&partition);
        unassign(consumer, &partition);
    }
}

fn unassign(consumer: &BaseConsumer<Context>, partition: &TopicPartition) {
    let mut list = TopicPartitionList::new();
    list.add_partition(&partition.topic, partition.partition);
    if let Err(error) = consumer.incremental_unassign(&list) {
        tracing::debug!(%partition, %error, "it is still fetched");
    }
}
