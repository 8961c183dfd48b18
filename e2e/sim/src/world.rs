//! A fleet, its log, its store and its network, in one thread: a queue of what happens next, by (tick, order), and one seeded
//! generator. Everything that a node does outside itself is under way for a while, and may outlive it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use millrace::{
    host::{
        HostError,
        ingest::Shared,
        make::Maker,
        station::{Command, Now, Station},
        task::Task,
    },
    log::{Log, memory::MemoryLog},
    store::{Answer, Op, Outcome, Store, StoreError, checkpoint::Restored, memory::MemoryStore},
};
use millrace_e2e::rng::Rng;
use millrace_engine::control::{Control as Record, Erase};
use millrace_lifecycle::{
    keys::{self, Named, TaskId},
    manifest::Manifest,
    placement::Order,
};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    check::{self, Checks, Violation, digest},
    control::{Control, Heard},
    faults::Faults,
    ground::{Coming, Ground, GroundError, time_at},
    node::{Frames, Node, Work, is_expected},
};

/// How large a world is, and how long it lasts.
#[derive(Clone, Debug)]
pub struct Size {
    pub nodes: usize,
    pub events: u64,
    /// Ticks with faults, and then at most so many until all is well.
    pub ticks: u64,
    pub heals_within: u64,
}

impl Default for Size {
    fn default() -> Self {
        Self { nodes: 3, events: 300, ticks: 1_500, heals_within: 3_000 }
    }
}

/// What happens next.
enum Event {
    /// A node works for a moment.
    Wake {
        node: usize,
    },
    Start {
        node: usize,
    },
    /// A batch reaches the log.
    Append {
        node: usize,
        life: u64,
        ticket: u64,
        appends: Frames,
        fate: Fate,
    },
    Appended {
        node: usize,
        life: u64,
        ticket: u64,
        ok: bool,
    },
    /// A question reaches the store.
    Ask {
        node: usize,
        life: u64,
        id: u64,
        op: Op,
        fate: Fate,
    },
    Answered {
        node: usize,
        life: u64,
        id: u64,
        answer: Answer,
    },
    Orders {
        node: usize,
        life: u64,
        orders: BTreeMap<TaskId, Order>,
    },
    Heard(Box<Heard>),
    Control,
}

/// What becomes of something that is asked of log or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Failed,
    /// Done, and nobody is told.
    DoneUnknown,
    /// Not done, and nobody is told.
    LostUnknown,
    Twice,
    /// A list lacks its last object.
    Lacks,
}

/// What a world came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub crashes: u64,
    /// Tasks that were lost with them.
    pub task_crashes: u64,
    /// Users who were erased.
    pub erased: u64,
    pub moves: u64,
    pub checkpoints: u64,
    pub ticks: u64,
    /// Same seed, same hash.
    pub trace_hash: u64,
    /// Of every profile and model task at the end.
    pub digests: BTreeMap<TaskId, u128>,
}

pub struct World<'g> {
    ground: &'g Ground,
    rng: Rng,
    faults: Faults,
    size: Size,
    tick: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Event>,
    log: Arc<MemoryLog>,
    store: MemoryStore,
    tape: VecDeque<Coming>,
    nodes: Vec<Node<'g>>,
    control: Control,
    checks: Checks<'g>,
    report: Report,
    trace: Xxh3,
    /// Told of everything that happens.
    tell: Option<fn(&str)>,
}

const CONTROL_EVERY: u64 = 10;

