//! `millrace experiment show`.

use std::{collections::BTreeMap, path::PathBuf};

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use millrace_engine::experiment::{ExperimentReport, SampleRatio, Settings, report::VariantReport, sample_ratio};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CliError, Output, print,
    server::{ServerArgs, shown},
};
use crate::evaluate::{
    EvaluateError,
    counts::{self, CountedTest, CountsShape},
    looks,
    table::Table,
    users::{self, MetricColumns, UsersReport, UsersShape},
};

#[derive(Subcommand)]
pub enum ExperimentCommand {
    /// Show what an experiment says: lifts with intervals, and whether the split was as planned.
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
}

const SHOW_HELP: &str = "Without --file: the running experiments of a worker, as they stand.\n\nWith --file: three kinds of CSV files (plain or .gz), told apart by their columns:\n  \
users   a row per user (or several, which are added up): user, variant and the columns that --metric names\n  \
counts  a row per arm of a test: test, arm, impressions, clicks\n  \
looks   cumulative figures at many looks: experiment_id, variant_id, metric_id, time_since_start, and count, mean and\n          \
variance of control (_c) and treatment (_t)\n\n\
Examples:\n  millrace experiment show\n  millrace experiment show launch --address https://shop.example:8443 --ca-file ca.pem --token-file admin.txt\n  \
millrace experiment show --file users.csv --metric ctr=clicks/impressions --metric revenue=revenue --control old\n  \
millrace experiment show --file a=first.csv.gz --file b=second.csv.gz --each-row --metric ctr=click\n  \
millrace experiment show --file packages.csv.gz --test clickability_test_id\n  \
millrace experiment show --file experiments.csv.gz --output json\n\n\
Intervals of `users` and always-valid p values hold however often one looks; everything called `one look` holds for one\n\
look at a time fixed beforehand.";

#[derive(Args)]
pub struct ShowArgs {
    /// Of a running worker: only this experiment.
    #[arg(conflicts_with = "file")]
    experiment: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// Past data: the file; `VARIANT=FILE`, repeated, if each variant has its own.
    #[arg(long, value_name = "[VARIANT=]FILE", value_parser = parse_file)]
    file: Vec<(Option<String>, PathBuf)>,
    /// The kind of file, if its columns do not tell.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// users: column of the user.
    #[arg(long, default_value = "user", value_name = "COLUMN")]
    user: String,
    /// users: each row is a unit of its own. Intervals are too narrow if the same people have several.
    #[arg(long, conflicts_with = "user")]
    each_row: bool,
    /// users: column of the variant.
    #[arg(long, default_value = "variant", value_name = "COLUMN")]
    variant: String,
    /// users: `NAME=COLUMN/COLUMN`, or `NAME=COLUMN` per user; repeated.
    #[arg(long, value_name = "METRIC")]
    metric: Vec<MetricColumns>,
    /// users: the variant that the others are compared with. Default: `control`, or the first in the file.
    #[arg(long, value_name = "NAME")]
    control: Option<String>,
    /// users: planned shares, such as `a=1,b=1`. Default: equal.
    #[arg(long, value_delimiter = ',', value_parser = parse_weight, value_name = "NAME=WEIGHT,...")]
    weights: Vec<(String, f64)>,
    /// counts: column of the test. Default: `test`, `test_id` or `clickability_test_id`.
    #[arg(long, value_name = "COLUMN")]
    test: Option<String>,
    /// counts: column of the arm.
    #[arg(long, default_value = "arm", value_name = "COLUMN")]
    arm: String,
    /// counts: column of the impressions.
    #[arg(long, default_value = "impressions", value_name = "COLUMN")]
    impressions: String,
    /// counts: column of the clicks.
    #[arg(long, default_value = "clicks", value_name = "COLUMN")]
    clicks: String,
    /// users: chance that an interval ever misses.
    #[arg(long, default_value_t = 0.05, value_parser = parse_share)]
    alpha: f64,
    /// users, looks: relative lift at which always-valid intervals are narrowest. Default: 0.1; looks: 0.02.
    #[arg(long, value_parser = parse_share)]
    tau: Option<f64>,
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Users,
    Counts,
    Looks,
}

