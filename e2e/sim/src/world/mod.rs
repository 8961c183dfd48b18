//! A fleet, its log, its store and its network, in one thread: a queue of what happens next, by (tick, order), and one seeded
//! generator. Everything that a node does outside itself is under way for a while, and may outlive it.

mod fleet;
mod outside;
mod trace;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use millrace::{
    host::{station::Seat, task::Task},
    log::Log,
    store::{Answer, Op, checkpoint::Restored, memory::MemoryStore},
};
use millrace_e2e::rng::Rng;
use millrace_engine::event::Pseudonym;
use millrace_lifecycle::{keys::TaskId, placement::Order};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    changes,
    check::{self, Checks, Violation, digest},
    control::{Control, Heard, Record},
    faults::Faults,
    ground::{Coming, Ground, GroundError, night_ms},
    node::{Frames, Node},
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
    Make {
        node: usize,
        life: u64,
        id: u64,
        task: TaskId,
        restored: Option<Restored>,
    },
    Orders {
        node: usize,
        life: u64,
        orders: BTreeMap<TaskId, Order>,
        /// Of the pipeline, and up to which profile tasks are told.
        generations: (u32, u32),
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
    /// When the pipeline becomes another one.
    changes: VecDeque<u64>,
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
        let checks = Checks::new(ground, log.inner.clone());
        let tasks: BTreeSet<TaskId> = checks.tasks().into_iter().collect();
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
            changes: changes::ticks(seed, faults.changes, ticks).into(),
            nodes: (0..nodes as usize).map(|node| Node::new(node, faults.engine_version(node))).collect(),
            faults,
            controls,
            record: Record::default(),
            checks,
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
            self.pipeline_changes();
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
        self.faults = Faults { two_control: self.faults.two_control, idle: self.faults.idle, ..Faults::none() };
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
            if owner.task.generation() != self.record.generation || owner.task.wants_checkpoint() {
                return Some(format!("{task} is of generation {}", owner.task.generation()));
            }
            let lag = owner.task.lag_records(self.log.as_ref()).or_else(|| self.lag_in_file(owner));
            (lag != Some(0) || !owner.task.is_clean()).then(|| format!("{task} lags by {lag:?} records"))
        })
    }

    fn lag_in_file(&self, seat: &Seat) -> Option<u64> {
        let (source, _) = self.ground.file()?;
        let name = self.ground.pipeline().spec().sources[source].name.clone();
        Some((self.lines.get(&(name, 0)).map_or(0, Vec::len) as u64 + 1).saturating_sub(seat.task.position().0))
    }

    fn what_lacks(&self) -> String {
        let lacking = self.lacking().unwrap_or_else(|| "no task lacks anything".to_owned());
        let phases = self.record.placement.tasks.iter().map(|(task, a)| format!("{task} {:?}", a.phase()));
        let works = self.nodes.iter().filter_map(|node| Some((node, node.work.as_ref()?)));
        let reports = works.flat_map(|(node, work)| {
            let of_node = work.station.reports().into_iter();
            of_node.map(|(task, report)| format!("{} {task} {:?} of {}", node.member, report.role, report.epoch))
        });
        format!("{lacking}; {}", phases.chain(reports).collect::<Vec<_>>().join(", "))
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
        self.checks.sources()?;
        // The oracle knows one mapping only, and not what comes late after a source was idle.
        if self.checks.ledger.erased.is_empty() && self.ground.file().is_none() && self.faults.idle == 0 {
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
                let is_in_file =
                    self.ground.file().is_some_and(|(of, _)| self.ground.pipeline().spec().sources[of].name == source);
                if is_in_file {
                    self.ground.write_to_file(&line);
                }
                self.lines.entry((source, partition.partition)).or_default().push(line);
                if !is_in_file {
                    // A log in memory takes every record of this size.
                    let _ = self.log.inner.append(&[(partition, bytes)]);
                }
            }
        }
    }

    /// Control holds another generation from now on. Nodes hear of it with their orders; some start anew with it.
    fn pipeline_changes(&mut self) {
        while self.changes.front().is_some_and(|tick| *tick <= self.tick) {
            self.changes.pop_front();
            self.record.generation += 1;
            let generation = self.record.generation;
            self.checks.generation = generation;
            self.note(|_| format!("the pipeline is of generation {generation}"));
            for node in 0..self.nodes.len() {
                if self.rng.per_mille(300) {
                    self.nodes[node].generation = generation;
                    self.crash(node);
                }
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
            | Event::Make { node, life, .. }
            | Event::Orders { node, life, .. } => {
                if self.nodes[node].life != life || self.nodes[node].work.is_none() {
                    return Ok(());
                }
                let paused_for = self.nodes[node].paused_until.saturating_sub(self.tick);
                if paused_for > 0 {
                    self.after(paused_for, event);
                    return Ok(());
                }
                match event {
                    Event::Make { node, id, task, restored, .. } => self.make(node, id, &task, restored),
                    event => self.hears(node, event),
                }
            }
        }
    }
}
