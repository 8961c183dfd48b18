//! Are there as many users in each variant as planned? If not, who is missing is seldom missing by chance, and no lift
//! can be believed: Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", KDD 2019.

use serde::{Deserialize, Serialize};

use crate::distributions::chi_square_upper;

/// A p value below this is an alarm: the customary level of sample-ratio checks.
pub const ALARM: f64 = 0.001;
/// The prior's weight in users. It expects shares that are off by some sqrt(s (1 - s) / 1000): 1.6 points at one half.
/// Ten times more would find differences of a tenth of a point a little sooner, and large ones among few users later.
const CONCENTRATION: f64 = 1_000.0;

/// Users found and planned, and how well they agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleRatio {
    pub users: Vec<u64>,
    /// Planned shares, adding up to 1.
    pub planned: Vec<f64>,
    /// Pearson's.
    pub chi_square: f64,
    /// For one look at the end.
    pub p_value: f64,
    /// For looking at any time, see [`SampleRatio::of`].
    pub always_valid_p_value: f64,
    /// `alwaysValidPValue` is below .001.
    pub alarm: bool,
}

impl SampleRatio {
    /// `weights` in the order of `users`, from 0, not all 0.
    ///
    /// The always-valid p value is 1 / the Bayes factor of a Dirichlet prior around the planned shares against them:
    /// a martingale under the plan, as each user is assigned on his own. Lindon, Malek, "Anytime-Valid Inference for
    /// Multinomial Count Data", NeurIPS 2022. `None` if there is nothing to compare.
    pub fn of(users: &[u64], weights: &[f64]) -> Option<Self> {
        let total: f64 = weights.iter().sum();
        let n: f64 = users.iter().map(|u| *u as f64).sum();
        if users.len() != weights.len() || users.len() < 2 || n == 0.0 || !(total > 0.0 && total.is_finite()) {
            return None;
        }
        let planned: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let cells = || users.iter().map(|u| *u as f64).zip(planned.iter().copied()).filter(|(_, share)| *share > 0.0);
        let impossible = users.iter().zip(&planned).any(|(users, share)| *users > 0 && *share <= 0.0);
        let chi_square: f64 = cells().map(|(found, share)| square(found - n * share) / (n * share)).sum();
        let degrees = cells().count() as f64 - 1.0;
        let (p_value, always_valid_p_value) = match () {
            () if impossible => (0.0, 0.0),
            () if degrees < 1.0 => (1.0, 1.0),
            () => (chi_square_upper(chi_square, degrees), libm::exp(-log_bayes_factor(cells(), n)).min(1.0)),
        };
        let alarm = always_valid_p_value < ALARM;
        Some(Self { users: users.to_vec(), planned, chi_square, p_value, always_valid_p_value, alarm })
    }
}

fn square(x: f64) -> f64 {
    x * x
}

/// Of (users found, planned share) of each variant.
fn log_bayes_factor(cells: impl Iterator<Item = (f64, f64)>, n: f64) -> f64 {
    let start = libm::lgamma(CONCENTRATION) - libm::lgamma(CONCENTRATION + n);
    cells.fold(start, |sum, (found, share)| {
        let prior = CONCENTRATION * share;
        sum + libm::lgamma(prior + found) - libm::lgamma(prior) - found * libm::log(share)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tests::random::Random;

    #[test]
    fn pearsons_test_is_scipys() {
        // scipy.stats.chisquare([5100, 4900, 2600], [5040, 5040, 2520])
        let found = SampleRatio::of(&[5_100, 4_900, 2_600], &[2.0, 2.0, 1.0]).unwrap();
        assert!((found.chi_square - 7.142_857_142_857_142).abs() < 1e-9, "{found:?}");
        assert!((found.p_value - 0.028_115_659_748_972_05).abs() < 1e-9, "{found:?}");
        assert!(!found.alarm);
    }

    #[test]
    fn a_broken_split_alarms_and_a_good_one_does_not() {
        assert!(SampleRatio::of(&[1_300, 1_000], &[1.0, 1.0]).is_some_and(|r| r.alarm));
        assert!(SampleRatio::of(&[502_000, 497_000], &[1.0, 1.0]).is_some_and(|r| r.alarm));
        assert!(SampleRatio::of(&[1_040, 1_000], &[1.0, 1.0]).is_some_and(|r| !r.alarm));
        assert!(SampleRatio::of(&[1_000, 1], &[1.0, 0.0]).is_some_and(|r| r.alarm && r.p_value == 0.0));
        assert!(SampleRatio::of(&[1_000, 0], &[1.0, 0.0]).is_some_and(|r| !r.alarm));
    }

    #[test]
    fn nothing_to_compare_is_none() {
        assert_eq!(SampleRatio::of(&[], &[]), None);
        assert_eq!(SampleRatio::of(&[5], &[1.0]), None);
        assert_eq!(SampleRatio::of(&[0, 0], &[1.0, 1.0]), None);
        assert_eq!(SampleRatio::of(&[1, 1], &[0.0, 0.0]), None);
    }

    /// Looked at after every tenth user of 20,000 the Bayes factor is below .05 in at most 5 % of experiments; Pearson's
    /// test in many more.
    #[test]
    fn looking_at_any_time_is_allowed() {
        let (mut always_valid, mut pearson) = (0, 0);
        for seed in 0..200 {
            let (mut random, mut users) = (Random(1_000 + seed), [0u64; 3]);
            let (mut least, mut least_pearson) = (1.0f64, 1.0f64);
            for n in 1..=20_000 {
                users[[0, 0, 1, 2][random.below(4) as usize]] += 1;
                if n % 10 == 0 {
                    let found = SampleRatio::of(&users, &[2.0, 1.0, 1.0]).unwrap();
                    least = least.min(found.always_valid_p_value);
                    least_pearson = least_pearson.min(found.p_value);
                }
            }
            always_valid += u32::from(least < 0.05);
            pearson += u32::from(least_pearson < 0.05);
        }
        assert!(always_valid <= 10, "{always_valid} of 200");
        assert!(pearson >= 40, "{pearson} of 200");
    }
}
