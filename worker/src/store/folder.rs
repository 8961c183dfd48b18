//! A store in a local folder: a key is a path below it.
//!
//! A file appears whole or not at all: it is written beside its place, synced, renamed, and the folder is synced.
//! Compare-and-set is a mutex, so one process at a time may write; the lock of the data folder sees to that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::disk::{self, DiskError, ReplaceError};
use super::{Digest, Listed, Object, Outcome, Store, StoreError, Version, check_key};

const TEMPORARY_PREFIX: &str = ".tmp-";

#[derive(Debug)]
pub struct FolderStore {
    root: PathBuf,
    /// Held from a comparison to its write.
    writes: Mutex<()>,
    temporaries: AtomicU64,
}

impl FolderStore {
    /// Creates the folder, and removes what a killed process left half-written.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        disk::create_dir(root)?;
        let this = Self::open_read_only(root);
        let leftovers = disk::at(root, this.walk(true))?;
        for (path, _) in leftovers {
            disk::at(&path, std::fs::remove_file(&path))?;
        }
        Ok(this)
    }

    /// For looking on while another process writes.
    pub fn open_read_only(root: &Path) -> Self {
        Self { root: root.to_owned(), writes: Mutex::new(()), temporaries: AtomicU64::new(0) }
    }

    /// Where a key is.
    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    /// Files below the folder with their sizes: those half-written, or all others.
    fn walk(&self, temporary: bool) -> io::Result<Vec<(PathBuf, u64)>> {
        let (mut folders, mut files) = (vec![self.root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let is_temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX);
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) if is_temporary == temporary => files.push((entry.path(), metadata.len())),
                    Ok(_) => {}
                    // Removed since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(files)
    }

    fn write(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let path = self.path(key)?;
        let folder = path.parent().unwrap_or(&self.root);
        {
            // Nobody is to find a folder that is not durable yet.
            let _writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
            create_dirs(&self.root, folder).map_err(|error| StoreError::new(key, error))?;
        }
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
        // Hundreds of megabytes, perhaps: others write meanwhile.
        disk::prepare(&temporary, bytes).map_err(|error| StoreError::new(key, error))?;
        let _writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.get(key).map(|found| found.map(|object| object.version));
        if found.as_ref().map(Option::as_ref) != Ok(expected) {
            let _ = std::fs::remove_file(&temporary);
            return found.map(|_| Outcome::Conflict);
        }
        match disk::put_in_place(&path, &temporary) {
            Ok(()) => Ok(Outcome::Done(Version::of(bytes))),
            Err(ReplaceError::Unchanged(error)) => Err(StoreError::new(key, error)),
            Err(ReplaceError::Unknown(error)) => Ok(Outcome::Unknown(StoreError::new(key, error))),
        }
    }
}

/// Creates the folders from `root` down to `folder`, each durably.
fn create_dirs(root: &Path, folder: &Path) -> Result<(), DiskError> {
    let below = folder.strip_prefix(root).unwrap_or(Path::new(""));
    let mut path = root.to_owned();
    for part in below.components() {
        path.push(part);
        disk::create_dir(&path)?;
    }
    Ok(())
}

impl Store for FolderStore {
    fn put(&self, key: &str, bytes: &[u8]) -> Outcome {
        self.swap(key, None, bytes)
    }

    fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let path = self.path(key)?;
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Object::new(bytes))),
            // A store whose folder is gone does not answer; it does not say that there is nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(None),
            Err(error) => Err(StoreError::new(key, DiskError::new(&path, &error))),
        }
    }

    /// Without the whole of it in memory.
    fn digest(&self, key: &str) -> Result<Option<Digest>, StoreError> {
        let path = self.path(key)?;
        match disk::digest(&path) {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(None),
            Err(error) => Err(StoreError::new(key, DiskError::new(&path, &error))),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let failed = |error: io::Error| StoreError::new(prefix, DiskError::new(&self.root, &error));
        let mut listed = Vec::new();
        for (path, size_bytes) in self.walk(false).map_err(failed)? {
            let key = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            if let Some(key) = key.filter(|key| key.starts_with(prefix)) {
                listed.push(Listed { key: key.to_owned(), size_bytes });
            }
        }
        listed.sort();
        Ok(listed)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let _writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(()),
            Err(error) => Err(StoreError::new(key, DiskError::new(&path, &error))),
        }
    }

    fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome {
        self.write(key, expected, bytes).unwrap_or_else(Outcome::Failed)
    }
}
