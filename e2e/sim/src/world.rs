//! A fleet, its log, its store and its network, in one thread: a queue of what happens next, by (tick, order), and one seeded
//! generator. Everything that a node does outside itself is under way for a while, and may outlive it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use millrace::{
    host::{
        HostError,
        ingest::Shared,
        make::Maker,
        station::{Command, Now},
        task::Task,
    },
    log::{Log, ReadError},
    store::{Answer, Op, Outcome, Store, StoreError, checkpoint::Restored, memory::MemoryStore},
};
use millrace_e2e::rng::Rng;
use millrace_engine::event::Pseudonym;
use millrace_lifecycle::{
    keys::{self, Named, TaskId},
    manifest::Manifest,
    placement::Order,
};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    check::{self, Checks, Violation, digest},
    control::{Control, Heard, Record, Written},
    erasure::erase,
    faults::Faults,
    ground::{Coming, Ground, GroundError, night_ms},
    node::{Frames, Node, Work, is_expected},
    raw::{self, Lines},
    scenario::Scenario,
    sim_log::SimLog,
};

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
    Heard {
        control: usize,
        heard: Box<Heard>,
    },
    Control {
        control: usize,
    },
    /// A checkpoint's file is damaged, or gone.
    Damage {
        key: String,
    },
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
    /// Nobody is told, and it is done much later.
    LateUnknown,
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
    pub moves: u64,
    pub checkpoints: u64,
    /// That were durable.
    pub erasures: u64,
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
    night_ms: u64,
    /// Of those who did something.
    users: Vec<Pseudonym>,
    /// What was sent.
    lines: Lines,
    ticks: u64,
    heals_within: u64,
    tick: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Event>,
    log: Arc<SimLog>,
    store: MemoryStore,
    tape: VecDeque<Coming>,
    nodes: Vec<Node<'g>>,
    /// Two of them, if neither knows of the other.
    controls: Vec<Control>,
    record: Record,
    checks: Checks<'g>,
    report: Report,
    trace: Xxh3,
    /// Told of everything that happens.
    tell: Option<fn(&str)>,
}

const CONTROL_EVERY: u64 = 10;

impl<'g> World<'g> {
    pub fn new(ground: &'g Ground, scenario: &Scenario) -> Result<Self, GroundError> {
        let Scenario { seed, nodes, events, ticks, heals_within, faults } = scenario.clone();
        // What people do does not depend on what goes wrong.
        let tape = ground.tape(seed, ticks, events)?;
        let log = Arc::new(SimLog::default());
        // Those who check see the log as it is.
        let maker = maker(ground, log.inner.clone());
        let tasks: BTreeSet<TaskId> = maker.tasks().into_iter().collect();
        let control = |_| Control::new(tasks.clone(), nodes);
        let controls: Vec<Control> = (0..1 + faults.two_control).map(control).collect();
        let mut world = Self {
            ground,
            rng: Rng::new(seed),
            night_ms: night_ms(seed),
            users: Vec::new(),
            lines: Lines::new(),
            ticks,
            heals_within,
            tick: 0,
            order: 0,
            queue: BTreeMap::new(),
            log: log.clone(),
            store: MemoryStore::default(),
            tape: tape.into(),
            nodes: (0..nodes as usize).map(|node| Node::new(node, faults.engine_version(node))).collect(),
            faults,
            controls,
            record: Record::default(),
            checks: Checks::new(maker, log.inner.clone()),
            report: Report::default(),
            trace: Xxh3::new(),
            tell: None,
        };
        for node in 0..world.nodes.len() {
            world.after(0, Event::Start { node });
        }
        for control in 0..world.controls.len() {
            world.after(1 + 3 * control as u64, Event::Control { control });
        }
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
        let World { mut report, checks, controls, trace, tick, .. } = self;
        report.erasures = checks.ledger.erased.len() as u64;
        (report.checkpoints, report.ticks) = (checks.checkpoints, tick);
        report.moves = controls.iter().map(|control| control.moves).sum();
        report.trace_hash = trace.digest();
        match ended {
            Ok(digests) => Ok(Report { digests, ..report }),
            Err(violation) => Err((violation, report)),
        }
    }

