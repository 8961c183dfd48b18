//! The fleet as counted: what each member carries by the record, and what each task weighs by the facts.

use std::collections::BTreeMap;

use super::facts::{Capacity, Facts, MemberFacts, Role};
use super::record::{Assignment, Member};
use super::settings::Settings;
use crate::keys::{TaskId, TaskKind};

/// A task without any load still weighs this, so that quiet tasks spread as well.
const IDLE_MILLICORES: u64 = 5;
/// No task weighs, and no member has, more than a million cores, or a PiB: whatever is reported, sums do not overflow.
const MAX_MILLICORES: u64 = 1_000_000_000;
const MAX_STATE_BYTES: u64 = 1 << 50;

/// What a task asks of a member, as owner or following: a standby does the same work, its effects held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub millicores: u64,
    pub state_bytes: u64,
}

/// The weights of tasks, by the newest measurement; a task never measured weighs the mean of its kind, or of all.
///
/// A measurement is of the task, not of who owns it, so this is the one thing for which an earlier owner's report counts.
/// It depends on the facts alone: else a plan's own outcome would change what the next one sees.
pub(super) struct Weights {
    measured: BTreeMap<TaskId, (Rank, Weight)>,
    by_kind: BTreeMap<TaskKind, Weight>,
    of_all: Weight,
}

/// Later epochs are newer, and an owner is nearer than a follower.
type Rank = (u64, bool);

impl Weights {
    pub fn of(facts: &Facts) -> Self {
        let mut measured: BTreeMap<TaskId, (Rank, Weight)> = BTreeMap::new();
        for (task, report) in facts.members.values().flat_map(|m| &m.reports) {
            let owns = report.role == Role::Owns;
            if !owns && !matches!(report.role, Role::Follows { .. }) {
                continue;
            }
            let rank = (report.epoch, owns);
            let weight = Weight {
                millicores: report.load_millicores.clamp(IDLE_MILLICORES, MAX_MILLICORES),
                state_bytes: report.state_bytes.min(MAX_STATE_BYTES),
            };
            match measured.get_mut(task) {
                Some(known) if known.0 >= rank => {}
                Some(known) => *known = (rank, weight),
                None => drop(measured.insert(task.clone(), (rank, weight))),
            }
        }
        let mut kinds: BTreeMap<TaskKind, Vec<Weight>> = BTreeMap::new();
        for (task, (_, weight)) in &measured {
            kinds.entry(task.kind).or_default().push(*weight);
        }
        let of_all = mean(measured.values().map(|(_, weight)| *weight));
        let by_kind = kinds.into_iter().map(|(kind, weights)| (kind, mean(weights.into_iter()))).collect();
        Self { measured, by_kind, of_all }
    }

    pub fn get(&self, task: &TaskId) -> Weight {
        let measured = self.measured.get(task).map(|(_, weight)| *weight);
        measured.or_else(|| self.by_kind.get(&task.kind).copied()).unwrap_or(self.of_all)
    }
}

fn mean(weights: impl Iterator<Item = Weight>) -> Weight {
    let (mut sum, mut count) = (Weight::default(), 0);
    for weight in weights {
        sum.millicores = sum.millicores.saturating_add(weight.millicores);
        sum.state_bytes = sum.state_bytes.saturating_add(weight.state_bytes);
        count += 1;
    }
    let count = std::cmp::max(count, 1);
    Weight { millicores: (sum.millicores / count).max(IDLE_MILLICORES), state_bytes: sum.state_bytes / count }
}

/// What is evened out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Burden {
    Owned,
    /// Standbys included.
    Carried,
}

/// A member, and what it carries once all that was begun is done.
pub(super) struct Seat<'a> {
    pub member: &'a Member,
    pub facts: &'a MemberFacts,
    /// It was heard of lately.
    pub alive: bool,
    /// It has the wanted pod template.
    pub wanted: bool,
    /// Of the tasks that it owns, or is to own.
    pub owned_millicores: u64,
    /// Of all, those that it is to give up and those that it follows included.
    pub carried: Weight,
    /// What it has.
    pub capacity_millicores: u64,
    /// What of it may be given away.
    pub limit: Capacity,
}

