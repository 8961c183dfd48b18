//! Looking at checkpoints from outside: for `millrace checkpoints list | show | verify`. Never writes.

use super::checkpoint::{LineageError, Problem, read_file, read_manifest};
use super::keys::{self, Named, TaskId};
use super::manifest::Manifest;
use super::{Store, StoreError};

/// A task with its manifest, or why it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCheckpoints {
    pub task: TaskId,
    pub manifest: Result<Manifest, Problem>,
    /// All objects of the task, files that no checkpoint names included.
    pub stored_bytes: u64,
}

/// All tasks with anything in the store, in order.
pub fn list(store: &dyn Store) -> Result<Vec<TaskCheckpoints>, StoreError> {
    let mut tasks: Vec<(TaskId, u64)> = Vec::new();
    for listed in store.list(keys::TASKS)? {
        let Some(Named::Manifest(task) | Named::File { task, .. }) = keys::parse(&listed.key) else { continue };
        match tasks.iter_mut().find(|(known, _)| *known == task) {
            Some((_, bytes)) => *bytes += listed.size_bytes,
            None => tasks.push((task, listed.size_bytes)),
        }
    }
    tasks.sort();
    let show = |(task, stored_bytes): (TaskId, u64)| {
        Ok(TaskCheckpoints { manifest: show(store, &task)?, task, stored_bytes })
    };
    tasks.into_iter().map(show).collect()
}

/// A task's manifest, or what is wrong with it.
pub fn show(store: &dyn Store, task: &TaskId) -> Result<Result<Manifest, Problem>, StoreError> {
    let problem = |what: String| Problem { key: keys::manifest(task), what };
    match read_manifest(store, task) {
        Ok(Some((manifest, _))) => Ok(Ok(manifest)),
        Ok(None) => Ok(Err(problem("it is missing".to_owned()))),
        Err(LineageError::Store(error)) => Err(error),
        Err(LineageError::Manifest { cause, .. }) => Ok(Err(problem(cause.to_string()))),
        Err(other) => Ok(Err(problem(other.to_string()))),
    }
}

/// Reads every manifest and every file that any checkpoint names. Empty: all is whole.
pub fn verify(store: &dyn Store) -> Result<Vec<Problem>, StoreError> {
    let mut problems = Vec::new();
    for task in list(store)? {
        match task.manifest {
            Err(problem) => problems.push(problem),
            Ok(manifest) => {
                for file in manifest.files() {
                    problems.extend(read_file(store, file)?.err());
                }
            }
        }
    }
    Ok(problems)
}
