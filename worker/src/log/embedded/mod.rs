//! The log in a local folder, on the storage crate `fjall`.
//!
//! A partition is a row of *segments*, each a keyspace of its own, so that trimming removes files and not records. An
//! append is one atomic batch and one `fdatasync` of the journal. Two things are added to what fjall does. It drops
//! what follows a damaged byte of its journal without an error: [`super::mark`] notices. And its memory grows with its
//! journal: memtables are rotated here whenever all of them together exceed `write_buffer_bytes`.

mod open;
mod storage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use fjall::{Database, Keyspace, PersistMode};

use super::format::{decode_record, encode_record, offset_of_key, record_key, segment_name};
use super::mark::MarkFiles;
use super::{
    AppendError, Cause, FIRST_OFFSET, Log, LogPartition, LogStatus, MAX_LOG_NAME_BYTES, MAX_RECORD_BYTES,
    PartitionStatus, ReadError, Record, TrimError,
};
pub use open::repair;
use storage::StorageFault;

/// How much memory and disk the log may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// A partition's segment is closed at this size; trimming lets go of whole ones.
    pub segment_bytes: u64,
    /// Records that are kept in memory before they are written as tables, over all partitions. Twice that at most:
    /// while one half is written, the other is filled.
    pub write_buffer_bytes: u64,
    /// Blocks of tables kept in memory.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, write_buffer_bytes: 8 << 20, cache_bytes: 4 << 20 }
    }
}

/// See the module. Fields are dropped in this order; the lock goes last.
pub struct EmbeddedLog {
    partitions: RwLock<BTreeMap<LogPartition, Arc<Partition>>>,
    writer: Mutex<Writer>,
    db: Database,
    folder: PathBuf,
    options: Options,
    _lock: File,
}

struct Partition {
    start: AtomicU64,
    end: AtomicU64,
    /// By ascending base; empty only after a repair that found none.
    segments: RwLock<Vec<Segment>>,
}

#[derive(Clone)]
struct Segment {
    /// The first offset.
    base: u64,
    keyspace: Keyspace,
}

/// What only one append at a time may touch.
struct Writer {
    mark: MarkFiles,
    /// The last segment of each partition.
    active: BTreeMap<LogPartition, Active>,
    /// Whose memtable was rotated last, until it is written.
    flushing: Option<Keyspace>,
    /// The first fault: nothing is appended after it.
    broken: Option<String>,
}

struct Active {
    segment: Segment,
    bytes: u64,
    /// Of `bytes`, those that are in memory still.
    unflushed_bytes: u64,
}

/// A batch whose offsets are given out.
struct Batch {
    writes: fjall::OwnedWriteBatch,
    staged: BTreeMap<LogPartition, Staged>,
    /// One a record, in the caller's order.
    offsets: Vec<u64>,
}

/// What a batch adds to one partition.
struct Staged {
    keyspace: Keyspace,
    next: u64,
    last_checksum: u64,
    bytes: u64,
}

/// What every implementation refuses.
pub(super) fn check_batch(batch: &[(LogPartition, Vec<u8>)]) -> Result<(), AppendError> {
    for (partition, bytes) in batch {
        if partition.log.is_empty() || partition.log.len() > MAX_LOG_NAME_BYTES {
            return Err(AppendError::Failed(Cause::BadName(partition.log.chars().take(64).collect())));
        }
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(AppendError::Failed(Cause::TooLong(bytes.len())));
        }
    }
    Ok(())
}

