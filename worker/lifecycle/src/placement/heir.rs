//! Finds owners for tasks without one: new tasks, and those whose owner is lost, failed or has released.
//!
//! Heaviest first, each to the least loaded (longest processing time first: R. L. Graham, "Bounds on multiprocessing timing
//! anomalies", 1969), among those within their limit (bounded loads: V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent
//! hashing with bounded loads", 2018). What is there already stays: only orphans are placed.

use std::cmp::Reverse;

use super::decision::{Choice, Decision, Hold, PlaceReason};
use super::fleet::{Burden, Seat, Weight};
use super::plan::Pass;
use super::record::{Assignment, Heir, Member};
use crate::keys::TaskId;

/// A task that needs an owner.
pub(super) struct Orphan {
    pub task: TaskId,
    pub reason: PlaceReason,
}

/// Where an orphan goes.
struct Found {
    heir: Heir,
    choice: Choice,
}

impl PlaceReason {
    /// Who is not tried again for a while.
    fn failed(&self) -> Option<&Member> {
        match self {
            Self::OwnerFailed { owner, .. } | Self::OwnerTooSlow { owner, .. } => Some(owner),
            _ => None,
        }
    }
}

impl Pass<'_> {
    pub(super) fn find_heirs(&mut self, mut orphans: Vec<Orphan>) {
        orphans.sort_by_cached_key(|orphan| (Reverse(self.weight(&orphan.task).millicores), orphan.task.clone()));
        for orphan in orphans {
            self.place(orphan);
        }
    }

    fn place(&mut self, Orphan { task, reason }: Orphan) {
        let before = self.assignment(&task).cloned();
        let Some(Found { heir, choice }) = self.heir(&task, before.as_ref(), &reason) else {
            let engine_version = self.engine_bound(&task, before.as_ref(), &reason);
            let reason = (reason != PlaceReason::New).then_some(reason);
            return self.held.push(Hold::NoOwner { task, reason, engine_version });
        };
        let above = match (&reason, &before) {
            (PlaceReason::EpochUsed { manifest_epoch, .. }, Some(before)) => before.epoch().max(*manifest_epoch),
            (_, Some(before)) => before.epoch(),
            (_, None) => self.placement.retired.remove(&task).map_or(0, |retired| retired.epoch),
        };
        let (to, epoch, now_ms) = (heir.member.clone(), above.saturating_add(1), self.now_ms);
        let placed = if before.is_some() {
            let retry_at_ms = now_ms.saturating_add(self.settings.retry_after_ms);
            self.change(&task, |assignment| {
                if let Some(failed) = reason.failed() {
                    assignment.avoid(failed.clone(), now_ms, retry_at_ms);
                }
                assignment.assign(heir, epoch, now_ms)
            })
        } else {
            self.insert(&task, Assignment::new(heir, epoch, now_ms));
            true
        };
        if placed {
            self.decisions.push(Decision::Place { task, to, epoch, reason, choice });
        }
    }

    /// The engine version that alone may take the task over, as nobody released it.
    fn engine_bound(&self, task: &TaskId, before: Option<&Assignment>, reason: &PlaceReason) -> Option<u32> {
        match (before, reason) {
            (Some(_), PlaceReason::OwnerReleased { .. }) => None,
            (Some(before), _) => Some(before.engine_version()),
            (None, _) => self.placement.retired.get(task).and_then(|retired| retired.unreleased_engine_version),
        }
    }

    /// First who follows the task's log closely, then who had it, then who has the most room.
    fn heir(&self, task: &TaskId, before: Option<&Assignment>, reason: &PlaceReason) -> Option<Found> {
        let (weight, engine) = (self.weight(task), self.engine_bound(task, before, reason));
        let may_own = |seat: &Seat| {
            let avoided =
                before.is_some_and(|b| b.avoids(seat.member, self.now_ms)) || reason.failed() == Some(seat.member);
            let engine_fits = engine.is_none_or(|engine| engine == seat.facts.engine_version);
            let failed = before.is_some_and(|b| self.unfit_to_follow(task, b, seat.member).is_some());
            seat.usable() && !avoided && !failed && (engine_fits || self.may_roll_back(engine, seat))
        };
        let candidates = self.fleet.seats.iter().filter(|seat| may_own(seat));
        let (_, choice, seat) = candidates
            .map(|seat| {
                let choice = self.choice(task, before, reason, seat, weight);
                let rank = match choice {
                    // Who released has the state at hand; another that follows is as good, and would be a move.
                    Choice::Owned if matches!(reason, PlaceReason::OwnerReleased { .. }) => 0,
                    Choice::Follows { .. } => 1,
                    Choice::Owned => 2,
                    Choice::MostRoom => 3,
                    Choice::Overloaded => 4,
                };
                let lag_records = if let Choice::Follows { lag_records } = choice { lag_records } else { 0 };
                let ppm = seat.ppm(Burden::Owned, weight.millicores);
                ((rank, lag_records, !seat.wanted, ppm, seat.member), choice, seat)
            })
            .min_by(|a, b| a.0.cmp(&b.0))?;
        let engine_version = seat.facts.engine_version;
        let rolled_back = engine.is_some_and(|engine| engine != engine_version);
        Some(Found { heir: Heir { member: seat.member.clone(), engine_version, rolled_back, from: None }, choice })
    }

    /// A rollout that was taken back lets the older engine have what the newer did not release.
    fn may_roll_back(&self, engine: Option<u32>, seat: &Seat) -> bool {
        let newer = engine.is_some_and(|engine| engine > seat.facts.engine_version);
        self.settings.rolled_back && seat.wanted && newer
    }

    fn choice(
        &self,
        task: &TaskId,
        before: Option<&Assignment>,
        reason: &PlaceReason,
        seat: &Seat,
        weight: Weight,
    ) -> Choice {
        let Some(before) = before else { return room(seat, weight, false) };
        if before.owner() == seat.member {
            return if reason.failed().is_none() { Choice::Owned } else { room(seat, weight, true) };
        }
        let follows = [before.standby(), before.target()].contains(&Some(seat.member));
        match self.lag_records(task, before, seat.member) {
            Some(lag_records) if follows && lag_records <= self.settings.promote_lag_records => {
                Choice::Follows { lag_records }
            }
            _ => room(seat, weight, follows),
        }
    }
}

fn room(seat: &Seat, weight: Weight, carries: bool) -> Choice {
    if seat.fits(weight, carries) { Choice::MostRoom } else { Choice::Overloaded }
}
