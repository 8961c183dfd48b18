//! Writing a checkpoint: the file, read back, then the manifest.

use crate::{
    keys::{self, FileKind},
    manifest::{Checkpoint, FileRef, Position},
    store::{Answer, Digest, Next, Op, Outcome, Procedure, StoreError},
};

use super::{LineageError, Owner, owner::thin, replace::Replace};

/// State for a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Base(Content),
    /// What changed since the last save.
    Delta(Content),
}

/// What a file is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    /// xxh3-64 of the bytes. Whoever has to hash hundreds of megabytes does so before, in its own time.
    pub digest: u64,
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes).digest, bytes }
    }
}

/// A save under way.
#[derive(Debug)]
pub struct Save(Stage);

#[derive(Debug)]
enum Stage {
    /// The end of the write before is unknown.
    Resolving(Owner, State, Target),
    Writing(Owner, FileRef, Target),
    ReadingBack(Owner, FileRef, Target),
    Replacing(Replace),
}

/// What the checkpoint says besides its files.
#[derive(Debug)]
struct Target {
    position: Position,
    released: bool,
}

impl Save {
    pub(super) fn start(owner: Owner, state: State, position: Position, released: bool) -> Next<Self> {
        let target = Target { position, released };
        if owner.in_doubt {
            let key = keys::manifest(owner.task());
            return Next::Ask(Self(Stage::Resolving(owner, state, target)), Op::Get { key });
        }
        Self::write(owner, state, target)
    }

    fn fail(owner: Owner, error: impl Into<LineageError>) -> Next<Self> {
        Next::Done((owner, Err(error.into())))
    }

    /// Its key was never used: the epoch is ours alone.
    fn write(mut owner: Owner, state: State, target: Target) -> Next<Self> {
        let (kind, Content { bytes, digest }) = match state {
            State::Base(content) => (FileKind::Base, content),
            State::Delta(content) => (FileKind::Delta, content),
        };
        if kind == FileKind::Delta && owner.newest().is_none() {
            let error = owner.invalid("a delta without a base".to_owned());
            return Self::fail(owner, error);
        }
        owner.files_written += 1;
        let key = keys::file(owner.task(), kind, owner.epoch(), owner.files_written);
        let file = FileRef::of(key.clone(), kind, Digest { size_bytes: bytes.len() as u64, digest });
        Next::Ask(Self(Stage::Writing(owner, file, target)), Op::Put { key, bytes })
    }

    fn wrote(owner: Owner, file: FileRef, target: Target, outcome: Outcome) -> Next<Self> {
        let key = file.key.clone();
        match outcome {
            Outcome::Unknown(_) if planted::is(planted::Bug::NotReadBack) => Self::replace(owner, file, target),
            // Whatever was said about the write, what is there decides.
            Outcome::Done(_) | Outcome::Unknown(_) => {
                Next::Ask(Self(Stage::ReadingBack(owner, file, target)), Op::Digest { key })
            }
            Outcome::Failed(error) => Self::fail(owner, error),
            Outcome::Conflict => {
                let error = owner.invalid(format!("{key} is there already"));
                Self::fail(owner, error)
            }
        }
    }

    /// The manifest that names the file, which is whole.
    fn replace(owner: Owner, file: FileRef, target: Target) -> Next<Self> {
        let mut files = match (file.kind, owner.newest()) {
            (FileKind::Delta, Some(newest)) => newest.files.clone(),
            _ => Vec::new(),
        };
        files.push(file);
        let mut next = owner.manifest.clone();
        let (epoch, engine_version) = (next.epoch, next.engine_version);
        next.checkpoints.insert(0, Checkpoint { epoch, position: target.position, engine_version, files });
        next.checkpoints = thin(next.checkpoints, |_| true);
        next.released = target.released;
        Self::replacing(Replace::start(owner, next))
    }

    fn replacing(next: Next<Replace>) -> Next<Self> {
        match next {
            Next::Ask(replace, op) => Next::Ask(Self(Stage::Replacing(replace)), op),
            Next::Done(output) => Next::Done(output),
        }
    }
}

impl Procedure for Save {
    type Output = (Owner, Result<(), LineageError>);

    fn answered(self, answer: Answer) -> Next<Self> {
        match self.0 {
            Stage::Resolving(mut owner, state, target) => match owner.resolve(answer.object()) {
                Ok(()) => Self::write(owner, state, target),
                Err(error) => Self::fail(owner, error),
            },
            Stage::Writing(owner, file, target) => Self::wrote(owner, file, target, answer.outcome()),
            Stage::ReadingBack(owner, file, target) => match answer.digest() {
                Ok(found) => match file.check_digest(found) {
                    Ok(()) => Self::replace(owner, file, target),
                    Err(what) => {
                        let cause = format!("what was written cannot be read back: {what}");
                        Self::fail(owner, StoreError::new(&file.key, cause))
                    }
                },
                Err(error) => Self::fail(owner, error),
            },
            Stage::Replacing(replace) => Self::replacing(replace.answered(answer)),
        }
    }
}
