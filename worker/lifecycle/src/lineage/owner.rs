//! Whoever owns a task: what the store held when it was last read or written.

use crate::{
    keys::{self, TaskId},
    manifest::{Checkpoint, Manifest, Position},
    store::{Next, Version},
};

use super::{Collect, LineageError, Load, Save, State, fenced, manifest_of};
use crate::store::{Object, StoreError};

/// More deltas than this ask for a base.
const DELTAS_MAX: usize = 8;

/// A task that is ours, as far as we know.
#[derive(Debug)]
pub struct Owner {
    pub(super) manifest: Manifest,
    pub(super) version: Version,
    /// Files written under this epoch.
    pub(super) files_written: u64,
    pub(super) writes: u64,
    /// The last write may still have happened: the manifest has to be read before the next.
    pub(super) in_doubt: bool,
    /// Found damaged when the task was loaded: the next manifest does not name them.
    pub(super) unusable: Vec<Checkpoint>,
    /// Offset of the newest checkpoint that was found to be older than `retain`.
    pub(super) expired_offset: u64,
    /// Nobody owned the task when it was claimed: it had been released, or never owned.
    pub(super) was_free: bool,
}

impl Owner {
    pub(super) fn new(manifest: Manifest, version: Version) -> Self {
        Self {
            manifest,
            version,
            files_written: 0,
            writes: 0,
            in_doubt: false,
            unusable: Vec::new(),
            expired_offset: 0,
            was_free: false,
        }
    }

    pub fn task(&self) -> &TaskId {
        &self.manifest.task
    }

    /// Of all files of the newest checkpoint.
    pub fn state_bytes(&self) -> u64 {
        self.newest().map_or(0, |newest| newest.files.iter().map(|file| file.size_bytes).sum())
    }

    pub fn epoch(&self) -> u64 {
        self.manifest.epoch
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The newest checkpoint.
    pub fn newest(&self) -> Option<&Checkpoint> {
        self.manifest.checkpoints.first()
    }

    /// Has whoever owned the task before told nothing that the newest checkpoint does not know of?
    pub fn was_quiet(&self) -> bool {
        self.was_free && self.unusable.is_empty()
    }

    /// The older generation of the newest two checkpoints: if one of them is damaged, the task goes on from the other.
    pub fn oldest_generation(&self) -> Option<u32> {
        self.manifest.checkpoints.iter().take(2).map(|checkpoint| checkpoint.position.generation).min()
    }

    /// Whether the next save should be a base: there is none, or its deltas are many, or longer than itself.
    pub fn wants_base(&self) -> bool {
        let Some([base, deltas @ ..]) = self.newest().map(|c| c.files.as_slice()) else { return true };
        deltas.len() >= DELTAS_MAX || deltas.iter().map(|d| d.size_bytes).sum::<u64>() > base.size_bytes
    }

    /// Records of the log below this may go: they are older than the `retain` of the last collection, and no
    /// checkpoint that is kept needs them. The last record that the oldest has applied stays: its checksum is compared.
    pub fn trimmable_offset(&self) -> u64 {
        let offsets = || self.manifest.checkpoints.iter().map(|c| c.position.log_offset);
        let oldest = if planted::is(planted::Bug::TrimmedTooFar) { offsets().max() } else { offsets().min() };
        oldest.map_or(0, |offset| offset.saturating_sub(1)).min(self.expired_offset)
    }

    /// Loads the newest checkpoint that is whole.
    pub fn load(&self) -> Next<Load> {
        Load::start(self.task(), self.manifest.checkpoints.clone())
    }

    /// Goes on from this checkpoint: those before it are damaged, and the next manifest does not name them.
    pub fn go_on_from(&mut self, checkpoint: Option<&Checkpoint>) {
        let newer = self.manifest.checkpoints.iter().position(|c| Some(c) == checkpoint);
        self.unusable = self.manifest.checkpoints.drain(..newer.unwrap_or(self.manifest.checkpoints.len())).collect();
    }

    /// Writes a checkpoint. All effects of records below its offset must be acknowledged before. If this fails, either
    /// the last checkpoint stands or this one: a delta has to hold, in absolute values, all that changed since the last
    /// save that *succeeded*.
    pub fn save(self, state: State, position: Position) -> Next<Save> {
        Save::start(self, state, position, false)
    }

    /// A last save, after which another engine version may take over.
    pub fn release(self, state: State, position: Position) -> Next<Save> {
        Save::start(self, state, position, true)
    }

    /// Drops checkpoints older than `retain_ms` from the manifest, then removes every file that no checkpoint names,
    /// oldest first. Kept always: the newest two checkpoints, and the newest of the chain before. Files of epochs above
    /// ours are not ours to judge.
    pub fn collect(self, now_unix_ms: i64, retain_ms: i64) -> Next<Collect> {
        Collect::start(self, now_unix_ms, retain_ms)
    }

    /// Believes the manifest that was found after a write of unknown end, if it is still ours.
    pub(super) fn resolve(&mut self, found: Result<Option<Object>, StoreError>) -> Result<(), LineageError> {
        let (manifest, version) = manifest_of(self.task(), found?)?.ok_or_else(|| self.lost())?;
        if (manifest.epoch, &manifest.owner) != (self.manifest.epoch, &self.manifest.owner)
            && !planted::is(planted::Bug::CommitWithoutEpochCheck)
        {
            return Err(fenced(&manifest));
        }
        (self.manifest, self.version, self.in_doubt) = (manifest, version, false);
        // The store still names them if nothing was written since.
        self.manifest.checkpoints.retain(|checkpoint| !self.unusable.contains(checkpoint));
        Ok(())
    }

    fn lost(&self) -> LineageError {
        StoreError::new(&keys::manifest(self.task()), "the manifest is gone, which never should happen").into()
    }

    pub(super) fn invalid(&self, what: String) -> LineageError {
        LineageError::Invalid { task: self.task().clone(), what }
    }
}

/// Which checkpoints stay, of those given newest first: the newest two, the newest of the chain before, and of older
/// ones the bare bases that `retain` wants. So a manifest stays short: one entry for each base.
pub(super) fn thin(checkpoints: Vec<Checkpoint>, retain: impl Fn(&Checkpoint) -> bool) -> Vec<Checkpoint> {
    let newest_base = checkpoints.first().map(|c| c.base_key().to_owned());
    let before = checkpoints.iter().position(|c| Some(c.base_key()) != newest_base.as_deref());
    let keeps = |i: usize, c: &Checkpoint| i < 2 || Some(i) == before || (c.files.len() == 1 && retain(c));
    checkpoints.into_iter().enumerate().filter(|(i, c)| keeps(*i, c)).map(|(_, c)| c).collect()
}
