//! An engine thread: it drives a station of tasks, and answers what is asked of them between two slices.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_engine::{control::Erase, model::ModelTask, profile::Profile};

use super::{
    catch_up::{Behind, CatchUp},
    desk::{ControlLog, Desk, Published, Request},
    error::HostError,
    logs,
    station::{Command, Now, Seat, Station},
    status::TaskStatus,
    store_thread::{Errand, unix_ms},
    task::{Done, Stepped, Task},
    writer::Batch,
};
use crate::{log::Log, store::Answer};

/// How a host is told to end, and tells how far it is.
pub struct Control {
    pub stop: AtomicBool,
    /// A writer failed: nothing more becomes durable, so nothing more is to be waited for.
    pub abandoned: Arc<AtomicBool>,
    /// What must have come to its end before: 0 nothing, 1 the sources, 2 the profile tasks.
    pub stage: AtomicU8,
    pub catch_up: Arc<CatchUp>,
    /// The clock of all threads.
    pub started: Instant,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            stop: AtomicBool::default(),
            abandoned: Arc::default(),
            stage: AtomicU8::default(),
            catch_up: Arc::default(),
            started: Instant::now(),
        }
    }
}

impl Control {
    fn now(&self) -> Now {
        Now { since_start: self.started.elapsed(), unix_ms: unix_ms() }
    }
}

/// The tasks of a thread that has ended, with their numbers.
pub type Ended = Result<Vec<(usize, Task)>, HostError>;

/// What the thread keeps of a task, besides its seat.
pub struct Beside {
    /// Of all tasks of the host.
    pub number: usize,
    pub status: Arc<Mutex<TaskStatus>>,
    /// It has come to its end, as of this stage.
    pub done: Arc<AtomicBool>,
    pub slice: Slice,
    pub published: Option<Published>,
    /// What was there at the start.
    pub behind: Behind,
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
    pub station: Station,
    /// Of the station's seats, in their order.
    pub beside: Vec<Beside>,
    pub log: Arc<dyn Log>,
    pub writer: SyncSender<Batch>,
    pub store: Sender<Errand>,
    /// What the store has answered, and the sender for more of it.
    pub answers: Receiver<(u64, Answer)>,
    pub reply: Sender<(u64, Answer)>,
    pub acknowledged: Arc<AtomicU64>,
    /// Cut, but not taken by the writer yet: while there are any, tasks pause and only requests are answered.
    pub backlog: VecDeque<Batch>,
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
/// Until a thread that has nothing else to do looks again for what it was promised.
const WAIT: Duration = Duration::from_millis(1);

impl EngineThread {
    /// Runs until told to stop. Gives the tasks back, each saved if the log could still be written.
    pub fn run(mut self) -> Ended {
        let result = self.work();
        // Whoever still waits for an answer is told that there will be none.
        self.desk.mailbox.close();
        result.map(|()| {
            let numbers = self.beside.iter().map(|beside| beside.number);
            numbers.zip(self.station.seats.into_iter().map(|seat| seat.task)).collect()
        })
    }

    fn work(&mut self) -> Result<(), HostError> {
        let mut told = Instant::now();
        while !self.control.stop.load(Ordering::Acquire) {
            let mut progressed = self.answer();
            for at in 0..self.station.seats.len() {
                if !self.backlog.is_empty() {
                    break;
                }
                progressed |= self.step(at)?;
                progressed |= self.answer();
            }
            self.hear()?;
            self.station.tick(self.control.now())?;
            self.dispatch();
            if told.elapsed() >= if progressed { STATUS_EVERY } else { STATUS_EVERY_IDLE } {
                self.tell();
                told = Instant::now();
            }
            if !progressed {
                let waits = if self.backlog.is_empty() { IDLE_SLEEP } else { WAIT };
                let until_due = self.station.sleeps_for(self.control.now());
                thread::park_timeout(until_due.unwrap_or(waits).min(waits));
            }
        }
        self.finish()
    }

