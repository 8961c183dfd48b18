//! What real logs must give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use common::{Run, count, example, figure, has_datasets, shared_data, write_lines};
use millrace_e2e::oracle::parse_rfc3339;
use serde_json::json;

fn run(name: &str, source: &str, path: &Path, folder: &Path) -> Run {
    Run::new(&example(name), &folder.join("data")).source(source, path)
}

#[test]
fn eshop_reaches_the_reference() {
    if !has_datasets() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = shared_data("eshop-clickstream/clicks-2008-04-to-06.csv.gz");
    let run = run("eshop-clickstream", "clicks", &file, folder.path());
    let summary = run.summary();
    assert_eq!(figure(&summary, "continues", "examples"), 116_095.0);
    assert_eq!(figure(&summary, "continues", "positives"), 116_095.0 - 17_031.0);
    let (auc, loss) = (figure(&summary, "continues", "auc"), figure(&summary, "continues", "logLoss"));
    assert!(auc >= 0.647, "AUC {auc}");
    assert!(loss <= 0.3997, "log loss {loss}");
    let base = figure(&summary, "continues", "baseLogLoss");
    assert!((base - 0.417).abs() < 5e-4, "base log loss {base}");
    let calibration = figure(&summary, "continues", "calibration");
    assert!((calibration - 1.0).abs() < 0.02, "calibration {calibration}");
    let served = run.other(&["replay", "--as-served"]).summary();
    let served_loss = figure(&served, "continues", "logLoss");
    assert!(served_loss >= loss && served_loss < base, "as served {served_loss}, progressive {loss}, base {base}");
}

#[test]
fn otto_matches_seven_of_ten_orders() {
    if !has_datasets() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let summary = run("otto", "sessions", &shared_data("otto/train.jsonl"), folder.path()).summary();
    assert_eq!(summary["outcomes"]["order"], json!({"events": 10, "matched": 7}));
    assert_eq!((count(&summary, "accepted"), figure(&summary, "order", "examples")), (862, 52.0));
}

#[test]
fn open_bandit_equals_the_files_and_warns_of_the_leak() {
    if !has_datasets() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pattern = shared_data("open-bandit").join("*/all/all.csv.gz");
    let run = run("open-bandit", "recommendations", &pattern, folder.path());
    let summary = run.summary();
    assert_eq!(figure(&summary, "ctr", "examples"), 20_000.0);
    assert_eq!(figure(&summary, "ctr", "positives"), 80.0);
    assert_eq!(summary["outcomes"]["click"], json!({"events": 80, "matched": 80}));
    assert!(summary.to_string().contains("anyAffinity"), "no warning of the leak: {summary}");
    let mut read = 0.0;
    run.for_each_example(|e| read += e["propensity"].as_f64().unwrap());
    let written: f64 = rows().iter().map(|(_, _, line)| line.split(',').nth(5).unwrap().parse::<f64>().unwrap()).sum();
    assert!((read - written).abs() < 1e-6, "propensities: {read} for {written}");
}

/// (time, policy, line) of all impressions in order of time.
fn rows() -> Vec<(i64, &'static str, String)> {
    let mut rows = Vec::new();
    for policy in ["bts", "random"] {
        let mut text = String::new();
        let path = shared_data("open-bandit").join(policy).join("all/all.csv.gz");
        flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        for line in text.lines().skip(1) {
            rows.push((parse_rfc3339(line.split(',').nth(1).unwrap()).unwrap(), policy, line.to_owned()));
        }
    }
    rows.sort();
    rows
}

fn header() -> String {
    let mut text = String::new();
    let path = shared_data("open-bandit/bts/all/all.csv.gz");
    flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().next().unwrap().to_owned()
}

/// Judged at every 1,000 examples: by runs over the first 1,000, 2,000, ... impressions.
#[test]
fn open_bandit_is_never_worse_than_the_base_rate() {
    if !has_datasets() {
        return;
    }
    let (rows, header) = (rows(), header());
    for n in (1_000..=rows.len()).step_by(1_000) {
        let folder = tempfile::tempdir().unwrap();
        for policy in ["bts", "random"] {
            let path: PathBuf = folder.path().join(format!("{policy}.csv"));
            let lines = rows[..n].iter().filter(|(_, p, _)| *p == policy).map(|(_, _, line)| line.as_str());
            write_lines(&path, [header.as_str()].into_iter().chain(lines));
        }
        let summary = run("open-bandit", "recommendations", &folder.path().join("*.csv"), folder.path()).summary();
        let (loss, base) = (figure(&summary, "ctr", "logLoss"), figure(&summary, "ctr", "baseLogLoss"));
        assert_eq!(figure(&summary, "ctr", "examples"), n as f64);
        assert!(loss <= 1.01 * base, "after {n}: {loss}, base rate {base}");
    }
}
