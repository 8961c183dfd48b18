//! Evens out what members own, with few moves.
//!
//! From the most loaded to the least loaded, the largest task that brings both nearer (the greedy of G. Aggarwal,
//! R. Motwani, A. Zhu, "The load rebalancing problem", 2006), inside a band of tolerance. Each move lowers the sum of
//! squares of what members own, so moves come to an end; a member that joins takes its share and no more.

use super::decision::{Hold, MoveReason};
use super::fleet::{Seat, ppm};
use super::plan::Pass;
use super::record::Phase;
use crate::keys::TaskId;

/// A seat by its place in the fleet, and the tasks of it that could move, the lightest first.
type Movable = Vec<Vec<(u64, TaskId)>>;

/// A task, from where, to where (places in the fleet).
struct Shift {
    task: TaskId,
    from: usize,
    to: usize,
}

impl Pass<'_> {
    pub(super) fn balance(&mut self) {
        let mut movable = self.movable();
        while let Some(Shift { task, from, to }) = self.shift(&movable) {
            let (Some(a), Some(b)) = (self.fleet.seats.get(from), self.fleet.seats.get(to)) else { return };
            let (from_percent, to_percent) = (a.owned_ppm(0) / 10_000, b.owned_ppm(0) / 10_000);
            let (a, b) = (a.member.clone(), b.member.clone());
            if let Some(because) = self.no_more_moves() {
                return self.held.push(Hold::Unbalanced { from: a, from_percent, to: b, to_percent, because });
            }
            if !self.begin(&task, &b, MoveReason::Balance { from_percent, to_percent }) {
                return;
            }
            if let Some(tasks) = movable.get_mut(from) {
                tasks.retain(|(_, other)| *other != task);
            }
        }
    }

    fn movable(&self) -> Movable {
        let mut movable = vec![Vec::new(); self.fleet.seats.len()];
        for (task, assignment) in &self.placement.tasks {
            if *assignment.phase() != Phase::Steady || !self.is_served(task, assignment) {
                continue;
            }
            if let Some(tasks) = self.fleet.at(assignment.owner()).and_then(|at| movable.get_mut(at)) {
                tasks.push((self.weight(task).millicores, task.clone()));
            }
        }
        movable.iter_mut().for_each(|tasks| tasks.sort_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1))));
        movable
    }

    /// The best next move, if any is worth it.
    fn shift(&self, movable: &Movable) -> Option<Shift> {
        let any_wanted = self.fleet.seats.iter().any(|seat| seat.wanted && seat.usable());
        let takes_part = |seat: &Seat| seat.usable() && (seat.wanted || !any_wanted);
        let mut seats: Vec<_> = self.fleet.seats.iter().enumerate().filter(|(_, seat)| takes_part(seat)).collect();
        let owned: u64 = seats.iter().map(|(_, seat)| seat.owned_millicores).sum();
        let cores: u64 = seats.iter().map(|(_, seat)| seat.facts.capacity.millicores).sum();
        let mean_ppm = ppm(owned, cores);
        let band_ppm = mean_ppm.saturating_mul(self.settings.imbalance_percent.max(1)) / 100;
        seats.sort_by_key(|(_, seat)| (seat.owned_ppm(0), seat.member));
        for (from, high) in seats.iter().rev().filter(|(_, seat)| seat.owned_ppm(0) > mean_ppm) {
            for (to, low) in seats.iter().filter(|(_, seat)| seat.owned_ppm(0) < mean_ppm) {
                let outside = high.owned_ppm(0) > mean_ppm + band_ppm || low.owned_ppm(0) + band_ppm < mean_ppm;
                if !outside {
                    break;
                }
                let tasks = movable.get(*from).map(Vec::as_slice).unwrap_or_default();
                if let Some(task) = self.best(high, low, tasks, mean_ppm, band_ppm) {
                    return Some(Shift { task, from: *from, to: *to });
                }
            }
        }
        None
    }

    /// The largest task that fills `low` at most to the mean and does not turn the two around; if none is so small, the
    /// smallest that still lowers the higher of the two by half a band.
    fn best(&self, high: &Seat, low: &Seat, tasks: &[(u64, TaskId)], mean_ppm: u64, band_ppm: u64) -> Option<TaskId> {
        let after = |millicores: u64| {
            let left = ppm(high.owned_millicores.saturating_sub(millicores), high.facts.capacity.millicores);
            (left, low.owned_ppm(millicores))
        };
        let modest = |millicores: u64| {
            let (high_ppm, low_ppm) = after(millicores);
            low_ppm <= mean_ppm && low_ppm <= high_ppm
        };
        let still_better = |millicores: u64| {
            let (high_ppm, low_ppm) = after(millicores);
            high_ppm.max(low_ppm) + (band_ppm / 2).max(1) <= high.owned_ppm(0)
        };
        let free = |task: &&(u64, TaskId)| self.may_go(&task.1, low);
        let split = tasks.partition_point(|(millicores, _)| modest(*millicores));
        let (small, large) = tasks.split_at(split);
        let best = small.iter().rev().find(free);
        let best = best.or_else(|| large.iter().take_while(|(m, _)| still_better(*m)).find(free));
        best.map(|(_, task)| task.clone())
    }

    fn may_go(&self, task: &TaskId, to: &Seat) -> bool {
        let Some(assignment) = self.assignment(task) else { return false };
        let follows = assignment.standby() == Some(to.member);
        let fits = to.fits(self.weight(task), follows) && !assignment.avoids(to.member, self.now_ms);
        fits && self.unfit_to_follow(task, assignment, to.member).is_none()
    }
}
