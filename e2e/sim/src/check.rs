//! What must never happen, looked at whenever a manifest is written; and what must be once all is healed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace::{
    host::{
        make::{Maker, initial_origins},
        task::{Stepped, Task},
    },
    log::Log,
    store::{
        Store,
        checkpoint::{LineageError, Restored},
        run,
    },
};
use millrace_engine::frame::{
    Kind,
    outbox::{Handle, Outbox},
};
use millrace_lifecycle::{
    keys::{TaskId, TaskKind},
    lineage::Load,
    manifest::{FileRef, Manifest},
};

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    pub what: String,
}

/// The names of the checks.
pub const MANIFESTS_RISE: &str = "manifests rise";
pub const FILES_ARE_THERE: &str = "all that a manifest names is there";
pub const STATE_IS_THE_FOLD: &str = "a checkpoint is the fold of its log";
pub const NOTHING_STOPS: &str = "no task is stopped by what it reads";
pub const IT_HEALS: &str = "once healed, all is owned and read to its end";
pub const SAME_AS_UNDISTURBED: &str = "results are those of an undisturbed run";

/// A task that nothing happens to: it applies its log record by record.
struct Reference {
    task: Task,
    outbox: Outbox,
    handle: Handle,
    /// By offset: whoever falls back comes by again.
    digests: BTreeMap<u64, u128>,
}

/// What is known of the manifests of a world.
pub struct Checks<'g> {
    maker: Maker<'g>,
    log: Arc<dyn Log>,
    newest: BTreeMap<TaskId, (u64, u64)>,
    references: BTreeMap<TaskId, Reference>,
    /// Files that were damaged, or taken away.
    damaged: BTreeSet<String>,
    /// Tasks whose newest checkpoint is not whole.
    fallen: BTreeSet<TaskId>,
    pub checkpoints: u64,
}

fn violation(check: &'static str, what: String) -> Violation {
    Violation { check, what }
}

impl<'g> Checks<'g> {
    pub fn new(maker: Maker<'g>, log: Arc<dyn Log>) -> Self {
        Self {
            maker,
            log,
            newest: BTreeMap::new(),
            references: BTreeMap::new(),
            damaged: BTreeSet::new(),
            fallen: BTreeSet::new(),
            checkpoints: 0,
        }
    }

    /// A manifest has been written.
    pub fn manifest(&mut self, manifest: &Manifest, store: &dyn Store) -> Result<(), Violation> {
        let task = &manifest.task;
        let offset = manifest.checkpoints.first().map_or(0, |newest| newest.position.log_offset);
        let (epoch_before, offset_before) = self.newest.get(task).copied().unwrap_or_default();
        // Whoever found the newest checkpoint damaged goes back to the one before it.
        let may_fall = self.fallen.remove(task);
        if manifest.epoch < epoch_before || (offset < offset_before && !may_fall) {
            let now = (manifest.epoch, offset);
            return Err(violation(
                MANIFESTS_RISE,
                format!("{task}: (epoch, offset) {now:?} after {:?}", (epoch_before, offset_before)),
            ));
        }
        self.newest.insert(task.clone(), (manifest.epoch, offset));
        for file in manifest.files().into_iter().filter(|file| !self.damaged.contains(&file.key)) {
            let found = store.get(&file.key).ok().flatten();
            if let Err(what) = file.check_found(found) {
                return Err(violation(FILES_ARE_THERE, format!("{task}, {}: {what}", file.key)));
            }
        }
        let newest_is_whole = manifest.checkpoints.first().is_some_and(|newest| self.is_whole(&newest.files));
        if !newest_is_whole {
            self.fallen.insert(task.clone());
        } else if offset != offset_before {
            self.checkpoints += 1;
            self.compare(manifest, store)?;
        }
        Ok(())
    }

