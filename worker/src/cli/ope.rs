//! `millrace ope`.

use std::path::PathBuf;

use clap::Args;
use millrace_engine::off_policy::{Interval, OffPolicyReport, evaluate};
use serde_json::json;

use super::{CliError, Output, print};
use crate::evaluate::{
    EvaluateError,
    decisions::{self, DecisionsShape},
};

#[derive(Args)]
pub struct OpeArgs {
    /// Logged decisions: CSV, plain or .gz, with item, position, reward and propensity.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// `uniform` (over the log's items), or a CSV of item, position and probability.
    #[arg(long, value_name = "uniform|FILE")]
    target: String,
    /// Column of the item. Default: `item` or `item_id`.
    #[arg(long, value_name = "COLUMN")]
    item: Option<String>,
    /// Column of the position; without it in the log there is one position.
    #[arg(long, default_value = "position", value_name = "COLUMN")]
    position: String,
    /// Column of the reward. Default: `reward` or `click`.
    #[arg(long, value_name = "COLUMN")]
    reward: Option<String>,
    /// Column of the propensity, of that item at that position. Default: `propensity` or `propensity_score`.
    #[arg(long, value_name = "COLUMN")]
    propensity: Option<String>,
    /// Column of the probability in the target's file.
    #[arg(long, default_value = "probability", value_name = "COLUMN")]
    probability: String,
    /// Bootstrap resamples for the intervals, from a fixed seed.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    resamples: u32,
    /// Show values although the effective sample size is too small to believe them.
    #[arg(long)]
    force: bool,
}

fn columns(chosen: &Option<String>, usual: [&str; 2]) -> Vec<String> {
    chosen.as_ref().map_or_else(|| usual.map(str::to_owned).to_vec(), |name| vec![name.clone()])
}

pub fn ope(args: &OpeArgs, output: Output) -> Result<(), CliError> {
    let shape = DecisionsShape {
        item: columns(&args.item, ["item", "item_id"]),
        position: args.position.clone(),
        reward: columns(&args.reward, ["reward", "click"]),
        propensity: columns(&args.propensity, ["propensity", "propensity_score"]),
        probability: args.probability.clone(),
    };
    let mut log = decisions::read(&args.file, &shape)?;
    let target =
        if args.target == "uniform" { log.uniform() } else { log.policy(&PathBuf::from(&args.target), &shape)? };
    let failed = |cause| EvaluateError::OffPolicy { path: args.file.clone(), cause };
    let report = evaluate(&log.decisions, &target, args.resamples as usize).map_err(failed)?;
    let told = report.is_believable() || args.force;
    match output {
        Output::Json => print(to_json(&report, told).to_string()),
        Output::Text => print_report(&report, told),
    }
    if told { Ok(()) } else { Err(CliError::FOUND) }
}

/// Values that are not told are null.
fn to_json(report: &OffPolicyReport, told: bool) -> serde_json::Value {
    let mut json = json!({"formatVersion": 1, "believable": report.is_believable(), "offPolicy": report});
    if !told {
        ["ips", "snips", "doublyRobust"].iter().for_each(|name| json["offPolicy"][name] = serde_json::Value::Null);
    }
    json
}

fn print_report(report: &OffPolicyReport, told: bool) {
    print(format!(
        "{} decisions, {} with a reward, {:.6} each as logged",
        report.decisions, report.rewarded, report.logged_value
    ));
    if told {
        print(format!("Value of the target per decision{:>14} [95 %, bootstrap]", ""));
        let line =
            |name: &str, i: Interval| print(format!("  {name:<32} {:.6} [{:.6}, {:.6}]", i.value, i.low, i.high));
        line("IPS", report.ips);
        line("self-normalised IPS", report.snips);
        line("doubly robust", report.doubly_robust);
    }
    print(format!("  {:<32} {:.0}", "effective sample size", report.effective_sample_size));
    print(format!("  {:<32} {:.1}", "effective rewarded decisions", report.effective_rewarded));
    print(format!("  {:<32} {:.1}, mean {:.3}", "largest weight", report.max_weight, report.mean_weight));
    report.warnings.iter().for_each(|warning| print(format!("Warning: {warning}.")));
    let refused = if told { "Do not believe it" } else { "Not told" };
    report.refusals.iter().for_each(|refusal| print(format!("{refused}: {refusal}.")));
    if !told {
        print(
            "More decisions are needed, or a target nearer to the logging policy; --force shows the values all the same.",
        );
    }
}