impl EmbeddedLog {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partition(&self, partition: &LogPartition) -> Option<Arc<Partition>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(partition).cloned()
    }

    /// The segment that takes the next records of a partition: a new one if there is none, or if the last is full.
    fn active<'w>(&self, writer: &'w mut Writer, partition: &LogPartition) -> Result<&'w mut Active, StorageFault> {
        let full = writer.active.get(partition).is_none_or(|a| a.bytes >= self.options.segment_bytes);
        if full {
            let known = self.partition(partition);
            let base = known.as_ref().map_or(FIRST_OFFSET, |p| p.end.load(Ordering::Acquire));
            let keyspace = storage::segment(&self.db, &self.folder, &segment_name(partition, base))?;
            let segment = Segment { base, keyspace };
            match known {
                Some(known) => known.segments_mut().push(segment.clone()),
                None => {
                    let new = Arc::new(Partition::new(base, base, vec![segment.clone()]));
                    let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
                    partitions.insert(partition.clone(), new);
                }
            }
            let closed = writer.active.insert(partition.clone(), Active { segment, bytes: 0, unflushed_bytes: 0 });
            if let Some(closed) = closed.filter(|closed| closed.unflushed_bytes > 0) {
                self.rotate(writer, &closed.segment.keyspace)?;
            }
        }
        writer.active.get_mut(partition).ok_or_else(|| StorageFault::Data("a partition has no segment".to_owned()))
    }

    /// Has a segment's memtable written in the background, after the one before.
    fn rotate(&self, writer: &mut Writer, keyspace: &Keyspace) -> Result<(), StorageFault> {
        while writer.flushing.as_ref().is_some_and(|k| k.sealed_memtable_count() > 0) {
            storage::check_alive(&self.db, &self.folder)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        storage::call(&self.folder, || keyspace.rotate_memtable())?;
        writer.flushing = Some(keyspace.clone());
        Ok(())
    }

    /// Keeps what is in memory below its bound. The mark is synced at the same pace.
    fn relieve(&self, writer: &mut Writer) -> Result<(), StorageFault> {
        let total: u64 = writer.active.values().map(|a| a.unflushed_bytes).sum();
        if total < self.options.write_buffer_bytes {
            return Ok(());
        }
        let Some(largest) = writer.active.values_mut().max_by_key(|a| a.unflushed_bytes) else { return Ok(()) };
        largest.unflushed_bytes = 0;
        let keyspace = largest.segment.keyspace.clone();
        self.rotate(writer, &keyspace)?;
        writer.mark.sync().map_err(StorageFault::Disk)
    }

    /// Gives out offsets and fills the storage's batch. Nothing is written yet but empty segments.
    fn stage(&self, writer: &mut Writer, batch: &[(LogPartition, Vec<u8>)]) -> Result<Batch, StorageFault> {
        let mut staged: BTreeMap<LogPartition, Staged> = BTreeMap::new();
        let mut offsets = Vec::with_capacity(batch.len());
        let mut writes = self.db.batch().durability(Some(PersistMode::SyncData));
        for (partition, bytes) in batch {
            if !staged.contains_key(partition) {
                let keyspace = self.active(writer, partition)?.segment.keyspace.clone();
                let next = self.partition(partition).map_or(FIRST_OFFSET, |p| p.end.load(Ordering::Acquire));
                staged.insert(partition.clone(), Staged { keyspace, next, last_checksum: 0, bytes: 0 });
            }
            let Some(stage) = staged.get_mut(partition) else { continue };
            let (stored, checksum) = encode_record(partition, stage.next, bytes);
            stage.bytes += stored.len() as u64;
            stage.last_checksum = checksum;
            offsets.push(stage.next);
            writes.insert(&stage.keyspace, record_key(stage.next), stored);
            stage.next += 1;
        }
        Ok(Batch { writes, staged, offsets })
    }

    /// Nothing is appended any more after a fault of the storage; a disk fault may have left anything in its memory.
    fn give_up(&self, writer: &mut Writer, fault: StorageFault) -> Cause {
        let cause = storage::diagnose(&self.folder, fault, self.options.write_buffer_bytes);
        writer.broken = Some(cause.to_string());
        cause
    }

    /// Marks the batch as appended, then lets readers see it.
    fn publish(&self, writer: &mut Writer, staged: &BTreeMap<LogPartition, Staged>) -> Result<(), Cause> {
        writer.mark.write(|mark| {
            for (partition, stage) in staged {
                let entry = mark.partitions.entry(partition.clone()).or_default();
                entry.end = stage.next;
                entry.last_checksum = stage.last_checksum;
            }
        })?;
        for (partition, stage) in staged {
            if let Some(active) = writer.active.get_mut(partition) {
                active.bytes += stage.bytes;
                active.unflushed_bytes += stage.bytes;
            }
            if let Some(known) = self.partition(partition) {
                known.end.store(stage.next, Ordering::Release);
            }
        }
        Ok(())
    }
}

impl Partition {
    fn new(start: u64, end: u64, segments: Vec<Segment>) -> Self {
        Self { start: start.into(), end: end.into(), segments: RwLock::new(segments) }
    }
    fn segments(&self) -> RwLockReadGuard<'_, Vec<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Segment>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }
    /// The segments that hold offsets from `from` on.
    fn segments_from(&self, from: u64) -> Vec<Segment> {
        let segments = self.segments();
        let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
        segments[first..].to_vec()
    }
}

