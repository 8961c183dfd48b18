//! The three kinds of task, as an engine thread handles them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use millrace_engine::{
    checkpoint::Extent,
    experiment::VariantSums,
    frame::{
        OriginState,
        outbox::{Handle, Outbox},
        stored_checksum,
    },
    join::OutcomeCounts,
    model::ModelTask,
    plan::ExperimentPlan,
    profile::{Profile, Slice},
};

use super::{
    error::HostError,
    ingest::IngestTask,
    station::Written,
    status::{Detail, SumsOfVariants, TaskStatus},
};
use crate::log::{Log, LogPartition};

/// Read ahead of a log, in bytes.
const READ_BYTES: usize = 512 << 10;

/// A log record with its offset.
type Shared = (u64, Arc<[u8]>);

/// A log partition being followed.
pub struct Follow {
    pub partition: LogPartition,
    /// Offset of the next record to apply.
    pub next: u64,
    /// Of the record before `next`.
    pub checksum: u64,
    read: VecDeque<Shared>,
    drained: bool,
}

impl Follow {
    pub fn from(partition: LogPartition, next: u64, checksum: u64) -> Self {
        Self { partition, next, checksum, read: VecDeque::new(), drained: true }
    }

    fn record(&mut self, log: &dyn Log) -> Result<Option<Shared>, HostError> {
        if self.read.is_empty() {
            let records = log.read(&self.partition, self.next, READ_BYTES)?;
            self.read.extend(records.into_iter().map(|(offset, bytes)| (offset, Arc::from(bytes))));
        }
        Ok(self.read.pop_front())
    }

    fn applied(&mut self, offset: u64, bytes: &[u8]) {
        self.next = offset + 1;
        self.checksum = stored_checksum(bytes);
    }
}

pub enum Task {
    Ingest(Box<IngestTask>, String),
    Profile(Box<Profile>, Follow, String),
    Model(Box<ModelTask>, Follow, String),
}

fn outcomes_of(profile: &Profile) -> Vec<(String, OutcomeCounts)> {
    let names = profile.plan().outcomes.iter().map(|outcome| outcome.name.clone());
    names.zip(profile.outcome_counts().iter().copied()).collect()
}

fn experiments_of(profile: &Profile) -> Vec<(String, SumsOfVariants)> {
    let sums = |(plan, sums): (&ExperimentPlan, &[VariantSums])| {
        (plan.name.clone(), plan.variants.iter().cloned().zip(sums.iter().cloned()).collect())
    };
    profile.experiments().map(sums).collect()
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// There was nothing to do.
    Idle,
    Worked,
    /// The pipeline is another one from here on: before the next step, the task is to have the outputs of that.
    Reconfigured,
}

/// Has a task come to the end of all there is?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Yes,
    NotYet,
}

impl Task {
    /// When it comes to its end: sources first, then profiles, then models.
    pub fn stage(&self) -> usize {
        match self {
            Task::Ingest(..) => 0,
            Task::Profile(..) => 1,
            Task::Model(..) => 2,
        }
    }

    /// The log partition to which control records for this task go.
    pub fn controlled(&self) -> Option<&LogPartition> {
        match self {
            Task::Ingest(..) => None,
            Task::Profile(_, follow, _) | Task::Model(_, follow, _) => Some(&follow.partition),
        }
    }

    /// Of a profile task.
    pub fn events_partition(&self) -> Option<u32> {
        match self {
            Task::Profile(_, follow, _) => Some(follow.partition.partition),
            Task::Ingest(..) | Task::Model(..) => None,
        }
    }

    /// Of the pipeline as the task knows it by now; of ingest, the newest one that it knows the beginning of.
    pub fn generation(&self) -> u32 {
        match self {
            Task::Ingest(ingest, _) => ingest.generation(),
            Task::Profile(profile, ..) => profile.generation(),
            Task::Model(model, ..) => model.generation(),
        }
    }