const TESTS: [&str; 3] = ["test", "test_id", "clickability_test_id"];
const LOOKS_TAU: f64 = 0.02;
/// As many tests are listed one by one in text.
const MOST_LISTED: usize = 20;

fn parse_file(text: &str) -> Result<(Option<String>, PathBuf), String> {
    match text.split_once('=').filter(|(name, _)| !name.contains(['/', '\\'])) {
        Some(("", _) | (_, "")) => Err("expected FILE or VARIANT=FILE".to_owned()),
        Some((variant, path)) => Ok((Some(variant.to_owned()), PathBuf::from(path))),
        None => Ok((None, PathBuf::from(text))),
    }
}

fn parse_weight(text: &str) -> Result<(String, f64), String> {
    let parsed = text.split_once('=').and_then(|(name, weight)| Some((name.to_owned(), weight.parse().ok()?)));
    let weight = parsed.filter(|(_, w): &(String, f64)| w.is_finite() && *w > 0.0);
    weight.ok_or_else(|| "expected NAME=WEIGHT with a weight above 0, such as a=1".to_owned())
}

/// Above 0 and below 1.
fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|x: &f64| *x > 0.0 && *x < 1.0);
    share.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

pub fn experiment(command: &ExperimentCommand, output: Output) -> Result<(), CliError> {
    let ExperimentCommand::Show(args) = command;
    if args.file.is_empty() {
        return show_running(args, output);
    }
    match args.format()? {
        Format::Users => show_users(args, output),
        Format::Counts => show_counts(args, output),
        Format::Looks => show_looks(args, output),
    }
}

/// What `/v1/experiments` answers.
#[derive(Deserialize)]
struct Running {
    pipeline: String,
    experiments: Vec<RunningExperiment>,
}

#[derive(Deserialize)]
struct RunningExperiment {
    name: String,
    #[serde(flatten)]
    report: ExperimentReport,
}

fn show_running(args: &ShowArgs, output: Output) -> Result<(), CliError> {
    let body = args.server.ask(Method::GET, "/v1/experiments", None)?;
    let not_it = |e| CliError::Other(format!("{}: the answer is not of experiments: {e}", args.server.address));
    let mut answer: Value = serde_json::from_slice(&body).map_err(not_it)?;
    let mut running: Running = serde_json::from_value(answer.clone()).map_err(not_it)?;
    if let Some(wanted) = &args.experiment {
        let known: Vec<&str> = running.experiments.iter().map(|e| e.name.as_str()).collect();
        let Some(at) = known.iter().position(|name| name == wanted) else {
            let known =
                if known.is_empty() { "none is running".to_owned() } else { format!("there is {}", known.join(", ")) };
            return Err(CliError::Other(format!("no experiment `{wanted}`: {}", shown(&known))));
        };
        running.experiments = vec![running.experiments.swap_remove(at)];
        answer["experiments"] = json!([answer["experiments"][at]]);
    }
    if output == Output::Json {
        print(answer.to_string());
        return Ok(());
    }
    if running.experiments.is_empty() {
        print(format!("{} has no experiment.", shown(&running.pipeline)));
    }
    for RunningExperiment { name, report } in &running.experiments {
        print(format!("Experiment {} of {}", shown(name), shown(&running.pipeline)));
        print_report(report);
    }
    Ok(())
}

