//! Taking a task over: its epoch rises, which stops its former owner.

use crate::{
    keys::{self, TaskId},
    manifest::{FORMAT_VERSION, Manifest},
    store::{Answer, Next, Object, Op, Outcome, Procedure, StoreError, Version},
};

use super::{LineageError, Owner, fenced, manifest_of};

/// Owners that change all the time are not waited for.
const ATTEMPTS_MAX: u32 = 10;

/// Who claims a task, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The pipeline's identity.
    pub pipeline: String,
    /// Differs between any two processes that ever claim (a pod's UID; process id and start time).
    pub owner: String,
    pub engine_version: u32,
}

/// Under which epoch a task is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// One above what stands there: whoever comes last owns it.
    Next,
    /// That of an assignment, which must be above what stands there. After a rollout that was taken back, another engine
    /// version may go on from what was not released: what readers have of it stays.
    Given { epoch: u64, rolled_back: bool },
}

/// A claim under way. It gives an owner, whose checkpoint is still to be loaded.
#[derive(Debug)]
pub struct Claim {
    task: TaskId,
    claimant: Claimant,
    epoch: Epoch,
    attempts: u32,
    /// What is claimed was released, or never owned.
    is_free: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reading,
    Swapping(Manifest),
    /// The manifest is read again. Also says why, if the end of the swap is unknown.
    Checking(Manifest, Option<StoreError>),
}

impl Claim {
    pub fn start(task: &TaskId, claimant: &Claimant, epoch: Epoch) -> Next<Self> {
        let (task, claimant) = (task.clone(), claimant.clone());
        Self { task, claimant, epoch, attempts: 0, is_free: false, stage: Stage::Reading }.read()
    }

    fn read(self) -> Next<Self> {
        let key = keys::manifest(&self.task);
        Next::Ask(self, Op::Get { key })
    }

    fn fail(error: impl Into<LineageError>) -> Next<Self> {
        Next::Done(Err(error.into()))
    }

    fn done(&self, manifest: Manifest, version: Version) -> Next<Self> {
        Next::Done(Ok(Owner { was_free: self.is_free, ..Owner::new(manifest, version) }))
    }

    fn swap(mut self, found: Option<(Manifest, Version)>) -> Next<Self> {
        self.is_free = found.as_ref().is_none_or(|(manifest, _)| manifest.released);
        let (manifest, expected) = match self.wanted(found) {
            Ok(wanted) => wanted,
            Err(error) => return Self::fail(error),
        };
        match manifest.encode() {
            Ok(bytes) => {
                let key = keys::manifest(&self.task);
                let stage = Stage::Swapping(manifest);
                Next::Ask(Self { stage, ..self }, Op::Swap { key, expected, bytes })
            }
            Err(what) => Self::fail(LineageError::Invalid { task: self.task, what }),
        }
    }

    /// The manifest that makes the task ours, and the version that it replaces.
    fn wanted(&self, found: Option<(Manifest, Version)>) -> Result<(Manifest, Option<Version>), LineageError> {
        if let Some((manifest, _)) = &found {
            self.may_follow(manifest)?;
        }
        let before = found.as_ref().map_or(0, |(manifest, _)| manifest.epoch);
        let epoch = match self.epoch {
            Epoch::Next => before + 1,
            Epoch::Given { .. } if planted::is(planted::Bug::ClaimKeepsEpoch) => before.max(1),
            Epoch::Given { epoch, .. } => epoch,
        };
        let (checkpoints, version) = found.map(|(manifest, version)| (manifest.checkpoints, version)).unzip();
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            pipeline: self.claimant.pipeline.clone(),
            task: self.task.clone(),
            epoch,
            owner: self.claimant.owner.clone(),
            engine_version: self.claimant.engine_version,
            released: false,
            write_token: format!("{}/{epoch}/0", self.claimant.owner),
            checkpoints: checkpoints.unwrap_or_default(),
        };
        Ok((manifest, version))
    }

    fn may_follow(&self, found: &Manifest) -> Result<(), LineageError> {
        let task = self.task.clone();
        if found.pipeline != self.claimant.pipeline {
            let expected = self.claimant.pipeline.clone();
            return Err(LineageError::OtherPipeline { task, found: found.pipeline.clone(), expected });
        }
        let rolled_back = match self.epoch {
            Epoch::Given { epoch, .. } if epoch <= found.epoch && !planted::is(planted::Bug::ClaimBelowEpoch) => {
                return Err(fenced(found));
            }
            Epoch::Given { rolled_back, .. } => rolled_back,
            Epoch::Next => false,
        };
        if !found.released
            && !rolled_back
            && found.engine_version != self.claimant.engine_version
            && !planted::is(planted::Bug::OtherVersionAcquired)
        {
            let (found, ours) = (found.engine_version, self.claimant.engine_version);
            return Err(LineageError::EngineVersion { task, found, ours });
        }
        Ok(())
    }

    fn check(self, wanted: Manifest, unknown: Option<StoreError>) -> Next<Self> {
        Self { stage: Stage::Checking(wanted, unknown), ..self }.read()
    }

    /// Whether the claim stands, after a swap that said otherwise or nothing.
    fn checked(self, wanted: Manifest, unknown: Option<StoreError>, found: Option<(Manifest, Version)>) -> Next<Self> {
        match (found, unknown) {
            (Some((found, version)), _) if found.write_token == wanted.write_token => self.done(found, version),
            (Some((found, _)), _) if found.epoch >= wanted.epoch => Self::fail(fenced(&found)),
            (_, Some(error)) => Self::fail(error),
            (_, None) if self.attempts + 1 == ATTEMPTS_MAX => {
                Self::fail(StoreError::new(&keys::manifest(&self.task), "it changes all the time"))
            }
            // The former owner was faster with a save of its own.
            (found, None) => Self { attempts: self.attempts + 1, stage: Stage::Reading, ..self }.swap(found),
        }
    }
}

impl Procedure for Claim {
    type Output = Result<Owner, LineageError>;

    fn answered(mut self, answer: Answer) -> Next<Self> {
        let parse = |task: &TaskId, found: Result<Option<Object>, StoreError>| manifest_of(task, found?);
        match std::mem::replace(&mut self.stage, Stage::Reading) {
            Stage::Reading => match parse(&self.task, answer.object()) {
                Ok(found) => self.swap(found),
                Err(error) => Self::fail(error),
            },
            Stage::Swapping(manifest) => match answer.outcome() {
                Outcome::Done(version) => self.done(manifest, version),
                Outcome::Failed(error) => Self::fail(error),
                Outcome::Conflict => self.check(manifest, None),
                Outcome::Unknown(_) if planted::is(planted::Bug::UnknownClaimBelieved) => {
                    self.done(manifest, Version(String::new()))
                }
                Outcome::Unknown(error) => self.check(manifest, Some(error)),
            },
            Stage::Checking(wanted, unknown) => match parse(&self.task, answer.object()) {
                Ok(found) => self.checked(wanted, unknown, found),
                Err(error) => Self::fail(error),
            },
        }
    }
}
