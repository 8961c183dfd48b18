//! Ordered, durable partitions of records: what every task reads and every effect goes to.
//!
//! [`embedded::EmbeddedLog`] keeps them in a local folder, [`kafka::KafkaLog`] in topics, [`memory::MemoryLog`] in memory. One
//! suite tests them all.

pub mod embedded;
mod error;
pub mod format;
pub mod kafka;
mod mark;
pub mod memory;
#[cfg(test)]
mod suite;

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

pub use error::{AppendError, Cause, Fault, Loss, OpenError, ReadError, Retry, TrimError};

/// The first offset of every partition.
pub const FIRST_OFFSET: u64 = 1;

/// The longest record that is accepted, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// The longest name of a log, in bytes.
pub const MAX_LOG_NAME_BYTES: usize = 200;

/// One ordered, durable sequence of records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPartition {
    /// `events`, `examples.MODEL`, `dead-letters`, `http.SOURCE`.
    pub log: String,
    pub partition: u32,
}

impl LogPartition {
    pub fn new(log: impl Into<String>, partition: u32) -> Self {
        Self { log: log.into(), partition }
    }
}

impl fmt::Display for LogPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.log, self.partition)
    }
}

/// A record with its offset.
pub type Record = (u64, Vec<u8>);

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    pub bytes_on_disk: u64,
    /// In ascending order.
    pub partitions: Vec<PartitionStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    pub partition: LogPartition,
    /// The oldest offset kept.
    pub start: u64,
    /// The offset that the next record gets.
    pub end: u64,
}

/// Partitions come to be with their first record; one that was never written is empty. Called from any thread; every
/// call blocks until it is done.
pub trait Log: Send + Sync {
    /// Appends a batch, which may span partitions, as a whole; all of it is durable when this returns. Gives each
    /// record's offset: dense, from [`FIRST_OFFSET`]. After [`AppendError::Unknown`] the end has to be read again, of a
    /// log that was opened again.
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError>;

    /// Records from offset `from` on, in order and without a gap: about `max_bytes` of them, or fewer. Empty: there is
    /// none yet, or what there is is still on its way; [`read_some`] waits for that. Cheap: meant for polling.
    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError>;

    /// The offset that the next record gets, as of this call or later. May wait for an answer.
    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError>;

    /// Likewise, as far as it is known by now: not above it, and not below what this process has appended. Cheap: meant
    /// for polling.
    fn known_end(&self, partition: &LogPartition) -> Option<u64> {
        self.end(partition).ok()
    }

    /// The offset that the next record got at `asked`, or later. `None`: that is not known yet; ask again. Does not wait for an
    /// answer.
    fn end_since(&self, partition: &LogPartition, asked: Instant) -> Option<u64> {
        let _ = asked;
        self.end(partition).ok()
    }

    /// The oldest offset kept; equal to the end if there is none.
    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError>;

    /// Lets go of records below `before`, as far as whole segments allow.
    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError>;

    fn status(&self) -> LogStatus;
}

/// How long a record may be on its way that is known to be there.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Records from offset `from` on: about `max_bytes` of them, or all up to the end, but at least one if there is one.
///
/// # Errors
/// As of [`Log::read`], and if nothing comes for a minute although there is something.
pub fn read_some(
    log: &dyn Log,
    partition: &LogPartition,
    from: u64,
    max_bytes: usize,
) -> Result<Vec<Record>, ReadError> {
    let (mut records, mut bytes, mut asked) = (Vec::new(), 0, Instant::now());
    let mut end = None;
    loop {
        let next = from + records.len() as u64;
        let some = log.read(partition, next, max_bytes.saturating_sub(bytes).max(1))?;
        if !some.is_empty() {
            bytes += some.iter().map(|(_, record)| record.len().max(1)).sum::<usize>();
            asked = Instant::now();
            records.extend(some);
        }
        let next = from + records.len() as u64;
        if bytes >= max_bytes.max(1) && !records.is_empty() {
            return Ok(records);
        }
        let end = match end {
            Some(end) => end,
            None => *end.insert(log.end(partition)?),
        };
        // Beyond the end, reading itself says so.
        if next == end {
            return Ok(records);
        }
        if asked.elapsed() > ARRIVES_WITHIN {
            let cause = format!("offset {next} is there and does not come");
            return Err(ReadError::Unavailable { partition: partition.clone(), cause });
        }
        thread::sleep(LOOK_AGAIN);
    }
}
