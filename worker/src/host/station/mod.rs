//! The tasks of one engine thread, without the thread: what happened is told to it, with the time; what is to be done about
//! it are commands, each told of again when it is done. It reads the log itself, and nothing else outside.
//!
//! A thread drives it ([`super::thread`]); a test may drive many of them, and let them crash between any two commands.

mod arrive;
mod save;
mod seat;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use millrace_engine::{
    control::{Configure, Control},
    frame::{
        Kind, Origin,
        outbox::{Handle, Outbox},
    },
};
use millrace_lifecycle::{
    keys::{TaskId, TaskKind},
    lineage::{LineageError, Restored},
    placement::Order,
    store::{Answer, Op},
};

use self::{
    arrive::{Arrival, Ended, Shadow},
    save::Custody,
    seat::Leaving,
};
pub use self::{
    save::Written,
    seat::{Made, NewSeat, Seat},
};
use super::{
    error::HostError,
    make::{effects_of, rewire},
    task::{Stepped, Task},
};
use crate::log::{Log, LogPartition, ReadError};

/// The time at which something happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Never falls.
    pub since_start: Duration,
    /// What people call it; only written down.
    pub unix_ms: i64,
}

/// What is to be done.
pub enum Command {
    /// To be appended as a whole, behind those with lower tickets; then [`Station::appended`].
    Append { ticket: u64, appends: Vec<(LogPartition, Vec<u8>)> },
    /// To be asked of the checkpoint store; then [`Station::answered`].
    Ask { id: u64, op: Op },
    /// To be made from its checkpoint, or as it begins; then [`Station::made`] or [`Station::not_made`].
    Make { id: u64, task: TaskId, restored: Option<Restored> },
    /// It is worked on no more; to free hundreds of megabytes takes a while.
    LetGo { task: Task },
    /// No checkpoint needs what is below.
    Trim { partition: LogPartition, before: u64 },
}

/// Why a task's checkpoint failed. A store that failed is tried again at the next checkpoint; after anything else the task
/// is not ours any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("checkpoints of {task}: {cause}")]
pub struct Failed {
    pub task: String,
    pub cause: LineageError,
}

impl From<Failed> for HostError {
    fn from(Failed { task, cause }: Failed) -> Self {
        Self::Lineage { task, cause }
    }
}

/// When frames are cut and checkpoints taken, and what is said in them.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// A frame is cut when its records have so many bytes, or after `flush_every`.
    pub frame_bytes: usize,
    pub flush_every: Duration,
    pub checkpoint_every: Duration,
    pub retain_ms: i64,
    /// A task with a larger checkpoint than this is saved once more while it still works before it is released: then it
    /// stands still only until what changed meanwhile is saved.
    pub release_at_once_bytes: u64,
    /// Of the pipeline, for tasks that do not know.
    pub generation: u32,
    pub spec_digest: u64,
}

impl Cadence {
    /// When the time between two cuts began. All threads cut at once: what they have for one log partition goes together.
    fn begun(&self, now: Duration) -> Duration {
        let nanos = now.as_nanos() % self.flush_every.as_nanos().max(1);
        now.saturating_sub(Duration::from_nanos(nanos as u64))
    }
}

pub struct Station {
    pub seats: Vec<Seat>,
    pub outbox: Outbox,
    pub outputs: Vec<LogPartition>,
    /// On their way here.
    arrivals: Vec<Arrival>,
    /// What is there for whoever follows it, without a seat.
    ready: BTreeMap<TaskId, Order>,
    /// Orders that were done, or failed.
    ended: BTreeMap<TaskId, Ended>,
    log: Arc<dyn Log>,
    cadence: Cadence,
    /// As it was told last.
    now: Now,
    flushed: Duration,
    /// Tickets of batches: the last one handed out, and up to which all are durable.
    sent: u64,
    acknowledged: u64,
    /// The last question to the store.
    asked: u64,
    commands: VecDeque<Command>,
    /// As it was told last, for each kind of task.
    configure: BTreeMap<TaskKind, Control>,
    /// Every task is to be given up, in order.
    is_finishing: bool,
}

impl Station {
    pub fn new(outputs: Vec<LogPartition>, kinds: &[Kind], log: Arc<dyn Log>, cadence: Cadence) -> Self {
        Self {
            seats: Vec::new(),
            arrivals: Vec::new(),
            ready: BTreeMap::new(),
            ended: BTreeMap::new(),
            outbox: Outbox::new(cadence.generation, kinds),
            outputs,
            log,
            cadence,
            now: Now::default(),
            flushed: Duration::ZERO,
            sent: 0,
            acknowledged: 0,
            asked: 0,
            commands: VecDeque::new(),
            configure: BTreeMap::new(),
            is_finishing: false,
        }
    }