    fn compare(&mut self, manifest: &Manifest, store: &dyn Store) -> Result<(), Violation> {
        let task = &manifest.task;
        if task.kind == TaskKind::Ingest {
            return Ok(());
        }
        let wrong = |what: String| violation(STATE_IS_THE_FOLD, format!("{task}: {what}"));
        let loaded: Result<Option<Restored>, LineageError> =
            run(store, Load::start(task, manifest.checkpoints.iter().take(1).cloned()));
        let restored = loaded.map_err(|error| wrong(error.to_string()))?;
        let offset = restored.as_ref().map_or(0, |r| r.checkpoint.position.log_offset);
        let mut kept = self.maker.make(task, restored.as_ref()).map_err(|error| wrong(error.to_string()))?.task;
        let expected = self.fold(task, offset)?;
        let found = digest(&mut kept);
        if found != expected {
            return Err(wrong(format!("at offset {offset} the digest is {found:032x}, the fold's is {expected:032x}")));
        }
        Ok(())
    }

    /// May a file be damaged, so that a checkpoint is left from which the task can go on?
    pub fn may_damage(&mut self, task: &TaskId, key: &str, store: &dyn Store) -> bool {
        let found = store.get(&millrace_lifecycle::keys::manifest(task)).ok().flatten();
        let Some(manifest) = found.and_then(|found| Manifest::decode(&found.bytes).ok()) else { return false };
        self.damaged.insert(key.to_owned());
        let may = manifest.checkpoints.iter().any(|checkpoint| self.is_whole(&checkpoint.files));
        if !may {
            self.damaged.remove(key);
        } else if manifest.checkpoints.first().is_some_and(|newest| !self.is_whole(&newest.files)) {
            self.fallen.insert(task.clone());
        }
        may
    }

    fn is_whole(&self, files: &[FileRef]) -> bool {
        files.iter().all(|file| !self.damaged.contains(&file.key))
    }

    /// The digest of an undisturbed task that has applied everything below `offset`.
    pub fn fold(&mut self, task: &TaskId, offset: u64) -> Result<u128, Violation> {
        let stopped = |what: String| violation(STATE_IS_THE_FOLD, format!("{task}, the fold: {what}"));
        if !self.references.contains_key(task) {
            let made = self.maker.make(task, None).map_err(|error| stopped(error.to_string()))?;
            let kinds = vec![Kind::Examples; made.outputs.len()];
            let mut outbox = Outbox::new(1, &kinds);
            let all: Vec<usize> = (0..kinds.len()).collect();
            let handle = outbox.register(made.origin.unwrap_or_default(), 1, made.from, &all);
            self.references
                .insert(task.clone(), Reference { task: made.task, outbox, handle, digests: BTreeMap::new() });
        }
        let Some(Reference { task: fold, outbox, handle, digests }) = self.references.get_mut(task) else {
            return Err(stopped("it is gone".to_owned()));
        };
        while fold.position().0 < offset || !fold.is_clean() {
            // One record at a time, so that it stops at the offset.
            let stepped = fold.step(self.log.as_ref(), outbox, handle, usize::MAX, Default::default());
            if stepped.map_err(|error| stopped(error.to_string()))? == Stepped::Idle {
                return Err(stopped(format!("the log ends at {}, before {offset}", fold.position().0)));
            }
            for output in 0..outbox_outputs(fold) {
                outbox.cut(output);
            }
            if fold.is_clean() {
                digests.insert(fold.position().0, digest(fold));
            }
        }
        Ok(digests.get(&offset).copied().unwrap_or_else(|| digest(fold)))
    }

    pub fn tasks(&self) -> Vec<TaskId> {
        self.maker.tasks()
    }

    pub fn origins(&self) -> usize {
        initial_origins(self.maker.partitions).len()
    }
}

fn outbox_outputs(task: &Task) -> usize {
    match task {
        Task::Profile(profile, ..) => profile.plan().models.len() + 1,
        Task::Ingest(..) | Task::Model(..) => 0,
    }
}

pub fn digest(task: &mut Task) -> u128 {
    match task {
        Task::Profile(profile, ..) => profile.digest(),
        Task::Model(model, ..) => model.digest(),
        Task::Ingest(..) => 0,
    }
}