impl<'g> World<'g> {
    pub fn new(ground: &'g Ground, seed: u64, size: Size, faults: Option<Faults>) -> Result<Self, GroundError> {
        // What people do does not depend on what goes wrong.
        let tape = ground.tape(&mut Rng::new(seed ^ 0x7a9e), size.ticks, size.events)?;
        let mut rng = Rng::new(seed);
        let drawn = Faults::draw(&mut rng);
        let log = Arc::new(MemoryLog::default());
        let maker = maker(ground, log.clone());
        let tasks: BTreeSet<TaskId> = maker.tasks().into_iter().collect();
        let mut world = Self {
            ground,
            rng,
            faults: faults.unwrap_or(drawn),
            tick: 0,
            order: 0,
            queue: BTreeMap::new(),
            log: log.clone(),
            store: MemoryStore::default(),
            tape: tape.into(),
            nodes: (0..size.nodes).map(Node::new).collect(),
            control: Control::new(tasks, size.nodes as u64),
            checks: Checks::new(maker, log),
            report: Report::default(),
            trace: Xxh3::new(),
            tell: None,
            size,
        };
        for node in 0..world.nodes.len() {
            world.after(0, Event::Start { node });
        }
        world.after(1, Event::Control);
        Ok(world)
    }

    /// Tells of everything that happens.
    pub fn tell(&mut self, tell: fn(&str)) {
        self.tell = Some(tell);
    }

    /// Lets it happen: first with faults, then without, until all is well.
    pub fn run(mut self) -> Result<Report, (Violation, Report)> {
        self.note(|world| format!("{:?}", world.faults));
        let ended = self.happen();
        let World { mut report, checks, control, trace, tick, .. } = self;
        (report.checkpoints, report.moves, report.ticks) = (checks.checkpoints, control.moves, tick);
        report.trace_hash = trace.digest();
        match ended {
            Ok(digests) => Ok(Report { digests, ..report }),
            Err(violation) => Err((violation, report)),
        }
    }

    fn happen(&mut self) -> Result<BTreeMap<TaskId, u128>, Violation> {
        let deadline = self.size.ticks + self.size.heals_within;
        while let Some(((tick, order), event)) = self.queue.pop_first() {
            if self.tick <= self.size.ticks && tick > self.size.ticks {
                self.heal();
            }
            self.tick = tick;
            self.sources_grow();
            self.note(|world| world.describe(order, &event));
            self.one(event)?;
            if tick > self.size.ticks && order % 64 == 0 && self.is_well() {
                return self.at_the_end();
            }
            if tick > deadline {
                let what = format!("not after {} ticks without faults: {}", self.size.heals_within, self.what_lacks());
                return Err(Violation { check: check::IT_HEALS, what });
            }
        }
        Err(Violation { check: check::IT_HEALS, what: "nothing happens any more".to_owned() })
    }

    /// From here on nothing goes wrong any more.
    fn heal(&mut self) {
        self.faults = Faults::none();
        for node in &mut self.nodes {
            (node.paused_until, node.draining) = (0, false);
        }
    }

    /// All tasks are owned at rest, and have read everything.
    fn is_well(&self) -> bool {
        let mut stations = self.nodes.iter().filter_map(|node| node.work.as_ref()).map(|work| &work.station);
        let all_is_told = stations.all(|station| station.is_quiet());
        self.tape.is_empty() && self.control.is_steady() && all_is_told && self.lacking().is_none()
    }

    fn lacking(&self) -> Option<String> {
        self.checks.tasks().into_iter().find_map(|task| {
            let owners = self.nodes.iter().filter_map(|node| node.work.as_ref()).flat_map(|work| &work.station.seats);
            let owners: Vec<_> = owners.filter(|seat| seat.id == task && seat.is_owner()).collect();
            let [owner] = owners.as_slice() else { return Some(format!("{task} has {} owners", owners.len())) };
            let lag = owner.task.lag_records(self.log.as_ref());
            (lag != Some(0) || !owner.task.is_clean()).then(|| format!("{task} lags by {lag:?} records"))
        })
    }

    fn what_lacks(&self) -> String {
        let lacking = self.lacking().unwrap_or_else(|| "no task lacks anything".to_owned());
        let phases = self.control.placement.tasks.iter().map(|(task, a)| format!("{task} {:?}", a.phase()));
        format!("{lacking}; {}", phases.collect::<Vec<_>>().join(", "))
    }

