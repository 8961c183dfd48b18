//! A task's checkpoints as they lie in a store, without claiming the task.

pub use millrace_lifecycle::lineage::{Claim, Claimant, Epoch, LineageError, Owner, Problem, Restored, State};
use millrace_lifecycle::lineage::{Load, manifest_of};

use super::{
    Store, StoreError, Version,
    keys::{self, TaskId},
    manifest::{Checkpoint, FileRef, Manifest},
    run,
};

/// Takes a task over, one epoch above what stands there, and loads its newest usable checkpoint. `None`: it never had one.
pub fn claim(store: &dyn Store, task: &TaskId, claimant: &Claimant) -> Result<(Owner, Option<Restored>), LineageError> {
    let mut owner = run(store, Claim::start(task, claimant, Epoch::Next))?;
    let restored = run(store, owner.load())?;
    owner.go_on_from(restored.as_ref().map(|restored| &restored.checkpoint));
    Ok((owner, restored))
}

/// The manifest of a task with its version; `None` only if the store says that there is none.
pub fn read_manifest(store: &dyn Store, task: &TaskId) -> Result<Option<(Manifest, Version)>, LineageError> {
    manifest_of(task, store.get(&keys::manifest(task))?)
}

/// A file's bytes if they are what the manifest says.
pub fn read_file(store: &dyn Store, file: &FileRef) -> Result<Result<Vec<u8>, Problem>, StoreError> {
    let found = store.get(&file.key)?;
    Ok(file.check_found(found).map_err(|what| Problem { key: file.key.clone(), what }))
}

/// The newest checkpoint that is whole. `None`: it never had one.
pub fn newest(store: &dyn Store, task: &TaskId) -> Result<Option<Restored>, LineageError> {
    run(store, Load::start(task, checkpoints(store, task)?))
}

/// The oldest checkpoint kept that is whole: from where a log that was trimmed can be replayed.
pub fn oldest(store: &dyn Store, task: &TaskId) -> Result<Option<Restored>, LineageError> {
    run(store, Load::start(task, checkpoints(store, task)?.into_iter().rev()))
}

/// The newest first.
fn checkpoints(store: &dyn Store, task: &TaskId) -> Result<Vec<Checkpoint>, LineageError> {
    Ok(read_manifest(store, task)?.map(|(manifest, _)| manifest.checkpoints).unwrap_or_default())
}
