//! Takes each task that is on record a step on: what was begun is finished, taken back, or found to need another owner.

use super::decision::{Decision, Hold, PlaceReason, Unfit};
use super::facts::Role;
use super::heir::Orphan;
use super::plan::Pass;
use super::record::{Assignment, Heir, Member, Phase, Retired};
use crate::keys::TaskId;

/// How an owner stands to what it was told.
enum Owner {
    /// It says that it owns.
    Owns,
    /// It is alive and says nothing of it under this epoch.
    Silent,
    Released {
        offset: u64,
    },
    /// Somebody else is needed, or a higher epoch.
    Unable(PlaceReason),
}

impl Pass<'_> {
    /// Tasks that need an owner, new ones included.
    pub(super) fn advance(&mut self) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for task in self.tasks() {
            let Some(assignment) = self.assignment(&task).cloned() else { continue };
            if !self.facts.tasks.contains(&task) {
                self.end(&task, &assignment);
            } else if *assignment.phase() == Phase::Retiring {
                if self.change(&task, Assignment::stay) {
                    let owner = assignment.owner().clone();
                    self.decisions.push(Decision::Revive { task, owner });
                }
            } else if let Some(reason) = self.step(&task, &assignment) {
                orphans.push(Orphan { task, reason });
            }
        }
        let facts = self.facts;
        let new = facts.tasks.iter().filter(|task| !self.placement.tasks.contains_key(*task));
        orphans.extend(new.map(|task| Orphan { task: task.clone(), reason: PlaceReason::New }));
        orphans
    }

    fn owner(&self, task: &TaskId, assignment: &Assignment) -> Owner {
        let owner = assignment.owner();
        let report = self.facts.report(owner, task, assignment.epoch());
        if let Some(Role::Released { offset }) = report.map(|r| &r.role) {
            return Owner::Released { offset: *offset };
        }
        let owner = owner.clone();
        let Some(seat) = self.fleet.seat(&owner) else {
            let replaced = self.facts.members.keys().any(|member| member.shard == owner.shard);
            return Owner::Unable(match replaced {
                true => PlaceReason::OwnerReplaced { owner },
                false => PlaceReason::OwnerGone { owner },
            });
        };
        if !seat.alive {
            let for_ms = self.now_ms.saturating_sub(seat.facts.heard_at_ms);
            return Owner::Unable(PlaceReason::OwnerSilent { owner, for_ms });
        }
        match report.map(|r| &r.role) {
            Some(Role::Owns) => Owner::Owns,
            Some(Role::Failed { why }) => Owner::Unable(PlaceReason::OwnerFailed { owner, why: why.clone() }),
            Some(Role::Outdated { manifest_epoch }) => {
                Owner::Unable(PlaceReason::EpochUsed { owner, manifest_epoch: *manifest_epoch })
            }
            Some(Role::Released { .. } | Role::Loads | Role::Follows { .. }) | None => Owner::Silent,
        }
    }

    /// Why the task needs an owner, if it does.
    fn step(&mut self, task: &TaskId, assignment: &Assignment) -> Option<PlaceReason> {
        let owner = assignment.owner();
        let condition = match self.owner(task, assignment) {
            Owner::Unable(reason) => return Some(reason),
            Owner::Released { offset } => {
                let reason = PlaceReason::OwnerReleased { owner: owner.clone(), offset };
                return (!self.hand_over(task, assignment, offset)).then_some(reason);
            }
            condition @ (Owner::Owns | Owner::Silent) => condition,
        };
        let silent = matches!(condition, Owner::Silent);
        match assignment.phase() {
            Phase::Acquiring { since_ms, .. } if silent => return self.await_owner(task, assignment, *since_ms),
            Phase::Acquiring { .. } => {
                if self.change(task, Assignment::acquired) {
                    let (task, owner, epoch) = (task.clone(), owner.clone(), assignment.epoch());
                    self.decisions.push(Decision::Acquired { task, owner, epoch });
                }
            }
            Phase::Preparing { to, since_ms } => match self.unfit(task, assignment, to, *since_ms) {
                Some(reason) => self.abort(task, assignment, to, reason),
                None => self.release_when_level(task, assignment, to),
            },
            Phase::Releasing { to, since_ms } => match self.unfit(task, assignment, to, *since_ms) {
                Some(reason) => self.abort(task, assignment, to, reason),
                None => self.held.push(Hold::NotReleased { task: task.clone(), from: owner.clone() }),
            },
            Phase::Steady | Phase::Retiring => {}
        }
        if silent && *assignment.phase() == Phase::Steady {
            self.held.push(Hold::OwnerSaysNothing { task: task.clone(), owner: owner.clone() });
        }
        None
    }

    fn await_owner(&mut self, task: &TaskId, assignment: &Assignment, since_ms: u64) -> Option<PlaceReason> {
        let (owner, for_ms) = (assignment.owner().clone(), self.now_ms.saturating_sub(since_ms));
        if for_ms > self.settings.move_within_ms {
            return Some(PlaceReason::OwnerTooSlow { owner, for_ms });
        }
        self.held.push(Hold::NotAcquired { task: task.clone(), owner, epoch: assignment.epoch() });
        None
    }

    /// Gives a released task to the target of its move, if that is fit and follows still.
    fn hand_over(&mut self, task: &TaskId, assignment: &Assignment, offset: u64) -> bool {
        let Phase::Releasing { to, .. } = assignment.phase() else { return false };
        let follows = self.lag_records(task, assignment, to).is_some();
        if !follows || self.unfit(task, assignment, to, self.now_ms).is_some() {
            return false;
        }
        let Some(seat) = self.fleet.seat(to) else { return false };
        let (engine_version, from) = (seat.facts.engine_version, assignment.owner().clone());
        let heir = Heir { member: to.clone(), engine_version, rolled_back: false, from: Some(from.clone()) };
        let epoch = assignment.epoch().saturating_add(1);
        // Who just had it stands by from where it is, if the standby became the owner.
        let swap = assignment.standby() == Some(to) && self.settings.standbys;
        let now_ms = self.now_ms;
        let taken =
            self.change(task, |a| a.assign(heir, epoch, now_ms) && (!swap || a.set_standby(Some(from.clone()))));
        if taken {
            self.decisions.push(Decision::HandOver { task: task.clone(), from, to: to.clone(), epoch, offset });
        }
        taken
    }

    /// Why the target of a move is not fit for it any more.
    fn unfit(&self, task: &TaskId, assignment: &Assignment, to: &Member, since_ms: u64) -> Option<Unfit> {
        if let Some(unfit) = self.unfit_to_follow(task, assignment, to) {
            return Some(unfit);
        }
        let (seat, owner) = (self.fleet.seat(to)?, self.fleet.seat(assignment.owner()));
        if !seat.wanted && owner.is_some_and(|owner| owner.wanted && !owner.facts.draining) {
            return Some(Unfit::OldTemplate);
        }
        let for_ms = self.now_ms.saturating_sub(since_ms);
        let canary_ms = self.canary_ms(assignment, to);
        (for_ms > self.settings.move_within_ms.saturating_add(canary_ms)).then_some(Unfit::TooSlow { for_ms })
    }

    /// How far behind a follower is, if it follows.
    pub(super) fn lag_records(&self, task: &TaskId, assignment: &Assignment, member: &Member) -> Option<u64> {
        match self.facts.report(member, task, assignment.epoch())?.role {
            Role::Follows { lag_records, .. } => Some(lag_records),
            _ => None,
        }
    }

    /// Why a member cannot be a target or standby.
    pub(super) fn unfit_to_follow(&self, task: &TaskId, assignment: &Assignment, member: &Member) -> Option<Unfit> {
        let Some(seat) = self.fleet.seat(member) else { return Some(Unfit::Gone) };
        if !seat.alive {
            return Some(Unfit::Silent { for_ms: self.now_ms.saturating_sub(seat.facts.heard_at_ms) });
        }
        if seat.facts.draining {
            return Some(Unfit::Drains);
        }
        match self.facts.report(member, task, assignment.epoch()).map(|report| &report.role) {
            Some(Role::Failed { why }) => Some(Unfit::Failed { why: why.clone() }),
            _ => None,
        }
    }

    fn abort(&mut self, task: &TaskId, assignment: &Assignment, to: &Member, reason: Unfit) {
        let (now_ms, retry_at_ms) = (self.now_ms, self.now_ms.saturating_add(self.settings.retry_after_ms));
        let avoid = matches!(reason, Unfit::Failed { .. } | Unfit::TooSlow { .. });
        let taken = self.change(task, |a| {
            if avoid {
                a.avoid(to.clone(), now_ms, retry_at_ms);
            }
            a.stay()
        });
        if taken {
            let (task, from, to) = (task.clone(), assignment.owner().clone(), to.clone());
            self.decisions.push(Decision::Abort { task, from, to, reason });
        }
    }

    fn release_when_level(&mut self, task: &TaskId, assignment: &Assignment, to: &Member) {
        if let Some(hold) = self.not_level(task, assignment, to) {
            return self.held.push(hold);
        }
        if let Some(hold) = self.below_floor(task, assignment, to) {
            return self.held.push(hold);
        }
        let lag_records = self.lag_records(task, assignment, to).unwrap_or(0);
        if self.change(task, Assignment::release) {
            let (task, from, to) = (task.clone(), assignment.owner().clone(), to.clone());
            self.decisions.push(Decision::Release { task, from, to, lag_records });
        }
    }

    /// Why it is too early to release to the target.
    fn not_level(&self, task: &TaskId, assignment: &Assignment, to: &Member) -> Option<Hold> {
        let (task, to) = (task.clone(), to.clone());
        let ready = self.fleet.seat(&to).is_some_and(|seat| seat.facts.ready);
        let Some(Role::Follows { lag_records, level_for_ms }) =
            self.facts.report(&to, &task, assignment.epoch()).filter(|_| ready).map(|report| report.role.clone())
        else {
            return Some(Hold::NotLevel { task, to, lag_records: None });
        };
        if lag_records > self.settings.level_lag_records {
            return Some(Hold::NotLevel { task, to, lag_records: Some(lag_records) });
        }
        let of_ms = self.canary_ms(assignment, &to);
        (level_for_ms < of_ms).then_some(Hold::CanaryFollows { task, to, level_for_ms, of_ms })
    }

    /// Why a release would leave too little.
    fn below_floor(&self, task: &TaskId, assignment: &Assignment, to: &Member) -> Option<Hold> {
        let (task_name, to) = (task.clone(), to.clone());
        let floor = self.settings.served_floor(self.facts.tasks.len());
        // What is not served anyway is not missed.
        let after = self.served - usize::from(self.is_served(task, assignment));
        if after < floor {
            return Some(Hold::ServedFloor { task: task_name, to, served: self.served, floor });
        }
        let (ready, floor) = (self.fleet.ready(), self.settings.min_ready_members);
        (ready < floor).then_some(Hold::ReadyFloor { task: task_name, to, ready, floor })
    }

    /// A task that the pipeline has no more.
    fn end(&mut self, task: &TaskId, assignment: &Assignment) {
        let (released, above) = match self.owner(task, assignment) {
            Owner::Released { .. } => (true, 0),
            Owner::Unable(PlaceReason::EpochUsed { manifest_epoch, .. }) => (false, manifest_epoch),
            Owner::Unable(_) => (false, 0),
            Owner::Owns => return self.retire(task, assignment),
            Owner::Silent => match assignment.phase() {
                Phase::Acquiring { since_ms, .. } if self.await_owner(task, assignment, *since_ms).is_some() => {
                    (false, 0)
                }
                Phase::Acquiring { .. } => return,
                _ => return self.retire(task, assignment),
            },
        };
        let epoch = assignment.epoch().max(above);
        let unreleased_engine_version = (!released).then_some(assignment.engine_version());
        self.remove(task);
        self.placement.retired.insert(task.clone(), Retired { epoch, unreleased_engine_version });
        self.decisions.push(Decision::Retired { task: task.clone(), epoch, released });
    }

    fn retire(&mut self, task: &TaskId, assignment: &Assignment) {
        let (name, owner) = (task.clone(), assignment.owner().clone());
        if self.change(task, |a| {
            a.acquired();
            a.retire()
        }) {
            self.decisions.push(Decision::Retire { task: name, owner });
        } else {
            self.held.push(Hold::NotRetired { task: name, owner });
        }
    }
}
