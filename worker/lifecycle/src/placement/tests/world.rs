//! A small fleet that does what it is told, late: workers, their manifests, and faults. One round is a second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::keys::{TaskId, TaskKind};
use crate::placement::*;

pub const ROUND_MS: u64 = 1_000;
/// Rounds that a worker loads before it follows or owns.
const LOADING_ROUNDS: u32 = 2;

pub fn profile(number: usize) -> TaskId {
    TaskId::new(TaskKind::Profile, number.to_string())
}

pub fn member(shard: &str) -> Member {
    Member::new(shard, "uid-1")
}

#[derive(Clone, Debug, PartialEq)]
enum Local {
    Loads { rounds: u32 },
    Follows { level_since_ms: u64 },
    Owns { epoch: u64 },
    Released { epoch: u64 },
    Outdated { manifest_epoch: u64 },
}

pub struct Worker {
    pub facts: MemberFacts,
    /// Neither heard of, nor told anything; it goes on with what it has.
    pub silent: bool,
    /// Rounds until what it says is heard.
    pub delay: usize,
    /// How far behind it says that it follows.
    pub lag_records: u64,
    /// Tasks that it cannot do.
    pub fails: BTreeSet<TaskId>,
    local: BTreeMap<TaskId, Local>,
    said: VecDeque<(u64, BTreeMap<TaskId, Report>)>,
}

struct Manifest {
    epoch: u64,
    owner: Member,
    engine_version: u32,
    released: bool,
}

pub struct World {
    pub now_ms: u64,
    pub settings: Settings,
    pub record: Placement,
    pub tasks: BTreeSet<TaskId>,
    pub millicores: BTreeMap<TaskId, u64>,
    pub workers: BTreeMap<Member, Worker>,
    manifests: BTreeMap<TaskId, Manifest>,
    /// Every owner that any record named.
    given: BTreeMap<(TaskId, u64), Member>,
}

pub fn settings() -> Settings {
    let shards = 3;
    Settings {
        level_lag_records: 10,
        promote_lag_records: 20,
        lost_after_ms: 10 * ROUND_MS,
        move_within_ms: 60 * ROUND_MS,
        retry_after_ms: 30 * ROUND_MS,
        ..Settings::new("v1", shards)
    }
}

impl World {
    /// So many profile tasks of 100 millicores each; shards of 8 cores, each in a zone of its own.
    pub fn new(shards: &[&str], tasks: usize, settings: Settings) -> Self {
        let mut world = Self {
            now_ms: 1_000_000,
            settings: Settings { shards: shards.len() as u64, ..settings },
            record: Placement::new("shop"),
            tasks: (0..tasks).map(profile).collect(),
            millicores: BTreeMap::new(),
            workers: BTreeMap::new(),
            manifests: BTreeMap::new(),
            given: BTreeMap::new(),
        };
        shards.iter().for_each(|shard| world.join(member(shard)));
        world
    }

    pub fn join(&mut self, member: Member) {
        let facts = MemberFacts {
            zone: format!("zone-of-{member}"),
            template: self.settings.template.clone(),
            engine_version: 1,
            capacity: Capacity { millicores: 8_000, state_bytes: 1 << 30 },
            ready: true,
            draining: false,
            heard_at_ms: self.now_ms,
            reports: BTreeMap::new(),
        };
        let (fails, local, said) = (BTreeSet::new(), BTreeMap::new(), VecDeque::new());
        self.workers.insert(member, Worker { facts, silent: false, delay: 0, lag_records: 3, fails, local, said });
    }

    pub fn worker(&mut self, shard: &str) -> &mut Worker {
        self.workers.iter_mut().find(|(member, _)| member.shard == shard).unwrap().1
    }

    pub fn lose(&mut self, shard: &str) {
        self.workers.retain(|member, _| member.shard != shard);
    }

    /// Its container starts anew: the same pod, nothing in memory.
    pub fn restart(&mut self, shard: &str) {
        self.worker(shard).local.clear();
    }

    pub fn facts(&mut self) -> Facts {
        for worker in self.workers.values_mut().filter(|worker| !worker.silent) {
            let behind = worker.said.len().saturating_sub(worker.delay + 1);
            worker.said.drain(..behind);
            if let Some((at_ms, reports)) = worker.said.front() {
                (worker.facts.heard_at_ms, worker.facts.reports) = (*at_ms, reports.clone());
            }
        }
        let members = self.workers.iter().map(|(member, worker)| (member.clone(), worker.facts.clone())).collect();
        Facts { tasks: self.tasks.clone(), members }
    }

