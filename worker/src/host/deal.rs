//! Tasks dealt out to engine threads.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use millrace_engine::{
    control::{self, Configure},
    event::Seq,
    frame::{Kind, Origin, outbox::Outbox},
};

use super::{
    catch_up::{Behind, CatchUp},
    desk::ControlLog,
    start::Claimed,
    status::TaskStatus,
    task::Task,
    thread::{Published, Seat, Slice},
};
use crate::log::{Log, LogPartition};

/// Tasks dealt out to threads.
pub struct Dealt {
    pub outboxes: Vec<Outbox>,
    pub seats: Vec<Vec<Seat>>,
    pub statuses: Vec<Arc<Mutex<TaskStatus>>>,
    pub done: [Vec<Arc<AtomicBool>>; 3],
    /// The thread of each events partition.
    pub owners: Vec<usize>,
}

/// What dealing needs to know of the host.
pub struct Dealing<'a> {
    pub threads: usize,
    /// What tasks that are behind are told.
    pub configure: &'a Configure,
    pub outputs: &'a [LogPartition],
    pub kinds: &'a [Kind],
    pub log: &'a dyn Log,
    pub checkpoint_every: Duration,
    pub serves: bool,
    pub catch_up: &'a CatchUp,
}

impl Dealing<'_> {
    fn outputs(&self, partitions: &[LogPartition]) -> Vec<usize> {
        partitions.iter().filter_map(|partition| self.outputs.iter().position(|output| output == partition)).collect()
    }

    /// What was posted before the start counts before anybody is personalized again.
    fn behind(&self, claimed: &Claimed) -> Behind {
        match &claimed.task {
            Task::Ingest(task, _) => match task.end(self.log) {
                Some(end) => {
                    self.catch_up.expect_topic();
                    Behind::Topic(end)
                }
                None => Behind::No,
            },
            Task::Profile(..) => {
                self.catch_up.expect_partition();
                Behind::Partition(None)
            }
            Task::Model(..) => Behind::No,
        }
    }

    pub fn deal(&self, claimed: Vec<Claimed>) -> Dealt {
        let mut dealt = Dealt {
            outboxes: (0..self.threads).map(|_| Outbox::new(self.configure.generation, self.kinds)).collect(),
            seats: (0..self.threads).map(|_| Vec::new()).collect(),
            statuses: Vec::new(),
            done: Default::default(),
            owners: Vec::new(),
        };
        for (number, c) in claimed.into_iter().enumerate() {
            let thread = number % self.threads;
            let outbox = &mut dealt.outboxes[thread];
            let (origin, epoch) = (c.origin.unwrap_or_default(), c.claim.epoch);
            let handle = outbox.register(origin, epoch, c.from, &self.outputs(&c.outputs));
            if let Task::Profile(..) = &c.task {
                // Models that it will feed once it has read up to a change wait for it from the start.
                let others = self.outputs.iter().zip(self.kinds).filter(|(_, kind)| **kind == Kind::Examples);
                let others = others.filter(|(output, _)| !c.outputs.contains(output));
                let others: Vec<LogPartition> = others.map(|(output, _)| output.clone()).collect();
                outbox.register(origin, epoch, Seq::START, &self.outputs(&others));
            }
            let behind = self.behind(&c);
            let control = c.task.controlled().map(|partition| {
                let (of, from) = (Origin::control(partition.partition), control::seq(epoch, 0));
                let handle = outbox.register(of, epoch, from, &self.outputs(std::slice::from_ref(partition)));
                ControlLog::new(handle, epoch)
            });
            let mut seat = Seat {
                number,
                id: c.id,
                handle,
                origin,
                epoch,
                status: Arc::new(Mutex::new(c.task.status(self.log))),
                progress: c.claim.progress,
                done: Arc::default(),
                next_checkpoint: Instant::now() + self.checkpoint_every,
                saved_position: c.saved_position,
                slice: Slice::default(),
                control,
                behind,
                published: c.model.filter(|_| self.serves).map(|model| Published { model, scored: None }),
                task: c.task,
            };
            seat.configure(self.configure, outbox);
            dealt.statuses.push(seat.status.clone());
            dealt.done[seat.task.stage()].push(seat.done.clone());
            if matches!(seat.task, Task::Profile(..)) {
                dealt.owners.push(thread);
            }
            dealt.seats[thread].push(seat);
        }
        dealt
    }
}
