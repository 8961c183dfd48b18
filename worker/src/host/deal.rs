//! Tasks dealt out to engine threads.

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use super::{
    catch_up::{Behind, CatchUp},
    desk::Published,
    start::Claimed,
    station::Station,
    status::TaskStatus,
    task::Task,
    thread::{Beside, Slice},
};
use crate::log::Log;

/// Tasks dealt out to threads.
pub struct Dealt {
    pub stations: Vec<(Station, Vec<Beside>)>,
    pub statuses: Vec<Arc<Mutex<TaskStatus>>>,
    pub done: [Vec<Arc<AtomicBool>>; 3],
    /// The thread of each events partition.
    pub owners: Vec<usize>,
}

/// What dealing needs to know of the host.
pub struct Dealing<'a> {
    pub log: &'a dyn Log,
    pub serves: bool,
    pub catch_up: &'a CatchUp,
}

impl Dealing<'_> {
    /// What was posted before the start counts before anybody is personalized again.
    fn behind(&self, task: &Task) -> Behind {
        match task {
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

    /// One after the other, to one thread after the other.
    pub fn deal(&self, claimed: Vec<Claimed>, stations: Vec<Station>) -> Dealt {
        let mut dealt = Dealt {
            stations: stations.into_iter().map(|station| (station, Vec::new())).collect(),
            statuses: Vec::new(),
            done: Default::default(),
            owners: Vec::new(),
        };
        let threads = dealt.stations.len();
        for (number, Claimed { seat, model }) in claimed.into_iter().enumerate() {
            let thread = number % threads;
            let beside = Beside {
                number,
                status: Arc::new(Mutex::new(seat.task.status(self.log))),
                done: Arc::default(),
                slice: Slice::default(),
                published: model.filter(|_| self.serves).map(|model| Published { model, scored: None }),
                behind: self.behind(&seat.task),
            };
            dealt.statuses.push(beside.status.clone());
            dealt.done[seat.task.stage()].push(beside.done.clone());
            if matches!(seat.task, Task::Profile(..)) {
                dealt.owners.push(thread);
            }
            let (station, besides) = &mut dealt.stations[thread];
            station.seat(seat);
            besides.push(beside);
        }
        dealt
    }
}