    fn happen(&mut self) -> Result<BTreeMap<TaskId, u128>, Violation> {
        let deadline = self.ticks + self.heals_within;
        while let Some(((tick, order), event)) = self.queue.pop_first() {
            if self.tick <= self.ticks && tick > self.ticks {
                self.heal();
            }
            self.tick = tick;
            self.log.now(tick);
            self.sources_grow();
            self.note(|world| world.describe(order, &event));
            self.one(event)?;
            if tick > self.ticks && order % 64 == 0 && self.is_well() {
                return self.at_the_end();
            }
            if tick > deadline {
                let what = format!("not after {} ticks without faults: {}", self.heals_within, self.what_lacks());
                return Err(Violation { check: check::IT_HEALS, what });
            }
        }
        Err(Violation { check: check::IT_HEALS, what: "nothing happens any more".to_owned() })
    }

    /// From here on nothing goes wrong any more.
    fn heal(&mut self) {
        self.faults = Faults { two_control: self.faults.two_control, ..Faults::none() };
        self.log.goes_on_at(0);
        for node in &mut self.nodes {
            (node.paused_until, node.draining, node.deaf_until, node.mute_until) = (0, false, 0, 0);
        }
    }

    /// All tasks are owned at rest, and have read everything.
    fn is_well(&self) -> bool {
        let mut stations = self.nodes.iter().filter_map(|node| node.work.as_ref()).map(|work| &work.station);
        let all_is_told = stations.all(|station| station.is_quiet());
        self.tape.is_empty() && self.controls.iter().all(Control::is_steady) && all_is_told && self.lacking().is_none()
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
        let phases = self.record.placement.tasks.iter().map(|(task, a)| format!("{task} {:?}", a.phase()));
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
        self.checks.ledger.lost_frames()?;
        if self.checks.ledger.erased.is_empty() {
            raw::compare(&self.checks.ledger, &self.lines)?;
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
            if let Some(Coming { partition, bytes, user, source, line, .. }) = self.tape.pop_front() {
                self.users.extend(user);
                self.lines.entry((source, partition.partition)).or_default().push(line);
                // A log in memory takes every record of this size.
                let _ = self.log.inner.append(&[(partition, bytes)]);
            }
        }
    }

