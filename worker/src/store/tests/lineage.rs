//! What happens to a task's checkpoints, in every store. Each case makes as many stores as it needs.

use super::*;

pub(in crate::store) type New<'a> = &'a dyn Fn() -> Box<dyn Store>;

macro_rules! cases {
    ($($name:ident,)+) => {
        /// For tests of other stores.
        pub(in crate::store) const CASES: &[(&str, fn(New<'_>))] = &[$((stringify!($name), $name),)+];

        mod in_memory_and_folders {
            use super::*;

            $(#[test]
            fn $name() {
                super::$name(&|| Box::new(MemoryStore::default()));
                let folder = tempfile::tempdir().unwrap();
                let number = std::cell::Cell::new(0);
                super::$name(&|| {
                    number.set(number.get() + 1);
                    Box::new(FolderStore::open(&folder.path().join(number.get().to_string())).unwrap())
                });
            })+
        }
    };
}

cases! {
    checkpoints_come_back_and_epochs_rise,
    many_or_long_deltas_ask_for_a_base,
    a_stale_owner_is_fenced,
    only_the_same_pipeline_and_engine_go_on,
    a_damaged_checkpoint_falls_back_and_is_named,
    nothing_usable_is_an_error_and_not_a_new_beginning,
    inspection_lists_all_tasks,
}

/// Another content under a key, or none.
fn damage(store: &dyn Store, key: &str, change: impl Fn(&mut Vec<u8>) -> bool) {
    let mut bytes = store.get(key).unwrap().unwrap().bytes;
    store.delete(key).unwrap();
    if change(&mut bytes) {
        version(store.put(key, &bytes));
    }
}

fn checkpoints_come_back_and_epochs_rise(new: New<'_>) {
    let store = &*new();
    let (mut lineage, restored) = claim(store, "a");
    assert_eq!((lineage.epoch(), restored, lineage.trimmable_offset()), (1, None, 0));
    assert!(lineage.wants_base());
    assert!(matches!(lineage.commit(&delta("d"), position(5)), Err(LineageError::Invalid { .. })));
    lineage.commit(&base("b10"), position(10)).unwrap();
    assert!(!lineage.wants_base());
    lineage.commit(&delta("d20"), position(20)).unwrap();
    assert!(
        matches!(lineage.commit(&delta("d19"), position(19)), Err(LineageError::Invalid { .. })),
        "offsets never fall"
    );
    let (mut lineage, restored) = claim(store, "b");
    let restored = restored.unwrap();
    assert_eq!(texts(&restored), ["b10", "d20"]);
    assert_eq!((restored.checkpoint.position, restored.checkpoint.epoch, restored.damaged), (position(20), 1, vec![]));
    assert_eq!((lineage.epoch(), lineage.trimmable_offset()), (2, 0), "the log is kept as long as checkpoints are");
    lineage.collect_garbage(i64::MAX, 0).unwrap();
    assert_eq!(lineage.trimmable_offset(), 9, "what the oldest checkpoint that is kept needs stays");
    assert_eq!(claim(store, "c").0.epoch(), 3);
}

fn many_or_long_deltas_ask_for_a_base(new: New<'_>) {
    let store = &*new();
    let (mut lineage, _) = claim(store, "a");
    lineage.commit(&base("0123456789"), position(1)).unwrap();
    lineage.commit(&delta("0123456789"), position(2)).unwrap();
    assert!(!lineage.wants_base());
    lineage.commit(&delta("0"), position(3)).unwrap();
    assert!(lineage.wants_base(), "deltas are longer than the base");
    lineage.commit(&base("0123456789"), position(4)).unwrap();
    for i in 0..8 {
        assert!(!lineage.wants_base(), "{i}");
        lineage.commit(&delta("0"), position(5 + i)).unwrap();
    }
    assert!(lineage.wants_base(), "eight deltas");
}

fn a_stale_owner_is_fenced(new: New<'_>) {
    let store = &*new();
    let (mut stale, _) = claim(store, "a");
    stale.commit(&base("b10"), position(10)).unwrap();
    let (mut owner, _) = claim(store, "b");
    let fenced = || Err(LineageError::Fenced { task: task(), owner: "b".to_owned(), epoch: 2 });
    assert_eq!(stale.commit(&delta("stale"), position(20)), fenced());
    owner.commit(&delta("d15"), position(15)).unwrap();
    assert_eq!(stale.commit(&delta("stale"), position(30)), fenced());
    assert_eq!(stale.collect_garbage(1 << 40, 0).map(|_| ()), fenced());
    assert_eq!(texts(&claim(store, "c").1.unwrap()), ["b10", "d15"]);
}

fn only_the_same_pipeline_and_engine_go_on(new: New<'_>) {
    let store = &*new();
    let (mut lineage, _) = claim(store, "a");
    lineage.commit(&base("b"), position(1)).unwrap();
    let other = Claimant { pipeline: "p2".to_owned(), ..claimant("b") };
    let refused = Lineage::claim(store, &task(), &other).err();
    assert!(matches!(refused, Some(LineageError::OtherPipeline { .. })), "{refused:?}");
    let newer = Claimant { engine_version: 2, ..claimant("b") };
    let refused = Lineage::claim(store, &task(), &newer).err();
    assert_eq!(refused, Some(LineageError::EngineVersion { task: task(), found: 1, ours: 2 }));
    lineage.release(&delta("d"), position(2)).unwrap();
    assert_eq!(texts(&Lineage::claim(store, &task(), &newer).unwrap().1.unwrap()), ["b", "d"]);
    let refused = Lineage::claim(store, &task(), &claimant("c")).err();
    assert!(matches!(refused, Some(LineageError::EngineVersion { .. })), "going back needs a release as well");
    Lineage::claim(store, &task(), &newer).unwrap();
    let back = |rolled_back| {
        let epoch = Epoch::Given { epoch: 9, rolled_back };
        run(store, Claim::start(&task(), &claimant("d"), epoch))
    };
    assert!(matches!(back(false), Err(LineageError::EngineVersion { .. })));
    assert_eq!(back(true).unwrap().epoch(), 9, "but a rollout can be taken back");
}

fn a_damaged_checkpoint_falls_back_and_is_named(new: New<'_>) {
    type Damage = fn(&mut Vec<u8>) -> bool;
    let changes: [(&str, Damage); 3] = [
        ("missing", |_| false),
        ("digest", |bytes| {
            bytes[0] ^= 1;
            true
        }),
        ("bytes", |bytes| {
            bytes.truncate(1);
            true
        }),
    ];
    let key = |kind, number| keys::file(&task(), kind, 1, number);
    let cases = [
        (key(FileKind::Delta, 4), vec!["b30"]),
        (key(FileKind::Base, 3), vec!["b10", "d20"]),
        (key(FileKind::Base, 1), vec!["b30", "d40"]),
    ];
    for (what, change) in changes {
        for (key, expected) in &cases {
            let store = &*new();
            let (mut lineage, _) = claim(store, "a");
            lineage.commit(&base("b10"), position(10)).unwrap();
            lineage.commit(&delta("d20"), position(20)).unwrap();
            lineage.commit(&base("b30"), position(30)).unwrap();
            lineage.commit(&delta("d40"), position(40)).unwrap();
            damage(store, key, change);
            let problems = inspect::verify(store).unwrap();
            assert!(problems.len() == 1 && problems[0].key == *key && problems[0].what.contains(what), "{problems:?}");
            let (mut next, restored) = claim(store, "b");
            let restored = restored.unwrap();
            assert_eq!(texts(&restored), *expected);
            let named: Vec<_> = restored.damaged.iter().map(|p| &p.key).collect();
            assert_eq!(named, if expected.len() == 2 && expected[0] == "b30" { vec![] } else { vec![key] });
            // It goes on from there, and what is damaged is forgotten.
            next.commit(&delta("d41"), position(41)).unwrap();
            assert_eq!(claim(store, "c").1.unwrap().deltas.last().unwrap(), b"d41");
        }
    }
}

fn nothing_usable_is_an_error_and_not_a_new_beginning(new: New<'_>) {
    let store = &*new();
    let (mut lineage, _) = claim(store, "a");
    lineage.commit(&base("b10"), position(10)).unwrap();
    let key = keys::file(&task(), FileKind::Base, 1, 1);
    damage(store, &key, |_| false);
    let error = Lineage::claim(store, &task(), &claimant("b")).err();
    let damaged = vec![Problem { key, what: "it is missing".to_owned() }];
    assert_eq!(error, Some(LineageError::AllDamaged { task: task(), damaged }));
}

fn inspection_lists_all_tasks(new: New<'_>) {
    let store = &*new();
    assert_eq!(inspect::list(store), Ok(vec![]));
    let (mut lineage, _) = claim(store, "a");
    lineage.commit(&base("b10"), position(10)).unwrap();
    let other = TaskId::new(TaskKind::Ingest, "events/0");
    Lineage::claim(store, &other, &claimant("a")).unwrap();
    let orphan = TaskId::new(TaskKind::Profile, "3");
    version(store.put(&keys::file(&orphan, FileKind::Base, 1, 1), b"12345"));
    let listed = inspect::list(store).unwrap();
    let tasks: Vec<_> = listed.iter().map(|t| (t.task.clone(), t.manifest.is_ok())).collect();
    assert_eq!(tasks, [(other, true), (orphan.clone(), false), (task(), true)]);
    assert_eq!(listed[1].stored_bytes, 5);
    assert_eq!(inspect::verify(store).unwrap()[0].key, keys::manifest(&orphan));
    assert_eq!(listed[2].manifest.as_ref().unwrap().checkpoints[0].position, position(10));
}