impl ShowArgs {
    /// What was asked for, or what the columns of the first file tell.
    fn format(&self) -> Result<Format, CliError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let (variant, path) = &self.file[0];
        if variant.is_some() || !self.metric.is_empty() {
            return Ok(Format::Users);
        }
        let table = Table::open(path)?;
        let has_all = |names: &[&str]| names.iter().all(|name| table.has(name));
        if has_all(&looks::COLUMNS) {
            return Ok(Format::Looks);
        }
        if has_all(&[&self.arm, &self.impressions, &self.clicks]) {
            return Ok(Format::Counts);
        }
        if table.has(&self.variant) {
            return Ok(Format::Users);
        }
        Err(EvaluateError::Column {
            path: path.clone(),
            wanted: format!(
                "`{}` (a row per user), nor `{}`, `{}` and `{}` (counts), nor `{}`, ... (looks)",
                self.variant,
                self.arm,
                self.impressions,
                self.clicks,
                looks::COLUMNS.join("`, `")
            ),
            found: table.header().to_vec(),
        }
        .into())
    }

    /// Of the formats that are in one file.
    fn one_file(&self) -> Result<&PathBuf, CliError> {
        match &self.file[..] {
            [(None, path)] => Ok(path),
            _ => Err(EvaluateError::Asked("counts and looks are read from one --file FILE".to_owned()).into()),
        }
    }
}

fn show_users(args: &ShowArgs, output: Output) -> Result<(), CliError> {
    if args.metric.is_empty() {
        let ask = "say what to measure: --metric NAME=COLUMN/COLUMN or --metric NAME=COLUMN (per user)";
        return Err(EvaluateError::Asked(ask.to_owned()).into());
    }
    let defaults = Settings::default();
    let shape = UsersShape {
        user: (!args.each_row).then(|| args.user.clone()),
        variant: args.variant.clone(),
        metrics: args.metric.clone(),
        control: args.control.clone(),
        weights: args.weights.iter().cloned().collect::<BTreeMap<_, _>>(),
        settings: Settings { alpha: args.alpha, tau: args.tau.unwrap_or(defaults.tau), ..defaults },
    };
    let UsersReport { report, crossovers } = users::read(&args.file, &shape)?;
    if output == Output::Json {
        print(json!({"formatVersion": 1, "crossovers": crossovers, "experiment": report}).to_string());
        return Ok(());
    }
    print_report(&report);
    if crossovers > 0 {
        print(format!("Warning: {crossovers} users have rows of several variants and were left out of all."));
    }
    Ok(())
}

/// An experiment, for people.
fn print_report(report: &ExperimentReport) {
    if let Some(ratio) = &report.sample_ratio {
        print(format!("Users                   planned {}", verdict(ratio)));
        for (arm, share) in report.variants.iter().zip(&ratio.planned) {
            print(format!("  {:<16} {:>10} {:>6.1} %", shown(&arm.name), arm.users, 100.0 * share));
        }
    }
    let kept = 100.0 * (1.0 - report.alpha);
    for metric in &report.metrics {
        print(format!(
            "{:<18} {:>14} / {:<12} {:>12}   lift over {} [{kept:.0} %, at any time]",
            shown(&metric.metric),
            "sum",
            "of",
            "value",
            shown(&report.control)
        ));
        let control = metric.variants.iter().find(|v| v.variant == report.control);
        for variant in &metric.variants {
            print(variant_text(variant, control));
        }
    }
}

fn variant_text(variant: &VariantReport, control: Option<&VariantReport>) -> String {
    let value = variant.value.map_or_else(|| "-".to_owned(), |v| format!("{v:.6}"));
    // Money has cents, counts have none.
    let sum = |x: f64| if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{x:.2}") };
    let (numerator, denominator) = (sum(variant.numerator), sum(variant.denominator));
    let mut text = format!("  {:<16} {numerator:>14} / {denominator:<12} {value:>12}", shown(&variant.variant));
    if let Some(lift) = &variant.lift {
        let percent = |x: f64| format!("{:+.1} %", 100.0 * x);
        let found = if lift.excludes_zero { "a difference" } else { "none shown" };
        let (value, low, high) = (percent(lift.value), percent(lift.low), percent(lift.high));
        text += &format!("   {value} [{low}, {high}] {found}, p {}", p_text(lift.always_valid_p_value));
    }
    let lacks: Vec<String> =
        variant.needs.iter().map(|need| format!("{} has {need}", shown(&variant.variant))).collect();
    if !lacks.is_empty() {
        text += &format!("   too little yet: {}", lacks.join("; "));
    } else if variant.lift.is_none() && control.is_some_and(|c| c.variant != variant.variant) {
        text += "   too little yet of control";
    }
    if let Some(fixed) = &variant.fixed_horizon {
        text += &format!("; one look: z {:.2}, p {}", fixed.z, p_text(fixed.p_value));
    }
    text
}

