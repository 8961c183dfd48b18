//! The examples and counts of the binary are those that the oracle computes from the raw files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use common::{Run, count, example, has_datasets, shared_data};
use millrace_e2e::{
    oracle::{Oracle, OracleExample, OracleResult, OracleValue, parse_rfc3339},
    trace::{TraceConfig, write_trace},
};
use serde_json::Value;

/// What tells an example, in the same form from both sides.
type Head = (i64, i64, String, i64, bool, String, String, String);

fn head_of_oracle(e: &OracleExample) -> Head {
    let propensity = if e.propensity.is_nan() { "none".to_owned() } else { format!("{:?}", e.propensity) };
    let (placement, platform) = (e.placement.clone(), e.platform.clone());
    (e.time, e.impression, e.item.clone(), e.position.into(), e.label, propensity, placement, platform)
}

fn head_of_binary(e: &Value) -> Head {
    let time =
        |name: &str| e[name].as_i64().or_else(|| parse_rfc3339(e[name].as_str()?)).unwrap_or_else(|| panic!("{e}"));
    let text = |name: &str| e[name].as_str().unwrap_or_default().to_owned();
    let propensity = e["propensity"].as_f64().map_or_else(|| "none".to_owned(), |p| format!("{p:?}"));
    let position = e["position"].as_i64().unwrap_or(-1);
    let label = e["label"].as_bool().or_else(|| Some(e["label"].as_u64()? == 1)).unwrap_or_else(|| panic!("{e}"));
    (time("time"), time("impression"), text("item"), position, label, propensity, text("placement"), text("platform"))
}

fn same_value(oracle: &OracleValue, binary: &Value) -> bool {
    match oracle {
        OracleValue::Unknown => true,
        OracleValue::Missing => binary.is_null(),
        OracleValue::Number(x) => binary.as_f64().is_some_and(|y| (x - y).abs() <= 1e-9 * x.abs().max(1.0)),
        OracleValue::Category(c) => {
            let text = binary.as_str().unwrap_or_default();
            binary.as_u64() == Some(*c) || text == c.to_string() || text == format!("{c:016x}")
        }
    }
}

/// Compares counts, outcomes, and examples of every model as multisets, with the values of plain columns.
fn compare(oracle: &OracleResult, run: &Run) {
    let summary = run.summary();
    let wanted = &oracle.counts;
    let plain = ["read", "accepted", "late", "future", "duplicate", "unconsented", "rejected", "skipped"];
    let found: Vec<u64> = plain.iter().map(|name| count(&summary, name)).collect();
    let counts = [wanted.read, wanted.accepted, wanted.late, wanted.future, wanted.duplicate, wanted.unconsented];
    assert_eq!(found[..6], counts, "{plain:?}: {summary}");
    assert_eq!(found[6..], [wanted.rejected_total(), wanted.skipped_total()], "rejected and skipped: {summary}");
    for (name, outcome) in &oracle.outcomes {
        let found = &summary["outcomes"][name];
        assert_eq!((&found["events"], &found["matched"]), (&outcome.events.into(), &outcome.matched.into()), "{name}");
    }
    let with_values = oracle.examples.values().flatten().any(|e| !e.values.is_empty());
    let mut found: BTreeMap<String, Vec<(Head, Value)>> = BTreeMap::new();
    run.for_each_example(|mut e| {
        let values = if with_values { e["values"].take() } else { Value::Null };
        found.entry(e["model"].as_str().unwrap().to_owned()).or_default().push((head_of_binary(&e), values));
    });
    assert_eq!(found.keys().collect::<BTreeSet<_>>(), oracle.examples.keys().collect::<BTreeSet<_>>());
    for (model, found) in found {
        compare_model(&model, &oracle.columns[&model], &oracle.examples[&model], found);
    }
}

fn compare_model(model: &str, columns: &[String], oracle: &[OracleExample], mut found: Vec<(Head, Value)>) {
    let mut wanted: Vec<(Head, &OracleExample)> = oracle.iter().map(|e| (head_of_oracle(e), e)).collect();
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let head = |n: usize| (wanted.get(n).map(|w| &w.0), found.get(n).map(|f| &f.0));
    if let Some((wanted_at, found_at)) = (0..wanted.len().max(found.len())).map(head).find(|(w, f)| w != f) {
        panic!("{model}: {} for {}; first other: {found_at:?} for {wanted_at:?}", found.len(), wanted.len());
    }
    for at in 0..wanted.len() {
        // Where two examples look the same from outside, which is which is unknown.
        let twin = |n: Option<usize>| n.and_then(|n| wanted.get(n)).is_some_and(|w| w.0 == wanted[at].0);
        if wanted[at].1.values.is_empty() || twin(at.checked_sub(1)) || twin(Some(at + 1)) {
            continue;
        }
        for (column, value) in columns.iter().zip(&wanted[at].1.values) {
            let binary = &found[at].1[column];
            assert!(same_value(value, binary), "{model}.{column}: {binary} for {value:?} in {:?}", wanted[at].0);
        }
    }
}

#[test]
fn trace_with_feature_values() {
    let folder = tempfile::tempdir().unwrap();
    let config = TraceConfig { seed: 3, events: 100_000, users: 3_000, ..TraceConfig::default() };
    write_trace(folder.path(), &config).unwrap();
    let pipeline = folder.path().join("pipeline.yaml");
    let oracle = Oracle::open(&pipeline, &BTreeMap::new()).unwrap().with_values().run().unwrap();
    compare(&oracle, &Run::new(&pipeline, &folder.path().join("data")));
}

#[test]
fn trace_of_a_million() {
    let folder = tempfile::tempdir().unwrap();
    write_trace(folder.path(), &TraceConfig::default()).unwrap();
    let pipeline = folder.path().join("pipeline.yaml");
    let oracle = Oracle::open(&pipeline, &BTreeMap::new()).unwrap().run().unwrap();
    compare(&oracle, &Run::new(&pipeline, &folder.path().join("data")));
}

fn real(name: &str, source: &str, path: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let sources: BTreeMap<String, PathBuf> = [(source.to_owned(), path.to_owned())].into();
    let oracle = Oracle::open(&example(name), &sources).unwrap().with_values().run().unwrap();
    compare(&oracle, &Run::new(&example(name), &folder.path().join("data")).source(source, path));
}

#[test]
fn real_data() {
    if !has_datasets() {
        return;
    }
    real("eshop-clickstream", "clicks", &shared_data("eshop-clickstream/clicks-2008-04-to-06.csv.gz"));
    real("open-bandit", "recommendations", &shared_data("open-bandit").join("*/all/all.csv.gz"));
    real("otto", "sessions", &shared_data("otto/train.jsonl"));
}
