//! Loading a checkpoint: the first of several that is whole.

use std::collections::VecDeque;

use crate::{
    keys::TaskId,
    manifest::Checkpoint,
    store::{Answer, Next, Op, Procedure},
};

use super::{LineageError, Problem};

/// The state of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub checkpoint: Checkpoint,
    pub base: Vec<u8>,
    /// To be applied in this order.
    pub deltas: Vec<Vec<u8>>,
    /// What made the checkpoints before it unusable: say it loudly.
    pub damaged: Vec<Problem>,
}

/// A load under way. Claims nothing. `None`: there was no checkpoint to load.
#[derive(Debug)]
pub struct Load {
    task: TaskId,
    checkpoint: Checkpoint,
    /// Of that checkpoint, as far as they are read.
    files: Vec<Vec<u8>>,
    /// To be tried if it is damaged.
    others: VecDeque<Checkpoint>,
    damaged: Vec<Problem>,
}

impl Load {
    /// In the order in which they are to be tried.
    pub fn start(task: &TaskId, checkpoints: impl IntoIterator<Item = Checkpoint>) -> Next<Self> {
        Self::try_next(task.clone(), checkpoints.into_iter().collect(), Vec::new())
    }

    fn try_next(task: TaskId, mut others: VecDeque<Checkpoint>, damaged: Vec<Problem>) -> Next<Self> {
        while let Some(checkpoint) = others.pop_front() {
            let is_known_bad = checkpoint.files.iter().any(|f| damaged.iter().any(|d| d.key == f.key));
            if !is_known_bad && let Some(first) = checkpoint.files.first() {
                let key = first.key.clone();
                return Next::Ask(Self { task, checkpoint, files: Vec::new(), others, damaged }, Op::Get { key });
            }
        }
        Next::Done(if damaged.is_empty() { Ok(None) } else { Err(LineageError::AllDamaged { task, damaged }) })
    }
}

impl Procedure for Load {
    type Output = Result<Option<Restored>, LineageError>;

    fn answered(mut self, answer: Answer) -> Next<Self> {
        let found = match answer.object() {
            Ok(found) => found,
            Err(error) => return Next::Done(Err(error.into())),
        };
        let Some(file) = self.checkpoint.files.get(self.files.len()) else {
            return Self::try_next(self.task, self.others, self.damaged);
        };
        match file.check_found(found) {
            Ok(bytes) => self.files.push(bytes),
            Err(what) => {
                self.damaged.push(Problem { key: file.key.clone(), what });
                return Self::try_next(self.task, self.others, self.damaged);
            }
        }
        if let Some(next) = self.checkpoint.files.get(self.files.len()) {
            let key = next.key.clone();
            return Next::Ask(self, Op::Get { key });
        }
        let base = self.files.remove(0);
        if planted::is(planted::Bug::LastDeltaForgotten) {
            self.files.pop();
        }
        let Self { checkpoint, files: deltas, damaged, .. } = self;
        Next::Done(Ok(Some(Restored { checkpoint, base, deltas, damaged })))
    }
}
