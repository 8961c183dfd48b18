//! Beta-Bernoulli: each item's probability for itself, as a Beta distribution of discounted counts.
//!
//! With a positives and b negatives of an item, and p the ratio of all items (the model's base rate), the item's belief is
//! Beta(a + N p, b + N (1 - p)), N being `priorExamples`; it predicts the mean of that. With `halfLifeExamples` H, a and b are
//! multiplied by `2^(-1/H)` at each of the item's own examples, so an item that is not shown keeps what is known of it.
//! Thompson 1933; Chapelle and Li, "An empirical evaluation of Thompson sampling", NIPS 2011.

use millrace_crds::spec;

use super::items::{Items, Kept};
use crate::codec::{Corrupt, Put, Reader};

/// Parameters of a Beta distribution, both above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Belief {
    pub alpha: f64,
    pub beta: f64,
}

impl Belief {
    pub fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    /// Log-odds of the mean.
    pub fn margin(&self) -> f64 {
        libm::log(self.alpha / self.beta)
    }
}

/// Discounted counts of one item.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    positives: f64,
    negatives: f64,
}

impl Kept for Counts {
    const BYTES: usize = 16;
    /// Counts do not expire.
    fn last_bucket(&self) -> i64 {
        0
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_f64(self.positives);
        out.put_f64(self.negatives);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (positives, negatives) = (r.f64("positives")?, r.f64("negatives")?);
        let is_count = |x: f64| x.is_finite() && x >= 0.0;
        if !is_count(positives) || !is_count(negatives) {
            return Err(r.corrupt("counts of an item"));
        }
        Ok(Self { positives, negatives })
    }
}

/// The counts of all items of a model; those of the longest unseen are forgotten beyond 2^20 items.
#[derive(Clone, Debug)]
pub struct Beta {
    prior_examples: f64,
    /// What both counts are multiplied by with each example of the item.
    keep: f64,
    pub items: Items<Counts>,
}

impl Beta {
    /// The settings must be in range, see [`super::CompileError`].
    pub fn new(settings: &spec::BetaBernoulli) -> Self {
        Self {
            prior_examples: settings.prior_examples,
            keep: settings.half_life_examples.map_or(1.0, |h| libm::exp2(-1.0 / h)),
            items: Items::default(),
        }
    }

    /// The same settings, and no counts.
    pub fn without_items(&self) -> Self {
        Self { items: Items::default(), ..*self }
    }

    /// `base`: the probability over all items, in (0, 1).
    #[inline]
    pub fn belief(&self, item: u64, base: f64) -> Belief {
        let Counts { positives, negatives } = self.items.get(item).copied().unwrap_or_default();
        Belief { alpha: positives + self.prior_examples * base, beta: negatives + self.prior_examples * (1.0 - base) }
    }

    /// Cuts the counts of every item to a quarter: what comes counts more, and until then items are nearer to their base rate.
    pub fn discount(&mut self) {
        self.items.update_all(|counts| {
            counts.positives *= 0.25;
            counts.negatives *= 0.25;
        });
    }

    pub fn learn(&mut self, item: u64, label: bool) {
        let (keep, label) = (self.keep, f64::from(u8::from(label)));
        self.items.update(item, i64::MIN, |counts| {
            counts.positives = counts.positives * keep + label;
            counts.negatives = counts.negatives * keep + 1.0 - label;
        });
    }
}
