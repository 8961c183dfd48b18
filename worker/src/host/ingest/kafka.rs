//! A topic's partition as an ingest task reads it: records of others, with the offsets that they have there.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use millrace_engine::{
    checkpoint::CheckpointError,
    codec::{Put, Reader},
    event::Time,
    ingest::Input,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    host::HostError,
    kafka::{FetchError, Fetcher, TopicPartition, cluster::cause_of},
};

/// Taken at once, in bytes.
const READ_BYTES: usize = 256 << 10;
/// For the record before the first one.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The record before a position, as a checkpoint holds it: a topic that was deleted and made again is another one, also if
/// it reaches as far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownRecord {
    /// Counts from 1; 0: none is known.
    pub offset: u64,
    /// xxh3-64 of its value.
    pub digest: u64,
}

impl KnownRecord {
    pub fn read(r: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        Ok(Self { offset: r.u64("known record")?, digest: r.u64("known record")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.offset);
        out.put_u64(self.digest);
    }
}

/// A record's value within what was taken.
struct Taken {
    offset: i64,
    received: Time,
    value: Range<usize>,
}

pub struct KafkaReader {
    fetcher: Arc<Fetcher>,
    partition: TopicPartition,
    /// Kafka's offset of the next record.
    next: i64,
    values: Vec<u8>,
    taken: VecDeque<Taken>,
    /// The last one given, and the one before: a checkpoint is of before a record that is held.
    known: [KnownRecord; 2],
}

impl KafkaReader {
    /// Goes on behind `offset`, which counts from 1 (0: from the oldest record).
    ///
    /// # Errors
    /// The partition does not reach back, or not on, to there, or has another record there; or brokers do not answer.
    pub fn open(
        fetcher: Arc<Fetcher>,
        partition: TopicPartition,
        offset: u64,
        known: Option<KnownRecord>,
    ) -> Result<Self, HostError> {
        let source = |cause| HostError::Source { partition: partition.clone(), cause };
        let no_broker = |cause: String| HostError::NoBroker { partition: partition.clone(), cause };
        let (start, end) = fetcher.bounds(&partition).map_err(|error| no_broker(cause_of(&error)))?;
        let next = if offset == 0 { start } else { offset as i64 };
        if next < start {
            return Err(source(FetchError::Trimmed { partition: partition.clone(), from: next, oldest: start }));
        }
        if next > end {
            return Err(source(FetchError::BeyondEnd { partition: partition.clone(), from: next, end }));
        }
        let known = known.filter(|known| known.offset == offset && offset > 0);
        if let Some(known) = known.filter(|_| next > start) {
            match digest_at(&fetcher, &partition, next - 1).map_err(source)? {
                Some((offset, digest)) if offset == next - 1 && digest != known.digest => {
                    return Err(source(FetchError::Another { partition: partition.clone(), offset }));
                }
                Some(_) => {}
                // Compacted topics keep none of a key but the last.
                None if next == end => {
                    tracing::warn!(%partition, "the record that was read last is not there any more")
                }
                None => return Err(no_broker(format!("the record at offset {} does not come", next - 1))),
            }
        }
        let known = [known.unwrap_or_default(), KnownRecord::default()];
        Ok(Self { fetcher, partition, next, values: Vec::new(), taken: VecDeque::new(), known })
    }

    /// The record with this offset, if it was given just now.
    pub fn known_at(&self, offset: u64) -> KnownRecord {
        self.known.into_iter().find(|known| known.offset == offset).unwrap_or_default()
    }

    pub fn next(&mut self) -> Result<Option<(Input<'_>, u64)>, HostError> {
        if self.taken.is_empty() {
            self.take()?;
        }
        let Some(Taken { offset, received, value }) = self.taken.pop_front() else { return Ok(None) };
        self.next = offset + 1;
        let bytes = &self.values[value];
        self.known = [KnownRecord { offset: self.next as u64, digest: xxh3_64(bytes) }, self.known[0]];
        Ok(Some((Input::Stamped { offset: self.next as u64, received, bytes }, self.next as u64)))
    }

    fn take(&mut self) -> Result<(), HostError> {
        let Self { fetcher, partition, next, values, taken, .. } = self;
        values.clear();
        let read = fetcher.read(partition, *next, READ_BYTES, |message| {
            let at = values.len();
            values.extend_from_slice(message.value);
            let received = message.timestamp_ms.map_or(Time::MAX, |ms| Time(ms.saturating_mul(1_000)));
            taken.push_back(Taken { offset: message.offset, received, value: at..values.len() });
        });
        read.map_err(|cause| HostError::Source { partition: partition.clone(), cause })
    }

    /// For those who look at lag with Kafka's own tools: all up to `offset`, which counts from 1, was read.
    pub fn tell_group(&self, offset: u64) {
        self.fetcher.commit([(self.partition.clone(), offset as i64)]);
    }

    /// The place behind the last record at `asked`, or later, once that is known.
    pub fn end_since(&self, asked: Instant) -> Option<u64> {
        self.fetcher.ends.since(&self.partition, asked).map(|end| end as u64 + 1)
    }

    /// Likewise, as far as brokers have confirmed it just now.
    pub fn known_end(&self) -> Option<u64> {
        let end = self.fetcher.confirmed_end(&self.partition)?;
        Some(end as u64 + 1)
    }

    /// All that is there was given, as brokers confirm.
    pub fn is_at_end(&self) -> bool {
        self.taken.is_empty() && self.fetcher.is_at_end(&self.partition, self.next)
    }
}

/// Of the value of the record at this offset of Kafka's, or of the next one there is, with its offset; `None`: none has come.
fn digest_at(fetcher: &Fetcher, partition: &TopicPartition, offset: i64) -> Result<Option<(i64, u64)>, FetchError> {
    let asked = Instant::now();
    let mut found = None;
    while found.is_none() && asked.elapsed() < ARRIVES_WITHIN {
        fetcher.read(partition, offset, 1, |message| {
            found.get_or_insert((message.offset, xxh3_64(message.value)));
        })?;
        if found.is_none() {
            thread::sleep(LOOK_AGAIN);
        }
    }
    Ok(found)
}
