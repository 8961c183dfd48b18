//! What an experiment says, and what it needs before it says anything.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Settings, ratio::RatioSums, sample_ratio::SampleRatio, sequence::NormalMixture, sums::VariantSums};
use crate::distributions::normal_two_sided;

/// The metrics of a running experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Clicks per impression.
    Ctr,
    /// Revenue per user in the experiment.
    RevenuePerUser,
    /// Revenue per order.
    RevenuePerBasket,
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Metric::Ctr => "ctr",
            Metric::RevenuePerUser => "revenuePerUser",
            Metric::RevenuePerBasket => "revenuePerBasket",
        }
    }

    pub fn of(self, sums: &VariantSums) -> RatioSums {
        match self {
            Metric::Ctr => sums.ctr(),
            Metric::RevenuePerUser => sums.revenue_per_user(),
            Metric::RevenuePerBasket => sums.revenue_per_basket(),
        }
    }
}

/// A variant and how many users were to be and are in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arm {
    pub name: String,
    /// In proportion to the others'.
    pub weight: f64,
    pub users: u64,
}

/// What a variant lacks before its lift can be told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Need {
    /// Users in the variant.
    Users { has: u64, needs: u64 },
    /// Users who did what is counted.
    UsersWithOutcome { has: u64, needs: u64 },
    /// Standard error of the value, relative to it: at most.
    RelativeError { has: Option<f64>, needs: f64 },
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Users { has, needs } => write!(f, "{has} users of {needs}"),
            Need::UsersWithOutcome { has, needs } => write!(f, "{has} users with an outcome of {needs}"),
            Need::RelativeError { has: Some(has), needs } => {
                write!(f, "a standard error of {:.0} % of the value, at most {:.0} %", 100.0 * has, 100.0 * needs)
            }
            Need::RelativeError { has: None, .. } => write!(f, "a value above 0"),
        }
    }
}

/// A variant's value relative to control's, minus 1, with an interval that holds however often it is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lift {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub excludes_zero: bool,
    pub always_valid_p_value: f64,
}

/// Welch's test of the difference. Valid for one look, at a time fixed beforehand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FixedHorizon {
    pub z: f64,
    pub p_value: f64,
}

/// One metric of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantReport {
    pub variant: String,
    pub users: u64,
    /// What is counted, and per what: clicks and impressions, say; for a metric per user, users.
    pub numerator: f64,
    pub denominator: f64,
    /// `numerator / denominator`.
    pub value: Option<f64>,
    pub standard_error: Option<f64>,
    /// Against control; none for control, and as long as `needs` of either is not empty.
    pub lift: Option<Lift>,
    pub fixed_horizon: Option<FixedHorizon>,
    /// What this variant itself lacks.
    pub needs: Vec<Need>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricReport {
    pub metric: String,
    pub variants: Vec<VariantReport>,
}

/// An experiment as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentReport {
    /// Chance that an interval ever misses what it should cover.
    pub alpha: f64,
    pub control: String,
    pub variants: Vec<Arm>,
    pub sample_ratio: Option<SampleRatio>,
    pub metrics: Vec<MetricReport>,
}

impl ExperimentReport {
    /// `control` is an index into `arms`; each metric has sums for every arm, in their order.
    pub fn of(settings: &Settings, arms: Vec<Arm>, control: usize, metrics: &[(&str, Vec<RatioSums>)]) -> Self {
        let users: Vec<u64> = arms.iter().map(|arm| arm.users).collect();
        let weights: Vec<f64> = arms.iter().map(|arm| arm.weight).collect();
        let metric = |(name, sums): &(&str, Vec<RatioSums>)| MetricReport {
            metric: (*name).to_owned(),
            variants: variants(settings, &arms, control, sums),
        };
        Self {
            alpha: settings.alpha,
            control: arms.get(control).map(|arm| arm.name.clone()).unwrap_or_default(),
            sample_ratio: SampleRatio::of(&users, &weights),
            metrics: metrics.iter().map(metric).collect(),
            variants: arms,
        }
    }

