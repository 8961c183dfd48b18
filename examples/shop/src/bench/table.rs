//! What the benchmark prints of one world.

use std::fmt;

use serde::Serialize;

use super::run::{Look, Setup, run};
use crate::world::{Micros, Scenario, Settings, Tallies, Tally, settings::DAY_MICROS};

/// A look is taken so often.
pub const LOOK_EVERY_MICROS: Micros = DAY_MICROS / 20;
/// The share after a drift is that of the last so many looks: a day.
const WINDOW_LOOKS: usize = 20;
/// The share before the drift is that of so many looks: two days.
const BEFORE_LOOKS: usize = 40;
/// So much of the share before the drift has to come back.
pub const SHARE_BACK: f64 = 0.9;
/// Below this, in clicks per item seen, the oracle's gain is nothing.
const LEAST_GAIN: f64 = 0.002;

/// One world, from its beginning to its end, in virtual time. Visits of those who are not logged in or do not agree are in
/// no variant, and thus nowhere in here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    #[serde(serialize_with = "name")]
    pub scenario: Scenario,
    pub seed: u64,
    pub days: f64,
    pub decisions: u64,
    /// Clicks per item seen, over the last third of the time.
    pub control_ctr: f64,
    pub personal_ctr: f64,
    pub oracle_ctr: f64,
    /// (personal - control) / (oracle - control), by true click probabilities over the last third: without the noise of
    /// clicks. None where the oracle gains nothing.
    pub share: Option<f64>,
    /// Did the interval of the lift exclude zero at any look?
    pub ever_excluded_zero: bool,
    pub looks: usize,
    /// Scenario `drift`.
    pub drift: Option<Drift>,
    pub first: First,
}

/// How the share came back after tastes changed.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Over the last two days before.
    pub share_before: f64,
    /// Over the first day after.
    pub share_after: f64,
    /// Items that the personalized variant's shoppers had seen since the drift when the share over the last day was back
    /// at [`SHARE_BACK`] of what it was. None: it never was.
    pub impressions_until_back: Option<u64>,
}

/// Shoppers' first decisions: true click probability of what they saw.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct First {
    pub decisions: u64,
    pub control_ctr: f64,
    pub personal_ctr: f64,
}

fn name<S: serde::Serializer>(scenario: &Scenario, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(scenario.name())
}

impl Row {
    /// `spec`: text of the pipeline.
    ///
    /// # Errors
    /// What the pipeline refuses; said in words.
    pub fn of(settings: Settings, spec: &str, days: f64) -> Result<Self, String> {
        let until = (days * DAY_MICROS as f64) as Micros;
        let (scenario, seed, drift_at) = (settings.scenario, settings.seed, settings.drift_at_micros);
        let setup = Setup { world: settings, spec, until, look_every: LOOK_EVERY_MICROS };
        let looks = run(&setup).map_err(|error| error.to_string())?;
        let last = looks.last().ok_or("nothing was looked at")?;
        let end = last_third(&looks, |look| &look.tallies);
        let first = last_third(&looks, |look| &look.first_decisions);
        Ok(Self {
            scenario,
            seed,
            days,
            decisions: last.tallies.total().decisions,
            control_ctr: end.control.ctr(),
            personal_ctr: end.personal.ctr(),
            oracle_ctr: end.oracle.ctr(),
            share: end.share(),
            ever_excluded_zero: looks.iter().any(|look| look.lift.as_ref().is_some_and(|lift| lift.excludes_zero)),
            looks: looks.len(),
            drift: if scenario == Scenario::Drift { drift(&looks, drift_at) } else { None },
            first: First {
                decisions: first.personal.decisions,
                control_ctr: first.control.expected_ctr(),
                personal_ctr: first.personal.expected_ctr(),
            },
        })
    }

    /// Of the personalized variant's CTR over the control's, by clicks.
    pub fn lift(&self) -> f64 {
        if self.control_ctr > 0.0 { self.personal_ctr / self.control_ctr - 1.0 } else { 0.0 }
    }

    pub const HEAD: &'static str =
        "scenario      seed decisions  control%  personal%  oracle%   lift%  share  without 0";
}

/// The three variants over some time.
struct Arms {
    control: Tally,
    personal: Tally,
    oracle: Tally,
}

impl Arms {
    fn between(before: Option<&Tallies>, after: &Tallies) -> Self {
        let of = |variant| after.of(variant).since(&before.map(|tallies| tallies.of(variant)).unwrap_or_default());
        Self { control: of("control"), personal: of("personal"), oracle: of("oracle") }
    }

    fn share(&self) -> Option<f64> {
        let [control, personal, oracle] = [&self.control, &self.personal, &self.oracle].map(Tally::expected_ctr);
        (oracle - control > LEAST_GAIN).then(|| (personal - control) / (oracle - control))
    }
}

fn last_third(looks: &[Look], tallies: impl Fn(&Look) -> &Tallies) -> Arms {
    let before = (looks.len() * 2 / 3).checked_sub(1).map(|at| tallies(&looks[at]));
    looks.last().map_or_else(|| Arms::between(None, &Tallies::default()), |last| Arms::between(before, tallies(last)))
}

/// None if there is not a window on both sides of the drift.
fn drift(looks: &[Look], drift_at: Micros) -> Option<Drift> {
    let share =
        |from: usize, to: usize| Arms::between(Some(&looks.get(from)?.tallies), &looks.get(to)?.tallies).share();
    let at = looks.iter().rposition(|look| look.at <= drift_at)?;
    let share_before = share(at.checked_sub(BEFORE_LOOKS)?, at)?;
    let share_after = share(at, at + WINDOW_LOOKS)?;
    let back = (at + WINDOW_LOOKS..looks.len())
        .find(|to| share(to - WINDOW_LOOKS, *to).is_some_and(|share| share >= SHARE_BACK * share_before));
    let seen = |to: usize| Arms::between(Some(&looks[at].tallies), &looks[to].tallies).personal.exposed;
    Some(Drift { share_before, share_after, impressions_until_back: back.map(seen) })
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [control, personal, oracle] = [self.control_ctr, self.personal_ctr, self.oracle_ctr].map(|x| 100.0 * x);
        let share = self.share.map_or("-".into(), |share| format!("{share:.2}"));
        let ever = if self.ever_excluded_zero { "yes" } else { "no" };
        let lift = 100.0 * self.lift();
        write!(
            f,
            "{:<12} {:>5} {:>9} {control:>9.2} {personal:>10.2} {oracle:>8.2} {lift:>7.1} {share:>6}  {ever:<9}",
            self.scenario.name(),
            self.seed,
            self.decisions
        )?;
        if let Some(Drift { share_before, share_after, impressions_until_back }) = self.drift {
            let back = impressions_until_back.map_or("never".to_owned(), |n| n.to_string());
            write!(f, "  share {share_before:.2}, then {share_after:.2}; back after {back} items seen")?;
        }
        if self.scenario == Scenario::Cold {
            let [control, personal] = [self.first.control_ctr, self.first.personal_ctr].map(|x| 100.0 * x);
            write!(f, "  first decisions: {personal:.2} instead of {control:.2}")?;
        }
        Ok(())
    }
}
