//! Stores that break one promise each, and are caught.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::store::{Digest, Listed, Object, memory::MemoryStore};

const EFFORT: Effort = Effort { updates: 40, creations: 5, looks: 5, objects: 12, large_bytes: 1 << 20 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Nothing is wrong with it.
    None,
    /// As many stores did that knew no conditional writes.
    IgnoresIfMatch,
    IgnoresIfNoneMatch,
    /// Compares and then writes, with others in between.
    ComparesTooEarly,
    ReadsOld,
    ListsOnePage,
    ListsOutOfOrder,
    DeletesNothing,
    DeletesWhatBeginsAlike,
    DamagesLargeObjects,
    VersionsAreAlike,
    /// It is away from the 20th call on.
    Fails,
}

struct Lying {
    lie: Lie,
    inner: MemoryStore,
    calls: AtomicUsize,
}

impl Lying {
    fn call(&self, key: &str) -> Result<(), StoreError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.lie == Lie::Fails && call >= 20 { Err(StoreError::new(key, "away")) } else { Ok(()) }
    }

    fn replace(&self, key: &str, bytes: &[u8]) -> Outcome {
        self.inner.objects().insert(key.to_owned(), bytes.to_vec());
        Outcome::Done(Version::of(bytes))
    }
}

impl Store for Lying {
    fn put(&self, key: &str, bytes: &[u8]) -> Outcome {
        self.swap(key, None, bytes)
    }
    fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.call(key)?;
        let mut object = self.inner.get(key)?;
        match (self.lie, &mut object) {
            (Lie::ReadsOld, Some(object)) if object.bytes.len() > 2 => drop(object.bytes.pop()),
            (Lie::VersionsAreAlike, Some(object)) => object.version = Version("same".to_owned()),
            _ => {}
        }
        Ok(object)
    }
    fn digest(&self, key: &str) -> Result<Option<Digest>, StoreError> {
        let mut digest = self.inner.digest(key)?;
        if let (Lie::DamagesLargeObjects, Some(digest)) = (self.lie, &mut digest) {
            digest.digest ^= u64::from(digest.size_bytes > 1000);
        }
        Ok(digest)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.call(prefix)?;
        let mut listed = self.inner.list(prefix)?;
        match self.lie {
            Lie::ListsOnePage => listed.truncate(10),
            Lie::ListsOutOfOrder => listed.reverse(),
            _ => {}
        }
        Ok(listed)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.call(key)?;
        match self.lie {
            Lie::DeletesNothing => {}
            Lie::DeletesWhatBeginsAlike => self.inner.objects().retain(|other, _| !other.starts_with(key)),
            _ => self.inner.delete(key)?,
        }
        Ok(())
    }
    fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome {
        if let Err(error) = self.call(key) {
            return Outcome::Failed(error);
        }
        let found = self.inner.objects().get(key).map(|bytes| Version::of(bytes));
        match self.lie {
            Lie::IgnoresIfMatch if expected.is_some() => self.replace(key, bytes),
            Lie::IgnoresIfNoneMatch if expected.is_none() => self.replace(key, bytes),
            Lie::VersionsAreAlike if found.is_some() == expected.is_some() => {
                let _ = self.replace(key, bytes);
                Outcome::Done(Version("same".to_owned()))
            }
            Lie::ComparesTooEarly => {
                std::thread::yield_now();
                if found.as_ref() == expected { self.replace(key, bytes) } else { Outcome::Conflict }
            }
            _ => self.inner.swap(key, expected, bytes),
        }
    }
}

fn report(lie: Lie) -> (Report, usize) {
    let store = Lying { lie, inner: MemoryStore::default(), calls: AtomicUsize::new(0) };
    let clients: Vec<&dyn Store> = vec![&store; 8];
    let report = check(&clients, "1", &EFFORT);
    let left = store.inner.objects().len();
    (report, left)
}

#[test]
fn a_good_store_keeps_all_promises_and_nothing_is_left() {
    let (report, left) = report(Lie::None);
    let kept: Vec<Promise> = report.findings.iter().filter(|f| f.kept.is_ok()).map(|f| f.promise).collect();
    assert_eq!(kept, Promise::ALL.map(|(promise, _)| promise), "{report:?}");
    assert_eq!((report.failed, report.left, left), (None, None, 0));
}

#[test]
fn every_lie_is_caught() {
    let lies = [
        (Lie::IgnoresIfMatch, Promise::Conditions),
        (Lie::IgnoresIfMatch, Promise::Succession),
        (Lie::IgnoresIfMatch, Promise::LargeObjects),
        (Lie::IgnoresIfNoneMatch, Promise::Conditions),
        (Lie::IgnoresIfNoneMatch, Promise::Creation),
        (Lie::IgnoresIfNoneMatch, Promise::LargeObjects),
        (Lie::ReadsOld, Promise::Freshness),
        (Lie::ListsOnePage, Promise::Listing),
        (Lie::ListsOutOfOrder, Promise::Listing),
        (Lie::DeletesNothing, Promise::Deletion),
        (Lie::DeletesWhatBeginsAlike, Promise::Deletion),
        (Lie::DamagesLargeObjects, Promise::LargeObjects),
        (Lie::VersionsAreAlike, Promise::Conditions),
    ];
    for (lie, promise) in lies {
        let (report, _) = report(lie);
        let broken = report.findings.iter().any(|f| f.promise == promise && f.kept.is_err());
        assert!(broken && report.is_broken() && report.failed.is_none(), "{lie:?} {promise:?}: {report:?}");
    }
}

/// Threads must meet for it, so it is given several chances, each with hundreds of meetings.
#[test]
fn a_store_that_compares_too_early_is_caught() {
    let caught = (0..50).any(|_| report(Lie::ComparesTooEarly).0.is_broken());
    assert!(caught);
}

#[test]
fn a_store_that_is_away_is_not_a_store_that_lies() {
    let (report, _) = report(Lie::Fails);
    assert!(!report.is_broken() && report.failed.is_some() && report.left.is_some(), "{report:?}");
}
