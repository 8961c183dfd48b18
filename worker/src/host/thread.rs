//! An engine thread: it owns tasks, steps them in turn, cuts their effects into frames and asks for checkpoints.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_engine::{
    checkpoint::Extent,
    control::{Configure, Control as ControlRecord, Erase},
    frame::{
        Origin,
        outbox::{Handle, Outbox},
    },
    model::ModelTask,
    profile::Profile,
};

use super::{
    catch_up::{Behind, CatchUp},
    checkpoints::{Checkpoints, Job, Progress},
    desk::{ControlLog, Desk, Request},
    error::HostError,
    logs,
    start::rewire,
    status::TaskStatus,
    task::{Done, Stepped, Task},
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
    pub catch_up: Arc<CatchUp>,
}

/// A task with what its thread keeps beside it.
pub struct Seat {
    pub number: usize,
    pub id: TaskId,
    pub task: Task,
    pub handle: Handle,
    pub origin: Origin,
    pub epoch: u64,
    pub status: Arc<Mutex<TaskStatus>>,
    pub progress: Arc<Progress>,
    /// It has come to its end, as of this stage.
    pub done: Arc<AtomicBool>,
    pub next_checkpoint: Instant,
    pub saved_position: Option<u64>,
    pub slice: Slice,
    /// Where control records for the task go.
    pub control: Option<ControlLog>,
    pub published: Option<Published>,
    /// What was there at the start.
    pub behind: Behind,
}

impl Seat {
    /// Tells a task that is behind of the pipeline as it is now. Told twice, it takes no notice.
    pub fn configure(&mut self, configure: &Configure, outbox: &mut Outbox) {
        let is_behind = self.task.generation().is_some_and(|generation| generation < configure.generation);
        if let Some(control) = self.control.as_mut().filter(|_| is_behind) {
            control.append(&ControlRecord::Configure(configure.clone()), outbox);
        }
    }
}

/// What serving copies have been told of a model task.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub model: usize,
    /// Examples that they know of.
    pub scored: Option<u64>,
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
    /// Cut, but not taken by the writer yet: while there are any, tasks pause and only requests are answered.
    pub backlog: VecDeque<Batch>,
    pub cadence: Cadence,
    pub control: Arc<Control>,
    pub desk: Desk,
}

/// Bytes that may wait for the writer until requests wait too: what is decided is appended, and would only add to them.
const BACKLOG_BYTES: usize = 64 << 20;
const STATUS_EVERY: Duration = Duration::from_millis(50);
/// The longest sleep of a thread that nobody wakes.
const IDLE_SLEEP: Duration = Duration::from_millis(20);
/// Telling costs something: a thread that wakes for every request does not do it each time.
const STATUS_EVERY_IDLE: Duration = Duration::from_millis(5);

impl EngineThread {
    /// Runs until told to stop. Gives the tasks back, each saved if the log could still be written.
    pub fn run(mut self) -> Result<Vec<Seat>, HostError> {
        let result = self.work();
        // Whoever still waits for an answer is told that there will be none.
        self.desk.mailbox.close();
        result.map(|()| self.seats)
    }

    fn work(&mut self) -> Result<(), HostError> {
        let mut flushed = Instant::now();
        let mut told = Instant::now();
        while !self.control.stop.load(Ordering::Acquire) {
            let mut progressed = self.answer();
            for at in 0..self.seats.len() {
                if !self.backlog.is_empty() {
                    break;
                }
                progressed |= self.step(at)?;
                self.cut_full();
                progressed |= self.answer();
            }
            if flushed.elapsed() >= self.cadence.flush_after {
                self.flush();
                flushed = Instant::now();
                self.checkpoint_where_due()?;
            }
            if told.elapsed() >= if progressed { STATUS_EVERY } else { STATUS_EVERY_IDLE } {
                self.tell();
                told = Instant::now();
            }
            self.send();
            if !progressed {
                let until_flush = self.cadence.flush_after.saturating_sub(flushed.elapsed());
                let is_waited_for = self.outbox.has_news() || !self.backlog.is_empty();
                thread::park_timeout(if is_waited_for { until_flush } else { IDLE_SLEEP });
            }
        }
        self.finish()
    }

    fn step(&mut self, at: usize) -> Result<bool, HostError> {
        let seat = &mut self.seats[at];
        let began = Instant::now();
        match seat.task.step(self.log.as_ref(), &mut self.outbox, &seat.handle, seat.slice.records)? {
            Stepped::Idle => return Ok(false),
            Stepped::Worked => seat.slice.adapt(began.elapsed()),
            Stepped::Reconfigured => self.rewire(at),
        }
        Ok(true)
    }

    /// A profile task has gone over to a pipeline that may have other models.
    fn rewire(&mut self, at: usize) {
        let Self { seats, outputs, outbox, .. } = self;
        let seat = &mut seats[at];
        let Task::Profile(profile, ..) = &seat.task else { return };
        seat.handle = rewire(profile, &seat.handle, (seat.origin, seat.epoch), outputs, outbox);
        tracing::info!(task = %seat.id, generation = profile.generation(), "the changed pipeline is taken over");
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
        self.backlog.push_back(Batch { appends, ticket: self.sent, acknowledged: self.acknowledged.clone() });
        self.send();
    }