    pub fn plan(&mut self) -> Planned {
        let facts = self.facts();
        plan(self.now_ms, &self.record, &facts, &self.settings)
    }

    /// Plans, checks what must hold, stores, tells the workers, and lets them act.
    pub fn round(&mut self) -> Vec<Decision> {
        let facts = self.facts();
        let planned = plan(self.now_ms, &self.record, &facts, &self.settings);
        self.check(&facts, &planned);
        self.record = planned.placement;
        self.now_ms += ROUND_MS;
        let members: Vec<Member> = self.workers.keys().cloned().collect();
        for member in members {
            self.act(&member);
        }
        planned.decisions
    }

    pub fn rounds(&mut self, count: usize) -> Vec<Decision> {
        (0..count).flat_map(|_| self.round()).collect()
    }

    fn check(&mut self, facts: &Facts, planned: &Planned) {
        let Planned { placement, decisions } = planned;
        let told: Vec<String> = decisions.iter().map(ToString::to_string).collect();
        assert_eq!(self.record.check_successor(placement), Ok(()), "{told:#?}");
        for (task, a) in &placement.tasks {
            let owner = self.given.entry((task.clone(), a.epoch())).or_insert_with(|| a.owner().clone());
            assert_eq!(owner, a.owner(), "{task} has two owners at epoch {}", a.epoch());
        }
        let moving = placement.tasks.values().filter(|a| a.is_moving()).count();
        assert!(moving <= self.settings.max_moving, "{told:#?}");
        self.check_releases(facts, placement);
        let again = plan(self.now_ms, placement, facts, &self.settings);
        assert_eq!(again.placement, *placement, "{told:#?} then {:#?}", again.decisions);
        assert!(again.decisions.iter().all(|d| matches!(d, Decision::Hold(_))), "{:?}", again.decisions);
    }

    /// The floor, and that nothing is released without a target that is level.
    fn check_releases(&self, facts: &Facts, next: &Placement) {
        let role = |task: &TaskId, member: &Member, epoch| {
            let member = facts.members.get(member)?;
            let heard = self.now_ms - member.heard_at_ms < self.settings.lost_after_ms;
            member.reports.get(task).filter(|r| r.epoch == epoch && heard).map(|r| r.role.clone())
        };
        let releasing = |p: &Placement, task: &TaskId| {
            matches!(p.tasks.get(task).map(Assignment::phase), Some(Phase::Releasing { .. }))
        };
        let mut released = false;
        for (task, a) in next.tasks.iter().filter(|(t, _)| releasing(next, t) && !releasing(&self.record, t)) {
            let followed = role(task, a.target().unwrap(), a.epoch());
            assert!(matches!(followed, Some(Role::Follows { lag_records: 0..=10, .. })), "{task}: {followed:?}");
            released = true;
        }
        let served = |(task, a): &(&TaskId, &Assignment)| {
            let goes_on = matches!(a.phase(), Phase::Steady | Phase::Preparing { .. });
            goes_on && self.tasks.contains(*task) && role(task, a.owner(), a.epoch()) == Some(Role::Owns)
        };
        let count = next.tasks.iter().filter(served).count();
        let n = self.tasks.len();
        let floor = (n as f64 * self.settings.min_served_percent as f64 / 100.0).ceil() as usize;
        assert!(!released || count >= floor.min(n - 1), "{count} of {n} served");
    }

