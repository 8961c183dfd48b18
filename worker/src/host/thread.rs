//! An engine thread: it drives a station of tasks, and answers what is asked of them between two slices.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_engine::{control::Erase, frame::Origin, model::ModelTask, profile::Profile};

use super::{
    beside::{Beside, Board, Directory, Shown, Told},
    catch_up::{Behind, CatchUp, UpTo},
    clock::unix_ms,
    desk::{ControlLog, Desk, Promised, Read, Request},
    error::HostError,
    hands::{Errand, News},
    logs,
    make::profile_task,
    owners::Owners,
    station::{Command, Now, Seat, Station},
    status::TaskStatus,
    task::{Done, Stepped, Task},
    wake::Awaits,
    writer::Batch,
};
use crate::{
    log::{Log, LogPartition},
    store::keys::{TaskId, TaskKind},
};

/// How a host is told to end, and tells how far it is.
pub struct Control {
    pub stop: AtomicBool,
    /// A writer failed: nothing more becomes durable, so nothing more is to be waited for.
    abandoned: AtomicBool,
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
            abandoned: AtomicBool::default(),
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

    /// A thread that the others need has failed: nothing more is to be waited for.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.stop.store(true, Ordering::Release);
    }
}

/// The tasks of a thread that has ended, with their numbers.
pub type Ended = Result<Vec<(usize, Task)>, HostError>;

pub struct EngineThread {
    /// Of all threads of the host.
    pub number: usize,
    /// What it owns is what it is told to own: what the store or another owner does to one task does not end it.
    pub is_of_a_fleet: bool,
    pub station: Station,
    /// Of each seat.
    pub beside: BTreeMap<TaskId, Beside>,
    pub directory: Arc<Directory>,
    /// Topics of what is posted, in a fleet: others may read them.
    pub posted: Arc<Vec<(Origin, LogPartition)>>,
    pub owners: Arc<Owners>,
    pub board: Arc<Board>,
    pub log: Arc<dyn Log>,
    pub writer: SyncSender<Batch>,
    pub hands: Sender<Errand>,
    /// What became of errands, and the sender for more of it.
    pub news: Receiver<News>,
    pub tell: Sender<News>,
    pub acknowledged: Arc<AtomicU64>,
    /// Cut, but not taken by the writer yet: while there are any, tasks pause and only requests are answered.
    pub backlog: VecDeque<Batch>,
    pub control: Arc<Control>,
    pub awaits: Arc<Awaits>,
    pub desk: Desk,
}

/// Bytes that may wait for the writer until requests wait too: what is decided is appended, and would only add to them.
const BACKLOG_BYTES: usize = 64 << 20;
const STATUS_EVERY: Duration = Duration::from_millis(50);
/// Of a profile or model task at a time.
const FOLLOWER_STEPS: usize = 8;
/// Until a thread that has nothing else to do looks again for what it was promised.
const WAIT: Duration = Duration::from_millis(1);

impl EngineThread {
    /// Runs until told to stop. Gives the tasks back, each saved if the log could still be written.
    pub fn run(mut self) -> Ended {
        let result = self.work();
        // Whoever still waits for an answer is told that there will be none.
        self.desk.mailbox.close();
        self.station.seats.iter().for_each(|seat| self.owners.clear(seat.task.events_partition(), self.number));
        result.map(|()| {
            let number = |seat: &Seat| self.beside.get(&seat.id).map_or(usize::MAX, |beside| beside.number);
            self.station.seats.into_iter().map(|seat| (number(&seat), seat.task)).collect()
        })
    }