    /// Hands on what the writer has room for.
    fn send(&mut self) {
        while let Some(batch) = self.backlog.pop_front() {
            match self.writer.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => return self.backlog.push_front(batch),
                Err(TrySendError::Disconnected(_)) => return self.abandon(),
            }
        }
    }

    /// Waits until the writer has taken everything.
    fn send_all(&mut self) {
        while let Some(batch) = self.backlog.pop_front() {
            if self.writer.send(batch).is_err() {
                return self.abandon();
            }
        }
    }

    /// The writer failed and says why; no more of our effects can be kept.
    fn abandon(&mut self) {
        self.backlog.clear();
        self.control.abandoned.store(true, Ordering::Release);
        self.control.stop.store(true, Ordering::Release);
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
        let generation = seat.task.generation();
        let job =
            Job { task, extent, bytes, generation, log_offset: position, frame_checksum, ticket, last, acknowledged };
        if !self.checkpoints.save(job) {
            self.control.stop.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// How far tasks are on the way to what was there at the start.
    fn catch_up(&mut self, quiet: bool) {
        let catch_up = &self.control.catch_up;
        if catch_up.has_users() {
            return;
        }
        let (acknowledged, next_ticket) = (self.acknowledged.load(Ordering::Acquire), self.sent + 1);
        for seat in &mut self.seats {
            let (position, _) = seat.task.position();
            seat.behind = match seat.behind {
                Behind::Topic(end) if position >= end => Behind::Ticket(next_ticket),
                Behind::Ticket(ticket) if quiet || acknowledged >= ticket => {
                    catch_up.topic_is_read();
                    Behind::No
                }
                Behind::Partition(None) if catch_up.has_topics() => {
                    Behind::Partition(seat.task.controlled().and_then(|partition| self.log.end(partition).ok()))
                }
                Behind::Partition(Some(end)) if position >= end => {
                    catch_up.partition_is_read();
                    Behind::No
                }
                behind => behind,
            };
        }
    }

    fn tell(&mut self) {
        let quiet = self.all_acknowledged() && !self.outbox.has_news();
        self.catch_up(quiet);
        let stage = self.control.stage.load(Ordering::Acquire);
        for seat in &mut self.seats {
            if quiet && !seat.done.load(Ordering::Acquire) && seat.task.done(self.log.as_ref(), stage) == Done::Yes {
                seat.done.store(true, Ordering::Release);
            }
            if let Task::Model(task, ..) = &mut seat.task {
                tell_alarms(task);
                if let Some(published) = &mut seat.published {
                    self.desk.publish(task, published);
                }
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
                self.send_all();
            }
        }
        self.answer();
        self.flush();
        self.send_all();
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

    /// Answers all that waits. False: nothing did.
    fn answer(&mut self) -> bool {
        self.desk.acknowledge(self.acknowledged.load(Ordering::Acquire));
        if self.backlog.iter().map(Batch::bytes).sum::<usize>() > BACKLOG_BYTES {
            return false;
        }
        let requests = self.desk.mailbox.take();
        let any = !requests.is_empty();
        for request in requests {
            self.answer_one(request);
        }
        any
    }

    fn answer_one(&mut self, request: Request) {
        let Self { seats, desk, outbox, .. } = self;
        match request {
            Request::Learned { model, delta } => desk.learn(model, &delta),
            Request::Withdrawn { user, stated } => desk.withdraw(user, stated),
            Request::Profile { user, reply } => {
                let found =
                    owner_of(seats, desk.partition_of(user)).and_then(|(profile, _)| desk.profile(profile, user));
                // Whoever asked may be gone, here and below.
                let _ = reply.send(found);
            }
            Request::Erase { user, time, reply } => {
                let partition = desk.partition_of(user);
                let Some((_, log)) = owner_of(seats, partition) else { return };
                desk.erase(log, outbox, Erase { user, time });
                // Cut at once: the ticket is then the one of the batch that holds it.
                if let Some(output) = self.outputs.iter().position(|output| *output == logs::events(partition)) {
                    self.append(&[output]);
                    self.desk.answer_when_durable(self.sent, reply);
                }
            }
            Request::Decide(ask) => {
                let Some((profile, log)) = owner_of(seats, ask.question.partition) else { return };
                desk.decide(*ask, profile, log, outbox);
            }
        }
    }
}

/// Each alarm of drift once, with what was done about it.
fn tell_alarms(task: &mut ModelTask) {
    for alarm in task.take_alarms() {
        let example = alarm.found.example;
        tracing::warn!(
            model = task.name(),
            example,
            "drift: {alarm}; {}. Did a source change what it sends, or did the world? `drift` in /v1/status and on the page \
             shows how it goes on",
            alarm.done
        );
    }
}

/// The profile task of an events partition, and where its control records go.
fn owner_of(seats: &mut [Seat], partition: u32) -> Option<(&mut Profile, &mut ControlLog)> {
    seats.iter_mut().find_map(|seat| match (&mut seat.task, &mut seat.control) {
        (Task::Profile(profile, follow, _), Some(log)) if follow.partition.partition == partition => {
            Some((profile.as_mut(), log))
        }
        _ => None,
    })
}
