//! Evens out what members own, and then what they carry, with few moves.
//!
//! From the most loaded to the least loaded, the largest task that brings both nearer (the greedy of G. Aggarwal,
//! R. Motwani, A. Zhu, "The load rebalancing problem", 2006), inside a band of tolerance. Each move lowers the sum of
//! squares of what members bear, so moves come to an end; a member that joins takes its share and no more.

use super::decision::{Blocked, Hold, MoveReason, StandbyReason};
use super::fleet::{Burden, Seat, ppm};
use super::plan::Pass;
use super::record::{Assignment, Phase};
use crate::keys::TaskId;

/// By a seat's place in the fleet, the tasks there that could move, the lightest first.
type Movable = Vec<Vec<(u64, TaskId)>>;

/// A task, from where, to where (places in the fleet).
struct Shift {
    task: TaskId,
    from: usize,
    to: usize,
}

impl Pass<'_> {
    /// By owned load tasks move, by carried load standbys.
    pub(super) fn balance(&mut self, burden: Burden) {
        let mut movable = self.movable(burden);
        while let Some(Shift { task, from, to }) = self.shift(burden, &movable) {
            let (Some(a), Some(b)) = (self.fleet.seats.get(from), self.fleet.seats.get(to)) else { return };
            let (from_percent, to_percent) = (a.ppm(burden, 0) / 10_000, b.ppm(burden, 0) / 10_000);
            let (a, b) = (a.member.clone(), b.member.clone());
            let blocked = match burden {
                Burden::Owned => self.no_more_moves(),
                Burden::Carried => self.no_more_standbys(),
            };
            if let Some(because) = blocked {
                let standbys = burden == Burden::Carried;
                return self.held.push(Hold::Unbalanced {
                    standbys,
                    from: a,
                    from_percent,
                    to: b,
                    to_percent,
                    because,
                });
            }
            let Some(assignment) = self.assignment(&task).cloned() else { return };
            let begun = match burden {
                Burden::Owned => self.begin(&task, &b, MoveReason::Balance { from_percent, to_percent }),
                Burden::Carried => self.set_standby(&task, &assignment, Some(b), StandbyReason::Balance),
            };
            if !begun {
                return;
            }
            if let Some(tasks) = movable.get_mut(from) {
                tasks.retain(|(_, other)| *other != task);
            }
        }
    }

    fn movable(&self, burden: Burden) -> Movable {
        let mut movable = vec![Vec::new(); self.fleet.seats.len()];
        for (task, assignment) in &self.placement.tasks {
            if *assignment.phase() != Phase::Steady || !self.is_served(task, assignment) {
                continue;
            }
            let bearer = match burden {
                Burden::Owned => Some(assignment.owner()),
                Burden::Carried => assignment.standby(),
            };
            let at = bearer.and_then(|member| self.fleet.at(member));
            if let Some(tasks) = at.and_then(|at| movable.get_mut(at)) {
                tasks.push((self.weight(task).millicores, task.clone()));
            }
        }
        movable.iter_mut().for_each(|tasks| tasks.sort_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1))));
        movable
    }

    /// Standbys load at most as many at once as tasks move, where it is for balance.
    fn no_more_standbys(&self) -> Option<Blocked> {
        let loads = |(task, assignment): &(&TaskId, &Assignment)| {
            assignment.standby().is_some_and(|standby| self.lag_records(task, assignment, standby).is_none())
        };
        let (loading, max_moving) = (self.placement.tasks.iter().filter(loads).count(), self.settings.max_moving);
        (loading >= max_moving).then_some(Blocked::MaxLoading { loading, max_moving })
    }

    /// The best next move, if any is worth it.
    fn shift(&self, burden: Burden, movable: &Movable) -> Option<Shift> {
        let any_wanted = self.fleet.seats.iter().any(|seat| seat.wanted && seat.usable());
        let takes_part = |seat: &Seat| seat.usable() && (seat.wanted || !any_wanted);
        let mut seats: Vec<_> = self.fleet.seats.iter().enumerate().filter(|(_, seat)| takes_part(seat)).collect();
        let borne: u64 = seats.iter().map(|(_, seat)| seat.millicores(burden)).sum();
        let cores: u64 = seats.iter().map(|(_, seat)| seat.capacity_millicores).sum();
        let mean_ppm = ppm(borne, cores);
        let band_ppm = mean_ppm.saturating_mul(self.settings.imbalance_percent.max(1)) / 100;
        seats.sort_by_key(|(_, seat)| (seat.ppm(burden, 0), seat.member));
        for (from, high) in seats.iter().rev().filter(|(_, seat)| seat.ppm(burden, 0) > mean_ppm) {
            for (to, low) in seats.iter().filter(|(_, seat)| seat.ppm(burden, 0) < mean_ppm) {
                let outside = high.ppm(burden, 0) > mean_ppm.saturating_add(band_ppm)
                    || low.ppm(burden, 0).saturating_add(band_ppm) < mean_ppm;
                if !outside {
                    break;
                }
                let tasks = movable.get(*from).map(Vec::as_slice).unwrap_or_default();
                if let Some(task) = self.best(burden, (high, low), tasks, mean_ppm, band_ppm) {
                    return Some(Shift { task, from: *from, to: *to });
                }
            }
        }
        None
    }

    /// The largest task that fills `low` at most to the mean and does not turn the two around; if none is so small, the
    /// smallest that still lowers the higher of the two by half a band.
    fn best(
        &self,
        burden: Burden,
        (high, low): (&Seat, &Seat),
        tasks: &[(u64, TaskId)],
        mean_ppm: u64,
        band_ppm: u64,
    ) -> Option<TaskId> {
        let after = |millicores: u64| {
            let left = ppm(high.millicores(burden).saturating_sub(millicores), high.capacity_millicores);
            (left, low.ppm(burden, millicores))
        };
        let modest = |millicores: u64| {
            let (high_ppm, low_ppm) = after(millicores);
            low_ppm <= mean_ppm && low_ppm <= high_ppm
        };
        let still_better = |millicores: u64| {
            let (high_ppm, low_ppm) = after(millicores);
            high_ppm.max(low_ppm).saturating_add((band_ppm / 2).max(1)) <= high.ppm(burden, 0)
        };
        let free = |task: &&(u64, TaskId)| self.may_go(burden, &task.1, low);
        let split = tasks.partition_point(|(millicores, _)| modest(*millicores));
        let (small, large) = tasks.split_at(split);
        let best = small.iter().rev().find(free);
        let best = best.or_else(|| large.iter().take_while(|(m, _)| still_better(*m)).find(free));
        best.map(|(_, task)| task.clone())
    }

    fn may_go(&self, burden: Burden, task: &TaskId, to: &Seat) -> bool {
        let Some(assignment) = self.assignment(task) else { return false };
        let follows = assignment.standby() == Some(to.member);
        let fits = to.fits(self.weight(task), follows) && !assignment.avoids(to.member, self.now_ms);
        fits && match burden {
            Burden::Owned => self.unfit_to_follow(task, assignment, to.member).is_none(),
            Burden::Carried => self.is_better_standby(task, assignment, to.member),
        }
    }
}
