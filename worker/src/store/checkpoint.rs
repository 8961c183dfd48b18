//! The lineage of one task's checkpoints: claim, commit, collect. Pure logic over [`Store`].
//!
//! Files are written first, read back and compared; then one manifest is replaced by compare-and-set. Who claims a task
//! raises its epoch, so a manifest with our epoch and owner was written by us, and any other means that somebody took
//! over. After a write whose end is unknown the manifest is read again before anything else is done.

use super::keys::{self, FileKind, Named, TaskId};
use super::manifest::{Checkpoint, FORMAT_VERSION, FileRef, Manifest, Position, Unsealed};
use super::{Outcome, Store, StoreError, Version};

/// More deltas than this ask for a base.
const MAX_DELTAS: usize = 8;

const MAX_CLAIM_ATTEMPTS: usize = 10;

/// Who claims a task, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The pipeline's identity.
    pub pipeline: String,
    /// Differs between any two processes that ever claim (a pod's UID; process id and start time).
    pub owner: String,
    pub engine_version: u32,
}

/// State for a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Base(Vec<u8>),
    /// What changed since the last commit.
    Delta(Vec<u8>),
}

/// The state that a claim found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub checkpoint: Checkpoint,
    pub base: Vec<u8>,
    /// To be applied in this order.
    pub deltas: Vec<Vec<u8>>,
    /// What made newer checkpoints unusable: say it loudly.
    pub damaged: Vec<Problem>,
}

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{key}: {what}")]
pub struct Problem {
    pub key: String,
    pub what: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    #[error("{0}; nothing is known about the checkpoint until the store answers: try again")]
    Store(#[from] StoreError),
    #[error("task {task} was taken over by {owner} with epoch {epoch}; this process must stop working on it")]
    Fenced { task: TaskId, owner: String, epoch: u64 },
    #[error("task {task} belongs to pipeline {found}, not {expected}; use that pipeline's folder, or another one")]
    OtherPipeline { task: TaskId, found: String, expected: String },
    #[error(
        "task {task} was not released by engine version {found}, so version {ours} may not go on with it; stop it \
         cleanly with the old program first"
    )]
    EngineVersion { task: TaskId, found: u32, ours: u32 },
    #[error("{key}: {cause}")]
    Manifest { key: String, cause: Unsealed },
    #[error(
        "no checkpoint of task {task} can be used: {}; restore the files from a copy, or start in an empty folder",
        join(.damaged)
    )]
    AllDamaged { task: TaskId, damaged: Vec<Problem> },
    #[error("the checkpoint of task {task} was refused: {what}; this is a bug")]
    Invalid { task: TaskId, what: String },
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// A claimed task.
pub struct Lineage<'s> {
    store: &'s dyn Store,
    task: TaskId,
    manifest: Manifest,
    version: Version,
    /// Files written under this epoch.
    files_written: u64,
    writes: u64,
    /// The last write may still have happened: the manifest has to be read before the next.
    in_doubt: bool,
    /// Offset of the newest checkpoint that was found to be older than `retain`.
    expired_offset: u64,
}

impl<'s> Lineage<'s> {
    /// Takes a task over: raises its epoch, which stops its former owner, then loads its newest usable checkpoint.
    /// `None`: it never had one.
    pub fn claim(
        store: &'s dyn Store,
        task: &TaskId,
        claimant: &Claimant,
    ) -> Result<(Self, Option<Restored>), LineageError> {
        for _ in 0..MAX_CLAIM_ATTEMPTS {
            if let Some((manifest, version)) = try_claim(store, task, claimant)? {
                let task = task.clone();
                let mut lineage = Self {
                    store,
                    task,
                    manifest,
                    version,
                    files_written: 0,
                    writes: 0,
                    in_doubt: false,
                    expired_offset: 0,
                };
                let restored = lineage.restore()?;
                return Ok((lineage, restored));
            }
        }
        Err(StoreError::new(&keys::manifest(task), "it changes all the time").into())
    }

    pub fn epoch(&self) -> u64 {
        self.manifest.epoch
    }

    /// What the store held when it was last read or written.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The newest checkpoint.
    pub fn newest(&self) -> Option<&Checkpoint> {
        self.manifest.checkpoints.first()
    }

    /// Whether the next commit should be a base: there is none, or its deltas are many, or longer than itself.
    pub fn wants_base(&self) -> bool {
        let Some([base, deltas @ ..]) = self.newest().map(|c| c.files.as_slice()) else { return true };
        deltas.len() >= MAX_DELTAS || deltas.iter().map(|d| d.size_bytes).sum::<u64>() > base.size_bytes
    }