impl Log for EmbeddedLog {
    fn append(&self, batch: &[(LogPartition, Vec<u8>)]) -> Result<Vec<u64>, AppendError> {
        check_batch(batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut writer = self.writer();
        if let Some(first) = &writer.broken {
            return Err(AppendError::Failed(Cause::Broken(first.clone())));
        }
        let staged = self.stage(&mut writer, batch);
        let Batch { writes, staged, offsets } =
            staged.map_err(|fault| AppendError::Failed(self.give_up(&mut writer, fault)))?;
        let committed = storage::call(&self.folder, || writes.commit());
        if committed == Err(StorageFault::Poisoned) {
            // It says so before it writes.
            return Err(AppendError::Failed(self.give_up(&mut writer, StorageFault::Poisoned)));
        }
        let published = committed.map_err(Cause::from).and_then(|()| self.publish(&mut writer, &staged));
        if let Err(cause) = published {
            writer.broken = Some(cause.to_string());
            return Err(AppendError::Unknown(cause));
        }
        if let Err(fault) = self.relieve(&mut writer) {
            // The batch is durable all the same; the next one is refused.
            let cause = self.give_up(&mut writer, fault);
            tracing::warn!(%cause, "the log takes no more records");
        }
        Ok(offsets)
    }

    fn read(&self, partition: &LogPartition, from: u64, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let (start, end) = (self.start(partition)?, self.end(partition)?);
        if from < start {
            return Err(ReadError::Trimmed { partition: partition.clone(), from, oldest: start });
        }
        if from > end {
            return Err(ReadError::BeyondEnd { partition: partition.clone(), from, end });
        }
        let mut reader =
            SegmentReader { log: self, partition, next: from, end, left_bytes: max_bytes, out: Vec::new() };
        for segment in self.partition(partition).map(|p| p.segments_from(from)).unwrap_or_default() {
            reader.read(&segment)?;
            if reader.is_done() {
                break;
            }
        }
        if reader.is_done() { Ok(reader.out) } else { Err(reader.damaged("the record is missing")) }
    }

    fn end(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        Ok(self.partition(partition).map_or(FIRST_OFFSET, |p| p.end.load(Ordering::Acquire)))
    }

    fn start(&self, partition: &LogPartition) -> Result<u64, ReadError> {
        Ok(self.partition(partition).map_or(FIRST_OFFSET, |p| p.start.load(Ordering::Acquire)))
    }

    fn trim(&self, partition: &LogPartition, before: u64) -> Result<(), TrimError> {
        let failed = |cause: Cause| TrimError { partition: partition.clone(), cause };
        let Some(known) = self.partition(partition) else { return Ok(()) };
        let mut writer = self.writer();
        let (gone, start) = {
            let segments = known.segments();
            // The last segment stays: it says where the partition goes on.
            let kept = segments.partition_point(|s| s.base <= before).saturating_sub(1);
            (segments[..kept].to_vec(), segments.get(kept).map_or(FIRST_OFFSET, |s| s.base))
        };
        if gone.is_empty() {
            return Ok(());
        }
        writer.mark.advance_start(partition, start).map_err(|e| failed(e.into()))?;
        known.start.store(start, Ordering::Release);
        known.segments_mut().drain(..gone.len());
        // Removing takes long; appends need not wait for all of it.
        drop(writer);
        for segment in gone {
            // What is left after a crash or an error here is removed when the log is opened.
            storage::call(&self.folder, || self.db.delete_keyspace(segment.keyspace)).map_err(|f| failed(f.into()))?;
        }
        Ok(())
    }

    fn status(&self) -> LogStatus {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let status = |(partition, known): (&LogPartition, &Arc<Partition>)| PartitionStatus {
            partition: partition.clone(),
            start: known.start.load(Ordering::Acquire),
            end: known.end.load(Ordering::Acquire),
        };
        LogStatus {
            bytes_on_disk: self.db.disk_space().unwrap_or_default(),
            partitions: partitions.iter().map(status).collect(),
        }
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        // Only makes a power loss cheaper: see `mark`.
        let _ = self.writer().mark.sync();
    }
}

/// Collects records of one segment after another.
struct SegmentReader<'l> {
    log: &'l EmbeddedLog,
    partition: &'l LogPartition,
    /// The offset to come.
    next: u64,
    /// Records from here on are not acknowledged.
    end: u64,
    left_bytes: usize,
    out: Vec<Record>,
}

impl SegmentReader<'_> {
    fn is_done(&self) -> bool {
        self.next == self.end || (self.left_bytes == 0 && !self.out.is_empty())
    }

    fn damaged(&self, cause: impl Into<String>) -> ReadError {
        ReadError::Damaged { partition: self.partition.clone(), offset: self.next, cause: cause.into() }
    }

    fn read(&mut self, segment: &Segment) -> Result<(), ReadError> {
        let folder = &self.log.folder;
        let mut records = storage::call(folder, || Ok(segment.keyspace.range(record_key(self.next)..)))
            .map_err(|fault| self.fault(fault))?;
        while !self.is_done() {
            let stored = storage::call(folder, || records.next().map(fjall::Guard::into_inner).transpose());
            let Some((key, stored)) = stored.map_err(|fault| self.fault(fault))? else { return Ok(()) };
            if offset_of_key(&key) != Some(self.next) {
                return Err(self.damaged("the record is missing"));
            }
            let (bytes, _) = decode_record(self.partition, self.next, &stored).map_err(|cause| self.damaged(cause))?;
            if bytes.len() > self.left_bytes && !self.out.is_empty() {
                self.left_bytes = 0;
                return Ok(());
            }
            self.left_bytes = self.left_bytes.saturating_sub(bytes.len().max(1));
            self.out.push((self.next, bytes.to_vec()));
            self.next += 1;
        }
        Ok(())
    }

    fn fault(&self, fault: StorageFault) -> ReadError {
        match fault {
            StorageFault::Disk(cause) => {
                ReadError::Disk { partition: self.partition.clone(), offset: self.next, cause }
            }
            other => self.damaged(other.to_string()),
        }
    }
}
