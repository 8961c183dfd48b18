//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Listed, Object, Outcome, Store, StoreError, Version};

#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryStore {
    /// The objects themselves, to be damaged or removed.
    pub fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn put(&self, key: &str, bytes: &[u8]) -> Outcome {
        self.swap(key, None, bytes)
    }

    fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let found = self.objects().get(key).cloned();
        Ok(found.map(Object::new))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects();
        let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, bytes)| Listed { key: key.clone(), size_bytes: bytes.len() as u64 }).collect())
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }

    fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome {
        let mut objects = self.objects();
        if objects.get(key).map(|bytes| Version::of(bytes)).as_ref() != expected {
            return Outcome::Conflict;
        }
        objects.insert(key.to_owned(), bytes.to_vec());
        Outcome::Done(Version::of(bytes))
    }
}
