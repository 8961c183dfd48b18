//! Experiments: who is in which variant, what is summed, and what may be concluded at any time.
//!
//! `assign` gives each user a variant; `sums` are integers kept of users and variants; `ratio` makes metrics of them with
//! the user as unit; `sequence` says what may be concluded although one looks all the time; `sample_ratio` whether the
//! split is the planned one; `report` puts it together.
//!
//! # Looking at any time while users come back
//!
//! A variant's sums grow by new users and by more of the old ones, so a look does not just add independent units to the
//! one before. Let `S(t)` be the sum over users of z = x - R y at a look, and `V(t)` its variance. A user's later z adds
//! to the earlier; where users differ in their own rates, what comes later leans the same way as what came before, so
//! `Cov(S(s), S(t)) >= V(s)` for s < t, with equality for independent increments. By Slepian's inequality a Gaussian process
//! so correlated leaves any boundary at most as often (a side) as a Brownian motion at times V does: returning
//! users make repeated looks more alike than in theory, which errs on the safe side. In units of the logarithm of the
//! ratio, S / Σx, the information 1 / variance is the clock: what [`sequence::NormalMixture`] takes. That none of this is
//! exact, and works all the same, is shown by A/A simulations with heavy-tailed users (`tests/a_a.rs`).

pub mod assign;
pub mod past;
pub mod ratio;
pub mod report;
pub mod sample_ratio;
pub mod sequence;
pub mod sums;
#[cfg(test)]
pub(crate) mod tests;

pub use assign::variant_of;
pub use report::{Arm, ExperimentReport, Metric};
pub use sample_ratio::SampleRatio;
pub use sums::{OutOfRange, UserSums, VariantSums};

/// How an experiment is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Chance that an interval ever misses what it should cover, for each metric and variant.
    pub alpha: f64,
    /// About the lift (as a logarithm) at which intervals should be narrow first, see [`sequence::NormalMixture`].
    pub tau: f64,
    /// Users per variant before a lift is told.
    pub least_users: u64,
    /// Users per variant with an outcome before a lift is told.
    pub least_with_outcome: u64,
    /// Largest standard error of a variant's value, relative to it, with which a lift is told.
    pub most_relative_error: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alpha: 0.05, tau: 0.1, least_users: 100, least_with_outcome: 20, most_relative_error: 0.25 }
    }
}
