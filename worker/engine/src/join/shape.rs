//! Which models the values of open impressions are of, and what becomes of them when the pipeline changes.

use std::collections::VecDeque;

use super::{ExamplePlan, Joins, OutcomeCounts, OutcomePlan, Timer};
use crate::snapshot::Rows;

/// A model's part of the values of open impressions, and what is to become of it by now.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub model: String,
    pub schema: u64,
    pub columns: usize,
    /// Index of the outcome, and of the model as it is now. None: nobody wants it any more.
    pub wanted: Option<(usize, usize)>,
}

/// What impressions that were opened under one configuration hold.
pub(super) type Shape = Vec<Kept>;

pub(super) fn shape_of(examples: &[ExamplePlan]) -> Shape {
    let kept = |(n, e): (usize, &ExamplePlan)| Kept {
        model: e.model.clone(),
        schema: e.schema,
        columns: e.columns,
        wanted: Some((e.outcome, n)),
    };
    examples.iter().enumerate().map(kept).collect()
}

impl Joins {
    /// Goes over to other outcomes and models. Open impressions keep their values, for the models that there still are with
    /// the same outcome, and wait for no new one. A checkpoint under way is lost.
    pub fn migrate(&mut self, outcomes: Vec<OutcomePlan>, examples: &[ExamplePlan]) {
        self.cancel();
        let to: Vec<Option<usize>> =
            self.outcomes.iter().map(|old| outcomes.iter().position(|new| new.name == old.name)).collect();
        let added = (0..outcomes.len()).filter(|n| !to.contains(&Some(*n))).fold(0, |bits, n| bits | 1 << n);
        let renumbered = |bits: u32| {
            let set = to.iter().enumerate().filter(|(from, _)| bits & (1 << from) != 0);
            set.filter_map(|(_, to)| *to).fold(0, |bits, to| bits | 1 << to)
        };
        for kept in self.shapes.iter_mut().flatten() {
            let outcome = kept.wanted.and_then(|(outcome, _)| to[outcome]);
            kept.wanted = outcome.and_then(|outcome| {
                let now = examples.iter().position(|e| e.model == kept.model && e.outcome == outcome);
                now.map(|now| (outcome, now))
            });
        }
        self.shapes.push(shape_of(examples));
        let mut timers: Vec<VecDeque<Timer>> = outcomes.iter().map(|_| VecDeque::new()).collect();
        let mut counts = vec![OutcomeCounts::default(); outcomes.len()];
        for (from, to) in to.iter().enumerate() {
            if let Some(to) = *to {
                timers[to] = std::mem::take(&mut self.timers[from]);
                counts[to] = self.counts[from];
            }
        }
        (self.outcomes, self.timers, self.counts, self.warmed) = (outcomes, timers, counts, 0);
        for slot in 0..self.slots.len() as u32 {
            let join = &mut self.slots[slot as usize];
            if join.number == 0 {
                continue;
            }
            join.fired = renumbered(join.fired) | added;
            join.items.iter_mut().for_each(|item| item.labels = renumbered(item.labels));
            if join.fired.count_ones() as usize == self.outcomes.len() {
                self.close(slot);
            }
        }
    }
}
