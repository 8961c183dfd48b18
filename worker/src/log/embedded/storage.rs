//! The storage crate as the log uses it: its settings, its errors sorted, its panics caught.

use std::error::Error as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy, PinningPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};

use super::Options;
use crate::log::Cause;
use crate::log::format::offset_of_key;
use crate::store::disk::DiskError;

/// The least that fjall allows.
const MAX_JOURNALS_BYTES: u64 = 64 << 20;
const MAX_OPEN_FILES: usize = 64;
/// Frames are longer and get a block each; small records share one.
const BLOCK_BYTES: u32 = 16 << 10;

/// A fault of the storage crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageFault {
    Disk(DiskError),
    /// Refused before anything was written, because of an earlier fault.
    Poisoned,
    /// What is stored cannot be read.
    Data(String),
}

impl From<StorageFault> for Cause {
    fn from(fault: StorageFault) -> Self {
        match fault {
            StorageFault::Disk(error) => Self::Disk(error),
            StorageFault::Poisoned => Self::Broken("its storage could not write".to_owned()),
            StorageFault::Data(cause) => Self::Storage(cause),
        }
    }
}

impl std::fmt::Display for StorageFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Cause::from(self.clone()).fmt(f)
    }
}

/// Calls into the storage crate. It panics on some damaged files, which is a fault like any other here.
pub fn call<T>(folder: &Path, f: impl FnOnce() -> fjall::Result<T>) -> Result<T, StorageFault> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(sort(folder, &error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
            Err(StorageFault::Data(format!("the storage gave up: {text}")))
        }
    }
}

fn sort(folder: &Path, error: &fjall::Error) -> StorageFault {
    if matches!(error, fjall::Error::Poisoned) {
        return StorageFault::Poisoned;
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = source {
        match inner.downcast_ref::<io::Error>() {
            // These two come from damaged files, not from the disk.
            Some(io) if !matches!(io.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
                return StorageFault::Disk(DiskError::new(folder, io));
            }
            _ => source = inner.source(),
        }
    }
    StorageFault::Data(error.to_string())
}

/// Opens or creates the storage. Nothing in it is compressed: tests search its files for what must not be there.
pub fn open(folder: &Path, options: &Options) -> Result<Database, StorageFault> {
    call(folder, || {
        Database::builder(folder)
            .cache_size(options.cache_bytes)
            .journal_compression(CompressionType::None)
            .max_journaling_size(MAX_JOURNALS_BYTES)
            .max_cached_files(Some(MAX_OPEN_FILES))
            .worker_threads(1)
            .open()
    })
}

/// Creates the keyspace of a segment, or gets the one that is there. Keys only ever ascend, and none is looked up that
/// is not there, so filters are useless; memtables are rotated by [`super::EmbeddedLog`] only, over all keyspaces.
pub fn segment(db: &Database, folder: &Path, name: &str) -> Result<Keyspace, StorageFault> {
    let options = || {
        KeyspaceCreateOptions::default()
            .data_block_compression_policy(CompressionPolicy::disabled())
            .index_block_compression_policy(CompressionPolicy::disabled())
            .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
            .filter_policy(FilterPolicy::disabled())
            .index_block_pinning_policy(PinningPolicy::disabled())
            .filter_block_pinning_policy(PinningPolicy::disabled())
            .max_memtable_size(u64::MAX)
    };
    call(folder, || db.keyspace(name, options))
}

/// The last offset in a segment.
pub fn last_offset(folder: &Path, keyspace: &Keyspace) -> Result<Option<u64>, StorageFault> {
    let key = call(folder, || keyspace.last_key_value().map(fjall::Guard::key).transpose())?;
    match key.map(|key| offset_of_key(&key)) {
        Some(None) => Err(StorageFault::Data("a key is not an offset".to_owned())),
        Some(offset) => Ok(offset),
        None => Ok(None),
    }
}

/// Whether the storage still takes writes; its background thread ends with its first error.
pub fn check_alive(db: &Database, folder: &Path) -> Result<(), StorageFault> {
    call(folder, || db.persist(fjall::PersistMode::Buffer))
}

