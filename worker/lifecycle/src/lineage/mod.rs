//! The lineage of one task's checkpoints: claim, load, save, collect.
//!
//! Files are written first, read back and compared; then one manifest is replaced by compare-and-set. Who claims a task
//! raises its epoch, so a manifest with our epoch and owner was written by us, and any other means that somebody took
//! over. After a write whose end is unknown the manifest is read again before anything else is done.
//!
//! What may follow what is in the types: only [`Claim`] makes an [`Owner`], [`Save`] and [`Collect`] hold it while they are
//! under way, so nobody can do anything else with it, and give it back.

mod claim;
mod collect;
mod load;
mod owner;
mod replace;
mod save;

pub use claim::{Claim, Claimant, Epoch};
pub use collect::Collect;
pub use load::{Load, Restored};
pub use owner::Owner;
pub use save::{Content, Save, State};

use crate::{
    keys::{self, TaskId},
    manifest::Manifest,
    sealed::Unsealed,
    store::{Object, StoreError, Version},
};

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

fn fenced(by: &Manifest) -> LineageError {
    LineageError::Fenced { task: by.task.clone(), owner: by.owner.clone(), epoch: by.epoch }
}

/// A task's manifest from the object that was found under its key; `None` only if the store says that there is none.
pub fn manifest_of(task: &TaskId, found: Option<Object>) -> Result<Option<(Manifest, Version)>, LineageError> {
    let Some(object) = found else { return Ok(None) };
    let key = || keys::manifest(task);
    let damaged = |what: String| LineageError::Manifest { key: key(), cause: Unsealed::Damaged(what) };
    let manifest = Manifest::decode(&object.bytes).map_err(|cause| LineageError::Manifest { key: key(), cause })?;
    if manifest.task != *task {
        return Err(damaged(format!("it is of task {}", manifest.task)));
    }
    manifest.check_shape().map_err(damaged)?;
    Ok(Some((manifest, object.version)))
}