fn p_text(p: f64) -> String {
    if p < 1e-4 { format!("{p:.0e}") } else { format!("{p:.4}") }
}

fn verdict(ratio: &SampleRatio) -> String {
    let (one_look, always) = (p_text(ratio.p_value), p_text(ratio.always_valid_p_value));
    let wrong = ratio.alarm || ratio.p_value < sample_ratio::ALARM;
    let says = if wrong { "NOT AS PLANNED: believe no lift" } else { "as planned" };
    format!("  sample ratio {says} (one look: p {one_look}; at any time: p {always})")
}

fn show_counts(args: &ShowArgs, output: Output) -> Result<(), CliError> {
    let default = || TESTS.iter().map(|name| (*name).to_owned()).collect();
    let shape = CountsShape {
        test: args.test.as_ref().map_or_else(default, |name| vec![name.clone()]),
        arm: args.arm.clone(),
        impressions: args.impressions.clone(),
        clicks: args.clicks.clone(),
    };
    let tests = counts::read(args.one_file()?, &shape)?;
    let s = counts::summary(&tests);
    if output == Output::Json {
        print(json!({"formatVersion": 1, "summary": s, "tests": tests}).to_string());
        return Ok(());
    }
    if tests.len() <= MOST_LISTED {
        tests.iter().for_each(print_test);
    }
    print(format!("{} tests, {} arms, {} impressions, {} clicks", s.tests, s.arms, s.impressions, s.clicks));
    let chance = |level: f64| (level * s.tests as f64).round();
    print(format!(
        "  arms differ in clicks   p < .05 in {}, p < .01 in {}",
        s.different_below_05, s.different_below_01
    ));
    let (uneven_01, uneven_001) = (s.sample_ratio_below_01, s.sample_ratio_below_001);
    print(format!("  unequal impressions     p < .01 in {uneven_01}, p < .001 in {uneven_001}"));
    print(format!(
        "By chance alone: p < .05 in {}, p < .01 in {}, p < .001 in {}",
        chance(0.05),
        chance(0.01),
        chance(0.001)
    ));
    print("One look each; impressions taken as independent, which is right only if people have one each.");
    Ok(())
}

fn print_test(test: &CountedTest) {
    let difference = test.report.difference.as_ref().map(|d| format!(", z {:.2}", d.z)).unwrap_or_default();
    print(format!("{}: arms differ with p {}{difference}", test.test, p_text(test.report.p_value)));
    for arm in &test.report.arms {
        let rate = arm.clicks as f64 / arm.impressions.max(1) as f64;
        print(format!("  {:<16} {:>10} impressions {:>8} clicks  {rate:.5}", arm.name, arm.impressions, arm.clicks));
    }
}

fn show_looks(args: &ShowArgs, output: Output) -> Result<(), CliError> {
    let tau = args.tau.unwrap_or(LOOKS_TAU);
    let treatments = looks::read(args.one_file()?, tau)?;
    let metrics = looks::summary(&treatments);
    if output == Output::Json {
        print(json!({"formatVersion": 1, "tau": tau, "metrics": metrics, "treatments": treatments}).to_string());
        return Ok(());
    }
    print("metric      treatments  last look p<.05  any look p<.05  always valid p<.05  sample ratio p<.001");
    for m in &metrics {
        let found = (m.last_look, m.any_look, m.always_valid, m.sample_ratio);
        print(format!(
            "{:<11} {:>10} {:>16} {:>15} {:>19} {:>20}",
            m.metric, m.treatments, found.0, found.1, found.2, found.3
        ));
    }
    print(format!(
        "Stopping at any look is valid only with the always-valid p value (normal mixture, tau {} % of control's mean).\n\
         Sample ratio: against equal shares.",
        100.0 * tau
    ));
    Ok(())
}
