//! What everything that keeps files shares: errors that say what to do, durable writes, locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::{
    thread,
    time::{Duration, Instant},
};

use xxhash_rust::xxh3::Xxh3;

use super::Digest;

/// A file operation failed. None of these is a fault of the data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    #[error("{path}: no space is left; free some, then start again (nothing acknowledged is lost)")]
    Full { path: PathBuf },
    #[error("{path}: may not be written ({cause}); give this user write access or choose another folder")]
    NotWritable { path: PathBuf, cause: String },
    #[error("{path}: {cause}; check the disk, then start again")]
    Io { path: PathBuf, cause: String },
}

impl DiskError {
    /// Sorts an I/O error by what can be done about it.
    pub fn new(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, cause: error.to_string() }
            }
            _ => Self::Io { path, cause: error.to_string() },
        }
    }
}

/// Attaches the path to the I/O error of a result.
pub fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, DiskError> {
    result.map_err(|error| DiskError::new(path, &error))
}

/// Creates a folder with its parents, and makes its name durable.
pub fn create_dir(path: &Path) -> Result<(), DiskError> {
    if path.is_dir() {
        return Ok(());
    }
    at(path, std::fs::create_dir_all(path))?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Makes creations, renames and removals in a folder durable.
pub fn sync_dir(path: &Path) -> Result<(), DiskError> {
    at(path, File::open(path).and_then(|dir| dir.sync_all()))
}

/// Whoever else syncs something small on the same disk waits for no more than this.
const SYNC_BYTES: usize = 4 << 20;

/// Writes a new file whose bytes are durable when this returns; its name is not (see [`sync_dir`]).
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let write = || {
        let mut file = File::create(path)?;
        let mut chunks = bytes.chunks(SYNC_BYTES).peekable();
        while let Some(chunk) = chunks.next() {
            file.write_all(chunk)?;
            if chunks.peek().is_some() {
                file.sync_data()?;
            }
        }
        file.sync_all()
    };
    at(path, write())
}

const READ_BYTES: usize = 1 << 20;

/// Of a file's bytes.
pub fn digest(path: &Path) -> io::Result<Digest> {
    let (mut file, mut hash, mut size_bytes) = (File::open(path)?, Xxh3::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest { size_bytes, digest: hash.digest() }),
            Ok(read) => {
                hash.update(&buffer[..read]);
                size_bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Replaces a file as a whole: after a crash it holds the old bytes or the new ones. `temporary` lies in the same folder.
pub fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), ReplaceError> {
    prepare(temporary, bytes).map_err(ReplaceError::Unchanged)?;
    put_in_place(path, temporary)
}

/// The first and longer half of replacing a file.
pub fn prepare(temporary: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    // The leftover is only untidy: it is removed when the folder is opened next.
    write_synced(temporary, bytes).inspect_err(|_| drop(std::fs::remove_file(temporary)))
}

/// The second.
pub fn put_in_place(path: &Path, temporary: &Path) -> Result<(), ReplaceError> {
    if let Err(error) = at(path, std::fs::rename(temporary, path)) {
        let _ = std::fs::remove_file(temporary);
        return Err(ReplaceError::Unchanged(error));
    }
    match path.parent() {
        Some(parent) => sync_dir(parent).map_err(ReplaceError::Unknown),
        None => Ok(()),
    }
}

/// How a replacement failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The old bytes are still there.
    #[error(transparent)]
    Unchanged(DiskError),
    /// The new bytes are there, but a power loss may bring the old ones back.
    #[error(transparent)]
    Unknown(DiskError),
}

impl From<ReplaceError> for DiskError {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Unchanged(error) | ReplaceError::Unknown(error) => error,
        }
    }
}

/// Why a folder's lock was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// `holder` is the process id that the lock file names; empty if it names none yet.
    #[error(
        "{folder} is in use by another process{}; stop it, or choose another folder with --data",
        if .holder.is_empty() { String::new() } else { format!(" (pid {})", .holder) }
    )]
    Held { folder: PathBuf, holder: String },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A process that ends takes a moment to let go; so does a child that it is just starting, which has the lock until it runs
/// its own program.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Takes the exclusive lock of a folder, held until the file is dropped; the system drops it with the process.
pub fn lock(folder: &Path) -> Result<File, LockError> {
    let path = folder.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = at(&path, opened)?;
    let asked = Instant::now();
    let locked = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if asked.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_RETRY),
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            at(&path, file.read_to_string(&mut holder))?;
            return Err(LockError::Held { folder: folder.to_owned(), holder: holder.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(DiskError::new(&path, &error).into()),
    }
    let name_holder = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    at(&path, name_holder)?;
    Ok(file)
}
