//! One suite for every store; the lineage under stores that fail; damaged files.

use std::sync::Mutex;

use proptest::prelude::*;

use super::check::{Effort, check};
use super::checkpoint::{self, Claim, Claimant, Epoch, LineageError, Owner, Problem, Restored, State, read_manifest};
use super::folder::FolderStore;
use super::keys::{self, FileKind, TaskId, TaskKind};
use super::manifest::{Checkpoint, FileRef, Manifest, Position};
use super::memory::MemoryStore;
use super::sealed::Unsealed;
use super::*;

pub(super) mod faults;
pub(super) mod lineage;

fn task() -> TaskId {
    TaskId::new(TaskKind::Model, "ctr")
}

fn claimant(owner: &str) -> Claimant {
    Claimant { pipeline: "p1".to_owned(), owner: owner.to_owned(), engine_version: 1 }
}

fn position(log_offset: u64) -> Position {
    let written_at_unix_ms = log_offset as i64 * 1_000;
    Position { log_offset, frame_checksum: log_offset * 3, generation: 1, spec_digest: 7, written_at_unix_ms }
}

fn base(text: &str) -> State {
    State::Base(text.as_bytes().to_vec().into())
}

fn delta(text: &str) -> State {
    State::Delta(text.as_bytes().to_vec().into())
}

/// An owner with its store.
struct Lineage<'s> {
    store: &'s dyn Store,
    /// None only while it is at work.
    owner: Option<Owner>,
}

impl<'s> Lineage<'s> {
    fn claim(
        store: &'s dyn Store,
        task: &TaskId,
        claimant: &Claimant,
    ) -> Result<(Self, Option<Restored>), LineageError> {
        let (owner, restored) = checkpoint::claim(store, task, claimant)?;
        Ok((Self { store, owner: Some(owner) }, restored))
    }

    fn run<P, T>(&mut self, procedure: impl FnOnce(Owner) -> Next<P>) -> Result<T, LineageError>
    where
        P: Procedure<Output = (Owner, Result<T, LineageError>)>,
    {
        let (owner, result) = run(self.store, procedure(self.owner.take().unwrap()));
        self.owner = Some(owner);
        result
    }

    fn commit(&mut self, state: &State, position: Position) -> Result<(), LineageError> {
        self.run(|owner| owner.save(state.clone(), position))
    }

    fn release(&mut self, state: &State, position: Position) -> Result<(), LineageError> {
        self.run(|owner| owner.release(state.clone(), position))
    }

    fn collect_garbage(&mut self, now_unix_ms: i64, retain_ms: i64) -> Result<usize, LineageError> {
        self.run(|owner| owner.collect(now_unix_ms, retain_ms))
    }
}

impl std::ops::Deref for Lineage<'_> {
    type Target = Owner;

    fn deref(&self) -> &Owner {
        self.owner.as_ref().unwrap()
    }
}

fn claim<'s>(store: &'s dyn Store, owner: &str) -> (Lineage<'s>, Option<Restored>) {
    Lineage::claim(store, &task(), &claimant(owner)).unwrap()
}

/// What is restored, as the texts of the files.
fn texts(restored: &Restored) -> Vec<String> {
    let files = std::iter::once(&restored.base).chain(&restored.deltas);
    files.map(|bytes| String::from_utf8(bytes.clone()).unwrap()).collect()
}

fn version(outcome: Outcome) -> Version {
    match outcome {
        Outcome::Done(version) => version,
        other => panic!("{other:?}"),
    }
}

#[test]
fn stores_keep_their_promises() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [&dyn Store; 2] = [&MemoryStore::default(), &FolderStore::open(folder.path()).unwrap()];
    for store in stores {
        let effort = Effort { updates: 80, large_bytes: 1 << 20, ..Effort::default() };
        let report = check(&[store; 4], "1", &effort);
        assert!(!report.is_broken() && report.failed.is_none() && report.left.is_none(), "{report:?}");
        assert_eq!(store.list(""), Ok(vec![]));
    }
}

#[test]
fn a_folder_store_keeps_to_its_folder_and_tidies_up() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = FolderStore::open(&root).unwrap();
    for key in ["", "/etc/x", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.tmp-1"] {
        assert!(matches!(store.put(key, b"x"), Outcome::Failed(_)), "{key}");
        assert!(store.get(key).is_err() && store.delete(key).is_err(), "{key}");
    }
    version(store.put("tasks/a", b"x"));
    std::fs::write(root.join("tasks/.tmp-1-1"), b"half").unwrap();
    assert_eq!(store.list("").unwrap().len(), 1, "half-written files are not objects");
    FolderStore::open(&root).unwrap();
    assert!(!root.join("tasks/.tmp-1-1").exists());
    std::fs::remove_dir_all(&root).unwrap();
    assert!(store.get("tasks/a").is_err(), "a store that is gone does not say that there is nothing");
    assert!(store.list("").is_err() && store.delete("tasks/a").is_err());
}

#[test]
fn every_flipped_bit_is_found() {
    let store = MemoryStore::default();
    let (mut lineage, _) = claim(&store, "a");
    lineage.commit(&base("the base"), position(10)).unwrap();
    lineage.commit(&delta("a delta"), position(20)).unwrap();
    assert_eq!(inspect::verify(&store), Ok(vec![]));
    let whole = store.objects().clone();
    for (key, bytes) in &whole {
        for bit in 0..bytes.len() * 8 {
            store.objects().get_mut(key).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let problems = inspect::verify(&store).unwrap();
            assert!(problems.iter().any(|p| p.key == *key), "{key} bit {bit}: {problems:?}");
            store.objects().insert(key.clone(), bytes.clone());
        }
    }
    let error = {
        store.objects().get_mut(&keys::manifest(&task())).unwrap()[100] ^= 1;
        Lineage::claim(&store, &task(), &claimant("b")).err()
    };
    assert!(matches!(&error, Some(LineageError::Manifest { key, .. }) if *key == keys::manifest(&task())), "{error:?}");
}

