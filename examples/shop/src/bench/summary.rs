//! All worlds of a scenario together, and whether what must hold holds.

use serde::Serialize;

use super::table::Row;
use crate::world::Scenario;

/// The least lift of the personalized variant's CTR, of every seed.
const LEAST_LIFT: f64 = 0.35;
/// The least share of the oracle's gain, of every seed.
const LEAST_SHARE: f64 = 0.6;
/// A drift is made good within so many items seen.
const MOST_IMPRESSIONS: u64 = 50_000;
/// At most so many of the seeds may have an interval that excludes what is true, ever.
const FALSE_ALARMS: f64 = 0.05;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub scenario: &'static str,
    pub seeds: usize,
    /// What it says in words, a line each.
    pub lines: Vec<String>,
    pub holds: bool,
}

impl Summary {
    /// `rows`: of one scenario, at least one.
    pub fn of(scenario: Scenario, rows: &[Row]) -> Self {
        let (lines, holds) = match scenario {
            Scenario::Taste => taste(rows),
            Scenario::Drift => drift(rows),
            Scenario::Cold => cold(rows),
            Scenario::Homogeneous | Scenario::Position => no_lift(rows),
        };
        Self { scenario: scenario.name(), seeds: rows.len(), lines, holds }
    }

    pub fn text(&self) -> String {
        let lines: String = self.lines.iter().map(|line| format!("  {line}\n")).collect();
        let verdict = if self.holds { "holds" } else { "falls short" };
        format!("{} over {} seeds:\n{lines}  {verdict}", self.scenario, self.seeds)
    }
}

/// Ascending; not empty.
struct Spread(Vec<f64>);

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
    fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or(0.0)
    }
    fn greatest(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }
    fn median(&self) -> f64 {
        let (n, v) = (self.0.len(), &self.0);
        if n == 0 { 0.0 } else { (v[(n - 1) / 2] + v[n / 2]) / 2.0 }
    }
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }
    /// Of the mean; infinite of fewer than two.
    fn standard_error(&self) -> f64 {
        let (n, mean) = (self.0.len() as f64, self.mean());
        let squares: f64 = self.0.iter().map(|x| (x - mean) * (x - mean)).sum();
        if n < 2.0 { f64::INFINITY } else { libm::sqrt(squares / (n - 1.0) / n) }
    }
}

fn taste(rows: &[Row]) -> (Vec<String>, bool) {
    let lift = Spread::of(rows.iter().map(Row::lift));
    let share = Spread::of(rows.iter().map(|row| row.share.unwrap_or(0.0)));
    let [least, median, greatest] = [lift.least(), lift.median(), lift.greatest()].map(|x| 100.0 * x);
    let enough = share.0.iter().filter(|share| **share >= LEAST_SHARE).count();
    let lines = vec![
        format!("lift: least {least:.0} %, median {median:.0} %, greatest {greatest:.0} % (at least 35 % each)"),
        format!(
            "share: least {:.2}, median {:.2}, mean {:.3} (at least {LEAST_SHARE}); {enough} of {} seeds reach it",
            share.least(),
            share.median(),
            share.mean(),
            rows.len()
        ),
    ];
    (lines, lift.least() >= LEAST_LIFT && enough == rows.len())
}

fn drift(rows: &[Row]) -> (Vec<String>, bool) {
    let until: Vec<Option<u64>> = rows.iter().map(|row| row.drift.and_then(|d| d.impressions_until_back)).collect();
    let back = Spread::of(until.iter().flatten().map(|n| *n as f64));
    let in_time = until.iter().flatten().filter(|n| **n <= MOST_IMPRESSIONS).count();
    let dip = Spread::of(rows.iter().filter_map(|row| row.drift).map(|d| d.share_after / d.share_before));
    let lines = vec![
        format!("over the first day after the drift the share is {:.2} of what it was (median)", dip.median()),
        format!(
            "items seen until it is back at 0.9: least {:.0}, median {:.0}, greatest {:.0}; never in {} seeds",
            back.least(),
            back.median(),
            back.greatest(),
            until.iter().filter(|n| n.is_none()).count()
        ),
        format!("within {MOST_IMPRESSIONS} in {in_time} of {} seeds (in all)", rows.len()),
    ];
    (lines, in_time == rows.len())
}

fn cold(rows: &[Row]) -> (Vec<String>, bool) {
    let gain = Spread::of(rows.iter().map(|row| 100.0 * (row.first.personal_ctr - row.first.control_ctr)));
    let control = Spread::of(rows.iter().map(|row| 100.0 * row.first.control_ctr));
    let error = gain.standard_error();
    let better = gain.0.iter().filter(|gain| **gain >= 0.0).count();
    let lines = vec![format!(
        "first decisions, true CTR in percent: personal - control = {:+.3} with a standard error of {error:.3} (control \
         {:.2}); at least the control's in {better} of {} seeds",
        gain.mean(),
        control.mean(),
        rows.len()
    )];
    (lines, gain.mean() >= 0.0)
}

fn no_lift(rows: &[Row]) -> (Vec<String>, bool) {
    let alarms = rows.iter().filter(|row| row.ever_excluded_zero).count();
    let most = (FALSE_ALARMS * rows.len() as f64) as usize;
    let lines = vec![format!(
        "the interval of the lift ever excluded zero in {alarms} of {} seeds, {} looks each (at most {most})",
        rows.len(),
        rows.first().map_or(0, |row| row.looks)
    )];
    (lines, alarms <= most)
}
