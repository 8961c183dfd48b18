//! Experiments that are over, of which only counts or moments were kept.

use serde::Serialize;

use super::{report::FixedHorizon, sample_ratio::SampleRatio, sequence::NormalMixture};
use crate::distributions::{chi_square_upper, normal_two_sided};

/// An arm of a test of which impressions and clicks were counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountedArm {
    pub name: String,
    pub impressions: u64,
    /// At most as many as impressions.
    pub clicks: u64,
}

/// What a test's counts say. Impressions are taken as independent: right only if hardly anyone has more than one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsReport {
    pub arms: Vec<CountedArm>,
    /// Pearson's, of arms against click or not.
    pub chi_square: f64,
    /// For one look at the end. 1 where nothing can differ: fewer than two arms, no click, or nothing but clicks.
    pub p_value: f64,
    /// Of two arms: the second's click rate against the first's.
    pub difference: Option<FixedHorizon>,
    /// Of impressions, which should be equally many in all arms.
    pub sample_ratio: Option<SampleRatio>,
}

impl CountsReport {
    pub fn of(arms: Vec<CountedArm>) -> Self {
        let impressions: Vec<u64> = arms.iter().map(|a| a.impressions).collect();
        let shown: f64 = arms.iter().map(|a| a.impressions as f64).sum();
        let rate = arms.iter().map(|a| a.clicks as f64).sum::<f64>() / shown;
        let used = || arms.iter().filter(|a| a.impressions > 0);
        let distance = |a: &CountedArm| {
            let (n, x) = (a.impressions as f64, a.clicks as f64);
            (x - n * rate) * (x - n * rate) / (n * rate * (1.0 - rate))
        };
        let degrees = used().count() as f64 - 1.0;
        let differs = degrees >= 1.0 && rate > 0.0 && rate < 1.0;
        let chi_square = if differs { used().map(distance).sum() } else { 0.0 };
        Self {
            chi_square,
            p_value: if differs { chi_square_upper(chi_square, degrees) } else { 1.0 },
            difference: difference(&arms),
            sample_ratio: SampleRatio::of(&impressions, &vec![1.0; arms.len()]),
            arms,
        }
    }
}

fn difference(arms: &[CountedArm]) -> Option<FixedHorizon> {
    let [a, b] = arms else { return None };
    let side = |arm: &CountedArm| {
        let rate = arm.clicks as f64 / arm.impressions as f64;
        Side { count: arm.impressions as f64, mean: rate, variance: rate * (1.0 - rate) }
    };
    let (difference, variance) = welch(&side(a), &side(b))?;
    Some(fixed(difference, variance))
}

/// A group's users, and mean and variance of what they did, up to a day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    pub count: f64,
    pub mean: f64,
    /// Between users.
    pub variance: f64,
}

/// Cumulative figures of an experiment at a look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checkpoint {
    pub time: f64,
    pub control: Side,
    pub treatment: Side,
}

/// What a treatment's looks say of one metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LooksReport {
    /// Looks with users in both groups and a variance.
    pub looks: usize,
    /// Relative to control, at the last look.
    pub lift: Option<f64>,
    /// Welch's test at the last look: valid if that was fixed beforehand.
    pub last_look: FixedHorizon,
    /// Least of Welch's p values of all looks: what one who stops when it pleases reports. Not valid.
    pub least_p_value: f64,
    /// Least always-valid p value of all looks, by the normal mixture.
    pub always_valid_p_value: f64,
    /// Of users at the last look, against equal shares.
    pub sample_ratio: Option<SampleRatio>,
}

impl LooksReport {
    /// Looks in any order. `tau` as a share of control's mean at the last look. `None` without a look of use: looks
    /// without users or without a variance say nothing.
    pub fn of(mut looks: Vec<Checkpoint>, tau: f64) -> Option<Self> {
        looks.retain(|look| welch(&look.control, &look.treatment).is_some());
        looks.sort_by(|a, b| a.time.total_cmp(&b.time));
        let last = looks.last()?;
        let mixture = NormalMixture { tau: tau * last.control.mean.abs() };
        let (mut least_p_value, mut always_valid_p_value) = (1.0f64, 1.0f64);
        for (difference, variance) in looks.iter().filter_map(|look| welch(&look.control, &look.treatment)) {
            least_p_value = least_p_value.min(fixed(difference, variance).p_value);
            always_valid_p_value = always_valid_p_value.min(mixture.p_value(difference, variance));
        }
        let (difference, variance) = welch(&last.control, &last.treatment)?;
        let users = [last.control.count, last.treatment.count].map(|count| libm::round(count) as u64);
        Some(Self {
            looks: looks.len(),
            lift: (last.control.mean != 0.0).then(|| difference / last.control.mean),
            last_look: fixed(difference, variance),
            least_p_value,
            always_valid_p_value,
            sample_ratio: SampleRatio::of(&users, &[1.0, 1.0]),
        })
    }
}

