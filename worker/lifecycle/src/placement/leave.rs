//! Empties members that drain, and after them those with an old pod template, one move after the other.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::decision::{Blocked, Decision, Hold, MoveReason};
use super::facts::Role;
use super::fleet::{Burden, Seat, ppm};
use super::plan::Pass;
use super::record::{Assignment, Member, Phase};
use crate::keys::TaskId;

/// How far a rollout has come, by tasks that are on members with the wanted template or on their way there.
#[derive(Clone, Copy)]
struct Rollout {
    /// The first of it have proved themselves.
    proven: bool,
    arrived: usize,
    /// What a new member takes of its cores, parts per million: its share of all, so that it is not filled only to be
    /// emptied again when the next one comes.
    share_ppm: u64,
}

impl Pass<'_> {
    pub(super) fn leave(&mut self) {
        let leaving = self.leaving();
        if leaving.is_empty() {
            return;
        }
        let mut tasks_of: BTreeMap<Member, Vec<TaskId>> = BTreeMap::new();
        for (task, assignment) in &self.placement.tasks {
            if *assignment.phase() == Phase::Steady {
                tasks_of.entry(assignment.owner().clone()).or_default().push(task.clone());
            }
        }
        let mut rollout = self.rollout();
        for (member, reason) in leaving {
            if let Some(tasks) = tasks_of.remove(&member) {
                self.empty(&member, reason, tasks, &mut rollout);
            }
        }
    }

    /// Who is to be emptied: those that drain, then those with an old template, the emptiest first, so that a rollout
    /// clears one shard after the other.
    fn leaving(&self) -> Vec<(Member, MoveReason)> {
        let seats = || self.fleet.seats.iter().filter(|seat| seat.alive);
        let drains = seats().filter(|seat| seat.facts.draining).map(|seat| (seat.member.clone(), MoveReason::Drains));
        let mut old: Vec<_> = seats().filter(|seat| !seat.facts.draining && !seat.wanted).collect();
        old.sort_by_key(|seat| (seat.owned_millicores, seat.member));
        drains.chain(old.into_iter().map(|seat| (seat.member.clone(), MoveReason::Rollout))).collect()
    }

    fn empty(&mut self, from: &Member, reason: MoveReason, mut tasks: Vec<TaskId>, rollout: &mut Rollout) {
        tasks.sort_by_cached_key(|task| (Reverse(self.weight(task).millicores), task.clone()));
        let (mut stay, mut because) = (0, None);
        for task in tasks {
            let Some(assignment) = self.assignment(&task).cloned() else { continue };
            let blocked = match self.destination(&task, &assignment, reason, *rollout) {
                Ok(to) if self.begin(&task, &to, reason) => {
                    *rollout = self.rollout();
                    continue;
                }
                Ok(_) => Blocked::NotServed,
                Err(blocked) => blocked,
            };
            stay += 1;
            because.get_or_insert(blocked);
        }
        if let Some(because) = because {
            self.held.push(Hold::Leaving { from: from.clone(), tasks: stay, reason, because });
        }
    }

    /// Where a task goes that is to leave its owner.
    fn destination(
        &self,
        task: &TaskId,
        assignment: &Assignment,
        reason: MoveReason,
        rollout: Rollout,
    ) -> Result<Member, Blocked> {
        if let Some(blocked) = self.no_more_moves() {
            return Err(blocked);
        }
        if !self.is_served(task, assignment) {
            return Err(Blocked::NotServed);
        }
        let owner_wanted = self.fleet.seat(assignment.owner()).is_some_and(|seat| seat.wanted);
        let canaries = self.settings.canary.tasks;
        // The canaries are on their way: until they have arrived, nothing else crosses.
        let closed = !owner_wanted && !rollout.proven && rollout.arrived >= canaries;
        let weight = self.weight(task);
        let crosses = |seat: &Seat| seat.wanted && !owner_wanted;
        let drains = reason == MoveReason::Drains;
        let candidates = self.fleet.seats.iter().filter(|seat| {
            let fits = seat.fits(weight, assignment.standby() == Some(seat.member));
            let fit = seat.usable() && self.unfit_to_follow(task, assignment, seat.member).is_none();
            let other = seat.member != assignment.owner() && !assignment.avoids(seat.member, self.now_ms);
            (drains || seat.wanted) && fits && fit && other && !(closed && crosses(seat))
        });
        let below_share = |seat: &&Seat| drains || seat.ppm(Burden::Owned, 0) < rollout.share_ppm;
        let any = candidates.clone().next().is_some();
        let best = candidates.filter(below_share).min_by_key(|seat| {
            let level = assignment.standby() == Some(seat.member) && self.is_level(task, assignment, seat.member);
            // A drain does not hurry a rollout whose canary is not proven.
            let other_template = seat.wanted != (owner_wanted || rollout.proven);
            (other_template, !level, seat.ppm(Burden::Owned, weight.millicores), seat.member)
        });
        match best {
            Some(seat) => Ok(seat.member.clone()),
            None if closed => Err(Blocked::Canary { tasks: canaries }),
            None if any => Err(Blocked::Share { shards: self.settings.shards }),
            None => Err(Blocked::NoRoom),
        }
    }

    /// Begins a move, if the task can be moved now.
    pub(super) fn begin(&mut self, task: &TaskId, to: &Member, reason: MoveReason) -> bool {
        let Some(from) = self.assignment(task).map(|assignment| assignment.owner().clone()) else { return false };
        let (to, now_ms, max_moving) = (to.clone(), self.now_ms, self.settings.max_moving);
        let begun = self.change(task, |assignment| assignment.prepare(to.clone(), now_ms));
        if begun {
            let (task, moving) = (task.clone(), self.fleet.moving);
            self.decisions.push(Decision::Move { task, from, to, reason, moving, max_moving });
        }
        begun
    }

    pub(super) fn no_more_moves(&self) -> Option<Blocked> {
        let (moving, max_moving) = (self.fleet.moving, self.settings.max_moving);
        (moving >= max_moving).then_some(Blocked::MaxMoving { moving, max_moving })
    }

    /// How long the target must have been level before this task is released to it.
    pub(super) fn canary_ms(&self, assignment: &Assignment, to: &Member) -> u64 {
        if self.settings.canary.tasks == 0 {
            return 0;
        }
        let template = |member| self.fleet.seat(member).map(|seat: &Seat| (&seat.facts.template, seat.wanted));
        let (Some((from, _)), Some((to, wanted))) = (template(assignment.owner()), template(to)) else { return 0 };
        let is_canary = wanted && from != to && !self.rollout().proven;
        if is_canary { self.settings.canary.level_for_ms } else { 0 }
    }

    fn is_level(&self, task: &TaskId, assignment: &Assignment, member: &Member) -> bool {
        let report = self.facts.report(member, task, assignment.epoch());
        let limit = self.settings.level_lag_records;
        report.is_some_and(|r| matches!(r.role, Role::Follows { lag_records, .. } if lag_records <= limit))
    }

    fn rollout(&self) -> Rollout {
        let wanted = |member| self.fleet.seat(member).is_some_and(|seat: &Seat| seat.wanted);
        let (mut served, mut arrived, mut all_millicores) = (0, 0, 0);
        for (task, assignment) in &self.placement.tasks {
            arrived += usize::from(wanted(assignment.owner_to_be()));
            let steady = *assignment.phase() == Phase::Steady && wanted(assignment.owner());
            served += usize::from(steady && self.is_served(task, assignment));
            all_millicores += self.weight(task).millicores;
        }
        let seats = self.fleet.seats.iter().filter(|seat| seat.wanted && seat.usable());
        let (count, cores) = seats.fold((0, 0), |(n, sum), seat| (n + 1, sum + seat.capacity_millicores));
        // So many shards as there are to be, with as many cores as those that are there already have on average.
        let cores_to_be = cores / std::cmp::max(count, 1) * self.settings.shards.clamp(1, 1_000_000);
        let proven = served >= self.settings.canary.tasks.min(self.facts.tasks.len());
        Rollout { proven, arrived, share_ppm: ppm(all_millicores, cores_to_be) }
    }
}
