//! The lineage over a store that fails, or whose process dies, at any call.

use super::*;

/// A store whose `fail_at`-th call goes wrong; if `crash`, all later ones fail.
struct Faulty<'s> {
    inner: &'s dyn Store,
    injected: Injected,
    fail_at: usize,
    crash: bool,
    calls: Mutex<usize>,
    late: Mutex<Option<LateWrite>>,
}

impl Faulty<'_> {
    /// Counts a call; whether it goes wrong.
    fn call(&self) -> Option<Injected> {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        let mut late = self.late.lock().unwrap();
        if late.as_ref().is_some_and(|(due, ..)| *calls >= *due) {
            let (_, key, expected, bytes) = late.take().unwrap();
            let _ = self.inner.swap(&key, expected.as_ref(), &bytes);
        }
        match *calls {
            n if n == self.fail_at => Some(self.injected),
            n if n > self.fail_at && self.crash => Some(Injected::Failed),
            _ => None,
        }
    }
}

impl Store for Faulty<'_> {
    fn put(&self, key: &str, bytes: &[u8]) -> Outcome {
        self.swap(key, None, bytes)
    }
    fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        if self.call().is_some() { Err(StoreError::new(key, "injected")) } else { self.inner.get(key) }
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        if self.call().is_some() { Err(StoreError::new(prefix, "injected")) } else { self.inner.list(prefix) }
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        if self.call().is_some() { Err(StoreError::new(key, "injected")) } else { self.inner.delete(key) }
    }
    fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome {
        let error = StoreError::new(key, "injected");
        match self.call() {
            None => self.inner.swap(key, expected, bytes),
            Some(Injected::Failed) => Outcome::Failed(error),
            Some(Injected::UnknownNotDone) => Outcome::Unknown(error),
            Some(Injected::UnknownDone) => {
                let _ = self.inner.swap(key, expected, bytes);
                Outcome::Unknown(error)
            }
            Some(Injected::Late) => {
                let due = *self.calls.lock().unwrap() + 2;
                *self.late.lock().unwrap() = Some((due, key.to_owned(), expected.cloned(), bytes.to_vec()));
                Outcome::Unknown(error)
            }
        }
    }
}

/// Commits and collects until the first error. The last offset committed, and the one that was tried last.
pub(in crate::store) fn work(store: &dyn Store, retries: usize) -> Result<(u64, u64), LineageError> {
    let retry = |f: &mut dyn FnMut() -> Result<(), LineageError>| {
        let mut result = f();
        for _ in 0..retries {
            if result.is_ok() {
                break;
            }
            result = f();
        }
        result
    };
    let mut claimed = None;
    retry(&mut || Lineage::claim(store, &task(), &claimant("a")).map(|c| claimed = Some(c)))?;
    let (mut lineage, _) = claimed.unwrap();
    let mut committed = 0;
    for (i, at) in [10, 20, 30, 40, 50, 60].into_iter().enumerate() {
        // Absolute values, so a delta is the state.
        let state = if i % 3 == 0 { base(&at.to_string()) } else { delta(&at.to_string()) };
        if retry(&mut || lineage.commit(&state, position(at))).is_err() {
            return Ok((committed, at));
        }
        committed = at;
        if retry(&mut || lineage.collect_garbage(at as i64 * 1_000, 0).map(|_| ())).is_err() {
            return Ok((committed, at));
        }
    }
    Ok((committed, committed))
}

pub(in crate::store) fn restored_offset(store: &dyn Store) -> u64 {
    let Some(restored) = claim(store, "later").1 else { return 0 };
    assert_eq!(restored.damaged, vec![], "what a manifest names is there");
    let text = texts(&restored).pop().unwrap();
    assert_eq!(text, restored.checkpoint.position.log_offset.to_string());
    restored.checkpoint.position.log_offset
}

#[test]
fn a_crash_at_any_call_leaves_the_last_commit() {
    for injected in [Injected::Failed, Injected::UnknownDone, Injected::UnknownNotDone, Injected::Late] {
        let mut crashed = 0;
        for fail_at in 1.. {
            let inner = MemoryStore::default();
            let (calls, late) = (Mutex::new(0), Mutex::new(None));
            let faulty = Faulty { inner: &inner, injected, fail_at, crash: true, calls, late };
            let (committed, tried) = work(&faulty, 0).unwrap_or((0, 0));
            let found = restored_offset(&inner);
            assert!(
                found == committed || found == tried,
                "{injected:?} at {fail_at}: {found}, not {committed} or {tried}"
            );
            assert_eq!(inspect::verify(&inner), Ok(vec![]));
            if committed == 60 && *faulty.calls.lock().unwrap() < fail_at {
                break;
            }
            crashed += 1;
        }
        assert!(crashed > 20, "{crashed}");
    }
}

#[test]
fn one_fault_at_any_call_is_survived_by_trying_again() {
    for injected in [Injected::Failed, Injected::UnknownDone, Injected::UnknownNotDone, Injected::Late] {
        for fail_at in 1..=40 {
            let inner = MemoryStore::default();
            let (calls, late) = (Mutex::new(0), Mutex::new(None));
            let faulty = Faulty { inner: &inner, injected, fail_at, crash: false, calls, late };
            assert_eq!(work(&faulty, 3), Ok((60, 60)), "{injected:?} at {fail_at}");
            assert_eq!(restored_offset(&inner), 60);
            assert_eq!(inspect::verify(&inner), Ok(vec![]));
        }
    }
}

/// The manifest that is read again after a write of unknown end still names what was found damaged.
#[test]
fn what_was_found_damaged_stays_forgotten_after_a_write_of_unknown_end() {
    for injected in [Injected::UnknownNotDone, Injected::UnknownDone] {
        let inner = MemoryStore::default();
        let (mut lineage, _) = claim(&inner, "a");
        lineage.commit(&base("b10"), position(10)).unwrap();
        lineage.commit(&base("b40"), position(40)).unwrap();
        inner.objects().remove(&keys::file(&task(), FileKind::Base, 1, 2));
        // Claimed by reading and swapping the manifest, and loaded by two reads; then put, read back, and the swap.
        let (calls, late) = (Mutex::new(0), Mutex::new(None));
        let faulty = Faulty { inner: &inner, injected, fail_at: 7, crash: false, calls, late };
        let (mut lineage, restored) = claim(&faulty, "b");
        assert_eq!(texts(&restored.unwrap()), ["b10"]);
        let first = lineage.commit(&base("b20"), position(20));
        assert_eq!(first.is_ok(), injected == Injected::UnknownDone, "{first:?}");
        lineage.commit(&delta("d30"), position(30)).unwrap();
        let restored = claim(&inner, "c").1.unwrap();
        assert_eq!(*texts(&restored).last().unwrap(), "d30");
        assert_eq!(restored.damaged, vec![]);
    }
}

#[test]
fn a_store_that_does_not_answer_is_not_a_store_without_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::open(&folder.path().join("store")).unwrap();
    std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    assert!(matches!(Lineage::claim(&store, &task(), &claimant("a")).err(), Some(LineageError::Store(_))));
    assert!(matches!(read_manifest(&store, &task()), Err(LineageError::Store(_))));
}
