//! How far partitions reach. One thread asks for all of them at once: now and then, and at once when somebody has to know
//! how far one reached at least at some moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    TopicPartition,
    cluster::{ANSWER_WITHIN, cause_of},
    health::Context,
};

/// Between two looks that nobody waits for.
const EVERY: Duration = Duration::from_millis(250);

/// Until whoever waits is told that there is no answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// What is known of a partition's end.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// The offset that the next record gets, as Kafka counts.
    pub offset: i64,
    /// Records up to there were seen, at this moment.
    reached: Option<(i64, Instant)>,
    /// It was there at this moment, or later.
    pub as_of: Option<Instant>,
    /// What was said instead, the last time.
    pub trouble: Option<String>,
}

#[derive(Default)]
struct State {
    ends: BTreeMap<TopicPartition, End>,
    /// Somebody waits for a look that begins after this.
    wanted: Option<Instant>,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wanted: Condvar,
    told: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Ends {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ends {
    pub fn start(consumer: Arc<BaseConsumer<Context>>) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        let look = move || {
            while let Some(partitions) = next(&of_thread) {
                let began = Instant::now();
                let found = look(&consumer, &partitions);
                tell(&of_thread, &consumer, began, partitions, found);
            }
        };
        let thread = thread::Builder::new().name("kafka-ends".into()).spawn(look)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What is known by now, without waiting. From the first time on, the partition is looked at.
    pub fn known(&self, partition: &TopicPartition) -> Option<End> {
        let mut state = self.shared.state();
        match state.ends.get(partition) {
            Some(end) => end.as_of.map(|_| end.clone()),
            None => {
                state.ends.insert(partition.clone(), End::default());
                self.want(&mut state);
                None
            }
        }
    }

    /// How far the partition reached at `asked`, or later; `None`: that is not known yet.
    pub fn since(&self, partition: &TopicPartition, asked: Instant) -> Option<i64> {
        self.look_up(&mut self.shared.state(), partition, asked)
    }

    fn look_up(&self, state: &mut State, partition: &TopicPartition, asked: Instant) -> Option<i64> {
        let end = state.ends.entry(partition.clone()).or_default();
        if end.as_of.is_some_and(|as_of| as_of >= asked) {
            return Some(end.offset);
        }
        if state.wanted.is_none_or(|wanted| wanted < asked) {
            state.wanted = Some(asked);
            self.shared.wanted.notify_one();
        }
        None
    }

    /// How far the partition reached when this was called, or later. Waits for brokers that are away for a moment.
    ///
    /// # Errors
    /// What was said instead.
    pub fn now(&self, partition: &TopicPartition) -> Result<i64, String> {
        let (asked, mut state) = (Instant::now(), self.shared.state());
        loop {
            if let Some(offset) = self.look_up(&mut state, partition, asked) {
                return Ok(offset);
            }
            let left = ANSWERED_WITHIN.saturating_sub(asked.elapsed());
            if left.is_zero() || state.stopping {
                let trouble = state.ends.get(partition).and_then(|end| end.trouble.clone());
                return Err(trouble.unwrap_or_else(|| "no broker answered".to_owned()));
            }
            let told = self.shared.told.wait_timeout(state, left.min(EVERY));
            state = told.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    /// A record is there with this offset.
    pub fn reaches(&self, partition: &TopicPartition, offset: i64) {
        let mut state = self.shared.state();
        if let Some(end) = state.ends.get_mut(partition) {
            end.offset = end.offset.max(offset + 1);
            end.reached = Some((end.offset, Instant::now()));
        }
    }

    fn want(&self, state: &mut State) {
        state.wanted = Some(Instant::now());
        self.shared.wanted.notify_one();
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.wanted.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until it is time to look. `None`: never again.
fn next(shared: &Shared) -> Option<Vec<TopicPartition>> {
    let (began, mut state) = (Instant::now(), shared.state());
    loop {
        if state.stopping {
            return None;
        }
        let left = EVERY.saturating_sub(began.elapsed());
        if state.wanted.take().is_some() || (left.is_zero() && !state.ends.is_empty()) {
            return Some(state.ends.keys().cloned().collect());
        }
        let wait = if left.is_zero() { EVERY } else { left };
        state = shared.wanted.wait_timeout(state, wait).map_or_else(|e| e.into_inner().0, |(state, _)| state);
    }
}

/// The end of each partition, in their order.
fn look(consumer: &BaseConsumer<Context>, partitions: &[TopicPartition]) -> Vec<Result<i64, String>> {
    let all_failed = |cause: String| partitions.iter().map(|_| Err(cause.clone())).collect();
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for TopicPartition { topic, partition } in partitions {
        // A time of -1 asks for the end (the protocol's ListOffsets).
        if let Err(error) = asked.add_partition_offset(topic, *partition, Offset::End) {
            return all_failed(error.to_string());
        }
    }
    let found = match consumer.offsets_for_times(asked, ANSWER_WITHIN) {
        Ok(found) => found,
        Err(error) => return all_failed(cause_of(&error)),
    };
    let of = |TopicPartition { topic, partition }: &TopicPartition| {
        let found = found.find_partition(topic, *partition).ok_or("it was not answered")?;
        found.error().map_err(|error| cause_of(&error))?;
        match found.offset() {
            Offset::Offset(offset) => Ok(offset),
            other => Err(format!("the broker answered {other:?}")),
        }
    };
    partitions.iter().map(of).collect()
}

fn tell(
    shared: &Shared,
    consumer: &BaseConsumer<Context>,
    began: Instant,
    partitions: Vec<TopicPartition>,
    found: Vec<Result<i64, String>>,
) {
    let health = &consumer.context().health;
    match found.iter().find_map(|found| found.as_ref().err()) {
        Some(cause) if found.iter().all(Result::is_err) => health.failed(cause),
        _ => health.answered(),
    }
    let mut state = shared.state();
    for (partition, found) in partitions.into_iter().zip(found) {
        let Some(end) = state.ends.get_mut(&partition) else { continue };
        match found {
            Ok(offset) => {
                // It may be smaller than before: a log can be cut off by a leader that had less. What came meanwhile counts.
                let reached = end.reached.filter(|(_, at)| *at >= began).map_or(offset, |(reached, _)| reached);
                (end.offset, end.as_of, end.trouble) = (offset.max(reached), Some(began), None);
            }
            Err(cause) => end.trouble = Some(cause),
        }
    }
    shared.told.notify_all();
}
