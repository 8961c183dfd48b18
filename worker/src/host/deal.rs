//! Tasks dealt out to engine threads.

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use millrace_engine::plan::ModelPlan;
use millrace_lifecycle::keys::{TaskId, TaskKind};

use super::{
    catch_up::{Behind, CatchUp},
    desk::Published,
    station::{NewSeat, Station},
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
    /// The models of the pipeline, if their copies serve.
    pub serving: Option<&'a [ModelPlan]>,
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

    fn published(&self, id: &TaskId) -> Option<Published> {
        let is_it = |model: &ModelPlan| id.kind == TaskKind::Model && model.name == id.name;
        self.serving?.iter().position(is_it).map(|model| Published { model, scored: None })
    }

    /// One after the other, to one thread after the other.
    pub fn deal(&self, claimed: Vec<NewSeat>, stations: Vec<Station>) -> Dealt {
        let mut dealt = Dealt {
            stations: stations.into_iter().map(|station| (station, Vec::new())).collect(),
            statuses: Vec::new(),
            done: Default::default(),
            owners: Vec::new(),
        };
        let threads = dealt.stations.len();
        for (number, seat) in claimed.into_iter().enumerate() {
            let thread = number % threads;
            let beside = Beside {
                number,
                status: Arc::new(Mutex::new(seat.made.task.status(self.log))),
                done: Arc::default(),
                slice: Slice::default(),
                published: self.published(&seat.made.id),
                behind: self.behind(&seat.made.task),
            };
            dealt.statuses.push(beside.status.clone());
            dealt.done[seat.made.task.stage()].push(beside.done.clone());
            if seat.made.id.kind == TaskKind::Profile {
                dealt.owners.push(thread);
            }
            let (station, besides) = &mut dealt.stations[thread];
            station.seat(seat);
            besides.push(beside);
        }
        dealt
    }
}