    fn act(&mut self, member: &Member) {
        let now_ms = self.now_ms;
        let Some(worker) = self.workers.get_mut(member) else { return };
        if !worker.silent {
            let orders = self.record.orders(member);
            worker.local.retain(|task, _| orders.contains_key(task));
            for (task, order) in orders {
                let local = worker.local.remove(&task);
                let manifest = self.manifests.get_mut(&task);
                let next = match order {
                    Order::Own { epoch, rolled_back } => {
                        let next = own(member, &worker.facts, local, manifest, epoch, rolled_back);
                        if next == (Local::Owns { epoch }) && !worker.fails.contains(&task) {
                            let (owner, engine_version) = (member.clone(), worker.facts.engine_version);
                            let manifest = Manifest { epoch, owner, engine_version, released: false };
                            self.manifests.insert(task.clone(), manifest);
                        }
                        next
                    }
                    Order::Release { epoch } => release(member, local, manifest, epoch),
                    Order::Follow { .. } => match local {
                        Some(Local::Loads { rounds: 0 }) => Local::Follows { level_since_ms: now_ms },
                        Some(Local::Loads { rounds }) => Local::Loads { rounds: rounds - 1 },
                        Some(local @ Local::Follows { .. }) => local,
                        Some(Local::Owns { .. } | Local::Released { .. }) => Local::Follows { level_since_ms: now_ms },
                        Some(Local::Outdated { .. }) | None => Local::Loads { rounds: LOADING_ROUNDS },
                    },
                };
                worker.local.insert(task, next);
            }
        }
        // A stale owner's commit fails, and it stops.
        worker.local.retain(|task, local| match local {
            Local::Owns { epoch } => self.manifests.get(task).is_none_or(|m| m.epoch <= *epoch),
            _ => true,
        });
        let orders = self.record.orders(member);
        let report = |(task, local): (&TaskId, &Local)| {
            let told = match orders.get(task)? {
                Order::Own { epoch, .. } | Order::Release { epoch } | Order::Follow { epoch } => *epoch,
            };
            let (epoch, role) = match local {
                _ if worker.fails.contains(task) => (told, Role::Failed { why: "checkpoint damaged".to_owned() }),
                Local::Loads { .. } => (told, Role::Loads),
                Local::Follows { level_since_ms } => {
                    (told, Role::Follows { lag_records: worker.lag_records, level_for_ms: now_ms - level_since_ms })
                }
                Local::Owns { epoch } => (*epoch, Role::Owns),
                Local::Released { epoch } => (*epoch, Role::Released { offset: 100 }),
                Local::Outdated { manifest_epoch } => (told, Role::Outdated { manifest_epoch: *manifest_epoch }),
            };
            let load_millicores = self.millicores.get(task).copied().unwrap_or(100);
            Some((task.clone(), Report { epoch, role, load_millicores, state_bytes: 1_000 }))
        };
        if !worker.silent {
            let reports = worker.local.iter().filter_map(report).collect();
            worker.said.push_back((now_ms, reports));
        }
    }

    pub fn owner(&self, task: usize) -> &Member {
        self.record.tasks[&profile(task)].owner()
    }

    pub fn phase(&self, task: usize) -> &Phase {
        self.record.tasks[&profile(task)].phase()
    }

    pub fn epoch(&self, task: usize) -> u64 {
        self.record.tasks[&profile(task)].epoch()
    }

    pub fn owned_by(&self, shard: &str) -> usize {
        self.record.tasks.values().filter(|a| a.owner().shard == shard).count()
    }

    pub fn is_calm(&self) -> bool {
        self.record.tasks.values().all(|a| *a.phase() == Phase::Steady)
    }

    /// Everything placed and calm.
    pub fn settled(mut self) -> Self {
        self.rounds(12);
        assert!(self.is_calm());
        self
    }
}

fn own(
    member: &Member,
    facts: &MemberFacts,
    local: Option<Local>,
    manifest: Option<&mut Manifest>,
    epoch: u64,
    rolled_back: bool,
) -> Local {
    if local == Some(Local::Owns { epoch }) {
        return Local::Owns { epoch };
    }
    if let Some(there) = manifest.as_deref().filter(|m| m.epoch >= epoch) {
        let released = there.epoch == epoch && there.released && there.owner == *member;
        return if released { Local::Released { epoch } } else { Local::Outdated { manifest_epoch: there.epoch } };
    }
    if let Some(manifest) = manifest {
        let same = manifest.engine_version == facts.engine_version;
        assert!(same || manifest.released || rolled_back, "{member} may not acquire what another engine left");
    }
    match local {
        None | Some(Local::Outdated { .. }) => Local::Loads { rounds: LOADING_ROUNDS },
        Some(Local::Loads { rounds }) if rounds > 0 => Local::Loads { rounds: rounds - 1 },
        Some(_) => Local::Owns { epoch },
    }
}

fn release(member: &Member, local: Option<Local>, manifest: Option<&mut Manifest>, epoch: u64) -> Local {
    match (local, manifest) {
        (Some(Local::Owns { epoch: owned }), Some(manifest)) if owned == epoch && manifest.epoch == epoch => {
            manifest.released = true;
            Local::Released { epoch }
        }
        (_, Some(manifest)) if manifest.epoch == epoch && manifest.released && manifest.owner == *member => {
            Local::Released { epoch }
        }
        (_, manifest) => Local::Outdated { manifest_epoch: manifest.map_or(0, |m| m.epoch) },
    }
}
