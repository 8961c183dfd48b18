//! The end mark: where each partition ends, kept apart from the storage so that a tail it lost is noticed.
//!
//! It is written after every append that is durable, so it never names a record that is not. It is *not* synced each
//! time: after a power loss an older mark is found, and what the log holds beyond it is simply there. What has to be
//! ruled out is that none is found. So there are two files: writes go to one, in place, until it is synced; then the
//! other's turn comes. One of the two is always whole and on disk, at most [`super::embedded::Options`]'
//! `write_buffer_bytes` of records behind. A process that is killed loses nothing: its writes are the system's already.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::format::{MARK_VERSION, Mark, MarkError};
use super::{LogPartition, OpenError};
use crate::store::disk::{self, DiskError};

const FILE_NAMES: [&str; 2] = ["end.0", "end.1"];

pub struct MarkFiles {
    folder: PathBuf,
    files: [File; 2],
    /// The file that is written next.
    live: usize,
    mark: Mark,
}

/// What was found in a folder.
pub enum Found {
    /// The newest whole mark.
    Mark(Mark),
    /// No file, or empty ones: the log is new, or somebody removed them.
    Missing,
    /// Neither file holds a whole mark.
    Damaged,
}

impl MarkFiles {
    pub fn find(folder: &Path) -> Result<Found, OpenError> {
        let mut newest: Option<Mark> = None;
        let mut missing = 0;
        for name in FILE_NAMES {
            let path = folder.join(name);
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing += 1;
                    continue;
                }
                Err(error) => return Err(DiskError::new(&path, &error).into()),
            };
            if bytes.is_empty() {
                missing += 1; // made by a process that was killed before it wrote its first mark
                continue;
            }
            match Mark::decode(&bytes) {
                Ok(mark) if newest.as_ref().is_none_or(|n| n.sequence < mark.sequence) => newest = Some(mark),
                Ok(_) | Err(MarkError::Corrupt(_)) => {}
                Err(MarkError::Newer(found)) => {
                    return Err(OpenError::NewerFormat { folder: folder.to_owned(), found, known: MARK_VERSION });
                }
            }
        }
        Ok(match newest {
            Some(mark) => Found::Mark(mark),
            None if missing == FILE_NAMES.len() => Found::Missing,
            None => Found::Damaged,
        })
    }

    /// Goes on from `mark`, which both files hold when this returns.
    pub fn create(folder: &Path, mark: Mark) -> Result<Self, DiskError> {
        let open = |name: &str| {
            let path = folder.join(name);
            disk::at(&path, OpenOptions::new().write(true).create(true).truncate(false).open(&path))
        };
        let files = [open(FILE_NAMES[0])?, open(FILE_NAMES[1])?];
        // Both are on disk as they are, and the one with the older mark is written first: one stays whole.
        let older = |name: &str| std::fs::read(folder.join(name)).ok().and_then(|bytes| Mark::decode(&bytes).ok());
        let live = usize::from(older(FILE_NAMES[0]).map(|m| m.sequence) > older(FILE_NAMES[1]).map(|m| m.sequence));
        for (file, name) in files.iter().zip(FILE_NAMES) {
            disk::at(&folder.join(name), file.sync_data())?;
        }
        let mut this = Self { folder: folder.to_owned(), files, live, mark };
        for _ in 0..2 {
            this.write(|_| {})?;
            this.sync()?;
        }
        disk::sync_dir(folder)?;
        Ok(this)
    }

    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Changes the mark and writes it. The change stays in memory if that fails; nothing may be appended then.
    pub fn write(&mut self, change: impl FnOnce(&mut Mark)) -> Result<(), DiskError> {
        change(&mut self.mark);
        self.mark.sequence += 1;
        let path = self.folder.join(FILE_NAMES[self.live]);
        disk::at(&path, self.files[self.live].write_all_at(&self.mark.encode(), 0))
    }

    /// Makes the last mark written durable, and leaves its file alone until the other one is.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        let path = self.folder.join(FILE_NAMES[self.live]);
        disk::at(&path, self.files[self.live].sync_data())?;
        self.live = 1 - self.live;
        Ok(())
    }

    /// Moves a partition's start, durably: what lies below may be removed after that.
    pub fn advance_start(&mut self, partition: &LogPartition, start: u64) -> Result<(), DiskError> {
        self.write(|mark| mark.partitions.entry(partition.clone()).or_default().start = start)?;
        self.sync()
    }
}