    /// Records of the log below this may go: they are older than the `retain` of the last `collect_garbage`, and no
    /// checkpoint that is kept needs them. The last record that the oldest has applied stays: its checksum is compared.
    pub fn trimmable_offset(&self) -> u64 {
        let oldest = self.manifest.checkpoints.iter().map(|c| c.position.log_offset).min();
        oldest.map_or(0, |offset| offset.saturating_sub(1)).min(self.expired_offset)
    }

    /// Writes a checkpoint. All effects of records below its offset must be acknowledged before. If this fails, either
    /// the last checkpoint stands or this one: a delta has to hold, in absolute values, all that changed since the last
    /// commit that *succeeded*.
    pub fn commit(&mut self, state: &State, position: Position) -> Result<(), LineageError> {
        self.write_checkpoint(state, position, false)
    }

    /// A last commit, after which another engine version may take over.
    pub fn release(&mut self, state: &State, position: Position) -> Result<(), LineageError> {
        self.write_checkpoint(state, position, true)
    }

    fn write_checkpoint(&mut self, state: &State, position: Position, released: bool) -> Result<(), LineageError> {
        self.resolve()?;
        let (kind, bytes) = match state {
            State::Base(bytes) => (FileKind::Base, bytes),
            State::Delta(bytes) => (FileKind::Delta, bytes),
        };
        let mut files = match (kind, self.newest()) {
            (FileKind::Base, _) => Vec::new(),
            (FileKind::Delta, Some(newest)) => newest.files.clone(),
            (FileKind::Delta, None) => return Err(self.invalid("a delta without a base".to_owned())),
        };
        files.push(self.write_file(kind, bytes)?);
        let mut next = self.manifest.clone();
        let checkpoint = Checkpoint { epoch: next.epoch, position, engine_version: next.engine_version, files };
        next.checkpoints.insert(0, checkpoint);
        next.checkpoints = thin(next.checkpoints, |_| true);
        next.released = released;
        self.replace(next)
    }

    /// Writes a file and reads it back. Its key was never used: the epoch is ours alone.
    fn write_file(&mut self, kind: FileKind, bytes: &[u8]) -> Result<FileRef, LineageError> {
        self.files_written += 1;
        let key = keys::file(&self.task, kind, self.manifest.epoch, self.files_written);
        let file = FileRef::of(key.clone(), kind, bytes);
        match self.store.put(&key, bytes) {
            // Whatever was said about the write, what is there decides.
            Outcome::Done(_) | Outcome::Unknown(_) => {}
            Outcome::Failed(error) => return Err(error.into()),
            Outcome::Conflict => return Err(self.invalid(format!("{key} is there already"))),
        }
        let written = self.store.get(&key)?;
        let check = written.ok_or_else(|| "it is not there".to_owned()).and_then(|object| file.check(&object.bytes));
        check.map_err(|what| StoreError::new(&key, format!("what was written cannot be read back: {what}")))?;
        Ok(file)
    }

    /// Replaces the manifest by compare-and-set. On success it is ours.
    fn replace(&mut self, mut next: Manifest) -> Result<(), LineageError> {
        self.writes += 1;
        next.write_token = format!("{}/{}/{}", next.owner, next.epoch, self.writes);
        next.check_shape().map_err(|what| self.invalid(what))?;
        let bytes = next.encode().map_err(|what| self.invalid(what))?;
        match self.store.swap(&keys::manifest(&self.task), Some(&self.version), &bytes) {
            Outcome::Done(version) => {
                (self.manifest, self.version) = (next, version);
                Ok(())
            }
            Outcome::Failed(error) => Err(error.into()),
            Outcome::Conflict => {
                // Somebody else, or a write of ours that was thought lost.
                self.in_doubt = true;
                self.resolve()?;
                Err(StoreError::new(&keys::manifest(&self.task), "an earlier write came late; try again").into())
            }
            Outcome::Unknown(error) => {
                self.in_doubt = true;
                self.resolve()?;
                if self.manifest.write_token == next.write_token { Ok(()) } else { Err(error.into()) }
            }
        }
    }

    /// Reads the manifest if the end of the last write is unknown.
    fn resolve(&mut self) -> Result<(), LineageError> {
        if !self.in_doubt {
            return Ok(());
        }
        let found = read_manifest(self.store, &self.task)?;
        let (manifest, version) = found.ok_or_else(|| missing(&self.task))?;
        if (manifest.epoch, &manifest.owner) != (self.manifest.epoch, &self.manifest.owner) {
            return Err(fenced(&manifest));
        }
        (self.manifest, self.version, self.in_doubt) = (manifest, version, false);
        Ok(())
    }