    fn work(&mut self) -> Result<(), HostError> {
        let mut told = Instant::now();
        while !self.control.stop.load(Ordering::Acquire) {
            let mut progressed = self.answer();
            let mut at = 0;
            while at < self.station.seats.len() && self.backlog.is_empty() {
                progressed |= self.turn(at)?;
                at += 1;
            }
            progressed |= self.hear()?;
            let ticked = self.station.tick(self.control.now());
            self.tolerate(ticked)?;
            self.dispatch();
            let changed = self.settle();
            self.catch_up();
            if changed || told.elapsed() >= STATUS_EVERY {
                self.tell();
                told = Instant::now();
            }
            if !progressed {
                self.rest();
            }
        }
        self.finish()
    }

    /// Sleeps until frames are to be cut, or somebody asks for something.
    fn rest(&self) {
        if self.awaits.begin(self.desk.has_promised() || !self.backlog.is_empty()) {
            return;
        }
        let until_due = self.station.sleeps_for(self.control.now());
        // What holds a record back goes on as soon as others have, here or on another thread.
        let is_holding = |seat: &Seat| matches!(&seat.task, Task::Ingest(task, _) if task.ingest().is_holding());
        let waits = !self.backlog.is_empty() || self.station.seats.iter().any(is_holding);
        thread::park_timeout(if waits { WAIT.min(until_due) } else { until_due });
    }

    /// Steps of one task, each followed by what is asked meanwhile. What reads a log has more of them than what feeds it, so
    /// that it keeps up. False: it had nothing to do.
    fn turn(&mut self, at: usize) -> Result<bool, HostError> {
        let steps = if matches!(self.station.seats[at].task, Task::Ingest(..)) { 1 } else { FOLLOWER_STEPS };
        let mut progressed = false;
        for _ in 0..steps {
            let stepped = self.step(at)?;
            progressed |= stepped | self.answer();
            if !stepped || at >= self.station.seats.len() || !self.backlog.is_empty() {
                break;
            }
        }
        Ok(progressed)
    }

