//! Experiments: who is in which variant, what is summed, and what may be concluded at any time.
//!
//! `assign` gives each user a variant; `sums` are integers kept of users and variants; `ratio` makes metrics of them with
//! the user as unit; `sequence` says what may be concluded although one looks all the time; `sample_ratio` whether the
//! split is the planned one; `report` puts it together.
//!
//! # Looking at any time while users come back
//!
//! A variant's sums grow by new users and by more of the old ones, so a look does not just add independent units to the
//! one before. What must hold for a boundary made for Brownian motion is that two looks are at least as much correlated as
//! that is at their times: then, by Slepian's inequality, the process crosses the boundary (a side) at most as often.
//!
//! The clock here is information, I = 1 / variance of the logarithm of the ratio. If each look adds independent units, the
//! correlation of looks s < t is `sqrt(I(s) / I(t))`: Brownian motion. If users are equally active and have rates of their
//! own, a user's later clicks lean the way of the earlier, information grows more slowly than impressions, and
//! the correlation is the same. If they came one after the other and all stay, it is greater (up to 1.5 times), so that
//! alarms are rarer. Treating impressions as independent, however, runs the clock far too fast. A proof for any
//! behaviour there is not; `tests/a_a.rs` simulates heavy-tailed users who come back, with looks all the time.

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
