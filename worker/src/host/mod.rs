//! The host: it gives tasks to engine threads, and connects them with the log and the checkpoint store.

mod beside;
mod catch_up;
pub mod clock;
mod copies;
mod deal;
pub mod decisions;
pub mod desk;
pub mod elsewhere;
pub mod error;
pub mod figures;
pub mod fleet;
pub mod hands;
pub mod ingest;
pub mod mailbox;
pub mod make;
pub mod owners;
pub mod peers;
pub mod serving;
pub mod skew;
pub mod start;
pub mod station;
pub mod status;
pub mod task;
#[cfg(test)]
mod tests;
mod thread;
mod wake;
mod writer;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use beside::Board;
pub use error::HostError;
use fleet::Fleet;
pub use start::{HostConfig, Tasks, Work};
use status::TaskStatus;
use task::Task;
use thread::Control;
use wake::Wake;

use crate::log::AppendError;

/// The log partitions' names.
pub mod logs {
    use crate::log::LogPartition;

    pub fn events(partition: u32) -> LogPartition {
        LogPartition::new("events", partition)
    }
    pub fn examples(model: &str) -> LogPartition {
        LogPartition::new(format!("examples.{model}"), 0)
    }
    /// What was posted to a source.
    pub fn http(source: &str, partition: u32) -> LogPartition {
        LogPartition::new(format!("http.{source}"), partition)
    }
    /// What a model has learned, for those who serve from it elsewhere.
    pub fn models(model: &str) -> LogPartition {
        LogPartition::new(format!("models.{model}"), 0)
    }
    pub fn dead_letters() -> LogPartition {
        LogPartition::new("dead-letters", 0)
    }
}

/// Tasks at work.
pub struct Host {
    control: Arc<Control>,
    engines: Vec<JoinHandle<thread::Ended>>,
    writer: JoinHandle<Result<(), AppendError>>,
    hands: Vec<JoinHandle<()>>,
    fleet: Arc<Fleet>,
    asked: serving::Asked,
    wake: Arc<Wake>,
}

/// The tasks of a host that ended in good order.
pub struct Finished {
    pub tasks: Vec<Task>,
    pub statuses: Vec<TaskStatus>,
}

impl Host {
    /// Ends everything: nothing more becomes durable.
    pub fn abandoner(&self) -> impl Fn() + Send + 'static {
        let control = self.control.clone();
        move || control.abandon()
    }

    /// How to ask the engine threads.
    pub fn asked(&self) -> serving::Asked {
        self.asked.clone()
    }

    pub fn statuses(&self) -> Vec<TaskStatus> {
        self.fleet.shown().into_iter().map(|shown| shown.status).collect()
    }

    /// What it is told, and says of its tasks.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Wakes all engine threads: there is something new in a log.
    pub fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wake = self.wake.clone();
        Arc::new(move || wake.all())
    }

    /// Has all been read that was there at the start, and every copy of a model been brought up to date?
    pub fn has_caught_up(&self) -> bool {
        self.control.catch_up.is_done()
    }

    /// Has everything come to its end: sources, then profiles, then models? Asked again and again.
    pub fn is_done(&self) -> bool {
        let stage = self.control.stage.load(Ordering::Acquire) as usize;
        let is_done = |board: &Arc<Board>| board.lock().tasks.iter().all(|shown| shown.stage != stage || shown.is_done);
        if stage < STAGES && self.fleet.boards.iter().all(is_done) {
            self.control.stage.store(stage as u8 + 1, Ordering::Release);
            return stage + 1 == STAGES;
        }
        stage >= STAGES
    }

    /// Did some thread end, by an error?
    pub fn is_failing(&self) -> bool {
        self.control.stop.load(Ordering::Acquire)
            || self.engines.iter().any(JoinHandle::is_finished)
            || self.hands.iter().any(JoinHandle::is_finished)
    }

    /// Tells all tasks to save their state, waits for it, and gives them back.
    ///
    /// # Errors
    /// The first cause, where several threads failed because of it.
    pub fn stop(self) -> Result<Finished, HostError> {
        self.control.stop.store(true, Ordering::Release);
        let fleet = self.fleet.clone();
        let mut tasks = Vec::new();
        let mut failure = None;
        for engine in self.engines {
            let name = engine.thread().name().unwrap_or_default().to_owned();
            engine.thread().unpark();
            match engine.join() {
                Ok(Ok(finished)) => tasks.extend(finished),
                Ok(Err(error)) => {
                    failure.get_or_insert(error);
                    self.control.abandon();
                }
                Err(_) => {
                    failure.get_or_insert(HostError::Thread(name));
                    self.control.abandon();
                }
            }
        }
        match self.writer.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failure = Some(error.into()), // the others fail because of it
            Err(_) => failure = Some(HostError::Thread("log-writer".into())),
        }
        for hand in self.hands {
            let name = hand.thread().name().unwrap_or_default().to_owned();
            if hand.join().is_err() {
                failure = Some(HostError::Thread(name));
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        tasks.sort_by_key(|(number, _)| *number);
        let statuses = fleet.shown().into_iter().map(|shown| shown.status).collect();
        Ok(Finished { tasks: tasks.into_iter().map(|(_, task)| task).collect(), statuses })
    }
}

/// Sources, profiles, models.
const STAGES: usize = 3;

/// How often whoever waits for a host looks again.
pub const POLL: Duration = Duration::from_millis(20);
