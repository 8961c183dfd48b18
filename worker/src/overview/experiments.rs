//! A running experiment, judged, as the page and `/v1/experiments` show it.

use millrace_crds::spec;
use millrace_engine::experiment::{
    ExperimentReport, Metric, VariantSums,
    report::{MetricReport, VariantReport},
};
use serde_json::{Value, json};

use crate::host::status::SumsOfVariants;

/// Judges an experiment by the sums of its variants over all partitions.
pub fn judge(experiment: &spec::Experiment, sums: &SumsOfVariants) -> ExperimentReport {
    let settings = settings(experiment);
    let arms: Vec<(&str, u32, VariantSums)> = experiment
        .variants
        .iter()
        .map(|(name, variant)| (name.as_str(), variant.weight, sums.get(name).cloned().unwrap_or_default()))
        .collect();
    let control = arms.iter().position(|(name, ..)| *name == experiment.control).unwrap_or_default();
    let metrics: Vec<Metric> = experiment.metrics.iter().map(|metric| metric_of(*metric)).collect();
    ExperimentReport::running(&settings, &arms, control, &metrics)
}

fn settings(experiment: &spec::Experiment) -> millrace_engine::experiment::Settings {
    let default = millrace_engine::experiment::Settings::default();
    let alpha = experiment.confidence.map_or(default.alpha, |confidence| 1.0 - confidence);
    millrace_engine::experiment::Settings { alpha, ..default }
}

fn metric_of(metric: spec::Metric) -> Metric {
    match metric {
        spec::Metric::Ctr => Metric::Ctr,
        spec::Metric::RevenuePerUser => Metric::RevenuePerUser,
        spec::Metric::RevenuePerBasket => Metric::RevenuePerBasket,
    }
}

/// The judgement by variant, as the page wants it.
pub fn to_json(name: &str, report: &ExperimentReport) -> Value {
    let users = report.variants.iter().map(|arm| (arm.name.clone(), json!(arm.users)));
    let sample_ratio = report.sample_ratio.as_ref().map(|ratio| {
        json!({"ok": !ratio.alarm, "pValue": ratio.p_value, "alwaysValidPValue": ratio.always_valid_p_value,
            "users": users.collect::<serde_json::Map<_, _>>()})
    });
    let variant = |arm: &millrace_engine::experiment::Arm| {
        let of_variant = report.metrics.iter().filter_map(|metric| {
            let variant = metric.variants.iter().find(|variant| variant.variant == arm.name)?;
            Some((metric.metric.clone(), metric_json(variant)))
        });
        json!({"name": arm.name, "users": arm.users, "weight": arm.weight,
            "metrics": of_variant.collect::<serde_json::Map<_, _>>()})
    };
    json!({
        "name": name,
        "control": report.control,
        "confidence": 1.0 - report.alpha,
        "metrics": report.metrics.iter().map(|metric| &metric.metric).collect::<Vec<_>>(),
        "sampleRatio": sample_ratio,
        "variants": report.variants.iter().map(variant).collect::<Vec<_>>(),
    })
}

fn metric_json(variant: &VariantReport) -> Value {
    let mut json = json!({
        "value": variant.value,
        "numerator": variant.numerator,
        "denominator": variant.denominator,
        "standardError": variant.standard_error,
        "ready": variant.needs.is_empty(),
        "needs": variant.needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if let Some(lift) = &variant.lift {
        json["lift"] = json!(lift.value);
        json["low"] = json!(lift.low);
        json["high"] = json!(lift.high);
        json["significant"] = json!(lift.excludes_zero);
        json["alwaysValidPValue"] = json!(lift.always_valid_p_value);
    }
    json
}

/// What `/v1/experiments` says of it.
pub fn full_json(name: &str, report: &ExperimentReport) -> Value {
    let mut json = json!(report);
    json["name"] = json!(name);
    json
}

/// The judgement in a line for each metric, for the terminal.
pub fn lines(name: &str, report: &ExperimentReport) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.5}"));
    let of_variant = |variant: &VariantReport| match (&variant.lift, variant.variant == report.control) {
        (_, true) => format!("{} {}", variant.variant, number(variant.value)),
        (Some(lift), _) => {
            let [lift, low, high] = [lift.value, lift.low, lift.high].map(|x| 100.0 * x);
            format!("{} {lift:+.1} % ({low:+.1} .. {high:+.1})", variant.variant)
        }
        (None, _) => format!("{} {} (too early)", variant.variant, number(variant.value)),
    };
    let of_metric = |metric: &MetricReport| {
        let variants: Vec<String> = metric.variants.iter().map(of_variant).collect();
        format!("experiment {name} {}: {}", metric.metric, variants.join("; "))
    };
    let mut lines: Vec<String> = report.metrics.iter().map(of_metric).collect();
    if report.sample_ratio.as_ref().is_some_and(|ratio| ratio.alarm) {
        lines.push(format!(
            "experiment {name}: the variants' numbers of users are not as planned: do not trust its lifts before you know why"
        ));
    }
    lines
}
