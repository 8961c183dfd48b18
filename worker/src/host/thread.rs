//! An engine thread: it owns tasks, steps them in turn, cuts their effects into frames and asks for checkpoints.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    thread,
    time::{Duration, Instant},
};

use millrace_engine::{
    checkpoint::Extent,
    frame::outbox::{Handle, Outbox},
};

use super::{
    checkpoints::{Checkpoints, Job, Progress},
    error::HostError,
    status::TaskStatus,
    task::{Done, Task},
    writer::Batch,
};
use crate::{
    log::{Log, LogPartition},
    store::keys::TaskId,
};

/// When frames are cut and checkpoints taken.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// A frame is cut when its records have so many bytes, or after `flush_after`.
    pub frame_bytes: usize,
    pub flush_after: Duration,
    pub checkpoint_every: Duration,
}

/// How a host is told to end, and tells how far it is.
#[derive(Default)]
pub struct Control {
    pub stop: AtomicBool,
    /// A writer failed: nothing more becomes durable, so nothing more is to be waited for.
    pub abandoned: Arc<AtomicBool>,
    /// What must have come to its end before: 0 nothing, 1 the sources, 2 the profile tasks.
    pub stage: AtomicU8,
}

/// A task with what its thread keeps beside it.
pub struct Seat {
    pub number: usize,
    pub id: TaskId,
    pub task: Task,
    pub handle: Handle,
    pub status: Arc<Mutex<TaskStatus>>,
    pub progress: Arc<Progress>,
    /// It has come to its end, as of this stage.
    pub done: Arc<AtomicBool>,
    pub next_checkpoint: Instant,
    pub saved_position: Option<u64>,
    pub slice: Slice,
}

/// How many records a task may handle until its thread looks at what is asked of it: as many as last about
/// [`SLICE`]. Nothing that is computed depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    records: usize,
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
    fn adapt(&mut self, took: Duration) {
        let records = match took {
            took if took > SLICE => self.records / 2,
            took if took < SLICE / 4 => self.records * 2,
            _ => self.records,
        };
        self.records = records.clamp(*SLICE_RECORDS.start(), *SLICE_RECORDS.end());
    }
}

pub struct EngineThread {
    pub outbox: Outbox,
    pub outputs: Vec<LogPartition>,
    pub seats: Vec<Seat>,
    pub log: Arc<dyn Log>,
    pub writer: SyncSender<Batch>,
    pub checkpoints: Checkpoints,
    pub acknowledged: Arc<AtomicU64>,
    pub sent: u64,
    pub cadence: Cadence,
    pub control: Arc<Control>,
}

const STATUS_EVERY: Duration = Duration::from_millis(50);
/// The longest sleep of a thread that nobody wakes.
const IDLE_SLEEP: Duration = Duration::from_millis(20);

impl EngineThread {
    /// Runs until told to stop. Gives the tasks back, each saved if the log could still be written.
    pub fn run(mut self) -> Result<Vec<Seat>, HostError> {
        let mut flushed = Instant::now();
        let mut told = Instant::now();
        while !self.control.stop.load(Ordering::Acquire) {
            let mut progressed = false;
            for at in 0..self.seats.len() {
                progressed |= self.step(at)?;
                self.cut_full();
            }
            if !progressed || flushed.elapsed() >= self.cadence.flush_after {
                self.flush();
                flushed = Instant::now();
                self.checkpoint_where_due()?;
            }
            if !progressed || told.elapsed() >= STATUS_EVERY {
                self.tell();
                told = Instant::now();
            }
            if !progressed {
                thread::park_timeout(IDLE_SLEEP.min(self.cadence.flush_after * 4));
            }
        }
        self.finish()?;
        Ok(self.seats)
    }

    fn step(&mut self, at: usize) -> Result<bool, HostError> {
        let seat = &mut self.seats[at];
        let began = Instant::now();
        let worked = seat.task.step(self.log.as_ref(), &mut self.outbox, &seat.handle, seat.slice.records)?;
        if worked {
            seat.slice.adapt(began.elapsed());
        }
        Ok(worked)
    }

