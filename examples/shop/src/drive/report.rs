//! What was sent, what was answered, and what went wrong, of a whole drive.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use crate::world::{Scenario, Tallies};

/// Kinds of trouble, and how often.
pub type Counts = BTreeMap<String, u64>;

/// Of the events that the shop's clients sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    pub events: u64,
    pub products: u64,
    pub requests: u64,
    /// Records that the worker keeps.
    pub accepted: u64,
    /// By the worker's reason.
    pub rejected: Counts,
    /// Requests that were sent again.
    pub retried: u64,
    pub errors: Counts,
}

/// Of the decisions that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub asked: u64,
    pub answered: u64,
    /// By the worker's reason.
    pub reasons: Counts,
    pub errors: Counts,
    pub latency: Latency,
    #[serde(skip)]
    micros: Vec<u32>,
}

/// From asking to having read the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// From an event that was accepted to the first decision that knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    pub probes: u64,
    /// Probes without an end.
    pub lost: u64,
    pub latency: Latency,
}

/// Sorts them.
pub fn quantiles(micros: &mut [u32]) -> Latency {
    micros.sort_unstable();
    let at = |share: f64| {
        let index = (share * micros.len().saturating_sub(1) as f64).round() as usize;
        micros.get(index).map_or(0.0, |micros| f64::from(*micros) / 1e3)
    };
    Latency { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
}

impl Asked {
    pub fn answer(&mut self, reason: &str, took: Duration) {
        self.answered += 1;
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
        self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
    pub fn fail(&mut self, error: String) {
        *self.errors.entry(error).or_default() += 1;
    }
    fn finish(&mut self) {
        self.latency = quantiles(&mut self.micros);
    }
}

/// What the world itself counted of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantReport {
    pub decisions: u64,
    pub exposed: u64,
    pub clicks: u64,
    pub ctr: f64,
    /// The true probabilities' mean.
    pub expected_ctr: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub format_version: u32,
    pub scenario: &'static str,
    pub seed: u64,
    /// World time that has passed.
    pub seconds: f64,
    /// How long the world stood still since nobody took its events.
    pub postponed_seconds: f64,
    pub visits: u64,
    pub events: Sent,
    pub decisions: Asked,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
    pub variants: BTreeMap<String, VariantReport>,
}

impl Report {
    pub fn new(scenario: Scenario, seed: u64, events: Sent, mut decisions: Asked, tallies: &Tallies) -> Self {
        decisions.finish();
        let variant = |t: &crate::world::Tally| VariantReport {
            decisions: t.decisions,
            exposed: t.exposed,
            clicks: t.clicks,
            ctr: t.ctr(),
            expected_ctr: t.expected_ctr(),
        };
        let variants = tallies.iter().map(|(name, tally)| (name.to_owned(), variant(tally))).collect();
        Self {
            format_version: 1,
            scenario: scenario.name(),
            seed,
            seconds: 0.0,
            postponed_seconds: 0.0,
            visits: 0,
            events,
            decisions,
            freshness: None,
            variants,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (e, d) = (&self.events, &self.decisions);
        writeln!(
            f,
            "{} seconds of the shop ({}, seed {}): {} visits",
            self.seconds, self.scenario, self.seed, self.visits
        )?;
        if self.postponed_seconds > 0.0 {
            writeln!(f, "stood still for {:.1} s: nobody took its events", self.postponed_seconds)?;
        }
        writeln!(
            f,
            "events     {} sent, {} accepted, {} rejected",
            e.events,
            e.accepted,
            e.rejected.values().sum::<u64>()
        )?;
        writeln!(f, "products   {} sent", e.products)?;
        let Latency { p50_ms, p99_ms, max_ms } = d.latency;
        writeln!(
            f,
            "decisions  {} asked, {} answered in {p50_ms:.2} ms (p99 {p99_ms:.2}, max {max_ms:.1})",
            d.asked, d.answered
        )?;
        if let Some(Freshness { probes, lost, latency: Latency { p50_ms, p99_ms, max_ms } }) = self.freshness {
            writeln!(
                f,
                "freshness  {probes} views known to the next decision {p50_ms:.2} ms after they were accepted (p99 {p99_ms:.2}, max {max_ms:.1}); {lost} lost"
            )?;
        }
        for (what, counts) in [("rejected", &e.rejected), ("events", &e.errors), ("decisions", &d.errors)] {
            for (kind, count) in counts {
                writeln!(f, "  {what}: {kind}: {count}")?;
            }
        }
        writeln!(
            f,
            "{:<12} {:>10} {:>10} {:>8} {:>7} {:>9}",
            "variant", "decisions", "exposed", "clicks", "CTR %", "true CTR %"
        )?;
        for (name, v) in &self.variants {
            let (ctr, expected) = (v.ctr * 100.0, v.expected_ctr * 100.0);
            writeln!(f, "{name:<12} {:>10} {:>10} {:>8} {ctr:>7.2} {expected:>9.2}", v.decisions, v.exposed, v.clicks)?;
        }
        Ok(())
    }
}
