//! The object store of checkpoints: immutable files, and manifests replaced by compare-and-set.
//!
//! [`folder::FolderStore`] keeps it in a local folder, [`memory::MemoryStore`] in memory.

pub mod checkpoint;
pub mod data_dir;
pub mod disk;
pub mod folder;
pub mod inspect;
pub mod memory;
#[cfg(test)]
mod tests;

pub use millrace_lifecycle::{keys, manifest, sealed};

/// Names one content of an object; another content has another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

impl Version {
    /// For stores that have no versions of their own: a digest.
    pub fn of(content: &[u8]) -> Self {
        Self(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(content)))
    }
}

/// How a write ended.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable, with this version.
    Done(Version),
    /// Nothing was written: the object is there already (`put`), or is not the expected one (`swap`).
    Conflict,
    /// Nothing was written.
    Failed(StoreError),
    /// It may have been written, or may be written later: read again before believing anything.
    Unknown(StoreError),
}

/// The store did not answer, or not as it should. Says nothing about what it holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint store failed at {key:?}: {cause}")]
pub struct StoreError {
    pub key: String,
    pub cause: String,
}

impl StoreError {
    pub fn new(key: &str, cause: impl ToString) -> Self {
        Self { key: key.to_owned(), cause: cause.to_string() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub version: Version,
}

/// An object's key and size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub key: String,
    pub size_bytes: u64,
}

/// Keys are built by [`keys`] only. Called from any thread; every call blocks until it is done.
pub trait Store: Send + Sync {
    /// Creates an object that is never changed.
    fn put(&self, key: &str, bytes: &[u8]) -> Outcome;

    /// The object as a whole; `None` only if the store answers that there is none.
    fn get(&self, key: &str) -> Result<Option<Object>, StoreError>;

    /// All objects whose key begins with `prefix`, by ascending key.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object; it is no error if there is none.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Replaces an object if its version is the expected one; `None`: creates it if there is none.
    fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome;
}
