//! A topic's partition as an ingest task reads it: records of others, with the offsets that they have there.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Instant};

use millrace_engine::{event::Time, ingest::Input};

use crate::{
    host::HostError,
    kafka::{FetchError, Fetcher, TopicPartition},
};

/// Taken at once, in bytes.
const READ_BYTES: usize = 256 << 10;

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
}

impl KafkaReader {
    /// Goes on behind `offset`, which counts from 1 (0: from the oldest record).
    ///
    /// # Errors
    /// The partition does not reach back, or not on, to there; or brokers do not answer.
    pub fn open(fetcher: Arc<Fetcher>, partition: TopicPartition, offset: u64) -> Result<Self, HostError> {
        let source = |cause| HostError::Source { partition: partition.clone(), cause };
        let bounds = fetcher.bounds(&partition).map_err(|error| HostError::NoBroker {
            partition: partition.clone(),
            cause: crate::kafka::cluster::cause_of(&error),
        });
        let (start, end) = bounds?;
        let next = if offset == 0 { start } else { offset as i64 };
        if next < start {
            return Err(source(FetchError::Trimmed { partition: partition.clone(), from: next, oldest: start }));
        }
        if next > end {
            return Err(source(FetchError::BeyondEnd { partition: partition.clone(), from: next, end }));
        }
        Ok(Self { fetcher, partition, next, values: Vec::new(), taken: VecDeque::new() })
    }

    pub fn next(&mut self) -> Result<Option<(Input<'_>, u64)>, HostError> {
        if self.taken.is_empty() {
            self.take()?;
        }
        let Some(Taken { offset, received, value }) = self.taken.pop_front() else { return Ok(None) };
        self.next = offset + 1;
        let bytes = &self.values[value];
        Ok(Some((Input::Stamped { offset: self.next as u64, received, bytes }, self.next as u64)))
    }

    fn take(&mut self) -> Result<(), HostError> {
        let Self { fetcher, partition, next, values, taken } = self;
        values.clear();
        let read = fetcher.read(partition, *next, READ_BYTES, |message| {
            let at = values.len();
            values.extend_from_slice(message.value);
            let received = message.timestamp_ms.map_or(Time::MAX, |ms| Time(ms.saturating_mul(1_000)));
            taken.push_back(Taken { offset: message.offset, received, value: at..values.len() });
        });
        read.map_err(|cause| HostError::Source { partition: partition.clone(), cause })
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