    /// What is to be done, in this order.
    pub fn command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Ticket of the last batch.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Nothing is recorded that is not durable.
    pub fn is_quiet(&self) -> bool {
        self.acknowledged >= self.sent && !self.outbox.has_news()
    }

    /// How long until frames are cut again, if there is anything.
    pub fn sleeps_for(&self, now: Now) -> Duration {
        self.cadence.flush_every.saturating_sub(now.since_start.saturating_sub(self.flushed))
    }

    /// A seat reads or applies about `budget` records, and encodes as many rows of a state that is being taken. It may be
    /// gone afterwards.
    pub fn step(&mut self, at: usize, budget: usize, now: Now) -> Result<Stepped, HostError> {
        self.now = now;
        let took = self.take_on(at, budget)?;
        match self.step_seat(at, budget, now) {
            Err(error @ HostError::Read(ReadError::Trimmed { .. })) if self.seats[at].is_of_a_fleet() => {
                self.gives_up(at, &error);
                Ok(Stepped::Worked)
            }
            Err(error @ (HostError::File(_) | HostError::Header { .. } | HostError::Source { .. }))
                if self.seats[at].is_of_a_fleet() =>
            {
                self.gives_up(at, &error);
                Ok(Stepped::Worked)
            }
            Ok(Stepped::Idle) if took => Ok(Stepped::Worked),
            stepped => stepped,
        }
    }

    fn step_seat(&mut self, at: usize, budget: usize, now: Now) -> Result<Stepped, HostError> {
        let Self { seats, outbox, outputs, log, .. } = self;
        let seat = &mut seats[at];
        let is_at_rest = (seat.leaving == Leaving::Now || seat.may_be_released) && seat.task.is_clean();
        if matches!(seat.custody, Custody::Gone) || is_at_rest {
            return Ok(Stepped::Idle);
        }
        let stepped = match seat.custody.shadow() {
            Some(shadow) if shadow.outbox.is_full() => return Ok(Stepped::Idle),
            Some(Shadow { outbox, handle, outputs, .. }) => {
                let stepped = seat.task.step(log.as_ref(), outbox, handle, budget, now.since_start)?;
                if stepped == Stepped::Reconfigured {
                    (*handle, seat.outputs) = go_over(&seat.task, handle, (seat.origin, seat.epoch), outputs, outbox);
                }
                stepped
            }
            None => {
                let stepped = seat.task.step(log.as_ref(), outbox, &seat.handle, budget, now.since_start)?;
                if stepped == Stepped::Reconfigured {
                    let origin = (seat.origin, seat.epoch);
                    (seat.handle, seat.outputs) = go_over(&seat.task, &seat.handle, origin, outputs, outbox);
                    tracing::info!(task = %seat.id, generation = seat.task.generation(), "the changed pipeline is taken over");
                }
                stepped
            }
        };
        self.own_if_level(at)?;
        self.leave_if_clean(at, now)?;
        self.cut_full();
        Ok(stepped)
    }

    /// The pipeline as it is now: tasks of this kind that are owned here, and behind, are told by their logs, once; those that
    /// are owned later, then. Profile tasks may be told once every model has been: a model cannot learn from examples of a
    /// later generation.
    pub fn configure(&mut self, kind: TaskKind, configure: Configure) {
        let is_told =
            |told: &Control| matches!(told, Control::Configure(told) if told.generation >= configure.generation);
        if self.configure.get(&kind).is_some_and(is_told) {
            return;
        }
        let configure = Control::Configure(configure);
        let of_kind = self.seats.iter_mut().filter(|seat| seat.id.kind == kind);
        of_kind.for_each(|seat| seat.tell_if_behind(&configure, &mut self.outbox));
        self.configure.insert(kind, configure);
    }

    fn cut_full(&mut self) {
        let full: Vec<usize> =
            (0..self.outputs.len()).filter(|o| self.outbox.waiting_bytes(*o) >= self.cadence.frame_bytes).collect();
        if !full.is_empty() {
            self.append(&full);
        }
    }

    /// Cuts a frame of everything that is new.
    pub fn flush(&mut self) {
        let skips = |output: &usize| {
            planted::is(planted::Bug::QuietOutputsNotCovered) && self.outbox.waiting_bytes(*output) == 0
        };
        let all: Vec<usize> = (0..self.outputs.len()).filter(|output| !skips(output)).collect();
        self.append(&all);
        for seat in self.seats.iter_mut().filter(|seat| seat.custody.is_owner()) {
            seat.introduction.get_or_insert(self.sent);
        }
    }