    fn cut_full(&mut self) {
        let full: Vec<usize> =
            (0..self.outputs.len()).filter(|o| self.outbox.waiting_bytes(*o) >= self.cadence.frame_bytes).collect();
        if !full.is_empty() {
            self.append(&full);
        }
    }

    fn flush(&mut self) {
        let all: Vec<usize> = (0..self.outputs.len()).collect();
        self.append(&all);
    }

    fn append(&mut self, outputs: &[usize]) {
        let mut appends = Vec::new();
        for output in outputs {
            if let Some(frame) = self.outbox.cut(*output) {
                appends.push((self.outputs[*output].clone(), frame));
            }
        }
        if appends.is_empty() {
            return;
        }
        self.sent += 1;
        let batch = Batch { appends, ticket: self.sent, acknowledged: self.acknowledged.clone() };
        if self.writer.send(batch).is_err() {
            // The writer failed and says why; no more of our effects can be kept.
            self.control.abandoned.store(true, Ordering::Release);
            self.control.stop.store(true, Ordering::Release);
        }
    }

    fn all_acknowledged(&self) -> bool {
        self.acknowledged.load(Ordering::Acquire) >= self.sent
    }

    fn checkpoint_where_due(&mut self) -> Result<(), HostError> {
        let now = Instant::now();
        for at in 0..self.seats.len() {
            let seat = &self.seats[at];
            if seat.next_checkpoint <= now && !seat.progress.pending.load(Ordering::Acquire) && seat.task.is_clean() {
                self.checkpoint(at, false)?;
            }
        }
        Ok(())
    }

    /// Everything the task has recorded must have been flushed before.
    fn checkpoint(&mut self, at: usize, last: bool) -> Result<(), HostError> {
        let seat = &mut self.seats[at];
        seat.next_checkpoint = Instant::now() + self.cadence.checkpoint_every;
        let (position, frame_checksum) = seat.task.position();
        if !last && seat.saved_position == Some(position) {
            return Ok(()); // nothing was applied since
        }
        seat.saved_position = Some(position);
        let base = seat.progress.wants_base.load(Ordering::Acquire) || seat.task.wants_base();
        let extent = if base { Extent::Base } else { Extent::Changes };
        let (extent, bytes) = seat.task.checkpoint(extent)?;
        seat.progress.pending.store(true, Ordering::Release);
        let (ticket, acknowledged) = (self.sent, self.acknowledged.clone());
        let task = seat.id.clone();
        let job = Job { task, extent, bytes, log_offset: position, frame_checksum, ticket, last, acknowledged };
        if !self.checkpoints.save(job) {
            self.control.stop.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn tell(&mut self) {
        let quiet = self.all_acknowledged() && !self.outbox.has_news();
        let stage = self.control.stage.load(Ordering::Acquire);
        for seat in &mut self.seats {
            if quiet && !seat.done.load(Ordering::Acquire) && seat.task.done(self.log.as_ref(), stage) == Done::Yes {
                seat.done.store(true, Ordering::Release);
            }
            if let Ok(mut status) = seat.status.lock() {
                let written = seat.progress.written.lock().map(|written| *written).unwrap_or_default();
                *status = TaskStatus { checkpoints: written, ..seat.task.status(self.log.as_ref()) };
            }
        }
    }

    /// Completes what is half done and saves every task.
    fn finish(&mut self) -> Result<(), HostError> {
        for at in 0..self.seats.len() {
            while !self.seats[at].task.is_clean() {
                self.step(at)?;
                self.cut_full();
            }
        }
        self.flush();
        for at in 0..self.seats.len() {
            while self.seats[at].progress.pending.load(Ordering::Acquire) {
                if self.control.abandoned.load(Ordering::Acquire) {
                    return Ok(());
                }
                thread::park_timeout(Duration::from_millis(1));
            }
            self.checkpoint(at, true)?;
        }
        self.tell();
        Ok(())
    }
}
