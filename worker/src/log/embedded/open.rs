//! Opening: what is there is compared with what the end mark says has to be there.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use fjall::Database;

use super::storage::{self, StorageFault};
use super::{Active, EmbeddedLog, Options, Partition, Segment, Writer};
use crate::log::format::{Mark, MarkEntry, decode_record, parse_segment_name, record_key};
use crate::log::mark::{Found, MarkFiles};
use crate::log::{FIRST_OFFSET, LogPartition, Loss, OpenError, ReadError};
use crate::store::disk;

const STORAGE_FOLDER: &str = "fjall";
/// Where the storage is created: it cannot be opened if it was killed while it was created.
const NEW_STORAGE_FOLDER: &str = "fjall.new";
/// Memtables found at opening that are larger are written at once.
const MAX_RECOVERED_BYTES: u64 = 1 << 20;

impl EmbeddedLog {
    /// Opens the log in a folder, or creates it. Only one process can have it open.
    pub fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        open(folder, options, None)
    }
}

/// Accepts that acknowledged records are lost: the log goes on where what is left ends, and what is returned is gone
/// for good. Whoever has read further than that is refused from then on ([`ReadError::BeyondEnd`]).
pub fn repair(folder: &Path, options: Options) -> Result<Vec<Loss>, OpenError> {
    let mut losses = Vec::new();
    open(folder, options, Some(&mut losses))?;
    Ok(losses)
}

/// With `accepted`, losses are written there instead of being an error.
fn open(folder: &Path, options: Options, mut accepted: Option<&mut Vec<Loss>>) -> Result<EmbeddedLog, OpenError> {
    disk::create_dir(folder)?;
    let lock = disk::lock(folder)?;
    let found = MarkFiles::find(folder)?;
    let storage_folder = folder.join(STORAGE_FOLDER);
    create_storage(folder, &storage_folder, &options)?;
    let opening = Opening { folder: folder.to_owned(), storage_folder };
    let db = storage::open(&opening.storage_folder, &options).map_err(|fault| opening.fault(fault))?;
    let mut segments = opening.segments(&db)?;
    let mut mark = match found {
        Found::Mark(mark) => mark,
        Found::Missing if segments.is_empty() => Mark::default(),
        _ if accepted.is_some() => mark_of(&segments),
        Found::Missing => return Err(OpenError::Mark { folder: folder.to_owned(), what: "missing" }),
        Found::Damaged => return Err(OpenError::Mark { folder: folder.to_owned(), what: "damaged" }),
    };
    let (mut losses, mut removed) = (Vec::new(), Vec::new());
    for partition in partitions(&mark, &segments) {
        let entry = mark.partitions.entry(partition.clone()).or_default();
        let held = segments.entry(partition.clone()).or_default();
        let examined = opening.examine(&partition, entry, held)?;
        losses.extend(examined.losses);
        removed.extend(examined.removed);
    }
    match &mut accepted {
        None if !losses.is_empty() => return Err(OpenError::Lost { folder: folder.to_owned(), losses }),
        None => {}
        Some(accepted) => accepted.extend(losses),
    }
    opening.remove(&db, removed)?;
    let mark = MarkFiles::create(folder, mark)?;
    opening.finish(db, lock, options, mark, segments)
}

/// Creates the storage beside its place and moves it there, so that it is there as a whole or not at all.
fn create_storage(folder: &Path, storage_folder: &Path, options: &Options) -> Result<(), OpenError> {
    if storage_folder.exists() {
        return Ok(());
    }
    let new = folder.join(NEW_STORAGE_FOLDER);
    if new.exists() {
        disk::at(&new, std::fs::remove_dir_all(&new))?;
    }
    let opening = Opening { folder: folder.to_owned(), storage_folder: new.clone() };
    drop(storage::open(&new, options).map_err(|fault| opening.fault(fault))?);
    disk::at(storage_folder, std::fs::rename(&new, storage_folder))?;
    Ok(disk::sync_dir(folder)?)
}

type Segments = BTreeMap<LogPartition, Vec<Segment>>;

fn partitions(mark: &Mark, segments: &Segments) -> Vec<LogPartition> {
    let mut all: Vec<_> = mark.partitions.keys().chain(segments.keys()).cloned().collect();
    all.sort();
    all.dedup();
    all
}

/// A mark that claims no more than that the segments begin where they do.
fn mark_of(segments: &Segments) -> Mark {
    let entry = |held: &Vec<Segment>| {
        let start = held.first().map_or(FIRST_OFFSET, |s| s.base);
        MarkEntry { start, end: start, last_checksum: 0 }
    };
    Mark { sequence: 0, partitions: segments.iter().map(|(p, held)| (p.clone(), entry(held))).collect() }
}

struct Examined {
    losses: Vec<Loss>,
    removed: Vec<Segment>,
}

struct Opening {
    folder: PathBuf,
    storage_folder: PathBuf,
}

impl Opening {
    fn fault(&self, fault: StorageFault) -> OpenError {
        match fault {
            StorageFault::Disk(error) => OpenError::Disk(error),
            other => OpenError::Storage { folder: self.folder.clone(), cause: other.to_string() },
        }
    }