    /// Drops checkpoints older than `retain_ms` from the manifest, then removes every file that no checkpoint names,
    /// oldest first. Kept always: the newest two checkpoints, and the newest of the chain before. Files of epochs above
    /// ours are not ours to judge.
    pub fn collect_garbage(&mut self, now_unix_ms: i64, retain_ms: i64) -> Result<usize, LineageError> {
        self.resolve()?;
        let young = |c: &Checkpoint| now_unix_ms.saturating_sub(c.position.written_at_unix_ms) <= retain_ms;
        let expired = self.manifest.checkpoints.iter().filter(|c| !young(c)).map(|c| c.position.log_offset).max();
        self.expired_offset = self.expired_offset.max(expired.unwrap_or(0));
        let kept = thin(self.manifest.checkpoints.clone(), young);
        let forgets = kept.len() < self.manifest.checkpoints.len();
        let next = Manifest { checkpoints: kept, ..self.manifest.clone() };
        let garbage = self.garbage(&next)?;
        if forgets || !garbage.is_empty() {
            // Also when it says the same as before: a late write of ours, which may name some of this, fails from now on.
            self.replace(next)?;
        }
        for (_, _, key) in &garbage {
            self.store.delete(key)?;
        }
        Ok(garbage.len())
    }

    /// Files that a manifest does not name, oldest first.
    fn garbage(&self, manifest: &Manifest) -> Result<Vec<(u64, u64, String)>, StoreError> {
        let named: Vec<_> = manifest.files().into_iter().map(|f| f.key.as_str()).collect();
        let mut garbage = Vec::new();
        for listed in self.store.list(&keys::task(&self.task))? {
            match keys::parse(&listed.key) {
                Some(Named::File { epoch, number, .. })
                    if epoch <= manifest.epoch && named.binary_search(&listed.key.as_str()).is_err() =>
                {
                    garbage.push((epoch, number, listed.key));
                }
                _ => {}
            }
        }
        garbage.sort();
        Ok(garbage)
    }

    /// Loads the newest checkpoint whose files are all whole; the manifest in memory forgets the ones before it.
    fn restore(&mut self) -> Result<Option<Restored>, LineageError> {
        let mut damaged: Vec<Problem> = Vec::new();
        while let Some(checkpoint) = self.newest().cloned() {
            let known_bad = checkpoint.files.iter().any(|f| damaged.iter().any(|d| d.key == f.key));
            let loaded = if known_bad { Ok(Vec::new()) } else { load(self.store, &checkpoint)? };
            match loaded {
                Ok(mut files) if !files.is_empty() => {
                    let base = files.remove(0);
                    return Ok(Some(Restored { checkpoint, base, deltas: files, damaged }));
                }
                Ok(_) => {}
                Err(problem) => damaged.push(problem),
            }
            self.manifest.checkpoints.remove(0);
        }
        if damaged.is_empty() { Ok(None) } else { Err(LineageError::AllDamaged { task: self.task.clone(), damaged }) }
    }

    fn invalid(&self, what: String) -> LineageError {
        LineageError::Invalid { task: self.task.clone(), what }
    }
}

/// Which checkpoints stay, of those given newest first: the newest two, the newest of the chain before, and of older
/// ones the bare bases that `retain` wants. So a manifest stays short: one entry for each base.
fn thin(checkpoints: Vec<Checkpoint>, retain: impl Fn(&Checkpoint) -> bool) -> Vec<Checkpoint> {
    let newest_base = checkpoints.first().map(|c| c.base_key().to_owned());
    let before = checkpoints.iter().position(|c| Some(c.base_key()) != newest_base.as_deref());
    let keeps = |i: usize, c: &Checkpoint| i < 2 || Some(i) == before || (c.files.len() == 1 && retain(c));
    checkpoints.into_iter().enumerate().filter(|(i, c)| keeps(*i, c)).map(|(_, c)| c).collect()
}

/// The manifest of a task with its version; `None` only if the store says that there is none.
pub fn read_manifest(store: &dyn Store, task: &TaskId) -> Result<Option<(Manifest, Version)>, LineageError> {
    let key = keys::manifest(task);
    let Some(object) = store.get(&key)? else { return Ok(None) };
    let damaged = |what: String| LineageError::Manifest { key: key.clone(), cause: Unsealed::Damaged(what) };
    let manifest =
        Manifest::decode(&object.bytes).map_err(|cause| LineageError::Manifest { key: key.clone(), cause })?;
    if manifest.task != *task {
        return Err(damaged(format!("it is of task {}", manifest.task)));
    }
    manifest.check_shape().map_err(damaged)?;
    Ok(Some((manifest, object.version)))
}