    /// The states of the owners, each of which must be the fold of its log.
    fn at_the_end(&mut self) -> Result<BTreeMap<TaskId, u128>, Violation> {
        let mut digests = BTreeMap::new();
        let mut ends = Vec::new();
        for seat in self.nodes.iter_mut().filter_map(|node| node.work.as_mut()).flat_map(|w| &mut w.station.seats) {
            if seat.is_owner() && !matches!(seat.task, Task::Ingest(..)) {
                ends.push((seat.id.clone(), seat.task.position().0));
                digests.insert(seat.id.clone(), digest(&mut seat.task));
            }
        }
        for (task, offset) in ends {
            let fold = self.checks.fold(&task, offset)?;
            if digests.get(&task) != Some(&fold) {
                let what = format!("{task}: its owner's state at offset {offset} is another");
                return Err(Violation { check: check::STATE_IS_THE_FOLD, what });
            }
        }
        Ok(digests)
    }

    fn after(&mut self, ticks: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.tick + ticks, self.order), event);
    }

    fn delay(&mut self) -> u64 {
        1 + self.rng.below(self.faults.delay_ticks)
    }

    fn sources_grow(&mut self) {
        while self.tape.front().is_some_and(|coming| coming.tick <= self.tick) {
            if let Some(Coming { partition, bytes, .. }) = self.tape.pop_front() {
                // A log in memory takes every record of this size.
                let _ = self.log.append(&[(partition, bytes)]);
            }
        }
    }

    fn one(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Start { node } => {
                self.nodes[node].start(self.ground, self.log.clone());
                self.after(1, Event::Wake { node });
                Ok(())
            }
            Event::Control => {
                self.control();
                Ok(())
            }
            Event::Heard(heard) => {
                self.control.hear(self.tick, *heard);
                Ok(())
            }
            Event::Append { node, life, ticket, appends, fate } => {
                self.append(node, life, ticket, appends, fate);
                Ok(())
            }
            Event::Ask { node, life, id, op, fate } => self.ask(node, life, id, op, fate),
            Event::Wake { node } => self.wake(node),
            Event::Appended { node, life, .. }
            | Event::Answered { node, life, .. }
            | Event::Orders { node, life, .. } => {
                if self.nodes[node].life != life || self.nodes[node].work.is_none() {
                    return Ok(());
                }
                let paused_for = self.nodes[node].paused_until.saturating_sub(self.tick);
                if paused_for > 0 {
                    self.after(paused_for, event);
                    return Ok(());
                }
                self.hears(node, event)
            }
        }
    }

    /// Something comes to a node that lives.
    fn hears(&mut self, node: usize, event: Event) -> Result<(), Violation> {
        let now = self.now();
        let Some(Work { station, claimant, is_appending, .. }) = &mut self.nodes[node].work else { return Ok(()) };
        let result = match event {
            Event::Appended { ok: false, .. } => {
                self.crash(node);
                return Ok(());
            }
            Event::Appended { ticket, .. } => {
                *is_appending = false;
                station.appended(ticket).map_err(HostError::from)
            }
            Event::Answered { id, answer, .. } => station.answered(id, answer, now),
            Event::Orders { orders, .. } => station.obey(&orders, claimant, now),
            _ => Ok(()),
        };
        self.allowed(node, result)?;
        self.dispatch(node)
    }

    fn now(&self) -> Now {
        Now { since_start: std::time::Duration::from_millis(self.tick), unix_ms: self.tick as i64 }
    }

    /// What a store or another owner did to us is no violation; anything else is.
    fn allowed(&self, node: usize, result: Result<(), HostError>) -> Result<(), Violation> {
        match result {
            Err(error) if !is_expected(&error) => {
                let what = format!("{}: {error}", self.nodes[node].member);
                Err(Violation { check: check::NOTHING_STOPS, what })
            }
            _ => Ok(()),
        }
    }

    fn wake(&mut self, node: usize) -> Result<(), Violation> {
        let Some(work) = &self.nodes[node].work else { return Ok(()) };
        let seats = work.station.seats.len();
        let paused_for = self.nodes[node].paused_until.saturating_sub(self.tick);
        if paused_for > 0 {
            self.after(paused_for, Event::Wake { node });
            return Ok(());
        }
        if self.rng.per_mille(self.faults.crash) {
            self.crash(node);
            return Ok(());
        }
        if self.rng.per_mille(self.faults.pause) {
            self.nodes[node].paused_until = self.tick + self.rng.below(300);
        }
        let now = self.now();
        for at in 0..seats {
            let budget = 1 + self.rng.below(20) as usize;
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            if at < work.station.seats.len() {
                let stepped = work.station.step(at, budget, now).map(|_| ());
                self.allowed(node, stepped)?;
            }
            if self.rng.per_mille(self.faults.erase) {
                self.erase(node, at);
            }
        }
        if let Some(work) = &mut self.nodes[node].work {
            let ticked = work.station.tick(now);
            self.allowed(node, ticked)?;
        }
        self.dispatch(node)?;
        let rest = 1 + self.rng.below(4);
        self.after(rest, Event::Wake { node });
        Ok(())
    }

    /// A user wants to be forgotten, and the seat's task is told, if it is the owner of profiles.
    fn erase(&mut self, node: usize, at: usize) {
        let user = self.ground.pipeline.keys.user_of(&format!("u{}", self.rng.below(9)));
        let time = time_at(self.tick);
        let Some(work) = &mut self.nodes[node].work else { return };
        let Station { seats, outbox, .. } = &mut work.station;
        if let Some(seat) = seats.get_mut(at).filter(|seat| seat.is_owner() && matches!(seat.task, Task::Profile(..))) {
            seat.append_control(&Record::Erase(Erase { user, time }), outbox);
            self.report.erased += 1;
        }
    }

    /// Sends what a station wants done on its way.
    fn dispatch(&mut self, node: usize) -> Result<(), Violation> {
        loop {
            let life = self.nodes[node].life;
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            let Some(command) = work.station.command() else { break };
            match command {
                Command::Append { ticket, appends } => work.outbound.push_back((ticket, appends)),
                Command::Ask { id, op } => {
                    let (delay, fate) = (self.delay(), self.fate_of(&op));
                    self.after(delay, Event::Ask { node, life, id, op, fate });
                }
                Command::Make { task, restored } => match work.maker.make(&task, restored.as_ref()) {
                    Ok(made) => work.station.made(made),
                    Err(error) => {
                        work.station.not_made(&task, &error);
                        if !self.is_outdated(&task, restored.as_ref()) {
                            self.allowed(node, Err(error))?;
                        }
                    }
                },
                Command::Trim { partition, before } => {
                    // What is gone by now is gone.
                    let _ = self.log.trim(&partition, before);
                }
            }
        }
        let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
        if !work.is_appending
            && let Some((ticket, appends)) = work.outbound.pop_front()
        {
            work.is_appending = true;
            let life = self.nodes[node].life;
            let (delay, fate) = (self.delay(), self.fate_of_append());
            self.after(delay, Event::Append { node, life, ticket, appends, fate });
        }
        Ok(())
    }

    /// Has somebody else saved the task since?
    fn is_outdated(&self, task: &TaskId, restored: Option<&Restored>) -> bool {
        let found = self.store.get(&keys::manifest(task)).ok().flatten();
        let manifest = found.and_then(|found| Manifest::decode(&found.bytes).ok());
        let newest = manifest.and_then(|manifest| manifest.checkpoints.first().map(|c| c.position.clone()));
        newest != restored.map(|restored| restored.checkpoint.position.clone())
    }

    fn fate_of_append(&mut self) -> Fate {
        let Faults { append_fails, append_unknown, append_twice, .. } = self.faults;
        match () {
            () if self.rng.per_mille(append_fails) => Fate::Failed,
            () if self.rng.per_mille(append_unknown) => self.unknown(),
            () if self.rng.per_mille(append_twice) => Fate::Twice,
            () => Fate::Done,
        }
    }

    fn fate_of(&mut self, op: &Op) -> Fate {
        let Faults { store_fails, store_unknown, list_lacks, .. } = self.faults;
        match op {
            _ if self.rng.per_mille(store_fails) => Fate::Failed,
            Op::Put { .. } | Op::Swap { .. } if self.rng.per_mille(store_unknown) => self.unknown(),
            Op::List { .. } if self.rng.per_mille(list_lacks) => Fate::Lacks,
            _ => Fate::Done,
        }
    }

    fn unknown(&mut self) -> Fate {
        if self.rng.per_mille(500) { Fate::DoneUnknown } else { Fate::LostUnknown }
    }

    fn append(&mut self, node: usize, life: u64, ticket: u64, appends: Frames, fate: Fate) {
        let times = match fate {
            Fate::Failed | Fate::LostUnknown => 0,
            Fate::Twice => 2,
            _ => 1,
        };
        for _ in 0..times {
            // A log in memory takes every record of this size.
            let _ = self.log.append(&appends);
        }
        let delay = self.delay();
        let ok = matches!(fate, Fate::Done | Fate::Twice);
        self.after(delay, Event::Appended { node, life, ticket, ok });
    }

    fn ask(&mut self, node: usize, life: u64, id: u64, op: Op, fate: Fate) -> Result<(), Violation> {
        let key = op.key().to_owned();
        let error = || StoreError::new(&key, "the simulated store does not feel well");
        let is_write = matches!(op, Op::Put { .. } | Op::Swap { .. });
        let is_swap = matches!(op, Op::Swap { .. });
        let answer = match fate {
            Fate::Failed => match op {
                Op::Get { .. } => Answer::Got(Err(error())),
                Op::Digest { .. } => Answer::Digested(Err(error())),
                Op::Put { .. } | Op::Swap { .. } => Answer::Wrote(Outcome::Failed(error())),
                Op::List { .. } => Answer::Listed(Err(error())),
                Op::Delete { .. } => Answer::Deleted(Err(error())),
            },
            Fate::LostUnknown => Answer::Wrote(Outcome::Unknown(error())),
            _ => self.store.answer(op),
        };
        if is_swap && matches!(answer, Answer::Wrote(Outcome::Done(_))) {
            self.manifest_written(&key)?;
        }
        let answer = match (fate, answer) {
            (Fate::DoneUnknown, _) if is_write => Answer::Wrote(Outcome::Unknown(error())),
            (Fate::Lacks, Answer::Listed(Ok(mut listed))) => {
                listed.pop();
                Answer::Listed(Ok(listed))
            }
            (_, answer) => answer,
        };
        let delay = self.delay();
        self.after(delay, Event::Answered { node, life, id, answer });
        Ok(())
    }

    fn manifest_written(&mut self, key: &str) -> Result<(), Violation> {
        let Some(Named::Manifest(task)) = keys::parse(key) else { return Ok(()) };
        let damaged = |what: String| Violation { check: check::FILES_ARE_THERE, what: format!("{task}: {what}") };
        let found = self.store.get(key).map_err(|error| damaged(error.to_string()))?;
        let found = found.ok_or_else(|| damaged("no manifest after it was written".to_owned()))?;
        let manifest = Manifest::decode(&found.bytes).map_err(|error| damaged(error.to_string()))?;
        self.checks.manifest(&manifest, &self.store)
    }

    /// Everything that it has not sent is gone; what is on its way arrives, or half of it does not.
    fn crash(&mut self, node: usize) {
        let seats = self.nodes[node].work.take().map_or(0, |work| work.station.seats.len());
        self.report.crashes += 1;
        self.report.task_crashes += seats as u64;
        let (life, lost) = (self.nodes[node].life, self.rng.per_mille(500));
        let is_its = |event: &Event| match event {
            Event::Append { node: n, life: l, .. } | Event::Ask { node: n, life: l, .. } => (*n, *l) == (node, life),
            _ => false,
        };
        if lost {
            self.queue.retain(|_, event| !is_its(event));
        }
        let back = 1 + self.rng.below(200);
        self.after(back, Event::Start { node });
    }

    /// Control looks at what it has heard, and tells; members say how they are.
    fn control(&mut self) {
        if self.rng.per_mille(self.faults.control_restarts) {
            self.control.restart();
        }
        if self.rng.per_mille(self.faults.drain) {
            let node = self.rng.below(self.nodes.len() as u64) as usize;
            self.nodes[node].draining = !self.nodes[node].draining;
        }
        for node in 0..self.nodes.len() {
            if let Some(heard) = self.heard_of(node) {
                self.message(Event::Heard(Box::new(heard)));
            }
        }
        for decision in self.control.plan(self.tick) {
            self.note(|_| format!("control: {decision}"));
        }
        for node in 0..self.nodes.len() {
            let Node { member, life, .. } = &self.nodes[node];
            let (orders, life) = (self.control.placement.orders(member), *life);
            self.message(Event::Orders { node, life, orders });
        }
        self.after(CONTROL_EVERY, Event::Control);
    }

    fn heard_of(&self, node: usize) -> Option<Heard> {
        let Node { member, zone, template, draining, work, paused_until, .. } = &self.nodes[node];
        let work = work.as_ref().filter(|_| *paused_until <= self.tick)?;
        Some(Heard {
            member: member.clone(),
            zone: zone.clone(),
            template: template.clone(),
            draining: *draining,
            reports: work.station.reports(),
        })
    }

    fn message(&mut self, event: Event) {
        if self.rng.per_mille(self.faults.message_twice)
            && let Event::Orders { node, life, orders } = &event
        {
            let (delay, again) = (self.delay(), Event::Orders { node: *node, life: *life, orders: orders.clone() });
            self.after(delay * 3, again);
        }
        if !self.rng.per_mille(self.faults.message_lost) {
            let delay = self.delay();
            self.after(delay, event);
        }
    }

    fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        let line = format!("{:6} {}", self.tick, what(self));
        self.trace.update(line.as_bytes());
        if let Some(tell) = &self.tell {
            tell(&line);
        }
    }

    fn describe(&self, order: u64, event: &Event) -> String {
        let name = |node: &usize| self.nodes[*node].member.to_string();
        let what = match event {
            Event::Wake { node } => format!("{} works", name(node)),
            Event::Start { node } => format!("{} starts", name(node)),
            Event::Append { node, life, ticket, appends, fate } => {
                let to: Vec<String> = appends.iter().map(|(p, bytes)| format!("{p} {} bytes", bytes.len())).collect();
                format!("{}.{life} appends batch {ticket}: {}; {fate:?}", name(node), to.join(", "))
            }
            Event::Appended { node, life, ticket, ok } => {
                format!("{}.{life} hears of batch {ticket}: {}", name(node), if *ok { "durable" } else { "failed" })
            }
            Event::Ask { node, life, op, fate, .. } => {
                let kind = match op {
                    Op::Get { .. } => "get",
                    Op::Digest { .. } => "digest of",
                    Op::Put { .. } => "put",
                    Op::Swap { .. } => "swap",
                    Op::List { .. } => "list",
                    Op::Delete { .. } => "delete",
                };
                format!("{}.{life} asks the store: {kind} {}; {fate:?}", name(node), op.key())
            }
            Event::Answered { node, life, answer, .. } => {
                let answer = match answer {
                    Answer::Got(Ok(Some(object))) => format!("{} bytes", object.bytes.len()),
                    answer => format!("{answer:?}"),
                };
                format!("{}.{life} is answered: {answer}", name(node))
            }
            Event::Orders { node, orders, .. } => {
                let orders: Vec<String> = orders.iter().map(|(task, order)| format!("{task} {order:?}")).collect();
                format!("{} is told: {}", name(node), orders.join(", "))
            }
            Event::Heard(heard) => format!("control hears of {}", heard.member),
            Event::Control => "control looks".to_owned(),
        };
        format!("#{order} {what}")
    }
}

fn maker<'g>(ground: &'g Ground, log: Arc<dyn Log>) -> Maker<'g> {
    Maker {
        pipeline: &ground.pipeline,
        configuration: &ground.configuration,
        partitions: &ground.partitions,
        log,
        shared: Shared::new(&ground.partitions, None),
        until_end: false,
        read_order: None,
    }
}
