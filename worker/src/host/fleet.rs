//! A host's end of a fleet: what it is told to have of its tasks, and what it says of each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millrace_engine::{control::Configure, event::Time, frame::OriginState};
use millrace_lifecycle::{
    keys::TaskId,
    lineage::Claimant,
    placement::{
        Member, Order, Report, Role,
        wire::{self, CheckpointSaid, Progress, TaskSaid},
    },
};

use super::{
    beside::{Board, Directory, Shown},
    deal::thread_of,
    desk::Request,
    error::HostError,
    mailbox::Mailbox,
    start::Tasks,
};
use crate::serve::orders::Told;

/// Shared by all who look at a host or tell it something.
pub struct Fleet {
    pub tasks: Tasks,
    pub directory: Arc<Directory>,
    /// Which member of its fleet it is.
    pub member: Option<Member>,
    pub claimant: Claimant,
    /// The pipeline as it is now.
    pub configure: Configure,
    /// Of the engine threads, in their order; likewise the next.
    pub boards: Vec<Arc<Board>>,
    pub mailboxes: Vec<Arc<Mailbox<Request>>>,
    /// Tasks that the host was told of and does not know.
    pub unknown: Mutex<BTreeMap<TaskId, Order>>,
    /// Of the placement record, as it was told last.
    pub revision: Mutex<u64>,
}

/// Why orders are not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disobeyed {
    /// It works on all tasks of its pipeline.
    #[error("this worker has all tasks of its pipeline, and takes no orders")]
    TakesNone,
    #[error("the orders are for another worker, or for this one in an earlier life")]
    OfAnother,
    #[error("the orders are older than those of before")]
    Older,
}

impl Fleet {
    /// Does what it is told, if it is told to this worker, and after what it was told before.
    pub fn hear(&self, told: &Told) -> Result<(), Disobeyed> {
        if told.member.is_some() && told.member != self.member {
            return Err(Disobeyed::OfAnother);
        }
        // Held until they are handed on, so that they are handed on in this order.
        let mut newest = self.revision.lock().unwrap_or_else(PoisonError::into_inner);
        if told.revision.is_some_and(|revision| revision < *newest) {
            return Err(Disobeyed::Older);
        }
        self.obey(&told.orders)?;
        *newest = told.revision.unwrap_or(*newest);
        if let Some(generation) = told.profiles_generation {
            self.configure_profiles(generation);
        }
        Ok(())
    }

    /// All that this host is to have from now on: whatever is not among it is dropped. Told again, it goes on with what it is
    /// doing.
    pub fn obey(&self, orders: &BTreeMap<TaskId, Order>) -> Result<(), Disobeyed> {
        if self.tasks == Tasks::All {
            return Err(Disobeyed::TakesNone);
        }
        let mut of_threads = vec![BTreeMap::new(); self.mailboxes.len()];
        let mut unknown = BTreeMap::new();
        for (task, order) in orders {
            let of = match self.directory.number(task) {
                Some(number) => &mut of_threads[thread_of(number, self.mailboxes.len())],
                None => &mut unknown,
            };
            of.insert(task.clone(), *order);
        }
        *self.unknown() = unknown;
        for (mailbox, orders) in self.mailboxes.iter().zip(of_threads) {
            mailbox.tell(Request::Obey { orders, claimant: self.claimant.clone() });
        }
        Ok(())
    }

    /// Every model of the fleet has read of this generation of the pipeline: profile tasks may be told.
    fn configure_profiles(&self, generation: u32) {
        if generation >= self.configure.generation {
            self.mailboxes.iter().for_each(|mailbox| mailbox.tell(Request::Configure(self.configure.clone())));
        }
    }

    fn unknown(&self) -> MutexGuard<'_, BTreeMap<TaskId, Order>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the orders.
    pub fn reports(&self) -> BTreeMap<TaskId, Report> {
        let failed = |(task, order): (&TaskId, &Order)| {
            let why = HostError::NoTask { task: task.to_string() }.to_string();
            (
                task.clone(),
                Report { epoch: order.epoch(), role: Role::Failed { why }, load_millicores: 0, state_bytes: 0 },
            )
        };
        let unknown: Vec<_> = self.unknown().iter().map(failed).collect();
        self.boards.iter().flat_map(|board| board.lock().reports.clone()).chain(unknown).collect()
    }

    /// What is here, in the order of the pipeline's tasks.
    pub fn shown(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.boards.iter().flat_map(|board| board.lock().tasks.clone()).collect();
        shown.sort_by_key(|shown| shown.number);
        shown
    }

    /// Of each task that is here, or was told of: `GET /v1/tasks`.
    pub fn said(&self) -> wire::Tasks {
        let mut shown: BTreeMap<String, Shown> =
            self.shown().into_iter().map(|shown| (shown.status.task.clone(), shown)).collect();
        let said = |(task, report): (TaskId, Report)| {
            TaskSaid::new(&task, &report, shown.remove(&task.to_string()).map(|shown| progress_of(&shown)))
        };
        wire::Tasks {
            format_version: wire::FORMAT_VERSION,
            member: self.member.clone(),
            owner: self.claimant.owner.clone(),
            engine_version: self.claimant.engine_version,
            takes_orders: self.tasks == Tasks::AsTold,
            revision: *self.revision.lock().unwrap_or_else(PoisonError::into_inner),
            tasks: self.reports().into_iter().map(said).collect(),
        }
    }
}

fn progress_of(Shown { status, records_per_second, generation, .. }: &Shown) -> Progress {
    let state = match status.state {
        OriginState::Active => "active",
        OriginState::Idle => "idle",
        OriginState::Ended => "ended",
    };
    let written = status.checkpoints;
    let checkpoint = || CheckpointSaid {
        count: written.count,
        at_ms: written.at_unix_ms,
        bytes: written.bytes as u64,
        kind: if written.is_base { "base" } else { "changes" }.to_owned(),
    };
    Progress {
        state: state.to_owned(),
        position: status.position,
        end: status.end,
        lag_records: status.end.map(|end| end.saturating_sub(status.position + 1)),
        watermark_ms: (status.watermark != Time::MIN).then_some(status.watermark.0 / 1000),
        records_per_second: *records_per_second,
        generation: *generation,
        checkpoint: (written.count > 0).then(checkpoint),
    }
}