fn golden() -> Manifest {
    let file = |key: &str, kind, bytes: &[u8]| FileRef::of(format!("tasks/model/ctr/{key}"), kind, Digest::of(bytes));
    let files = vec![
        file("base-0000000002-0000000001", FileKind::Base, b"base"),
        file("delta-0000000002-0000000002", FileKind::Delta, b"delta"),
    ];
    Manifest {
        format_version: 1,
        pipeline: "p1".to_owned(),
        task: task(),
        epoch: 2,
        owner: "host-1".to_owned(),
        engine_version: 1,
        released: true,
        write_token: "host-1/2/2".to_owned(),
        checkpoints: vec![Checkpoint { epoch: 2, position: position(20), engine_version: 1, files }],
    }
}

const GOLDEN: &str = concat!(
    r#"{"checksum":"7eee2163264ac8e0","#,
    r#""content":{"formatVersion":1,"pipeline":"p1","task":{"kind":"model","name":"ctr"},"#,
    r#""epoch":2,"owner":"host-1","engineVersion":1,"released":true,"writeToken":"host-1/2/2","#,
    r#""checkpoints":[{"epoch":2,"logOffset":20,"frameChecksum":"000000000000003c","#,
    r#""generation":1,"specDigest":"0000000000000007","writtenAtUnixMs":20000,"engineVersion":1,"#,
    r#""files":[{"key":"tasks/model/ctr/base-0000000002-0000000001","kind":"base","sizeBytes":4,"digest":"83629ab85e092fcd"},"#,
    r#"{"key":"tasks/model/ctr/delta-0000000002-0000000002","kind":"delta","sizeBytes":5,"digest":"2ad8eef499e131d0"}]}]}}"#,
    "\n"
);

#[test]
fn golden_manifest_version_1() {
    assert_eq!(String::from_utf8(golden().encode().unwrap()).unwrap(), GOLDEN);
    assert_eq!(Manifest::decode(GOLDEN.as_bytes()), Ok(golden()));
}

#[test]
fn a_newer_manifest_is_refused_as_such() {
    let newer = Manifest { format_version: 2, ..golden() }.encode().unwrap();
    assert_eq!(Manifest::decode(&newer), Err(Unsealed::Newer { found: 2, known: 1 }));
}

proptest! {
    #[test]
    fn manifests_of_any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..900) {
        let _ = Manifest::decode(&bytes);
        let mut tampered = golden().encode().unwrap();
        let at = at % tampered.len();
        tampered.splice(at..at, bytes.clone());
        prop_assert_eq!(Manifest::decode(&tampered).is_ok(), bytes.is_empty());
    }

    /// Any history of commits and collections: what manifests name is there, the newest state comes back, and the
    /// manifest stays short.
    #[test]
    fn garbage_collection_keeps_what_is_named(steps in proptest::collection::vec((0..6u8, 1..5u64), 1..60), retain in 0..40i64) {
        let store = MemoryStore::default();
        let (mut lineage, _) = claim(&store, "a");
        let (mut at, mut expected, mut bases) = (1, Vec::new(), Vec::new());
        for (step, advance) in steps {
            at += advance;
            match step {
                0 => {
                    expected = vec![format!("b{at}")];
                    bases.push(at);
                    lineage.commit(&base(&expected[0]), position(at)).unwrap();
                }
                1..=3 if !expected.is_empty() => {
                    expected.push(format!("d{at}"));
                    lineage.commit(&delta(&expected[expected.len() - 1]), position(at)).unwrap();
                }
                4 => {
                    // What a commit that was cut off leaves.
                    version(store.put(&keys::file(&task(), FileKind::Delta, 0, at), b"orphan"));
                }
                _ => {
                    lineage.collect_garbage(at as i64 * 1_000, retain * 1_000).unwrap();
                    let manifest = lineage.manifest();
                    prop_assert_eq!(store.list("tasks/").unwrap().len(), manifest.files().len() + 1, "nothing else is left");
                    let young = bases.iter().filter(|b| at as i64 - **b as i64 <= retain).count();
                    prop_assert!(manifest.checkpoints.len() <= young + 3);
                    let kept = |b: &u64| manifest.checkpoints.iter().any(|c| c.position.log_offset == *b);
                    prop_assert!(bases.iter().filter(|b| at as i64 - **b as i64 <= retain).all(kept));
                }
            }
            prop_assert_eq!(inspect::verify(&store), Ok(vec![]));
            prop_assert!(lineage.newest().is_none_or(|c| lineage.trimmable_offset() < c.position.log_offset));
        }
        let restored = claim(&store, "b").1;
        prop_assert_eq!(restored.map(|r| texts(&r)).unwrap_or_default(), expected);
    }
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Injected {
    /// Not done, and it says so.
    Failed,
    /// A write is done, but the answer is lost.
    UnknownDone,
    /// A write is not done, and the answer is lost.
    UnknownNotDone,
    /// A write is done only after the next call, which finds nothing of it yet.
    Late,
}

/// From which call on it is done, key, expected version, bytes.
type LateWrite = (usize, String, Option<Version>, Vec<u8>);