fn check_claim(found: &Manifest, claimant: &Claimant) -> Result<(), LineageError> {
    let task = found.task.clone();
    if found.pipeline != claimant.pipeline {
        let expected = claimant.pipeline.clone();
        return Err(LineageError::OtherPipeline { task, found: found.pipeline.clone(), expected });
    }
    if !found.released && found.engine_version != claimant.engine_version {
        let (found, ours) = (found.engine_version, claimant.engine_version);
        return Err(LineageError::EngineVersion { task, found, ours });
    }
    Ok(())
}

/// Raises the epoch. `None`: the former owner was faster with a commit of its own.
fn try_claim(
    store: &dyn Store,
    task: &TaskId,
    claimant: &Claimant,
) -> Result<Option<(Manifest, Version)>, LineageError> {
    let found = read_manifest(store, task)?;
    if let Some((manifest, _)) = &found {
        check_claim(manifest, claimant)?;
    }
    let expected = found.as_ref().map(|(_, version)| version.clone());
    let epoch = found.as_ref().map_or(0, |(manifest, _)| manifest.epoch) + 1;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        pipeline: claimant.pipeline.clone(),
        task: task.clone(),
        epoch,
        owner: claimant.owner.clone(),
        engine_version: claimant.engine_version,
        released: false,
        write_token: format!("{}/{epoch}/0", claimant.owner),
        checkpoints: found.map(|(manifest, _)| manifest.checkpoints).unwrap_or_default(),
    };
    let bytes = manifest.encode().map_err(|what| LineageError::Invalid { task: task.clone(), what })?;
    let unknown = match store.swap(&keys::manifest(task), expected.as_ref(), &bytes) {
        Outcome::Done(version) => return Ok(Some((manifest, version))),
        Outcome::Failed(error) => return Err(error.into()),
        Outcome::Conflict => None,
        Outcome::Unknown(error) => Some(error),
    };
    match (read_manifest(store, task)?, unknown) {
        (Some((found, version)), _) if found.write_token == manifest.write_token => Ok(Some((manifest, version))),
        (Some((found, _)), _) if found.epoch >= epoch => Err(fenced(&found)),
        (_, Some(error)) => Err(error.into()),
        (_, None) => Ok(None),
    }
}

fn missing(task: &TaskId) -> LineageError {
    StoreError::new(&keys::manifest(task), "the manifest has changed in a way that it never should").into()
}

fn fenced(by: &Manifest) -> LineageError {
    LineageError::Fenced { task: by.task.clone(), owner: by.owner.clone(), epoch: by.epoch }
}

/// The files of a checkpoint, verified: all of them, or what is wrong with one.
fn load(store: &dyn Store, checkpoint: &Checkpoint) -> Result<Result<Vec<Vec<u8>>, Problem>, StoreError> {
    let mut files = Vec::with_capacity(checkpoint.files.len());
    for file in &checkpoint.files {
        match read_file(store, file)? {
            Ok(bytes) => files.push(bytes),
            Err(problem) => return Ok(Err(problem)),
        }
    }
    Ok(Ok(files))
}

/// A file's bytes if they are what the manifest says.
pub fn read_file(store: &dyn Store, file: &FileRef) -> Result<Result<Vec<u8>, Problem>, StoreError> {
    let problem = |what: String| Problem { key: file.key.clone(), what };
    let Some(object) = store.get(&file.key)? else { return Ok(Err(problem("it is missing".to_owned()))) };
    Ok(file.check(&object.bytes).map(|()| object.bytes).map_err(problem))
}

/// The newest checkpoint that is whole, without claiming the task. `None`: it never had one.
pub fn newest(store: &dyn Store, task: &TaskId) -> Result<Option<Restored>, LineageError> {
    let found = read_manifest(store, task)?;
    first_whole(store, task, found.into_iter().flat_map(|(manifest, _)| manifest.checkpoints))
}

/// The oldest checkpoint kept that is whole: from where a log that was trimmed can be replayed.
pub fn oldest(store: &dyn Store, task: &TaskId) -> Result<Option<Restored>, LineageError> {
    let found = read_manifest(store, task)?;
    first_whole(store, task, found.into_iter().flat_map(|(manifest, _)| manifest.checkpoints.into_iter().rev()))
}

fn first_whole(
    store: &dyn Store,
    task: &TaskId,
    checkpoints: impl Iterator<Item = Checkpoint>,
) -> Result<Option<Restored>, LineageError> {
    let mut damaged = Vec::new();
    for checkpoint in checkpoints {
        match load(store, &checkpoint)? {
            Ok(mut files) if !files.is_empty() => {
                let base = files.remove(0);
                return Ok(Some(Restored { checkpoint, base, deltas: files, damaged }));
            }
            Ok(_) => {}
            Err(problem) => damaged.push(problem),
        }
    }
    if damaged.is_empty() { Ok(None) } else { Err(LineageError::AllDamaged { task: task.clone(), damaged }) }
}
