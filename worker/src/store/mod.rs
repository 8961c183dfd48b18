//! The object store of checkpoints: immutable files, and manifests replaced by compare-and-set.
//!
//! [`folder::FolderStore`] keeps it in a local folder, [`s3::S3Store`] in a bucket, [`memory::MemoryStore`] in memory.

pub mod check;
pub mod checkpoint;
pub mod data_dir;
pub mod disk;
pub mod folder;
pub mod inspect;
pub mod memory;
pub mod s3;
#[cfg(test)]
mod tests;

pub use millrace_lifecycle::{
    keys, manifest, sealed,
    store::{Answer, Digest, Listed, Next, Object, Op, Outcome, Procedure, StoreError, Version},
};

/// Keys are built by [`keys`] only. Called from any thread; every call blocks until it is done.
pub trait Store: Send + Sync {
    /// Creates an object that is never changed.
    fn put(&self, key: &str, bytes: &[u8]) -> Outcome;

    /// The object as a whole; `None` only if the store answers that there is none.
    fn get(&self, key: &str) -> Result<Option<Object>, StoreError>;

    /// Of the object as a whole; likewise. Read as `get` does.
    fn digest(&self, key: &str) -> Result<Option<Digest>, StoreError> {
        Ok(self.get(key)?.map(|object| object.digest))
    }

    /// All objects whose key begins with `prefix`, by ascending key.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object; it is no error if there is none.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Replaces an object if its version is the expected one; `None`: creates it if there is none.
    fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome;

    /// The answer to one question of a procedure.
    fn answer(&self, op: &Op) -> Answer {
        match op {
            Op::Get { key } => Answer::Got(self.get(key)),
            Op::Digest { key } => Answer::Digested(self.digest(key)),
            Op::Put { key, bytes } => Answer::Wrote(self.put(key, bytes)),
            Op::Swap { key, expected, bytes } => Answer::Wrote(self.swap(key, expected.as_ref(), bytes)),
            Op::List { prefix } => Answer::Listed(self.list(prefix)),
            Op::Delete { key } => Answer::Deleted(self.delete(key)),
        }
    }
}

/// Only keys of plain names are let through, so that none leads out of a store's place.
fn check_key(key: &str) -> Result<(), StoreError> {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
    if key.split('/').all(plain) { Ok(()) } else { Err(StoreError::new(key, "it is not a key")) }
}

/// Asks a store whatever a procedure wants to know.
pub fn run<P: Procedure>(store: &dyn Store, procedure: Next<P>) -> P::Output {
    procedure.run(|op| store.answer(&op))
}