impl Seat<'_> {
    /// It can be given tasks.
    pub fn usable(&self) -> bool {
        self.alive && self.facts.ready && !self.facts.draining
    }

    pub fn millicores(&self, burden: Burden) -> u64 {
        match burden {
            Burden::Owned => self.owned_millicores,
            Burden::Carried => self.carried.millicores,
        }
    }

    /// Parts per million of its cores that this takes, with so much more.
    pub fn ppm(&self, burden: Burden, more_millicores: u64) -> u64 {
        ppm(self.millicores(burden).saturating_add(more_millicores), self.capacity_millicores)
    }

    /// Whether it has room for a task; one that it follows already takes none.
    pub fn fits(&self, weight: Weight, follows: bool) -> bool {
        let more = if follows { Weight::default() } else { weight };
        self.carried.millicores.saturating_add(more.millicores) <= self.limit.millicores
            && self.carried.state_bytes.saturating_add(more.state_bytes) <= self.limit.state_bytes
    }
}

pub(super) fn ppm(part: u64, whole: u64) -> u64 {
    let ppm = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
    u64::try_from(ppm).unwrap_or(u64::MAX)
}

/// All members by name, with what they carry.
pub(super) struct Fleet<'a> {
    pub seats: Vec<Seat<'a>>,
    index: BTreeMap<&'a Member, usize>,
    /// Moves under way.
    pub moving: usize,
}

impl<'a> Fleet<'a> {
    pub fn new(now_ms: u64, facts: &'a Facts, settings: &Settings) -> Self {
        let seat = |(member, facts): (&'a Member, &'a MemberFacts)| {
            let Capacity { millicores, state_bytes } = facts.capacity;
            let capacity_millicores = millicores.min(MAX_MILLICORES);
            let given = capacity_millicores * settings.target_utilisation_percent.min(100) / 100;
            Seat {
                member,
                facts,
                alive: now_ms.saturating_sub(facts.heard_at_ms) < settings.lost_after_ms,
                wanted: facts.template == settings.template,
                owned_millicores: 0,
                carried: Weight::default(),
                capacity_millicores,
                limit: Capacity { millicores: given, state_bytes },
            }
        };
        let seats: Vec<_> = facts.members.iter().map(seat).collect();
        let index = seats.iter().enumerate().map(|(i, seat)| (seat.member, i)).collect();
        Self { seats, index, moving: 0 }
    }

    pub fn seat(&self, member: &Member) -> Option<&Seat<'a>> {
        self.index.get(member).and_then(|i| self.seats.get(*i))
    }

    /// Where `member` stands in [`Self::seats`].
    pub fn at(&self, member: &Member) -> Option<usize> {
        self.index.get(member).copied()
    }

    /// How many are ready and stay.
    pub fn ready(&self) -> usize {
        self.seats.iter().filter(|seat| seat.usable()).count()
    }

    /// Counts an assignment.
    pub fn add(&mut self, assignment: &Assignment, weight: Weight) {
        self.moving += usize::from(assignment.is_moving());
        self.each(assignment, |seat, owns| {
            seat.owned_millicores += if owns { weight.millicores } else { 0 };
            seat.carried.millicores += weight.millicores;
            seat.carried.state_bytes += weight.state_bytes;
        });
    }

    /// Takes back what [`Self::add`] counted.
    pub fn remove(&mut self, assignment: &Assignment, weight: Weight) {
        self.moving -= usize::from(assignment.is_moving());
        self.each(assignment, |seat, owns| {
            seat.owned_millicores -= if owns { weight.millicores } else { 0 };
            seat.carried.millicores -= weight.millicores;
            seat.carried.state_bytes -= weight.state_bytes;
        });
    }

    /// All that carry a task, each once, and whether they are to own it.
    fn each(&mut self, assignment: &Assignment, mut change: impl FnMut(&mut Seat<'a>, bool)) {
        let (owner, target) = (assignment.owner(), assignment.target());
        let standby = assignment.standby().filter(|standby| Some(*standby) != target);
        for member in [Some(owner), target, standby].into_iter().flatten() {
            if let Some(seat) = self.index.get(member).and_then(|i| self.seats.get_mut(*i)) {
                change(seat, member == assignment.owner_to_be());
            }
        }
    }
}
