//! What must never happen, looked at whenever a manifest is written; and what must be once all is healed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace::{
    host::{
        HostError,
        ingest::{Saved, Shared},
        make::{Maker, ingest_task, rewire, tasks_of},
        task::{Stepped, Task},
    },
    log::{Log, LogPartition},
    store::{Store, checkpoint::Restored, run},
};
use millrace_engine::{
    frame::{
        Kind, Origin,
        outbox::{Handle, Outbox},
    },
    ingest::generations::Switch,
    plan::FIRST_GENERATION,
};
use millrace_lifecycle::{
    keys::{self, Named, TaskId, TaskKind},
    lineage::{LineageError, Load},
    manifest::{Checkpoint, FileRef, Manifest},
    store::Op,
};

use crate::{
    ground::Ground,
    ledger::{Ledger, Process},
    node::maker,
    source,
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
pub const AN_EPOCH_HAS_ONE_OWNER: &str = "an epoch has one owner";
pub const ONLY_OWNERS_TELL: &str = "only who claimed a task tells its effects";
pub const WHO_LOST_A_TASK_STOPS: &str = "who has read that a task is another's tells nothing more";
pub const A_SEQUENCE_IS_ONE_RECORD: &str = "a sequence is one record";
pub const COVERED_BEFORE_SAVED: &str = "effects and coverage are in the log before a manifest";
pub const A_LOST_FRAME_IS_NOTICED: &str = "a lost frame is noticed";
pub const NAMED_FILES_STAY: &str = "what a manifest names is not deleted";
pub const THE_LOG_REACHES_BACK: &str = "the log reaches back to every retained checkpoint";
pub const READ_AGAIN: &str = "after an unknown end the manifest is read again";
pub const VERSIONS_MEET_BY_RELEASE: &str = "another engine version takes over only what was released";
pub const ERASED_IS_GONE: &str = "no checkpoint holds who was erased";
pub const COVERED_IS_TOLD: &str = "what is covered gets no more records";
pub const READ_UNDER_ONE_GENERATION: &str = "a source's record is read once, under one generation";
pub const NO_EXAMPLE_IS_LATE: &str = "no example comes behind what its model has learned";
pub const EXAMPLES_ARE_THE_ORACLES: &str = "examples are those of the oracle";

/// A task that nothing happens to: it applies its log record by record.
struct Reference {
    task: Task,
    origin: Origin,
    outputs: Vec<LogPartition>,
    outbox: Outbox,
    handle: Handle,
    /// By offset: whoever falls back comes by again.
    digests: BTreeMap<u64, u128>,
}

/// What is known of the manifests of a world.
pub struct Checks<'g> {
    ground: &'g Ground,
    /// By generation.
    makers: Vec<Maker<'g>>,
    /// Of the pipeline as it is by now.
    pub generation: u32,
    /// What checkpoints say of the source that is a file.
    switches: Vec<Switch>,
    log: Arc<dyn Log>,
    newest: BTreeMap<TaskId, (u64, u64)>,
    /// As it was written last.
    manifests: BTreeMap<TaskId, Manifest>,
    /// At which offset a base was first named by a newest checkpoint.
    bases: BTreeMap<String, u64>,
    /// Who does not know how its save under an epoch ended.
    in_doubt: BTreeSet<(Process, TaskId, u64)>,
    pub ledger: Ledger,
    references: BTreeMap<TaskId, Reference>,
    /// Files that were damaged, or taken away.
    damaged: BTreeSet<String>,
    /// Tasks whose newest checkpoint is not whole.
    fallen: BTreeSet<TaskId>,
    pub checkpoints: u64,
}

pub fn violation(check: &'static str, what: String) -> Violation {
    Violation { check, what }
}