    fn segments(&self, db: &Database) -> Result<Segments, OpenError> {
        let mut segments = Segments::new();
        for name in db.list_keyspace_names() {
            let Some((partition, base)) = parse_segment_name(&name) else {
                return Err(self.fault(StorageFault::Data(format!("{name:?} is not a segment"))));
            };
            let keyspace = storage::segment(db, &self.storage_folder, &name).map_err(|fault| self.fault(fault))?;
            segments.entry(partition).or_default().push(Segment { base, keyspace });
        }
        for held in segments.values_mut() {
            held.sort_by_key(|s| s.base);
        }
        Ok(segments)
    }

    /// Compares one partition with its entry, which then says what is there. Takes out of `held` what does not belong
    /// to it: what a trim that was cut off has left, and what follows a gap.
    fn examine(
        &self,
        partition: &LogPartition,
        entry: &mut MarkEntry,
        held: &mut Vec<Segment>,
    ) -> Result<Examined, OpenError> {
        let trimmed = held.partition_point(|s| s.base <= entry.start).saturating_sub(1);
        let mut examined = Examined { losses: Vec::new(), removed: held.drain(..trimmed).collect() };
        let mut lost = |from: u64, to: u64| examined.losses.push(Loss { partition: partition.clone(), from, to });
        if let Some(first) = held.first().filter(|first| first.base > entry.start) {
            lost(entry.start, first.base - 1);
            entry.start = first.base;
        }
        let (end, whole) = self.contiguous(held)?.unwrap_or((entry.start, 0));
        let acknowledged = match held.last() {
            Some(last) => self.end_of(last)?.max(entry.end),
            None => entry.end,
        };
        if end < acknowledged {
            lost(end, acknowledged - 1);
            examined.removed.extend(held.drain(whole..));
        } else if entry.end > entry.start {
            self.check_last(partition, entry, held)?;
        }
        if end != entry.end {
            entry.end = end;
            entry.last_checksum = if end > entry.start { self.checksum_at(partition, end - 1, held)? } else { 0 };
        }
        Ok(examined)
    }

    /// Where the records end that follow each other without a gap between segments, and how many segments hold them.
    fn contiguous(&self, held: &[Segment]) -> Result<Option<(u64, usize)>, OpenError> {
        let mut end = None;
        for (i, segment) in held.iter().enumerate() {
            if end.is_some_and(|end| end != segment.base) {
                return Ok(end.map(|end| (end, i)));
            }
            end = Some(self.end_of(segment)?);
        }
        Ok(end.map(|end| (end, held.len())))
    }

    fn end_of(&self, segment: &Segment) -> Result<u64, OpenError> {
        let last = storage::last_offset(&self.storage_folder, &segment.keyspace).map_err(|fault| self.fault(fault))?;
        Ok(last.map_or(segment.base, |last| last + 1))
    }

    /// The record that the mark names has to be the one that is there.
    fn check_last(&self, partition: &LogPartition, entry: &MarkEntry, held: &[Segment]) -> Result<(), OpenError> {
        let offset = entry.end - 1;
        if self.checksum_at(partition, offset, held)? == entry.last_checksum {
            return Ok(());
        }
        let cause = "it is not the record that was acknowledged".to_owned();
        Err(ReadError::Damaged { partition: partition.clone(), offset, cause }.into())
    }

    fn checksum_at(&self, partition: &LogPartition, offset: u64, held: &[Segment]) -> Result<u64, OpenError> {
        let damaged = |cause: String| ReadError::Damaged { partition: partition.clone(), offset, cause };
        let at = held.partition_point(|s| s.base <= offset).saturating_sub(1);
        let segment = held.get(at).ok_or_else(|| damaged("the record is missing".to_owned()))?;
        let stored = storage::call(&self.storage_folder, || segment.keyspace.get(record_key(offset)))
            .map_err(|fault| self.fault(fault))?
            .ok_or_else(|| damaged("the record is missing".to_owned()))?;
        Ok(decode_record(partition, offset, &stored).map_err(damaged)?.1)
    }

    fn remove(&self, db: &Database, segments: Vec<Segment>) -> Result<(), OpenError> {
        for segment in segments {
            storage::call(&self.storage_folder, || db.delete_keyspace(segment.keyspace))
                .map_err(|fault| self.fault(fault))?;
        }
        Ok(())
    }

    fn finish(
        &self,
        db: Database,
        lock: File,
        options: Options,
        mark: MarkFiles,
        segments: Segments,
    ) -> Result<EmbeddedLog, OpenError> {
        let mut partitions = BTreeMap::new();
        let mut active = BTreeMap::new();
        let recovered = db.write_buffer_size() > MAX_RECOVERED_BYTES;
        for (partition, entry) in &mark.mark().partitions {
            let held = segments.get(partition).cloned().unwrap_or_default();
            for segment in held.iter().filter(|_| recovered) {
                storage::call(&self.storage_folder, || segment.keyspace.rotate_memtable())
                    .map_err(|fault| self.fault(fault))?;
            }
            if let Some(segment) = held.last().cloned() {
                let bytes = segment.keyspace.disk_space();
                active.insert(partition.clone(), Active { segment, bytes, unflushed_bytes: 0 });
            }
            partitions.insert(partition.clone(), Arc::new(Partition::new(entry.start, entry.end, held)));
        }
        let writer = Writer { mark, active, flushing: None, broken: None };
        Ok(EmbeddedLog {
            partitions: RwLock::new(partitions),
            writer: Mutex::new(writer),
            db,
            folder: self.storage_folder.clone(),
            options,
            _lock: lock,
        })
    }
}
