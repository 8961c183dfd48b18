//! A plan: the next record, and why.

use std::collections::BTreeSet;

use super::decision::{Decision, Hold};
use super::facts::{Facts, Role};
use super::fleet::{Burden, Fleet, Weight, Weights};
use super::record::{Assignment, Phase, Placement};
use super::settings::Settings;
use crate::keys::TaskId;

/// A move that begins towards a level standby is released in the pass after; more than a few are never needed.
const MAX_PASSES: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// To be stored, if it differs, before any member is told.
    pub placement: Placement,
    /// What changes, in order; then what is held back.
    pub decisions: Vec<Decision>,
}

/// What to store next. Pure: the same input gives the same plan, and planning again with the same facts changes nothing.
///
/// Safety does not rest on the facts: they may be late or wrong, and a plan may at worst move a task needlessly. It rests
/// on epochs, which rise with every assignment and which the manifest's compare-and-set enforces.
pub fn plan(now_ms: u64, placement: &Placement, facts: &Facts, settings: &Settings) -> Planned {
    let weights = Weights::of(facts);
    let mut planned = Planned { placement: placement.clone(), decisions: Vec::new() };
    let mut held = Vec::new();
    for _ in 0..MAX_PASSES {
        let mut pass = Pass::new(now_ms, planned.placement, facts, settings, &weights);
        let orphans = pass.advance();
        pass.find_heirs(orphans);
        pass.leave();
        pass.balance(Burden::Owned);
        pass.stand_by();
        pass.balance(Burden::Carried);
        // Nothing changes without a decision.
        let settled = pass.decisions.is_empty();
        planned.placement = pass.placement;
        planned.decisions.append(&mut pass.decisions);
        held = pass.held;
        if settled {
            break;
        }
    }
    let changed: BTreeSet<TaskId> = planned.decisions.iter().filter_map(Decision::task).cloned().collect();
    // What just began needs not be said to wait.
    held.retain(|hold| hold.task().is_none_or(|task| !changed.contains(task)));
    planned.decisions.extend(held.into_iter().map(Decision::Hold));
    planned
}

/// One pass over all tasks. What it changes goes through [`Self::change`], so that the counts stay right.
pub(super) struct Pass<'a> {
    pub now_ms: u64,
    pub facts: &'a Facts,
    pub settings: &'a Settings,
    pub weights: &'a Weights,
    pub placement: Placement,
    pub fleet: Fleet<'a>,
    /// Tasks that are known to be served and not told to be released.
    pub served: usize,
    pub decisions: Vec<Decision>,
    pub held: Vec<Hold>,
}

impl<'a> Pass<'a> {
    fn new(now_ms: u64, placement: Placement, facts: &'a Facts, settings: &'a Settings, weights: &'a Weights) -> Self {
        let fleet = Fleet::new(now_ms, facts, settings);
        let (decisions, held) = (Vec::new(), Vec::new());
        let mut pass = Self { now_ms, facts, settings, weights, placement, fleet, served: 0, decisions, held };
        for (task, assignment) in &pass.placement.tasks {
            pass.fleet.add(assignment, weights.get(task));
        }
        pass.served = pass.placement.tasks.iter().filter(|(task, a)| pass.is_served(task, a)).count();
        pass
    }

    pub fn weight(&self, task: &TaskId) -> Weight {
        self.weights.get(task)
    }

    /// In the order of their names.
    pub fn tasks(&self) -> Vec<TaskId> {
        self.placement.tasks.keys().cloned().collect()
    }

    pub fn assignment(&self, task: &TaskId) -> Option<&Assignment> {
        self.placement.tasks.get(task)
    }

    /// Takes a step with a task, and counts again. Whether the step was legal, and so taken.
    pub fn change(&mut self, task: &TaskId, step: impl FnOnce(&mut Assignment) -> bool) -> bool {
        let weight = self.weight(task);
        let Some(mut assignment) = self.placement.tasks.remove(task) else { return false };
        self.fleet.remove(&assignment, weight);
        self.served -= usize::from(self.is_served(task, &assignment));
        let taken = step(&mut assignment);
        self.insert(task, assignment);
        taken
    }

    pub fn insert(&mut self, task: &TaskId, assignment: Assignment) {
        self.fleet.add(&assignment, self.weight(task));
        self.served += usize::from(self.is_served(task, &assignment));
        self.placement.tasks.insert(task.clone(), assignment);
    }

    pub fn remove(&mut self, task: &TaskId) {
        if let Some(assignment) = self.placement.tasks.remove(task) {
            self.fleet.remove(&assignment, self.weight(task));
            self.served -= usize::from(self.is_served(task, &assignment));
        }
    }

    /// It is wanted, and its owner is alive, says that it owns it, and is to go on.
    pub fn is_served(&self, task: &TaskId, assignment: &Assignment) -> bool {
        let goes_on = matches!(assignment.phase(), Phase::Steady | Phase::Preparing { .. });
        let owner = assignment.owner();
        goes_on
            && self.facts.tasks.contains(task)
            && self.fleet.seat(owner).is_some_and(|seat| seat.alive)
            && self.facts.report(owner, task, assignment.epoch()).is_some_and(|report| report.role == Role::Owns)
    }
}
