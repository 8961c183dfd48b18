//! Finds a standby for each task that is served: on a member of the owner's engine version, so that it could take over
//! without a release, and in another failure domain where one has room.

use super::decision::{Decision, Hold, StandbyReason, Unfit};
use super::fleet::{Burden, Seat};
use super::plan::Pass;
use super::record::{Assignment, Member, Phase};
use crate::keys::TaskId;

impl Pass<'_> {
    pub(super) fn stand_by(&mut self) {
        let mut without = (0, None);
        for task in self.tasks() {
            let Some(assignment) = self.assignment(&task).cloned() else { continue };
            if !self.settings.standbys {
                if assignment.standby().is_some() {
                    self.set_standby(&task, &assignment, None, StandbyReason::Off);
                }
                continue;
            }
            if self.waits(&assignment) {
                continue;
            }
            if !self.find_standby(&task, &assignment) {
                without.0 += 1;
                without.1.get_or_insert(task);
            }
        }
        if let (tasks, Some(such_as)) = without {
            self.held.push(Hold::NoStandby { tasks, such_as });
        }
    }

    /// Owners load before standbys do, and who is the target of a move is not also looked at as its standby.
    fn waits(&self, assignment: &Assignment) -> bool {
        let loading = matches!(assignment.phase(), Phase::Acquiring { .. } | Phase::Retiring);
        let becomes_owner = assignment.standby().is_some() && assignment.standby() == assignment.target();
        let owner_known = self.fleet.seat(assignment.owner()).is_some_and(|seat| seat.alive);
        loading || becomes_owner || !owner_known
    }

    /// Whether the task has one in the end.
    fn find_standby(&mut self, task: &TaskId, assignment: &Assignment) -> bool {
        let reason = match assignment.standby() {
            None => StandbyReason::Missing,
            Some(standby) => match self.unfit_standby(task, assignment, standby) {
                Some(unfit) => StandbyReason::Unfit(unfit),
                None if self.shares_zone(assignment, standby) => StandbyReason::SameZone,
                None => return true,
            },
        };
        let best = self.best_standby(task, assignment);
        match (&reason, best) {
            (StandbyReason::SameZone, Some(best)) if self.shares_zone(assignment, &best) => true,
            (_, Some(best)) => self.set_standby(task, assignment, Some(best), reason),
            // As long as it lives, it is better than none.
            (StandbyReason::SameZone | StandbyReason::Unfit(Unfit::Drains), None) => true,
            (StandbyReason::Unfit(_), None) => {
                self.set_standby(task, assignment, None, reason);
                false
            }
            (StandbyReason::Missing | StandbyReason::Balance | StandbyReason::Off, None) => false,
        }
    }

    fn unfit_standby(&self, task: &TaskId, assignment: &Assignment, standby: &Member) -> Option<Unfit> {
        let unfit = self.unfit_to_follow(task, assignment, standby);
        let other_engine = || {
            let own = self.fleet.seat(standby)?.facts.engine_version;
            let owner = assignment.engine_version();
            (own != owner).then_some(Unfit::OtherEngine { owner, own })
        };
        unfit.or_else(other_engine)
    }

    /// Whether a member is in the failure domain of the owner, of the one to be if the task moves.
    fn shares_zone(&self, assignment: &Assignment, member: &Member) -> bool {
        let zone = |member| self.fleet.seat(member).map(|seat: &Seat| &seat.facts.zone);
        zone(member) == zone(assignment.owner_to_be())
    }

    fn best_standby(&self, task: &TaskId, assignment: &Assignment) -> Option<Member> {
        let weight = self.weight(task);
        let taken = [Some(assignment.owner()), assignment.target(), assignment.standby()];
        let candidates = self.fleet.seats.iter().filter(|seat| {
            let fit = seat.usable() && !assignment.avoids(seat.member, self.now_ms) && seat.fits(weight, false);
            fit && !taken.contains(&Some(seat.member)) && self.unfit_standby(task, assignment, seat.member).is_none()
        });
        let owner_template = self.fleet.seat(assignment.owner()).map(|seat| &seat.facts.template);
        let best = candidates.min_by_key(|seat| {
            let other_template = Some(&seat.facts.template) != owner_template;
            (self.shares_zone(assignment, seat.member), other_template, seat.ppm(Burden::Carried, 0), seat.member)
        });
        best.map(|seat| seat.member.clone())
    }

    /// Whether a member can stand by where another does, and not in a worse zone.
    pub(super) fn is_better_standby(&self, task: &TaskId, assignment: &Assignment, member: &Member) -> bool {
        let worse_zone = self.shares_zone(assignment, member)
            && assignment.standby().is_some_and(|standby| !self.shares_zone(assignment, standby));
        member != assignment.owner() && !worse_zone && self.unfit_standby(task, assignment, member).is_none()
    }

    pub(super) fn set_standby(
        &mut self,
        task: &TaskId,
        assignment: &Assignment,
        to: Option<Member>,
        reason: StandbyReason,
    ) -> bool {
        let (now_ms, retry_at_ms) = (self.now_ms, self.now_ms.saturating_add(self.settings.retry_after_ms));
        let from = assignment.standby().cloned();
        let failed = matches!(reason, StandbyReason::Unfit(Unfit::Failed { .. }));
        let set = self.change(task, |a| {
            if let (true, Some(failed)) = (failed, &from) {
                a.avoid(failed.clone(), now_ms, retry_at_ms);
            }
            a.set_standby(to.clone())
        });
        if set {
            self.decisions.push(Decision::Standby { task: task.clone(), from, to, reason });
        }
        set
    }
}
