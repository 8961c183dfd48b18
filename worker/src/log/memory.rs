//! A log in memory, for tests and benchmarks. Nothing survives the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::embedded::check_batch;
use super::{AppendError, FIRST_OFFSET, Log, LogPartition, LogStatus, PartitionStatus, ReadError, Record, TrimError};

#[derive(Default)]
pub struct MemoryLog {
    partitions: Mutex<BTreeMap<LogPartition, Partition>>,
}

struct Partition {
    start: u64,
    records: VecDeque<Vec<u8>>,
}

impl Default for Partition {
    fn default() -> Self {
        Self { start: FIRST_OFFSET, records: VecDeque::new() }
    }
}

impl Partition {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }
}

impl MemoryLog {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<LogPartition, Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryLog {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        check_batch(batch)?;
        let mut partitions = self.partitions();
        let mut offsets = Vec::with_capacity(batch.len());
        for (partition, bytes) in batch {
            let partition = partitions.entry(partition.clone()).or_default();
            offsets.push(partition.end());
            partition.records.push_back(bytes.clone());
        }
        Ok(offsets)
    }

    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let partitions = self.partitions();
        let nothing = Partition::default();
        let found = partitions.get(partition).unwrap_or(&nothing);
        let (start, end) = (found.start, found.end());
        if from < start {
            return Err(ReadError::Trimmed { partition: partition.clone(), from, oldest: start });
        }
        if from > end {
            return Err(ReadError::BeyondEnd { partition: partition.clone(), from, end });
        }
        let mut bytes = 0;
        let records = (from..).zip(found.records.iter().skip((from - start) as usize));
        let fits = records.take_while(|(_, record)| {
            let first = bytes == 0;
            bytes += record.len().max(1);
            first || bytes <= max_bytes
        });
        Ok(fits.map(|(offset, record)| (offset, record.clone())).collect())
    }

    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        Ok(self.partitions().get(partition).map_or(FIRST_OFFSET, Partition::end))
    }

    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        Ok(self.partitions().get(partition).map_or(FIRST_OFFSET, |p| p.start))
    }

    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError> {
        if let Some(found) = self.partitions().get_mut(partition) {
            let gone = before.min(found.end()).saturating_sub(found.start);
            found.records.drain(..gone as usize);
            found.start += gone;
        }
        Ok(())
    }

    fn status(&self) -> LogStatus {
        let partitions = self.partitions();
        let status =
            |(p, found): (&LogPartition, &Partition)| PartitionStatus { partition: p.clone(), start: found.start, end: found.end() };
        LogStatus { bytes_on_disk: 0, partitions: partitions.iter().map(status).collect() }
    }
}
