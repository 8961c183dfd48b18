//! Experiments of which cumulative counts, means and variances of control (c) and treatment (t) were kept at many looks.

use std::{collections::BTreeMap, path::Path};

use millrace_engine::experiment::past::{Checkpoint, LooksReport, Side};
use serde::Serialize;

use super::{EvaluateError, table::Table};

/// The columns of a file of looks.
pub const COLUMNS: [&str; 10] = [
    "experiment_id",
    "variant_id",
    "metric_id",
    "time_since_start",
    "count_c",
    "count_t",
    "mean_c",
    "mean_t",
    "variance_c",
    "variance_t",
];

/// A metric of a treatment and what its looks say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Treatment {
    pub metric: String,
    pub experiment: String,
    pub variant: String,
    #[serde(flatten)]
    pub report: LooksReport,
}

/// How many treatments show something in a metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricSummary {
    pub metric: String,
    pub treatments: usize,
    /// At p < .05, as are the next two.
    pub last_look: usize,
    pub any_look: usize,
    pub always_valid: usize,
    /// At p < .001, against equal shares.
    pub sample_ratio: usize,
}

/// By metric, experiment and variant. Treatments of which no look has a variance are left out. `tau` as a share of
/// control's last mean.
pub fn read(path: &Path, tau: f64) -> Result<Vec<Treatment>, EvaluateError> {
    let mut table = Table::open(path)?;
    let [experiment, variant, metric, time, numbers @ ..] = COLUMNS.map(|name| table.column(&[name]));
    let (experiment, variant, metric, time) = (experiment?, variant?, metric?, time?);
    let numbers = numbers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut looks: BTreeMap<[String; 3], Vec<Checkpoint>> = BTreeMap::new();
    while table.advance()? {
        let key = [metric, experiment, variant].map(|column| table.text(column).to_owned());
        let values = numbers.iter().map(|column| table.optional(*column)).collect::<Result<Vec<_>, _>>()?;
        let time = table.number(time)?;
        let of_key = looks.entry(key).or_default();
        // A look without one of its figures says nothing.
        if let [Some(nc), Some(nt), Some(mc), Some(mt), Some(vc), Some(vt)] = values[..] {
            let side = |count, mean, variance| Side { count, mean, variance };
            of_key.push(Checkpoint { time, control: side(nc, mc, vc), treatment: side(nt, mt, vt) });
        }
    }
    if looks.is_empty() {
        return Err(EvaluateError::Empty { path: path.to_owned() });
    }
    let treatment = |([metric, experiment, variant], looks): ([String; 3], Vec<Checkpoint>)| {
        let report = LooksReport::of(looks, tau)?;
        Some(Treatment { metric, experiment, variant, report })
    };
    Ok(looks.into_iter().filter_map(treatment).collect())
}

/// By metric.
pub fn summary(treatments: &[Treatment]) -> Vec<MetricSummary> {
    let mut metrics: BTreeMap<&str, MetricSummary> = BTreeMap::new();
    for t in treatments {
        let summary = metrics.entry(&t.metric).or_default();
        summary.metric.clone_from(&t.metric);
        summary.treatments += 1;
        summary.last_look += usize::from(t.report.last_look.p_value < 0.05);
        summary.any_look += usize::from(t.report.least_p_value < 0.05);
        summary.always_valid += usize::from(t.report.always_valid_p_value < 0.05);
        summary.sample_ratio += usize::from(t.report.sample_ratio.as_ref().is_some_and(|r| r.p_value < 0.001));
    }
    metrics.into_values().collect()
}