    /// Cuts what one log partition is to get, at once: its ticket is then that of the last batch.
    pub fn flush_to(&mut self, partition: &LogPartition) {
        if let Some(output) = self.outputs.iter().position(|output| output == partition) {
            self.append(&[output]);
        }
    }

    fn append(&mut self, outputs: &[usize]) {
        let mut appends = Vec::new();
        for output in outputs {
            if let Some(frame) = self.outbox.cut(*output) {
                appends.push((self.outputs[*output].clone(), frame));
            }
        }
        if planted::is(planted::Bug::StandbyEmits) {
            let shadows = self.seats.iter_mut().filter_map(|seat| seat.custody.shadow());
            appends.extend(shadows.flat_map(|Shadow { outbox, outputs, .. }| {
                let told = outputs.iter().enumerate().map(|(n, output)| (output.clone(), outbox.cut(n)));
                told.filter_map(|(output, frame)| Some((output, frame?))).collect::<Vec<_>>()
            }));
        }
        if !appends.is_empty() {
            self.sent += 1;
            self.commands.push_back(Command::Append { ticket: self.sent, appends });
        }
    }

    /// Batches up to this ticket are durable.
    pub fn appended(&mut self, ticket: u64) -> Result<(), Failed> {
        self.acknowledged = self.acknowledged.max(ticket);
        let is_introduced = |seat: &&mut Seat| seat.introduction.is_some_and(|by| by <= self.acknowledged);
        for seat in self.seats.iter_mut().filter(is_introduced) {
            if let Task::Ingest(ingest, _) = &mut seat.task {
                ingest.introduced();
            }
        }
        (0..self.seats.len()).try_for_each(|at| self.save_if_durable(at))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) -> Result<(), HostError> {
        self.now = now;
        if now.since_start.saturating_sub(self.flushed) < self.cadence.flush_every {
            return Ok(());
        }
        self.flush();
        self.flushed = self.cadence.begun(now.since_start);
        for at in 0..self.seats.len() {
            self.look(at, now);
            let seat = &self.seats[at];
            let wants = seat.task.wants_checkpoint() && seat.retry_at <= now.since_start;
            let is_due = seat.next_checkpoint <= now.since_start || wants;
            if is_due && seat.task.is_clean() && (wants || !self.gives_way(at, now)) {
                self.checkpoint(at, now)?;
            }
        }
        Ok(())
    }

    /// The store's answer.
    pub fn answered(&mut self, id: u64, answer: Answer, now: Now) -> Result<(), HostError> {
        self.now = now;
        if let Some(at) = self.arrival_of(id) {
            return self.arrive(at, answer);
        }
        let is_of = |seat: &Seat| seat.custody.asked() == Some(id);
        if let Some(at) = self.seats.iter().position(is_of) {
            self.go_on(at, answer, now)?;
        }
        Ok(())
    }

    /// Lets go of what is not owned, and obeys no more: nobody is to wait for a task that comes at the end.
    pub fn keep_owned(&mut self) {
        self.is_finishing = true;
        self.arrivals.clear();
        self.seats.retain(|seat| seat.custody.is_owner());
    }

    /// Every task is given up, with a last checkpoint. They must all be owned and clean, and are stepped no more. An error is
    /// that of the first task that failed; the others are seen to all the same.
    pub fn finish(&mut self, now: Now) -> Result<(), HostError> {
        self.flush();
        let mut first = Ok(());
        for at in 0..self.seats.len() {
            self.seats[at].leaving = Leaving::Now;
            let taken = self.take_on(at, usize::MAX).map_err(HostError::from);
            first = first.and(taken.and_then(|_| self.checkpoint(at, now)));
        }
        first
    }

    /// Has every task been given up?
    pub fn is_finished(&self) -> bool {
        self.is_finishing && self.seats.iter().all(|seat| matches!(seat.custody, Custody::Gone))
    }
}

/// A profile task has gone over to a pipeline that may have other models: its handle and outputs from now on.
fn go_over(
    task: &Task,
    handle: &Handle,
    origin: (Origin, u64),
    outputs: &mut Vec<LogPartition>,
    outbox: &mut Outbox,
) -> (Handle, Vec<LogPartition>) {
    match task {
        Task::Profile(profile, ..) => (rewire(profile, handle, origin, outputs, outbox), effects_of(profile)),
        // Its outputs do not depend on the pipeline.
        Task::Ingest(..) | Task::Model(..) => (handle.clone(), Vec::new()),
    }
}
