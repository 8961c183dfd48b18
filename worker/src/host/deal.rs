//! Tasks that are claimed at the start, dealt out to engine threads.

use std::collections::BTreeMap;

use millrace_lifecycle::keys::TaskId;

use super::{
    beside::{Beside, Board, Directory, Shown},
    catch_up::{Behind, CatchUp, UpTo},
    owners::Owners,
    station::{NewSeat, Station},
    task::Task,
};
use crate::log::Log;

/// What dealing needs to know of the host.
pub struct Dealing<'a> {
    pub log: &'a dyn Log,
    pub directory: &'a Directory,
    pub owners: &'a Owners,
    pub catch_up: &'a CatchUp,
}

/// An engine thread's tasks, with what it keeps beside them and tells of them.
pub struct Dealt {
    pub station: Station,
    pub beside: BTreeMap<TaskId, Beside>,
    pub board: Board,
}

/// The thread of a task with this number, of so many.
pub fn thread_of(number: usize, threads: usize) -> usize {
    number % threads
}

impl Dealing<'_> {
    /// What was posted before the start counts before anybody is personalized again.
    fn behind(&self, task: &Task) -> Behind {
        match task {
            Task::Ingest(task, _) => match task.posted() {
                Some(_) => {
                    self.catch_up.expect_topic();
                    Behind::Topic(UpTo::NotAsked)
                }
                None => Behind::No,
            },
            Task::Profile(..) => {
                self.catch_up.expect_partition();
                Behind::Partition(UpTo::NotAsked)
            }
            Task::Model(..) => Behind::No,
        }
    }

    /// One after the other, to one thread after the other.
    pub fn deal(&self, claimed: Vec<NewSeat>, stations: Vec<Station>) -> Vec<Dealt> {
        let dealt = |station| Dealt { station, beside: BTreeMap::new(), board: Board::default() };
        let mut all: Vec<Dealt> = stations.into_iter().map(dealt).collect();
        for seat in claimed {
            let (id, task) = (&seat.made.id, &seat.made.task);
            let beside = Beside { is_owner: true, behind: self.behind(task), ..Beside::new(id, self.directory) };
            let thread = thread_of(beside.number, all.len());
            if let Some(partition) = task.events_partition() {
                self.owners.set(partition, thread);
            }
            let dealt = &mut all[thread];
            dealt.board.lock().tasks.push(Shown::of(&beside, task, task.status(self.log)));
            dealt.beside.insert(id.clone(), beside);
            dealt.station.seat(seat);
        }
        all
    }
}