    fn step(&mut self, at: usize) -> Result<bool, HostError> {
        let began = Instant::now();
        let Some(beside) = self.beside.get_mut(&self.station.seats[at].id) else { return Ok(false) };
        let stepped = self.station.step(at, beside.slice.records, self.control.now());
        if matches!(stepped, Ok(Stepped::Worked)) {
            beside.slice.adapt(began.elapsed());
            beside.load.add(began.elapsed());
        }
        let stepped = match stepped {
            Ok(stepped) => stepped,
            Err(error) => self.tolerate(Err(error)).map(|()| Stepped::Worked)?,
        };
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
                Command::Ask { id, op } => Errand::Ask { id, op, tell: self.tell.clone() },
                Command::Make { id, task, restored } => Errand::Make { id, task, restored, tell: self.tell.clone() },
                Command::LetGo { task } => Errand::LetGo(task),
                Command::Trim { partition, before } => Errand::Trim { partition, before },
            };
            if self.hands.send(errand).is_err() {
                self.abandon();
            }
        }
        self.send();
    }

    /// Tells the station what has been done. Whether anything was.
    fn hear(&mut self) -> Result<bool, HostError> {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let mut heard = acknowledged > self.station.acknowledged();
        if heard {
            let appended = self.station.appended(acknowledged);
            self.tolerate(appended.map_err(HostError::from))?;
        }
        while let Ok(news) = self.news.try_recv() {
            heard = true;
            let heard = match news {
                News::Answered(id, answer) => self.station.answered(id, answer, self.control.now()),
                News::Made(id, Ok(made)) => {
                    self.station.made(id, *made);
                    Ok(())
                }
                News::Made(id, Err(error)) => {
                    self.station.not_made(id, &error);
                    Err(error)
                }
            };
            self.tolerate(heard)?;
        }
        Ok(heard)
    }

    /// In a fleet, what the store or another owner has done to one task is its own business, and in its report. Elsewhere a
    /// store that does not answer is waited for, but not to the end.
    fn tolerate(&self, result: Result<(), HostError>) -> Result<(), HostError> {
        let is_stopping = self.control.stop.load(Ordering::Acquire);
        match result {
            Err(error) if error.is_of_store() && !is_stopping => {
                tracing::warn!(%error, "a checkpoint was not written; it is tried again");
                Ok(())
            }
            Err(error) if self.is_of_a_fleet && error.is_of_one_task() => {
                tracing::warn!(%error, "a task does not go on here");
                Ok(())
            }
            result => result,
        }
    }

    /// Tasks have come, gone, or become ours, perhaps. Whoever gives orders waits for that.
    fn settle(&mut self) -> bool {
        let (seats, number) = (&self.station.seats, self.number);
        let mut changed = false;
        for seat in seats {
            let beside = self.beside.entry(seat.id.clone());
            let beside = beside.or_insert_with(|| Beside::new(&seat.id, &self.directory));
            if beside.is_owner == seat.is_owner() {
                continue;
            }
            beside.is_owner = seat.is_owner();
            changed = true;
            let Some(partition) = seat.task.events_partition() else { continue };
            if beside.is_owner {
                // What others have accepted for it counts before anybody is personalized.
                beside.behind = Behind::TakenOver(UpTo::NotAsked.ask(self.log.as_ref(), &logs::events(partition)));
                beside.posted = vec![UpTo::NotAsked; self.posted.len()];
                self.owners.set(partition, number);
            } else {
                self.owners.clear(Some(partition), number);
            }
        }
        if self.beside.len() > seats.len() {
            changed = true;
            self.beside.retain(|id, _| {
                let stays = seats.iter().any(|seat| seat.id == *id);
                if !stays && id.kind == TaskKind::Profile {
                    self.owners.clear(id.name.parse().ok(), number);
                }
                stays
            });
        }
        changed
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
        self.control.abandon();
    }

    /// How far tasks are on the way to what was there when they came.
    fn catch_up(&mut self) {
        let quiet = self.station.is_quiet();
        let catch_up = &self.control.catch_up;
        let (acknowledged, next_ticket) = (self.station.acknowledged(), self.station.sent() + 1);
        for seat in &self.station.seats {
            let Some(beside) = self.beside.get_mut(&seat.id).filter(|beside| beside.behind != Behind::No) else {
                continue;
            };
            let (position, _) = seat.task.position();
            let (log, controlled) = (self.log.as_ref(), seat.task.controlled());
            let ask = |up_to: UpTo| controlled.map_or(up_to, |partition| up_to.ask(log, partition));
            beside.behind = match beside.behind {
                Behind::Topic(UpTo::Offset(end)) if position >= end => Behind::Ticket(next_ticket),
                Behind::Topic(up_to) => Behind::Topic(match &seat.task {
                    Task::Ingest(task, _) => task.posted().map_or(up_to, |partition| up_to.ask(log, partition)),
                    _ => up_to,
                }),
                Behind::Ticket(ticket) if quiet || acknowledged >= ticket => {
                    catch_up.topic_is_read();
                    Behind::No
                }
                Behind::Partition(UpTo::Offset(end)) if position >= end => {
                    catch_up.partition_is_read();
                    Behind::No
                }
                Behind::TakenOver(UpTo::Offset(end))
                    if position >= end && has_what_was_posted(&seat.task, &beside.posted, &self.posted) =>
                {
                    Behind::No
                }
                Behind::Partition(up_to) if catch_up.has_topics() => Behind::Partition(ask(up_to)),
                Behind::TakenOver(up_to) => {
                    for (up_to, (_, topic)) in beside.posted.iter_mut().zip(self.posted.iter()) {
                        *up_to = up_to.ask(log, topic);
                    }
                    Behind::TakenOver(ask(up_to))
                }
                behind => behind,
            };
        }
    }

    fn tell(&mut self) {
        let quiet = self.station.is_quiet();
        let (stage, since_start) = (self.control.stage.load(Ordering::Acquire), self.control.now().since_start);
        let mut told = Told { reports: self.station.reports(), tasks: Vec::new() };
        for seat in &mut self.station.seats {
            let Some(beside) = self.beside.get_mut(&seat.id) else { continue };
            beside.is_done |= quiet && seat.task.done(self.log.as_ref(), stage) == Done::Yes;
            let (is_owner, epoch) = (seat.is_owner(), seat.epoch);
            if let Task::Model(task, ..) = &mut seat.task {
                tell_alarms(task);
                // A standby's would be told twice.
                if let Some(published) = beside.published.as_mut().filter(|_| is_owner) {
                    self.desk.publish(task, published, epoch);
                }
            }
            beside.load.look(since_start, seat.task.position().0);
            if let Some(report) = told.reports.get_mut(&seat.id) {
                report.load_millicores = beside.load.millicores;
                report.state_bytes = seat.state_bytes;
                if !self.is_of_a_fleet {
                    report.epoch = seat.epoch; // by no order
                }
            }
            let status = TaskStatus { checkpoints: seat.written, ..seat.task.status(self.log.as_ref()) };
            told.tasks.push(Shown::of(beside, &seat.task, status));
        }
        *self.board.lock() = told;
    }

    /// Completes what is half done and saves every task.
    fn finish(&mut self) -> Result<(), HostError> {
        self.station.keep_owned();
        while let Some(at) = self.station.seats.iter().position(|seat| !seat.task.is_clean()) {
            if !self.backlog.is_empty() {
                if self.is_abandoned() {
                    return Ok(());
                }
                thread::park_timeout(WAIT);
            }
            self.step(at)?;
        }
        self.answer();
        let finishing = self.station.finish(self.control.now());
        self.tolerate(finishing)?;
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
        let Self { desk, station, .. } = self;
        let controls = |partition| {
            let mut profiles = station.seats.iter().filter_map(|seat| match &seat.task {
                Task::Profile(profile, follow, _) if seat.is_owner() => Some((profile, follow.partition.partition)),
                _ => None,
            });
            profiles.find(|(_, of)| *of == partition).map(|(profile, of)| profile.controls_applied(of))
        };
        desk.acknowledge(self.acknowledged.load(Ordering::Acquire), controls);
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
                let Some((profile, _)) = owner_of(seats, desk.partition_of(user)) else { return };
                // Whoever asked may be gone, here and below.
                let _ = reply.send(desk.profile(profile, user));
            }
            Request::Erase { user, time, reply } => {
                let partition = desk.partition_of(user);
                let Some((_, log)) = owner_of(seats, partition) else { return };
                let (epoch, seq) = (log.epoch(), desk.erase(log, outbox, Erase { user, time }));
                // Cut at once: the ticket is then the one of the batch that holds it.
                station.flush_to(&logs::events(partition));
                let read = self.is_of_a_fleet.then_some(Read { partition, epoch, seq });
                desk.promise(Promised { ticket: station.sent(), read, reply });
                self.dispatch();
            }
            Request::Decide(ask) => {
                let Some((profile, log)) = owner_of(seats, ask.question.partition) else { return };
                let beside = self.beside.get(&profile_task(ask.question.partition));
                let is_level = beside.is_some_and(|beside| beside.behind == Behind::No);
                desk.decide(*ask, profile, is_level, log, outbox);
            }
            Request::Configure(configure) => station.configure(TaskKind::Profile, configure),
            Request::Obey { orders, claimant } => {
                let obeyed = station.obey(&orders, &claimant, self.control.now());
                if let Err(error) = obeyed {
                    tracing::warn!(%error, "an order cannot be obeyed");
                }
                self.dispatch();
            }
        }
    }
}

/// Has a profile task read all that had been posted when it came? A withdrawal may be among it.
fn has_what_was_posted(task: &Task, up_to: &[UpTo], posted: &[(Origin, LogPartition)]) -> bool {
    let Task::Profile(profile, ..) = task else { return true };
    up_to.iter().zip(posted).all(|(up_to, (origin, _))| up_to.is_covered(profile.coverage_of(*origin)))
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
