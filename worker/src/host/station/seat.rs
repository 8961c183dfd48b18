//! A task with what is kept beside it.

use std::time::Duration;

use millrace_engine::{
    control::{self, Control},
    event::Seq,
    frame::{
        Kind, Origin,
        outbox::{Handle, Outbox},
    },
};
use millrace_lifecycle::{keys::TaskId, lineage::Owner, placement::Order};

use super::{
    Command, Station,
    save::{Custody, Written},
};
use crate::{
    host::{desk::ControlLog, task::Task},
    log::LogPartition,
};

pub struct Seat {
    pub id: TaskId,
    pub task: Task,
    pub handle: Handle,
    pub origin: Origin,
    /// 0: it is not owned.
    pub epoch: u64,
    /// The log partition that is trimmed after its checkpoints.
    pub reads: Option<LogPartition>,
    /// Where control records for the task go.
    pub control: Option<ControlLog>,
    pub written: Written,
    /// Of all files of its newest checkpoint.
    pub state_bytes: u64,
    /// In the order in which it counts them.
    pub(super) outputs: Vec<LogPartition>,
    pub(super) custody: Custody,
    /// As it was told last.
    pub(super) order: Order,
    /// Its own changes are not all since the manifest's newest checkpoint: the next one has to hold everything.
    pub(super) must_be_base: bool,
    pub(super) leaving: Leaving,
    /// A last state of it may stand, after which nothing may be told: it does nothing until one stands that is not the last.
    pub(super) may_be_released: bool,
    pub(super) next_checkpoint: Duration,
    /// The store has failed: a checkpoint that is wanted before its time waits until then.
    pub(super) retry_at: Duration,
    /// Ticket of the first batch with which all its outputs hear of it.
    pub(super) introduction: Option<u64>,
    pub(super) saved_position: Option<u64>,
    /// What the outbox knows it by besides its handle and that of its control records.
    pub(super) others: Option<Handle>,
}

/// Is it to be given up, with a last checkpoint?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    No,
    /// Once so many more checkpoints have been written.
    AfterSaves(u32),
    /// It works on no more, but to the end of what it has begun.
    Now,
}

/// A task that was made.
pub struct Made {
    pub id: TaskId,
    pub task: Task,
    pub origin: Option<Origin>,
    /// Its effects begin behind this.
    pub from: Seq,
    /// In the order in which it counts them.
    pub outputs: Vec<LogPartition>,
    pub reads: Option<LogPartition>,
    /// Of its checkpoint.
    pub saved_position: Option<u64>,
}

/// A task that was made for whoever owns it.
pub struct NewSeat {
    pub made: Made,
    pub owner: Owner,
}

impl Station {
    /// A task that is owned begins to work here. All its outputs must be among the station's.
    pub fn seat(&mut self, NewSeat { mut made, owner }: NewSeat) {
        if let Task::Ingest(ingest, _) = &mut made.task {
            ingest.owned(owner.was_quiet(), owner.oldest_generation());
        }
        let outputs = self.numbers_of(&made.outputs);
        let handle = self.outbox.register(made.origin.unwrap_or_default(), owner.epoch(), made.from, &outputs);
        let (epoch, state_bytes) = (owner.epoch(), owner.state_bytes());
        let mut seat = Seat { state_bytes, ..self.new_seat(made, handle, Custody::Idle(owner)) };
        self.own(&mut seat, epoch);
        self.seats.push(seat);
    }

    pub(super) fn new_seat(&self, made: Made, handle: Handle, custody: Custody) -> Seat {
        Seat {
            id: made.id,
            task: made.task,
            handle,
            origin: made.origin.unwrap_or_default(),
            epoch: 0,
            reads: made.reads,
            control: None,
            written: Written::default(),
            state_bytes: 0,
            outputs: made.outputs,
            custody,
            order: Order::Own { epoch: 0, rolled_back: false },
            must_be_base: false,
            leaving: Leaving::No,
            may_be_released: false,
            next_checkpoint: self.now.since_start + self.cadence.checkpoint_every,
            saved_position: made.saved_position,
            introduction: None,
            retry_at: Duration::ZERO,
            others: None,
        }
    }

    /// What only an owner has: its epoch, and the control records.
    pub(super) fn own(&mut self, seat: &mut Seat, epoch: u64) {
        seat.epoch = epoch;
        if let Task::Profile(..) = &seat.task {
            // Models that it will feed once it has read up to a change wait for it from the start.
            let is_other = |output: &usize| {
                self.outbox.kind_of(*output) == Kind::Examples && !seat.outputs.contains(&self.outputs[*output])
            };
            let others: Vec<usize> = (0..self.outputs.len()).filter(is_other).collect();
            seat.others = Some(self.outbox.register(seat.origin, epoch, Seq::START, &others));
        }
        let control = seat.task.controlled().map(|partition| {
            let (of, from) = (Origin::control(partition.partition), control::seq(epoch, 0));
            let outputs = self.numbers_of(std::slice::from_ref(partition));
            ControlLog::new(self.outbox.register(of, epoch, from, &outputs), epoch)
        });
        seat.control = control;
        if let Some(configure) = self.configure.get(&seat.id.kind) {
            seat.tell_if_behind(configure, &mut self.outbox);
        }
    }

    /// The task works here no more: what no frame has told of it is gone.
    pub(super) fn unseat(&mut self, at: usize) {
        let seat = self.seats.remove(at);
        if seat.epoch > 0 {
            self.outbox.unregister(&seat.handle);
        }
        if let Some(others) = &seat.others {
            self.outbox.unregister(others);
        }
        if let Some(control) = &seat.control {
            self.outbox.unregister(control.handle());
        }
        self.let_go(seat.task);
    }

    /// An ingest task is small, and says at once that it does not read any more.
    pub(super) fn let_go(&mut self, task: Task) {
        if !matches!(task, Task::Ingest(..)) {
            self.commands.push_back(Command::LetGo { task });
        }
    }

    /// A task may still feed a model that the pipeline has no more: that log is added.
    pub(super) fn numbers_of(&mut self, partitions: &[LogPartition]) -> Vec<usize> {
        let number_of = |partition: &LogPartition| {
            self.outputs.iter().position(|output| output == partition).unwrap_or_else(|| {
                self.outputs.push(partition.clone());
                self.outbox.add_output(Kind::Examples)
            })
        };
        partitions.iter().map(number_of).collect()
    }
}

impl Seat {
    /// Does it own the task under another epoch than it is told, or own what it is told to follow?
    pub(super) fn is_outdated(&self, order: Order) -> bool {
        match order {
            Order::Own { epoch, .. } | Order::Release { epoch } => self.epoch > 0 && self.epoch != epoch,
            Order::Follow { .. } => self.epoch > 0,
        }
    }

    /// May others own it?
    pub(super) fn is_of_a_fleet(&self) -> bool {
        self.order.epoch() > 0
    }

    /// May its effects be told?
    pub fn is_owner(&self) -> bool {
        self.custody.is_owner()
    }

    /// A task that is owned, and of an earlier generation, is told of this one.
    pub(super) fn tell_if_behind(&mut self, configure: &Control, outbox: &mut Outbox) {
        let is_behind = matches!(configure, Control::Configure(newer) if self.task.generation() < newer.generation);
        if is_behind {
            self.append_control(configure, outbox);
        }
    }

    /// Where its control records go, and through which outbox.
    pub fn append_control(&mut self, control: &Control, outbox: &mut Outbox) {
        if let Some(log) = &mut self.control {
            log.append(control, outbox);
        }
    }
}
