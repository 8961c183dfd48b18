//! What the benchmark prints: a line for each scenario and seed.

use std::fmt;

use serde::Serialize;

use super::run::{Look, Setup, run};
use crate::world::{Settings, settings::DAY_MICROS};

/// One world, from its beginning to its end, in virtual time.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub scenario: String,
    pub seed: u64,
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
}

/// Below this the oracle's gain is nothing.
const LEAST_GAIN: f64 = 0.002;

impl Row {
    /// # Errors
    /// What the pipeline refuses; said in words.
    pub fn of(settings: Settings, spec: &str, days: f64) -> Result<Self, String> {
        let until = (days * DAY_MICROS as f64) as i64;
        let (scenario, seed) = (settings.scenario, settings.seed);
        let setup = Setup { world: settings, spec, until, look_every: (until / 60).max(1) };
        let (looks, _) = run(&setup).map_err(|error| error.to_string())?;
        let last = looks.last().ok_or("nothing was looked at")?;
        let earlier = looks.get(looks.len() * 2 / 3);
        let [control, personal, oracle] = ["control", "personal", "oracle"].map(|variant| {
            let before = earlier.map(|look| look.tallies.of(variant)).unwrap_or_default();
            last.tallies.of(variant).since(&before)
        });
        let gain = oracle.expected_ctr() - control.expected_ctr();
        let own = personal.expected_ctr() - control.expected_ctr();
        Ok(Self {
            scenario: scenario.name().to_owned(),
            seed,
            decisions: last.tallies.total().decisions,
            control_ctr: control.ctr(),
            personal_ctr: personal.ctr(),
            oracle_ctr: oracle.ctr(),
            share: (gain > LEAST_GAIN).then(|| own / gain),
            ever_excluded_zero: looks.iter().any(excludes_zero),
            looks: looks.len(),
        })
    }

    pub const HEAD: &'static str =
        "scenario      seed decisions  control%  personal%  oracle%   lift%  share  interval ever without 0";
}

fn excludes_zero(look: &Look) -> bool {
    look.lift.as_ref().is_some_and(|lift| lift.excludes_zero)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [control, personal, oracle] = [self.control_ctr, self.personal_ctr, self.oracle_ctr].map(|x| 100.0 * x);
        let lift = if self.control_ctr > 0.0 { 100.0 * (self.personal_ctr / self.control_ctr - 1.0) } else { 0.0 };
        let share = self.share.map_or("-".into(), |share| format!("{share:.2}"));
        let ever = if self.ever_excluded_zero { "yes" } else { "no" };
        write!(
            f,
            "{:<12} {:>5} {:>9} {control:>9.2} {personal:>10.2} {oracle:>8.2} {lift:>7.1} {share:>6}  {ever}",
            self.scenario, self.seed, self.decisions
        )
    }
}
