//! A task with what is kept beside it.

use std::time::Duration;

use millrace_engine::{
    control,
    event::Seq,
    frame::{
        Kind, Origin,
        outbox::{Handle, Outbox},
    },
};
use millrace_lifecycle::{keys::TaskId, lineage::Owner};

use super::{
    Station,
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
    pub epoch: u64,
    /// The log partition that is trimmed after its checkpoints.
    pub reads: Option<LogPartition>,
    /// Where control records for the task go.
    pub control: Option<ControlLog>,
    pub written: Written,
    pub(super) custody: Custody,
    /// A checkpoint failed after its changes were taken: the next one has to hold everything.
    pub(super) must_be_base: bool,
    pub(super) next_checkpoint: Duration,
    pub(super) saved_position: Option<u64>,
}

/// What a task begins with.
pub struct NewSeat {
    pub id: TaskId,
    pub task: Task,
    pub owner: Owner,
    pub origin: Option<Origin>,
    /// Its effects begin behind this.
    pub from: Seq,
    /// In the order in which it counts them.
    pub outputs: Vec<LogPartition>,
    pub reads: Option<LogPartition>,
    /// Of its checkpoint.
    pub saved_position: Option<u64>,
}

impl Station {
    /// A task that is owned begins to work here. All its outputs must be among the station's.
    pub fn seat(&mut self, new: NewSeat) {
        let (origin, epoch) = (new.origin.unwrap_or_default(), new.owner.epoch());
        let handle = self.outbox.register(origin, epoch, new.from, &self.numbers_of(&new.outputs));
        if let Task::Profile(..) = &new.task {
            // Models that it will feed once it has read up to a change wait for it from the start.
            let others: Vec<usize> = self
                .numbers_of(&self.outputs)
                .into_iter()
                .filter(|output| self.outbox.kind_of(*output) == Kind::Examples)
                .filter(|output| !new.outputs.contains(&self.outputs[*output]))
                .collect();
            self.outbox.register(origin, epoch, Seq::START, &others);
        }
        let control = new.task.controlled().map(|partition| {
            let (of, from) = (Origin::control(partition.partition), control::seq(epoch, 0));
            let outputs = self.numbers_of(std::slice::from_ref(partition));
            ControlLog::new(self.outbox.register(of, epoch, from, &outputs), epoch)
        });
        self.seats.push(Seat {
            id: new.id,
            task: new.task,
            handle,
            origin,
            epoch,
            reads: new.reads,
            control,
            written: Written::default(),
            custody: Custody::Idle(new.owner),
            must_be_base: false,
            next_checkpoint: self.cadence.checkpoint_every,
            saved_position: new.saved_position,
        });
    }

    fn numbers_of(&self, partitions: &[LogPartition]) -> Vec<usize> {
        partitions.iter().filter_map(|partition| self.outputs.iter().position(|output| output == partition)).collect()
    }
}

impl Seat {
    /// Where its control records go, and through which outbox.
    pub fn append_control(&mut self, control: &control::Control, outbox: &mut Outbox) {
        if let Some(log) = &mut self.control {
            log.append(control, outbox);
        }
    }
}
