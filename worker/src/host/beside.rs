//! What an engine thread keeps of a task beside its seat, and what it tells of it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millrace_engine::plan::Plan;
use millrace_lifecycle::{
    keys::{TaskId, TaskKind},
    placement::Report,
};

use super::{
    catch_up::{Behind, UpTo},
    desk::Published,
    status::TaskStatus,
    task::Task,
};

/// All tasks of a pipeline.
pub struct Directory {
    /// In their order: ingest, then profile, then model tasks.
    numbers: BTreeMap<TaskId, usize>,
    /// Models whose copies serve, in the plan's order.
    serving: Vec<String>,
}

impl Directory {
    pub fn new(tasks: &[TaskId], plan: &Plan) -> Self {
        let numbers = tasks.iter().cloned().zip(0..).collect();
        let models = plan.models.iter().map(|model| model.name.clone());
        Self { numbers, serving: if plan.serves() { models.collect() } else { Vec::new() } }
    }

    pub fn number(&self, task: &TaskId) -> Option<usize> {
        self.numbers.get(task).copied()
    }

    fn published(&self, task: &TaskId) -> Option<Published> {
        let is_it = |model: &String| task.kind == TaskKind::Model && *model == task.name;
        self.serving.iter().position(is_it).map(|model| Published { model, scored: None })
    }
}

pub struct Beside {
    pub number: usize,
    /// As of this stage of a run to the end, it has come to its own.
    pub is_done: bool,
    pub slice: Slice,
    pub published: Option<Published>,
    /// What was there when it came to this host.
    pub behind: Behind,
    /// Likewise of the topics of what is posted, where others read those.
    pub posted: Vec<UpTo>,
    /// As it was last seen.
    pub is_owner: bool,
    pub load: Load,
}

impl Beside {
    pub fn new(task: &TaskId, directory: &Directory) -> Self {
        Self {
            number: directory.number(task).unwrap_or(usize::MAX),
            is_done: false,
            slice: Slice::default(),
            published: directory.published(task),
            behind: Behind::No,
            posted: Vec::new(),
            is_owner: false,
            load: Load::default(),
        }
    }
}

/// How many records a task may handle until its thread looks at what is asked of it: as many as last about
/// [`SLICE`]. Nothing that is computed depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    pub records: usize,
}

/// The longest that a request should wait for a task to come to a pause.
const SLICE: Duration = Duration::from_micros(500);
const SLICE_RECORDS: std::ops::RangeInclusive<usize> = 16..=512;

impl Default for Slice {
    fn default() -> Self {
        Self { records: 256 }
    }
}

impl Slice {
    pub fn adapt(&mut self, took: Duration) {
        let records = match took {
            took if took > SLICE => self.records / 2,
            took if took < SLICE / 4 => self.records * 2,
            _ => self.records,
        };
        self.records = records.clamp(*SLICE_RECORDS.start(), *SLICE_RECORDS.end());
    }
}

/// A task's share of its core, and what it reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    busy: Duration,
    /// Since it came, or the last window.
    since: Option<Duration>,
    /// At `since`.
    position: u64,
    pub millicores: u64,
    pub records_per_second: f64,
}

const LOAD_WINDOW: Duration = Duration::from_secs(5);

impl Load {
    pub fn add(&mut self, took: Duration) {
        self.busy += took;
    }

    /// Ends a window, if it is time; `since_start` never falls.
    pub fn look(&mut self, since_start: Duration, position: u64) {
        let window = self.since.map(|since| since_start.saturating_sub(since));
        if let Some(window) = window.filter(|window| *window >= LOAD_WINDOW) {
            self.millicores = (1000.0 * self.busy.as_secs_f64() / window.as_secs_f64()).round() as u64;
            self.records_per_second = position.saturating_sub(self.position) as f64 / window.as_secs_f64();
        } else if window.is_some() {
            return;
        }
        (self.busy, self.since, self.position) = (Duration::ZERO, Some(since_start), position);
    }
}

/// Where an engine thread tells of its tasks.
#[derive(Default)]
pub struct Board(Mutex<Told>);

#[derive(Clone, Default)]
pub struct Told {
    pub tasks: Vec<Shown>,
    /// For whoever gives orders.
    pub reports: BTreeMap<TaskId, Report>,
}

/// A task as it is shown.
#[derive(Clone)]
pub struct Shown {
    pub number: usize,
    pub stage: usize,
    pub is_done: bool,
    /// Log or source records, over the last window of its load.
    pub records_per_second: f64,
    /// Of the pipeline, as the task has read of it.
    pub generation: u32,
    pub status: TaskStatus,
}

impl Shown {
    pub fn of(beside: &Beside, task: &Task, status: TaskStatus) -> Self {
        let (number, is_done, records_per_second) = (beside.number, beside.is_done, beside.load.records_per_second);
        let (stage, generation) = (task.stage(), task.generation());
        Self { number, stage, is_done, records_per_second, generation, status }
    }
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_that_of_the_last_whole_window() {
        let mut load = Load::default();
        let mut at = |busy, seconds, position| {
            load.add(Duration::from_secs(busy));
            load.look(Duration::from_secs(seconds), position);
            (load.millicores, load.records_per_second)
        };
        assert_eq!(at(1, 1_000, 9_000), (0, 0.0), "what was before it came does not count");
        assert_eq!(at(1, 1_004, 9_100), (0, 0.0), "the first window is not over");
        assert_eq!(at(0, 1_005, 9_200), (200, 40.0));
        assert_eq!(at(4, 1_009, 9_250), (200, 40.0));
        assert_eq!(at(0, 1_013, 9_280), (500, 10.0));
        assert_eq!(at(0, 1_018, 9_280), (0, 0.0));
    }
}