impl<'g> Checks<'g> {
    pub fn new(ground: &'g Ground, log: Arc<dyn Log>) -> Self {
        let shared = Shared::new(&ground.partitions, None);
        let of = |generation| maker(ground, generation, log.clone(), shared.clone());
        Self {
            ground,
            makers: (FIRST_GENERATION..=ground.newest()).map(of).collect(),
            generation: FIRST_GENERATION,
            switches: Vec::new(),
            log,
            newest: BTreeMap::new(),
            manifests: BTreeMap::new(),
            bases: BTreeMap::new(),
            in_doubt: BTreeSet::new(),
            ledger: Ledger::new(ground),
            references: BTreeMap::new(),
            damaged: BTreeSet::new(),
            fallen: BTreeSet::new(),
            checkpoints: 0,
        }
    }

    /// A manifest has been written.
    pub fn manifest(&mut self, manifest: &Manifest, store: &dyn Store) -> Result<(), Violation> {
        self.owned_in_order(manifest)?;
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
            // The log may be trimmed up to here, and the fold has to have read it before.
            if task.kind != TaskKind::Ingest {
                self.fold(task, offset)?;
            }
        } else if offset != offset_before {
            self.checkpoints += 1;
            self.ledger.saved(task, offset, manifest.checkpoints.first().map_or(1, |c| c.position.generation))?;
            planted::reference(|| self.compare(manifest, store))?;
        }
        if newest_is_whole && task.kind == TaskKind::Ingest {
            self.switched(manifest, store)?;
        }
        self.erased(manifest, store)
    }

    /// From where on records of the file are read under which generation, as the newest checkpoint says.
    fn switched(&mut self, manifest: &Manifest, store: &dyn Store) -> Result<(), Violation> {
        let wrong = |what: String| violation(READ_UNDER_ONE_GENERATION, format!("{}: {what}", manifest.task));
        let file = self.ground.file().map(|(source, _)| source);
        let name = file.map(|source| self.ground.pipeline().spec().sources[source].name.clone());
        if name.is_none_or(|name| ingest_task(&name, 0) != manifest.task) {
            return Ok(());
        }
        let newest = manifest.checkpoints.iter().take(1).cloned();
        let loaded = run(store, Load::start(&manifest.task, newest)).map_err(|error| wrong(error.to_string()))?;
        let Some(Restored { base, checkpoint, .. }) = loaded else { return Ok(()) };
        let saved = Saved::restore(&base, checkpoint.position.generation).map_err(|error| wrong(error.to_string()))?;
        source::note(&mut self.switches, saved.generations().switches());
        Ok(())
    }

    /// What was told of the file is what one reader of it tells, under the generations that checkpoints name.
    pub fn sources(&self) -> Result<(), Violation> {
        planted::reference(|| source::compare(self.ground, &self.ledger, &self.switches))
    }

    /// Of the newest generation, up to now, that has the task.
    fn maker_of(&self, task: &TaskId) -> &Maker<'g> {
        let made = &self.makers[..(self.generation - FIRST_GENERATION) as usize + 1];
        made.iter()
            .rev()
            .find(|maker| tasks_of(maker.pipeline, maker.partitions).contains(task))
            .unwrap_or(&self.makers[0])
    }

    fn owned_in_order(&mut self, manifest: &Manifest) -> Result<(), Violation> {
        self.ledger.owned(manifest)?;
        let Some(before) = self.manifests.insert(manifest.task.clone(), manifest.clone()) else { return Ok(()) };
        if !before.released && before.engine_version != manifest.engine_version {
            let (found, ours) = (before.engine_version, manifest.engine_version);
            let what = format!("{}: version {ours} took over what {found} had not released", manifest.task);
            return Err(violation(VERSIONS_MEET_BY_RELEASE, what));
        }
        Ok(())
    }

    /// The newest checkpoint lies behind an erasure: its base is of afterwards, or never held the user.
    fn erased(&mut self, manifest: &Manifest, store: &dyn Store) -> Result<(), Violation> {
        let Some(newest) = manifest.checkpoints.first().filter(|_| manifest.task.kind == TaskKind::Profile) else {
            return Ok(());
        };
        let offset = newest.position.log_offset;
        let since = *self.bases.entry(newest.base_key().to_owned()).or_insert(offset);
        let of_task = |partition: u32| manifest.task.name == partition.to_string();
        let gone = |at: u64| at < offset && since <= at;
        for (_, at, erase) in self.ledger.erased.iter().filter(|(p, at, _)| of_task(*p) && gone(*at)) {
            let base = store.get(newest.base_key()).ok().flatten().map(|found| found.bytes).unwrap_or_default();
            if base.windows(16).any(|bytes| bytes == erase.user.0.to_le_bytes()) {
                let what = format!("{}: a base of offset {since} holds who was erased at {at}", manifest.task);
                return Err(violation(ERASED_IS_GONE, what));
            }
        }
        Ok(())
    }

    /// A process asks this of the store, and may never know how it ends.
    pub fn asked(&mut self, process: &Process, op: &Op, is_unknown: bool) -> Result<(), Violation> {
        let named = keys::parse(op.key());
        match (op, named) {
            (Op::Delete { key }, Some(Named::File { task, .. })) => {
                let names = |manifest: &&Manifest| manifest.files().iter().any(|file| file.key == *key);
                match self.manifests.get(&task).filter(names) {
                    Some(_) => Err(violation(NAMED_FILES_STAY, format!("{process} deletes {key}"))),
                    None => Ok(()),
                }
            }
            (Op::Get { .. }, Some(Named::Manifest(task))) => {
                self.in_doubt.retain(|(who, of, _)| (who, of) != (process, &task));
                Ok(())
            }
            (Op::Put { .. }, Some(Named::File { task, epoch, .. })) => self.knows(process, task, epoch),
            (Op::Swap { bytes, .. }, Some(Named::Manifest(task))) => {
                let Ok(Manifest { epoch, write_token, .. }) = Manifest::decode(bytes) else { return Ok(()) };
                // Only a claim's token is the first of its epoch.
                let is_claim = write_token.ends_with("/0");
                self.knows(process, task.clone(), epoch)?;
                if is_unknown && !is_claim {
                    self.in_doubt.insert((process.clone(), task, epoch));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn knows(&self, process: &Process, task: TaskId, epoch: u64) -> Result<(), Violation> {
        match self.in_doubt.contains(&(process.clone(), task.clone(), epoch)) {
            true => Err(violation(READ_AGAIN, format!("{process} goes on writing to {task} without a look"))),
            false => Ok(()),
        }
    }

    /// Did somebody load from a manifest that another one has replaced since, whose files went then?
    pub fn is_overtaken(&self, error: &HostError) -> bool {
        let HostError::Lineage { cause: LineageError::AllDamaged { task, damaged }, .. } = error else { return false };
        let files = self.manifests.get(task).map(Manifest::files).unwrap_or_default();
        !files.iter().any(|file| damaged.iter().any(|problem| problem.key == file.key))
    }

    /// Above what stands there. Between versions none, if the claim could be granted: the owner would be of the wrong one.
    pub fn next_epoch(&self, task: &TaskId, engine_version: u32, is_mixed: bool) -> Option<u64> {
        let manifest = self.manifests.get(task)?;
        let is_refused = !manifest.released && manifest.engine_version != engine_version;
        (is_refused || !is_mixed).then_some(manifest.epoch + 1)
    }

    /// The log is trimmed.
    pub fn trimmed(&self, partition: &LogPartition, before: u64) -> Result<(), Violation> {
        let Some(manifest) = self.ledger.reader_of(partition).and_then(|task| self.manifests.get(&task)) else {
            return Ok(());
        };
        let oldest = manifest.checkpoints.iter().map(|c| c.position.log_offset).min().unwrap_or_default();
        // The record before the checkpoint stays as well: its checksum is compared.
        if before > oldest.saturating_sub(1) {
            let what = format!("{partition} is trimmed below {before}, and {} goes back to {oldest}", manifest.task);
            return Err(violation(THE_LOG_REACHES_BACK, what));
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
        let mut kept =
            self.maker_of(task).make(task, restored.as_ref()).map_err(|error| wrong(error.to_string()))?.task;
        let expected = self.fold(task, offset)?;
        let found = digest(&mut kept);
        if found != expected {
            return Err(wrong(format!("at offset {offset} the digest is {found:032x}, the fold's is {expected:032x}")));
        }
        Ok(())
    }

    /// May a file be damaged, so that a checkpoint is left from which the task can go on? Of those that always stay, the
    /// newest one and the newest of the chain before, one has to be whole; and one damage at a time is enough.
    pub fn may_damage(&mut self, task: &TaskId, key: &str, store: &dyn Store) -> bool {
        let found = store.get(&millrace_lifecycle::keys::manifest(task)).ok().flatten();
        let Some(manifest) = found.and_then(|found| Manifest::decode(&found.bytes).ok()) else { return false };
        let is_first = manifest.files().iter().all(|file| !self.damaged.contains(&file.key));
        self.damaged.insert(key.to_owned());
        let newest = manifest.checkpoints.first();
        let before = manifest.checkpoints.iter().find(|c| Some(c.base_key()) != newest.map(Checkpoint::base_key));
        let may = is_first && newest.into_iter().chain(before).any(|checkpoint| self.is_whole(&checkpoint.files));
        if !may {
            self.damaged.remove(key);
        } else if newest.is_some_and(|newest| !self.is_whole(&newest.files)) {
            self.fallen.insert(task.clone());
        }
        may
    }

    fn is_whole(&self, files: &[FileRef]) -> bool {
        files.iter().all(|file| !self.damaged.contains(&file.key))
    }

    /// The digest of an undisturbed task that has applied everything below `offset`.
    pub fn fold(&mut self, task: &TaskId, offset: u64) -> Result<u128, Violation> {
        planted::reference(|| self.folded(task, offset))
    }

    fn folded(&mut self, task: &TaskId, offset: u64) -> Result<u128, Violation> {
        let stopped = |what: String| violation(STATE_IS_THE_FOLD, format!("{task}, the fold: {what}"));
        if !self.references.contains_key(task) {
            let made = self.maker_of(task).make(task, None).map_err(|error| stopped(error.to_string()))?;
            let kinds = vec![Kind::Examples; made.outputs.len()];
            let mut outbox = Outbox::new(1, &kinds);
            let all: Vec<usize> = (0..kinds.len()).collect();
            let handle = outbox.register(made.origin.unwrap_or_default(), 1, made.from, &all);
            let (origin, digests) = (made.origin.unwrap_or_default(), BTreeMap::new());
            let reference = Reference { task: made.task, origin, outputs: made.outputs, outbox, handle, digests };
            self.references.insert(task.clone(), reference);
        }
        let Some(Reference { task: fold, origin, outputs, outbox, handle, digests }) = self.references.get_mut(task)
        else {
            return Err(stopped("it is gone".to_owned()));
        };
        while fold.position().0 < offset || !fold.is_clean() {
            // One record at a time, so that it stops at the offset.
            let stepped = fold.step(self.log.as_ref(), outbox, handle, usize::MAX, Default::default());
            match (stepped.map_err(|error| stopped(error.to_string()))?, &*fold) {
                (Stepped::Idle, _) => {
                    return Err(stopped(format!("the log ends at {}, before {offset}", fold.position().0)));
                }
                (Stepped::Reconfigured, Task::Profile(profile, ..)) => {
                    *handle = rewire(profile, handle, (*origin, 1), outputs, outbox);
                }
                _ => {}
            }
            if let Task::Model(model, ..) = &*fold
                && model.late() > 0
            {
                return Err(violation(NO_EXAMPLE_IS_LATE, format!("{task} at offset {}", fold.position().0)));
            }
            for output in 0..outputs.len() {
                outbox.cut(output);
            }
            if fold.is_clean() {
                digests.insert(fold.position().0, digest(fold));
            }
        }
        Ok(digests.get(&offset).copied().unwrap_or_else(|| digest(fold)))
    }

    /// Of the pipeline as it is by now.
    pub fn tasks(&self) -> Vec<TaskId> {
        let maker = &self.makers[(self.generation - FIRST_GENERATION) as usize];
        tasks_of(maker.pipeline, maker.partitions)
    }
}

pub fn digest(task: &mut Task) -> u128 {
    match task {
        Task::Profile(profile, ..) => profile.digest(),
        Task::Model(model, ..) => model.digest(),
        Task::Ingest(..) => 0,
    }
}
