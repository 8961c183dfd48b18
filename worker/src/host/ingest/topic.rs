//! A topic's partition as an ingest task reads it: records that were decoded when they were received.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use millrace_engine::{
    decode::{Decoded, record},
    ingest::Input,
};

use crate::{
    host::HostError,
    log::{Log, LogPartition, Record},
};

/// Read ahead, in bytes.
const READ_BYTES: usize = 256 << 10;

pub struct TopicReader {
    log: Arc<dyn Log>,
    partition: LogPartition,
    /// Offset of the next record.
    next: u64,
    read: VecDeque<Record>,
    decoded: Decoded,
}

impl TopicReader {
    /// Goes on behind the record at `offset` (0: from the beginning).
    ///
    /// # Errors
    /// The topic does not reach back, or not on, to there: it is another one.
    pub fn open(log: Arc<dyn Log>, partition: LogPartition, offset: u64) -> Result<Self, HostError> {
        let next = offset + 1;
        let (start, end) = (log.start(&partition)?, log.end(&partition)?);
        if !(start..=end).contains(&next) {
            let why = format!("it holds offsets from {start} to before {end}, and {next} comes next");
            return Err(HostError::ForeignLog { partition, why });
        }
        Ok(Self { log, partition, next, read: VecDeque::new(), decoded: Decoded::default() })
    }

    pub fn partition(&self) -> &LogPartition {
        &self.partition
    }

    /// The offset behind the last record at `asked`, or later, once that is known.
    pub fn end_since(&self, asked: Instant) -> Option<u64> {
        self.log.end_since(&self.partition, asked)
    }

    /// Likewise, as far as it is known.
    pub fn known_end(&self) -> Option<u64> {
        self.log.known_end(&self.partition)
    }

    pub fn is_at_end(&self) -> bool {
        self.read.is_empty() && self.known_end() == Some(self.next)
    }

    pub fn next(&mut self) -> Result<Option<Input<'_>>, HostError> {
        if self.read.is_empty() {
            self.read.extend(self.log.read(&self.partition, self.next, READ_BYTES)?);
        }
        let Some((offset, bytes)) = self.read.pop_front() else { return Ok(None) };
        let failed = |cause: record::RecordError| HostError::Apply {
            partition: self.partition.clone(),
            offset,
            cause: cause.to_string(),
        };
        let received = record::read(&bytes, &mut self.decoded).map_err(failed)?;
        self.next = offset + 1;
        Ok(Some(Input::Decoded { received, decoded: &self.decoded }))
    }
}