/// Treatment's mean less control's, and its variance. `None` if there is nothing to divide by.
fn welch(control: &Side, treatment: &Side) -> Option<(f64, f64)> {
    let variance = control.variance / control.count + treatment.variance / treatment.count;
    let difference = treatment.mean - control.mean;
    (variance > 0.0 && variance.is_finite() && difference.is_finite()).then_some((difference, variance))
}

fn fixed(difference: f64, variance: f64) -> FixedHorizon {
    let z = difference / variance.sqrt();
    FixedHorizon { z, p_value: normal_two_sided(z) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arms(counts: &[(u64, u64)]) -> CountsReport {
        let arm = |&(impressions, clicks)| CountedArm { name: String::new(), impressions, clicks };
        CountsReport::of(counts.iter().map(arm).collect())
    }

    #[test]
    fn counts_are_tested_as_scipy_does() {
        // scipy.stats.chi2_contingency([[62, 3961], [48, 3879], [47, 4050]], correction=False)
        let found = arms(&[(4_023, 62), (3_927, 48), (4_097, 47)]);
        assert!((found.chi_square - CHI_SQUARE).abs() < 1e-9, "{found:?}");
        assert!((found.p_value - P_VALUE).abs() < 1e-9, "{found:?}");
        assert_eq!(found.difference, None);
        let two = arms(&[(10_000, 46), (10_000, 69)]);
        assert!(two.difference.is_some_and(|d| (d.z - 2.151).abs() < 1e-3));
    }

    const CHI_SQUARE: f64 = 2.745_876_402_859_145_6;
    const P_VALUE: f64 = 0.253_361_437_903_707_8;

    #[test]
    fn what_cannot_differ_has_p_one() {
        for counts in
            [&[(10, 0), (12, 0)][..], &[(10, 10), (5, 5)], &[(10, 3)], &[], &[(0, 0), (0, 0)], &[(9, 1), (0, 0)]]
        {
            let found = arms(counts);
            assert_eq!((found.p_value, found.chi_square), (1.0, 0.0), "{counts:?}");
            assert_eq!(found.difference, None, "{counts:?}");
        }
    }

    fn look(time: f64, mean: f64) -> Checkpoint {
        let side = |mean| Side { count: 1_000.0 * time, mean, variance: 1.0 };
        Checkpoint { time, control: side(1.0), treatment: side(mean) }
    }

    #[test]
    fn the_last_look_and_the_best_look_differ() {
        let found = LooksReport::of(vec![look(3.0, 1.01), look(1.0, 1.0), look(2.0, 1.12)], 0.1).unwrap();
        assert_eq!(found.looks, 3);
        assert!((found.lift.unwrap() - 0.01).abs() < 1e-12);
        assert!((found.last_look.z - 0.01 / (2.0f64 / 3_000.0).sqrt()).abs() < 1e-9);
        assert!(found.least_p_value < 0.001 && found.last_look.p_value > 0.5);
        assert!(found.always_valid_p_value > found.least_p_value && found.always_valid_p_value < 0.05);
        assert!(found.sample_ratio.is_some_and(|r| r.p_value == 1.0));
    }

    #[test]
    fn looks_that_say_nothing_are_left_out() {
        let empty = Side { count: 0.0, mean: 0.0, variance: 0.0 };
        let unknown = Checkpoint { time: 9.0, control: empty, treatment: empty };
        assert_eq!(LooksReport::of(vec![unknown], 0.02), None);
        assert_eq!(LooksReport::of(vec![unknown, look(1.0, 1.0)], 0.02).map(|r| r.looks), Some(1));
    }
}