    fn one(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Start { node } => {
                self.nodes[node].template.clone_from(&self.controls[0].settings.template);
                self.nodes[node].start(self.ground, self.log.clone());
                self.after(1, Event::Wake { node });
                Ok(())
            }
            Event::Control { control } => {
                self.control(control);
                Ok(())
            }
            Event::Heard { control, heard } => {
                self.controls[control].hear(self.tick, *heard);
                Ok(())
            }
            Event::Damage { key } => {
                self.damage(&key);
                Ok(())
            }
            Event::Append { node, life, ticket, appends, fate } => self.append(node, life, ticket, appends, fate),
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
        let now = self.now(node);
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
            Event::Answered { id, answer, .. } => {
                if let Answer::Got(Ok(Some(found))) = &answer
                    && let Ok(manifest) = Manifest::decode(&found.bytes)
                {
                    self.checks.ledger.read(&claimant.owner, &manifest);
                }
                station.answered(id, answer, now)
            }
            Event::Orders { orders, .. } => station.obey(&orders, claimant, now),
            _ => Ok(()),
        };
        self.allowed(node, result)?;
        self.dispatch(node)
    }

    fn now(&self, node: usize) -> Now {
        let unix_ms = self.tick as i64 + self.nodes[node].clock_ahead_ms;
        Now { since_start: Duration::from_millis(self.tick), unix_ms }
    }

    /// What a store or another owner did to us is no violation; anything else is. A log that cannot be read ends a worker.
    fn allowed(&mut self, node: usize, result: Result<(), HostError>) -> Result<(), Violation> {
        match result {
            Err(HostError::Read(ReadError::Disk { .. })) => {
                self.crash(node);
                Ok(())
            }
            Err(error) if !is_expected(&error) && !self.checks.is_overtaken(&error) => {
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
        let now = self.now(node);
        for at in 0..seats {
            let budget = 1 + self.rng.below(20) as usize;
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            let is_late = self.rng.per_mille(self.faults.lag);
            if work.station.seats.get(at).is_some_and(|seat| seat.is_owner() || !is_late) {
                let stepped = work.station.step(at, budget, now).map(|_| ());
                self.allowed(node, stepped)?;
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

    /// Sends what a station wants done on its way.
    fn dispatch(&mut self, node: usize) -> Result<(), Violation> {
        loop {
            let life = self.nodes[node].life;
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            let Some(command) = work.station.command() else { break };
            if self.rng.per_mille(self.faults.crash) {
                self.crash(node);
                return Ok(());
            }
            let Some(work) = &mut self.nodes[node].work else { return Ok(()) };
            match command {
                Command::Append { ticket, appends } => {
                    self.checks.ledger.cut(&work.claimant.owner, &appends)?;
                    work.outbound.push_back((ticket, appends));
                }
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
                    self.checks.trimmed(&partition, before)?;
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
            () if self.rng.per_mille(append_unknown) => match self.unknown() {
                // Whoever appends waits for the end, or ends: nothing of it comes later.
                Fate::LateUnknown => Fate::LostUnknown,
                fate => fate,
            },
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
        match () {
            () if self.rng.per_mille(self.faults.store_late) => Fate::LateUnknown,
            () if self.rng.per_mille(500) => Fate::DoneUnknown,
            () => Fate::LostUnknown,
        }
    }

    fn append(&mut self, node: usize, life: u64, ticket: u64, appends: Frames, fate: Fate) -> Result<(), Violation> {
        let process = self.nodes[node].process(life);
        let times = match fate {
            Fate::Failed | Fate::LostUnknown => 0,
            Fate::Twice => 2,
            _ => 1,
        };
        for _ in 0..times {
            // A log in memory takes every record of this size.
            let _ = self.log.inner.append(&appends);
            self.checks.ledger.appended(&process, &appends)?;
        }
        let delay = self.delay();
        let ok = matches!(fate, Fate::Done | Fate::Twice);
        self.after(delay, Event::Appended { node, life, ticket, ok });
        Ok(())
    }

    fn ask(&mut self, node: usize, life: u64, id: u64, op: Op, fate: Fate) -> Result<(), Violation> {
        let key = op.key().to_owned();
        let error = || StoreError::new(&key, "the simulated store does not feel well");
        let is_write = matches!(op, Op::Put { .. } | Op::Swap { .. });
        let (is_swap, is_file) = (matches!(op, Op::Swap { .. }), matches!(op, Op::Put { .. }));
        let is_unknown = matches!(fate, Fate::DoneUnknown | Fate::LostUnknown | Fate::LateUnknown);
        self.checks.asked(&self.nodes[node].process(life), &op, is_unknown)?;
        let answer = match fate {
            Fate::Failed => match op {
                Op::Get { .. } => Answer::Got(Err(error())),
                Op::Digest { .. } => Answer::Digested(Err(error())),
                Op::Put { .. } | Op::Swap { .. } => Answer::Wrote(Outcome::Failed(error())),
                Op::List { .. } => Answer::Listed(Err(error())),
                Op::Delete { .. } => Answer::Deleted(Err(error())),
            },
            Fate::LostUnknown => Answer::Wrote(Outcome::Unknown(error())),
            Fate::LateUnknown => {
                let much_later = self.rng.below(200);
                self.after(much_later, Event::Ask { node, life: 0, id: 0, op, fate: Fate::Done });
                Answer::Wrote(Outcome::Unknown(error()))
            }
            _ => self.store.answer(op),
        };
        if is_file && matches!(answer, Answer::Wrote(Outcome::Done(_))) && self.rng.per_mille(self.faults.file_damaged)
        {
            let later = 50 + self.rng.below(300);
            self.after(later, Event::Damage { key: key.clone() });
        }
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

    /// Bits rot, and files get lost; but not all that there is of a task.
    fn damage(&mut self, key: &str) {
        let Some(Named::File { task, .. }) = keys::parse(key) else { return };
        if !self.checks.may_damage(&task, key, &self.store) {
            return;
        }
        let gone = self.rng.per_mille(300);
        let mut objects = self.store.objects();
        let Some(bytes) = objects.get_mut(key).filter(|bytes| !bytes.is_empty()) else { return };
        if gone {
            objects.remove(key);
        } else {
            let at = self.rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.rng.below(8);
        }
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
    fn control(&mut self, control: usize) {
        if self.rng.per_mille(self.faults.control_restarts) {
            self.controls[control].restart();
        }
        if self.rng.per_mille(self.faults.log_outage) {
            let until = self.tick + self.rng.below(100);
            self.log.goes_on_at(until);
        }
        if self.rng.per_mille(self.faults.rollout) {
            let template = format!("t{}", self.rng.below(3));
            self.controls.iter_mut().for_each(|control| control.settings.template.clone_from(&template));
        }
        (0..self.nodes.len()).for_each(|node| self.afflict(node));
        if self.tick < self.ticks
            && self.rng.per_mille(self.faults.erase)
            && let Some(user) = self.rng.pick(&self.users).copied()
        {
            let partitions = self.ground.pipeline.plan.partitions;
            let is_told = erase(&mut self.nodes, partitions, user, self.tick, self.night_ms);
            self.note(|_| format!("somebody is erased; an owner is told: {is_told}"));
        }
        if self.rng.per_mille(self.faults.second_control) {
            self.second_control();
        }
        for node in 0..self.nodes.len() {
            if let Some(heard) = self.heard_of(node) {
                self.message(Event::Heard { control, heard: Box::new(heard) });
            }
        }
        let fate = match () {
            () if !self.rng.per_mille(self.faults.record_unknown) => Written::Done,
            () if self.rng.per_mille(500) => Written::DoneUnknown,
            () => Written::LostUnknown,
        };
        let Self { controls, record, tick, .. } = self;
        for decision in controls[control].plan(*tick, record, fate) {
            self.note(|_| format!("control {control}: {decision}"));
        }
        for node in 0..self.nodes.len() {
            let Node { member, life, deaf_until, .. } = &self.nodes[node];
            if *deaf_until <= self.tick {
                let (orders, life) = (self.controls[control].placement.orders(member), *life);
                self.message(Event::Orders { node, life, orders });
            }
        }
        self.after(CONTROL_EVERY, Event::Control { control });
    }

    /// What happens to a node from outside.
    fn afflict(&mut self, node: usize) {
        let Faults { drain, deaf, mute, clock_jumps, .. } = self.faults;
        if self.rng.per_mille(drain / self.nodes.len() as u64) {
            self.nodes[node].draining = !self.nodes[node].draining;
        }
        if self.rng.per_mille(deaf) {
            self.nodes[node].deaf_until = self.tick + self.rng.below(400);
        }
        if self.rng.per_mille(mute) {
            self.nodes[node].mute_until = self.tick + self.rng.below(400);
        }
        if self.rng.per_mille(clock_jumps) {
            self.nodes[node].clock_ahead_ms = self.rng.below(2_000) as i64 - 1_000;
        }
    }

    /// Some node is told to own a task that is another's.
    fn second_control(&mut self) {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let Some(task) = self.rng.pick(&self.checks.tasks()).cloned() else { return };
        let Node { member, life, engine_version, .. } = &self.nodes[node];
        let Some(epoch) = self.checks.next_epoch(&task, *engine_version, self.faults.mixed_versions > 0) else {
            return;
        };
        let mut orders = self.record.placement.orders(member);
        orders.insert(task, Order::Own { epoch, rolled_back: false });
        let event = Event::Orders { node, life: *life, orders };
        self.message(event);
    }

    fn heard_of(&self, node: usize) -> Option<Heard> {
        let Node { member, zone, template, engine_version, draining, work, paused_until, mute_until, .. } =
            &self.nodes[node];
        let work = work.as_ref().filter(|_| *paused_until.max(mute_until) <= self.tick)?;
        Some(Heard {
            member: member.clone(),
            zone: zone.clone(),
            template: template.clone(),
            engine_version: *engine_version,
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
                    Op::Digest { .. } => "digest",
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
            Event::Heard { control, heard } => format!("control {control} hears of {}", heard.member),
            Event::Control { control } => format!("control {control} looks"),
            Event::Damage { key } => format!("{key} is damaged, or gone"),
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
