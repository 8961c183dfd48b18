//! What another policy would have earned, from decisions that were logged with their propensities.
//!
//! A logged decision showed an item at a position with probability p and earned r; the target policy shows it there with
//! probability q, so its weight is w = q / p.
//!
//! - *IPS*: mean of w r (Horvitz, Thompson 1952). Unbiased if p is right and above 0 wherever q is.
//! - *SNIPS*: Σ w r / Σ w (Hajek; Swaminathan, Joachims, "The Self-Normalized Estimator for Counterfactual Learning",
//!   NeurIPS 2015). Slightly biased, mostly less variable; a reward plus a constant gives a value plus that constant.
//! - *Doubly robust*: mean of m(q) + w (r - m) with a model m of the reward (Dudík, Langford, Li, "Doubly Robust
//!   Policy Evaluation and Learning", ICML 2011). Here m is the mean reward of item and position, drawn towards the
//!   position's mean by [`PRIOR_DECISIONS`] decisions, fitted on the folds that the decision is not in.
//!
//! # When can it be believed?
//!
//! With unequal weights n decisions are worth fewer: (Σ w)² / Σ w² is about how many drawn from the target itself would
//! say as much (Kong 1992; Owen, "Monte Carlo theory, methods and examples", 9.3, who adds that weights too unequal make
//! this number, too, unreliable). Decisions do not suffice, rewards are needed: the effective number of rewarded decisions
//! is the lesser of the effective sample size's share of rewards, and (Σ w r)² / Σ (w r)², whose root is 1 / the relative
//! standard error of IPS. Below [`LEAST_REWARDED`] rewards a normal or bootstrap interval of a rate does not cover what it
//! says (Brown, Cai, DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 2001: n min(p, 1 - p)
//! of at least 5), below [`FEW_REWARDED`] (their stricter 10) it is told with a warning.

mod estimate;
mod policy;

pub use estimate::{Interval, OffPolicyReport, evaluate};
pub use policy::Policy;

/// Folds of the reward model.
pub const FOLDS: usize = 5;
/// Weight of a position's mean reward in the model of an item's there.
pub const PRIOR_DECISIONS: f64 = 100.0;
/// Effective sample size below which nothing is believed.
pub const LEAST_EFFECTIVE: f64 = 100.0;
/// Effective number of rewarded decisions below which nothing is believed.
pub const LEAST_REWARDED: f64 = 5.0;
/// Effective number of rewarded decisions below which there is a warning.
pub const FEW_REWARDED: f64 = 10.0;
/// A mean weight this many standard errors from 1 is warned of: propensities or target are not what they are said to be.
pub const WEIGHT_ERRORS: f64 = 4.0;

/// A decision of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged {
    /// Index of the item.
    pub item: usize,
    /// Index of the position.
    pub position: usize,
    pub reward: f64,
    /// Of showing this item at this position, as the logging policy did: above 0, at most 1.
    pub propensity: f64,
}

/// Why nothing can be computed. Rows count from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OffPolicyError {
    #[error("no decision was logged")]
    Empty,
    #[error("the propensity of a logged decision must be above 0 and at most 1, not {value}")]
    Propensity { row: usize, value: f64 },
    #[error("the reward of a logged decision must be a number, not {value}")]
    Reward { row: usize, value: f64 },
    #[error("the target policy says nothing of a position that was logged")]
    Position { row: usize, position: usize },
    #[error("the target policy's probabilities at a position must add up to 1, not {sum}")]
    Sum { position: usize, sum: f64 },
    #[error("a probability of the target policy must be from 0 to 1, not {value}")]
    Probability { position: usize, value: f64 },
    #[error("a position's items must be listed once each: an item of the target policy is there twice")]
    Twice { position: usize, item: usize },
}

#[cfg(test)]
mod tests;
