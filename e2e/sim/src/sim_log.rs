//! The log: in memory, and now and then it cannot be read.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use millrace::{
    log::{AppendError, Log, LogPartition, LogStatus, ReadError, Record, TrimError, memory::MemoryLog},
    store::disk::DiskError,
};

#[derive(Default)]
pub struct SimLog {
    /// As those see it to whom nothing happens.
    pub inner: Arc<MemoryLog>,
    tick: AtomicU64,
    goes_on_at: AtomicU64,
}

impl SimLog {
    pub fn now(&self, tick: u64) {
        self.tick.store(tick, Ordering::Relaxed);
    }

    /// Nothing can be read before that tick.
    pub fn goes_on_at(&self, tick: u64) {
        self.goes_on_at.store(tick, Ordering::Relaxed);
    }

    fn is_there(&self, partition: &LogPartition, offset: u64) -> Result<(), ReadError> {
        if self.tick.load(Ordering::Relaxed) >= self.goes_on_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        let cause = DiskError::new(Path::new("simulated"), &io::Error::other("the simulated log is out of order"));
        Err(ReadError::Disk { partition: partition.clone(), offset, cause })
    }
}

impl Log for SimLog {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        self.inner.append(batch)
    }

    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        self.is_there(partition, from)?;
        self.inner.read(partition, from, max_bytes)
    }

    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.is_there(partition, 0)?;
        self.inner.end(partition)
    }

    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        self.is_there(partition, 0)?;
        self.inner.start(partition)
    }

    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError> {
        self.inner.trim(partition, before)
    }

    fn status(&self) -> LogStatus {
        self.inner.status()
    }
}
