//! A model whose pipeline changed: what it has learned stays where it still means the same.

use super::{Learner, Model, validation::BaseRate};

impl Model {
    /// Goes on from an older state of the model, of the same outcome. Weights belong to names of columns, so they stay
    /// unless there are more or fewer of them (`bits`) or the kind of learner is another one; statistics stay where they
    /// count in the same buckets. The watch for drift goes on if the model's weights do (for columns: if they are the same), and
    /// so does what answers a drift if the answer is the same. The watch for leaks begins anew. Only for a freshly compiled model.
    ///
    /// Returns whether what was learned is kept.
    pub fn take_over(&mut self, old: Model) -> bool {
        let is_kept = match (&mut self.learner, old.learner) {
            (Learner::Ftrl { weights, .. }, Learner::Ftrl { weights: learned, .. }) => weights.take_over(learned),
            (Learner::Beta(beta), Learner::Beta(learned)) => {
                beta.items = learned.items;
                true
            }
            _ => false,
        };
        if is_kept {
            self.learned = old.learned;
            match (&mut self.intercept, old.intercept) {
                // One with a half-life goes on from what predictions started from.
                (Some(intercept), started) => intercept.take_over(&started.unwrap_or_else(|| old.base.clone())),
                // One without goes on from it too, and forgets no more.
                (None, Some(started)) => self.intercept.insert(BaseRate::new(None)).take_over(&started),
                (None, None) => {}
            }
        }
        self.base = old.base;
        self.validation = old.validation;
        self.contents = old.contents;
        self.statistics.take_over(old.statistics);
        if let (true, Some(watch), Some(old)) = (is_kept, &mut self.watch, old.watch) {
            watch.take_over(*old, &self.learner);
        }
        is_kept
    }
}