    fn step(&mut self, at: usize) -> Result<bool, HostError> {
        let began = Instant::now();
        let slice = &mut self.beside[at].slice;
        let stepped = self.station.step(at, slice.records, self.control.now())?;
        if stepped == Stepped::Worked {
            slice.adapt(began.elapsed());
        }
        self.dispatch();
        Ok(stepped != Stepped::Idle)
    }

    /// Does what the station wants done.
    fn dispatch(&mut self) {
        while let Some(command) = self.station.command() {
            let errand = match command {
                Command::Append { ticket, appends } => {
                    self.backlog.push_back(Batch { appends, ticket, acknowledged: self.acknowledged.clone() });
                    continue;
                }
                Command::Ask { id, op } => Errand::Ask { id, op, reply: self.reply.clone() },
                Command::Trim { partition, before } => Errand::Trim { partition, before },
                // All tasks of a run are there from its start.
                Command::Make { .. } => continue,
            };
            if self.store.send(errand).is_err() {
                self.abandon();
            }
        }
        self.send();
    }

    /// Tells the station what has been done.
    fn hear(&mut self) -> Result<(), HostError> {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        if acknowledged > self.station.acknowledged() {
            self.station.appended(acknowledged)?;
        }
        while let Ok((id, answer)) = self.answers.try_recv() {
            self.station.answered(id, answer, self.control.now())?;
        }
        Ok(())
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

    /// A thread that we need has ended, and says why to whoever joins it: no more of our effects can be kept.
    fn abandon(&mut self) {
        self.backlog.clear();
        self.control.abandoned.store(true, Ordering::Release);
        self.control.stop.store(true, Ordering::Release);
    }

    /// How far tasks are on the way to what was there at the start.
    fn catch_up(&mut self, quiet: bool) {
        let catch_up = &self.control.catch_up;
        if catch_up.has_users() {
            return;
        }
        let (acknowledged, next_ticket) = (self.station.acknowledged(), self.station.sent() + 1);
        for (seat, beside) in self.station.seats.iter().zip(&mut self.beside) {
            let (position, _) = seat.task.position();
            beside.behind = match beside.behind {
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
        let quiet = self.station.is_quiet();
        self.catch_up(quiet);
        let stage = self.control.stage.load(Ordering::Acquire);
        for (seat, beside) in self.station.seats.iter_mut().zip(&mut self.beside) {
            let is_done = || seat.task.done(self.log.as_ref(), stage) == Done::Yes;
            if quiet && !beside.done.load(Ordering::Acquire) && is_done() {
                beside.done.store(true, Ordering::Release);
            }
            if let Task::Model(task, ..) = &mut seat.task {
                tell_alarms(task);
                if let Some(published) = &mut beside.published {
                    self.desk.publish(task, published);
                }
            }
            if let Ok(mut status) = beside.status.lock() {
                *status = TaskStatus { checkpoints: seat.written, ..seat.task.status(self.log.as_ref()) };
            }
        }
    }

    /// Completes what is half done and saves every task.
    fn finish(&mut self) -> Result<(), HostError> {
        for at in 0..self.station.seats.len() {
            while !self.station.seats[at].task.is_clean() {
                if !self.backlog.is_empty() {
                    if self.is_abandoned() {
                        return Ok(());
                    }
                    thread::park_timeout(WAIT);
                }
                self.step(at)?;
            }
        }
        self.answer();
        self.station.finish(self.control.now())?;
        while !self.station.is_finished() {
            self.dispatch();
            self.hear()?;
            if self.is_abandoned() {
                return Ok(());
            }
            thread::park_timeout(WAIT);
        }
        self.dispatch();
        self.tell();
        Ok(())
    }

    fn is_abandoned(&self) -> bool {
        self.control.abandoned.load(Ordering::Acquire)
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
        let Self { station, desk, .. } = self;
        let Station { seats, outbox, .. } = station;
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
                station.flush_to(&logs::events(partition));
                desk.answer_when_durable(station.sent(), reply);
                self.dispatch();
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