    /// It waits for its next checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        matches!(self, Task::Ingest(ingest, _) if ingest.wants_checkpoint())
    }

    /// Reads or applies about `budget` records or timers. `now` never falls.
    pub fn step(
        &mut self,
        log: &dyn Log,
        outbox: &mut Outbox,
        out: &Handle,
        budget: usize,
        now: Duration,
    ) -> Result<Stepped, HostError> {
        match self {
            Task::Ingest(ingest, _) => {
                Ok(if ingest.step(outbox, out, budget, now)? { Stepped::Worked } else { Stepped::Idle })
            }
            Task::Profile(profile, follow, _) => {
                if follow.drained {
                    let Some((offset, bytes)) = follow.record(log)? else { return Ok(Stepped::Idle) };
                    let failed = |cause| HostError::order(&follow.partition, offset, cause);
                    let before = profile.generation();
                    profile.accept(offset, &bytes, outbox, out).map_err(failed)?;
                    follow.applied(offset, &bytes);
                    if profile.generation() != before {
                        follow.drained = false;
                        return Ok(Stepped::Reconfigured);
                    }
                }
                Self::drain_profile(profile, follow, outbox, out, budget)?;
                Ok(Stepped::Worked)
            }
            Task::Model(model, follow, _) => {
                if follow.drained {
                    let Some((offset, bytes)) = follow.record(log)? else { return Ok(Stepped::Idle) };
                    model.accept(offset, &bytes).map_err(|e| HostError::model(&follow.partition, offset, e))?;
                    follow.applied(offset, &bytes);
                }
                Self::drain_model(model, follow, budget)?;
                Ok(Stepped::Worked)
            }
        }
    }

    fn drain_profile(
        p: &mut Profile,
        f: &mut Follow,
        outbox: &mut Outbox,
        out: &Handle,
        budget: usize,
    ) -> Result<(), HostError> {
        f.drained = p.drain(budget, outbox, out).map_err(|e| HostError::order(&f.partition, f.next - 1, e))?;
        Ok(())
    }

    fn drain_model(m: &mut ModelTask, f: &mut Follow, budget: usize) -> Result<(), HostError> {
        let drained = m.drain(budget, |_, _| {});
        f.drained = drained.map_err(|e| HostError::model(&f.partition, f.next - 1, e))?;
        Ok(())
    }

    /// Records of its log that it has not applied, if the log tells.
    pub fn lag_records(&self, log: &dyn Log) -> Option<u64> {
        match self {
            Task::Ingest(task, _) => Some(task.known_end()?.saturating_sub(self.position().0)),
            Task::Profile(_, follow, _) | Task::Model(_, follow, _) => {
                Some(log.known_end(&follow.partition)?.saturating_sub(follow.next))
            }
        }
    }

    /// May it be saved now?
    pub fn is_clean(&self) -> bool {
        match self {
            Task::Ingest(..) => true,
            Task::Profile(_, follow, _) | Task::Model(_, follow, _) => {
                follow.drained || planted::is(planted::Bug::SavedMidDrain)
            }
        }
    }

    /// The offset of the next record to apply, and the checksum of the frame before it.
    pub fn position(&self) -> (u64, u64) {
        match self {
            Task::Ingest(task, _) => (task.ingest().committed().offset + 1, 0),
            Task::Profile(_, follow, _) | Task::Model(_, follow, _) => (follow.next, follow.checksum),
        }
    }

    /// Must its next checkpoint be a base? Files of before hold what was erased, or are of another configuration.
    pub fn wants_base(&self) -> bool {
        match self {
            Task::Ingest(..) => false,
            Task::Profile(profile, ..) => profile.wants_base(),
            Task::Model(model, ..) => model.wants_base(),
        }
    }

    /// Fixes a checkpoint as of now: its extent, and its bytes where that is the whole of it. Otherwise
    /// [`Task::continue_checkpoint`] gives them, while the task goes on.
    pub fn begin_checkpoint(&mut self, extent: Extent) -> (Extent, Option<Vec<u8>>) {
        match self {
            Task::Ingest(task, _) => (Extent::Base, Some(task.checkpoint())),
            Task::Profile(profile, ..) => {
                profile.begin_checkpoint(extent);
                (extent, None)
            }
            Task::Model(model, ..) => (extent, Some(model.checkpoint(extent))),
        }
    }

    /// Encodes about `budget` rows.
    pub fn continue_checkpoint(&mut self, budget: usize) -> Slice {
        match self {
            Task::Profile(profile, ..) => profile.continue_checkpoint(budget),
            Task::Ingest(..) | Task::Model(..) => Slice::Cancelled,
        }
    }

    /// Asked only when all its effects are durable. `stage` says what has come to its end before it.
    pub fn done(&self, log: &dyn Log, stage: u8) -> Done {
        let at_end = |follow: &Follow| follow.drained && log.known_end(&follow.partition) == Some(follow.next);
        let done = match self {
            Task::Ingest(task, _) => task.ingest().state() == OriginState::Ended && !task.ingest().is_holding(),
            Task::Profile(profile, follow, _) => stage >= 1 && profile.state() == OriginState::Ended && at_end(follow),
            Task::Model(model, follow, _) => stage >= 2 && model.state() == OriginState::Ended && at_end(follow),
        };
        if done { Done::Yes } else { Done::NotYet }
    }

    pub fn status(&self, log: &dyn Log) -> TaskStatus {
        let end = |follow: &Follow| log.known_end(&follow.partition);
        match self {
            Task::Ingest(task, name) => {
                let ingest = task.ingest();
                let position = ingest.position();
                let source = task.source_name.clone();
                TaskStatus {
                    task: name.clone(),
                    position: position.offset,
                    end: task.known_end(),
                    watermark: ingest.watermark(),
                    state: ingest.state(),
                    waiting: usize::from(ingest.is_holding()),
                    checkpoints: Written::default(),
                    detail: Detail::Ingest { source, counts: position.counts, unreadable_now: task.is_broken() },
                }
            }
            Task::Profile(profile, follow, name) => TaskStatus {
                task: name.clone(),
                position: follow.next - 1,
                end: end(follow),
                watermark: profile.watermark(),
                state: profile.state(),
                waiting: profile.waiting(),
                checkpoints: Written::default(),
                detail: Detail::Profile {
                    generation: profile.generation(),
                    counts: *profile.counts(),
                    outcomes: outcomes_of(profile),
                    users: profile.users().len(),
                    open_joins: profile.open_joins(),
                    experiments: experiments_of(profile),
                    out_of_range: profile.experiments_out_of_range(),
                },
            },
            Task::Model(model, follow, name) => {
                let model_name = model.name().to_owned();
                let summary = Box::new(model.model().summary());
                TaskStatus {
                    task: name.clone(),
                    position: follow.next - 1,
                    end: end(follow),
                    watermark: model.watermark(),
                    state: model.state(),
                    waiting: model.waiting(),
                    checkpoints: Written::default(),
                    detail: Detail::Model { name: model_name, summary, late: model.late() },
                }
            }
        }
    }
}
