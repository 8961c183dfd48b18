//! Replacing the manifest by compare-and-set; the one place where an owner writes it.

use crate::{
    keys,
    manifest::Manifest,
    store::{Answer, Next, Op, Outcome, Procedure, StoreError},
};

use super::{LineageError, Owner};

#[derive(Debug)]
pub(super) struct Replace {
    owner: Owner,
    next: Manifest,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Swapping,
    /// The manifest is read again, since the swap said otherwise or nothing.
    Checking(StoreError),
}

impl Replace {
    pub(super) fn start(mut owner: Owner, mut next: Manifest) -> Next<Self> {
        owner.writes += 1;
        next.write_token = format!("{}/{}/{}", next.owner, next.epoch, owner.writes);
        match next.check_shape().and_then(|()| next.encode()) {
            Ok(bytes) => {
                let (key, expected) = (keys::manifest(owner.task()), Some(owner.version.clone()));
                Next::Ask(Self { owner, next, stage: Stage::Swapping }, Op::Swap { key, expected, bytes })
            }
            Err(what) => {
                let error = owner.invalid(what);
                Next::Done((owner, Err(error)))
            }
        }
    }

    fn check(mut self, why: StoreError) -> Next<Self> {
        self.owner.in_doubt = true;
        let key = keys::manifest(self.owner.task());
        Next::Ask(Self { stage: Stage::Checking(why), ..self }, Op::Get { key })
    }
}

impl Procedure for Replace {
    type Output = (Owner, Result<(), LineageError>);

    fn answered(self, answer: Answer) -> Next<Self> {
        let Self { mut owner, next, stage } = self;
        match stage {
            Stage::Swapping => match answer.outcome() {
                Outcome::Done(version) => {
                    (owner.manifest, owner.version) = (next, version);
                    Next::Done((owner, Ok(())))
                }
                Outcome::Failed(error) => Next::Done((owner, Err(error.into()))),
                // Somebody else, or a write of ours that was thought lost.
                Outcome::Conflict => {
                    let late = StoreError::new(&keys::manifest(&next.task), "an earlier write came late; try again");
                    Self { owner, next, stage: Stage::Swapping }.check(late)
                }
                Outcome::Unknown(error) if planted::is(planted::Bug::UnknownTakenForFailed) => {
                    Next::Done((owner, Err(error.into())))
                }
                Outcome::Unknown(error) => Self { owner, next, stage: Stage::Swapping }.check(error),
            },
            Stage::Checking(why) => {
                let resolved = owner.resolve(answer.object());
                let is_written = owner.manifest.write_token == next.write_token;
                let result = resolved.and_then(|()| if is_written { Ok(()) } else { Err(why.into()) });
                Next::Done((owner, result))
            }
        }
    }
}