    /// Of a running experiment: (name, weight, sums over all its partitions) of each variant.
    pub fn running(settings: &Settings, arms: &[(&str, u32, VariantSums)], control: usize, metrics: &[Metric]) -> Self {
        let arm = |(name, weight, sums): &(&str, u32, VariantSums)| Arm {
            name: (*name).to_owned(),
            weight: f64::from(*weight),
            users: sums.users(),
        };
        let of = |metric: &Metric| (metric.name(), arms.iter().map(|(_, _, sums)| metric.of(sums)).collect());
        let metrics: Vec<(&str, Vec<RatioSums>)> = metrics.iter().map(of).collect();
        Self::of(settings, arms.iter().map(arm).collect(), control, &metrics)
    }
}

fn variants(settings: &Settings, arms: &[Arm], control: usize, sums: &[RatioSums]) -> Vec<VariantReport> {
    let report = |(n, (arm, own)): (usize, (&Arm, &RatioSums))| {
        let against = sums.get(control).filter(|_| n != control);
        VariantReport {
            variant: arm.name.clone(),
            users: own.users,
            numerator: own.x,
            denominator: own.y,
            value: own.value(),
            standard_error: own.variance().map(f64::sqrt),
            lift: against.and_then(|control| lift(settings, control, own)),
            fixed_horizon: against.and_then(|control| fixed_horizon(control, own)),
            needs: needs(settings, own),
        }
    };
    arms.iter().zip(sums).enumerate().map(report).collect()
}

/// What these sums lack before a lift can be told from them. The always-valid interval rests on the central limit
/// theorem from its first look on, so the first look must not come before that can be relied on.
pub fn needs(settings: &Settings, sums: &RatioSums) -> Vec<Need> {
    let relative_error = sums.log_variance().map(f64::sqrt);
    let (users, with_outcome) = (settings.least_users, settings.least_with_outcome);
    let lacks = [
        (sums.users < users).then_some(Need::Users { has: sums.users, needs: users }),
        (sums.with_outcome < with_outcome)
            .then_some(Need::UsersWithOutcome { has: sums.with_outcome, needs: with_outcome }),
        relative_error
            .is_none_or(|has| !(has > 0.0 && has <= settings.most_relative_error))
            .then_some(Need::RelativeError { has: relative_error, needs: settings.most_relative_error }),
    ];
    lacks.into_iter().flatten().collect()
}

/// The logarithm of the ratio of values and its variance: there a lift and its inverse are alike, an interval cannot pass
/// -100 %, and the information about it grows while users come back. `None` until both have what they need.
pub fn log_ratio(settings: &Settings, control: &RatioSums, variant: &RatioSums) -> Option<(f64, f64)> {
    if !(needs(settings, control).is_empty() && needs(settings, variant).is_empty()) {
        return None;
    }
    let estimate = libm::log(variant.value()? / control.value()?);
    Some((estimate, control.log_variance()? + variant.log_variance()?))
}

/// The lift over control with its interval. `None` until both have what they need.
pub fn lift(settings: &Settings, control: &RatioSums, variant: &RatioSums) -> Option<Lift> {
    let (estimate, variance) = log_ratio(settings, control, variant)?;
    let mixture = NormalMixture { tau: settings.tau };
    let half = mixture.half_width(variance, settings.alpha);
    Some(Lift {
        value: libm::expm1(estimate),
        low: libm::expm1(estimate - half),
        high: libm::expm1(estimate + half),
        excludes_zero: estimate.abs() > half,
        always_valid_p_value: mixture.p_value(estimate, variance),
    })
}

/// Welch's z of the difference of values.
pub fn fixed_horizon(control: &RatioSums, variant: &RatioSums) -> Option<FixedHorizon> {
    let variance = control.variance()? + variant.variance()?;
    let z = (variant.value()? - control.value()?) / variance.sqrt();
    z.is_finite().then(|| FixedHorizon { z, p_value: normal_two_sided(z) })
}
