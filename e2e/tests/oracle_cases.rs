//! The oracle itself, on cases whose answers are written out by hand, and against plain readings of real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use common::{example, has_datasets, shared_data};
use flate2::read::MultiGzDecoder;
use millrace_e2e::{
    oracle::{Oracle, OracleResult, OracleValue, parse_rfc3339},
    trace::{TraceConfig, write_trace},
};

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: little}
spec:
  partitions: 1
  privacy:
    pseudonymKeys: {file: keys.txt, active: k}
    user: {field: u}
    consent: {event: consent, grantedIf: {yes: true}}
    allowedAttributes: [item.c]
  sources:
  - name: s
    file: {path: "*.jsonl"}
    format: Json
    eventTime: {field: t, unit: s, maxOutOfOrderness: 10s, notAfter: "1970-01-02T00:00:00Z"}
    eventId: {field: id, dedupWithin: 100s}
    version: v
    drop: [{bot: true}]
    events:
    - {name: consent, when: {k: c}}
    - name: impression
      when: {k: i}
      fields: {decision: d, items: "x[].s", positions: "x[].p", attributes: {item.c: "x[].c"}}
      versions: {1: {items: old}}
    - {name: click, when: {k: o}, fields: {decision: d, items: s}}
  features:
    clicks: {count: click}
    recent: {count: click, window: 20s, buckets: 2}
    last: {last: click, of: item}
    ofC: {count: impression, by: item.c, bucket: {max: 1}}
  outcomes:
    byDecision: {event: click, join: decision, within: 50s}
    byItem: {event: click, join: item, within: 50s}
    byUser: {event: click, join: user, within: 50s}
  models:
  - {name: by-decision, outcome: byDecision, features: [clicks, recent, last, ofC]}
  - {name: by-item, outcome: byItem, features: [item]}
  - {name: by-user, outcome: byUser, features: [item.c]}
"#;

/// Runs the little pipeline over files of these lines.
fn run(files: &[&[&str]]) -> OracleResult {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pipeline.yaml"), PIPELINE).unwrap();
    for (n, lines) in files.iter().enumerate() {
        fs::write(dir.path().join(format!("{n}.jsonl")), lines.join("\n")).unwrap();
    }
    Oracle::open(&dir.path().join("pipeline.yaml"), &BTreeMap::new()).unwrap().with_values().run().unwrap()
}

/// (impression in seconds, item, label) of a model, in order.
fn labels(result: &OracleResult, model: &str) -> Vec<(i64, String, bool)> {
    result.examples[model].iter().map(|e| (e.impression / 1_000_000, e.item.clone(), e.label)).collect()
}

fn expect(wanted: &[(i64, &str, bool)]) -> Vec<(i64, String, bool)> {
    wanted.iter().map(|(t, item, label)| (*t, (*item).to_owned(), *label)).collect()
}

const GRANT: &str = r#"{"k":"c","t":1,"u":"a","yes":true}"#;

#[test]
fn an_outcome_labels_the_latest_eligible_impression() {
    let result = run(&[&[
        GRANT,
        r#"{"k":"i","t":10,"u":"a","d":"d1","x":[{"s":"p","p":1,"c":"c"},{"s":"q","p":2},{"s":"p","p":3}]}"#,
        r#"{"k":"i","t":20,"u":"a","d":"d2","x":[{"s":"q","p":1},{"s":"r","p":2}]}"#,
        r#"{"k":"o","t":21,"u":"a","d":"d1","s":"q"}"#,
        r#"{"k":"o","t":60,"u":"a","s":"p"}"#,
        r#"{"k":"o","t":71,"u":"a","d":"d2","s":"r"}"#,
    ]]);
    // Click 1 names d1; by item it is d2's. Click 2, at exactly 50 s, has no decision: p wherever it stood. Click 3 is too
    // late by a second for everything.
    assert_eq!(
        labels(&result, "by-decision"),
        expect(&[(10, "p", true), (10, "q", true), (10, "p", true), (20, "q", false), (20, "r", false)])
    );
    assert_eq!(
        labels(&result, "by-item"),
        expect(&[(10, "p", true), (10, "q", false), (10, "p", true), (20, "q", true), (20, "r", false)])
    );
    assert_eq!(
        labels(&result, "by-user"),
        expect(&[(10, "p", false), (10, "q", false), (10, "p", false), (20, "q", true), (20, "r", true)])
    );
    assert_eq!(result.outcomes["byDecision"].matched, 2);
    assert_eq!(result.outcomes["byUser"].events, 3);
    let first = &result.examples["by-decision"][2];
    assert_eq!((first.time, first.position), (60_000_000, 3));
}

#[test]
fn features_are_those_before_the_impression() {
    let result = run(&[&[
        GRANT,
        r#"{"k":"i","t":10,"u":"a","x":[{"s":"p","c":"c"},{"s":"q"}]}"#,
        r#"{"k":"o","t":12,"u":"a","s":"p"}"#,
        r#"{"k":"o","t":22,"u":"a","s":"q"}"#,
        r#"{"k":"i","t":35,"u":"a","x":[{"s":"p","c":"c"},{"s":"q","c":"e"}]}"#,
    ]]);
    let examples = &result.examples["by-decision"];
    let (number, category) = (OracleValue::Number, OracleValue::Category);
    assert_eq!(examples[0].values, [number(0.0), number(0.0), OracleValue::Missing, category(1)]);
    assert_eq!(examples[1].values[3], OracleValue::Missing, "no category to count by");
    assert_eq!(examples[2].values[..2], [number(2.0), number(1.0)], "buckets of 10 s: 20 to 40");
    assert_eq!(examples[2].values[3], category(2));
    assert_eq!(examples[3].values[3], category(1));
    assert_eq!(examples[2].values[2], category(xxhash_rust::xxh3::xxh3_64(b"q")));
    assert_eq!(result.profiles["a"]["clicks"], number(2.0));
}

#[test]
fn lateness_is_judged_against_what_came_before_in_the_file() {
    let result = run(&[
        &[
            GRANT,
            r#"{"k":"i","t":100,"u":"stranger","x":[{"s":"p"}]}"#,
            r#"{"k":"i","t":90,"u":"a","x":[{"s":"on time"}]}"#,
            r#"{"k":"i","t":89,"u":"a","x":[{"s":"late"}]}"#,
            r#"{"k":"i","t":90000,"u":"a","x":[{"s":"future"}]}"#,
            r#"{"k":"i","t":95,"v":1,"u":"a","old":"version 1"}"#,
        ],
        &[r#"{"k":"i","t":20,"v":3,"u":"a","x":[{"s":"another file"}]}"#],
    ]);
    let wanted = expect(&[(20, "another file", false), (90, "on time", false), (95, "version 1", false)]);
    assert_eq!(labels(&result, "by-item"), wanted);
    let counts = &result.counts;
    assert_eq!((counts.read, counts.accepted, counts.late, counts.future, counts.unconsented), (7, 4, 1, 1, 1));
}

#[test]
fn a_withdrawal_removes_the_user_and_is_never_late() {
    let yes = |t: i64| format!(r#"{{"k":"c","t":{t},"u":"a","yes":true}}"#);
    let no = |t: i64| format!(r#"{{"k":"c","t":{t},"u":"a","yes":false}}"#);
    let see = |t: i64| format!(r#"{{"k":"i","t":{t},"u":"a","x":[{{"s":"at{t}"}}]}}"#);
    let lines = [
        see(0),   // before consent
        yes(1),   //
        see(2),   // its window ends at 52
        see(9),   // open at 59
        no(59),   // at the very end of the window: no example
        see(60),  // unconsented
        yes(61),  //
        see(62),  // 112
        see(100), // lost: the late withdrawal acts at 90
        no(62),   // acts at 90, stated after the grant at 61
        yes(91),  //
        see(101), // stands
        no(70),   // late; the grant at 91 is later
        yes(50),  // late grant: nothing
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let result = run(&[&lines]);
    // At 100 the user was without consent from 90 to 91 only, so that impression counts again.
    let wanted = expect(&[(2, "at2", false), (100, "at100", false), (101, "at101", false)]);
    assert_eq!(labels(&result, "by-item"), wanted);
    assert_eq!((result.counts.unconsented, result.counts.late, result.counts.accepted), (2, 1, 11));
}

#[test]
fn a_withdrawal_from_the_future_acts_at_the_watermark() {
    let result = run(&[&[
        GRANT,
        r#"{"k":"i","t":30,"u":"a","x":[{"s":"p"}]}"#,
        r#"{"k":"c","t":90000,"u":"a","yes":false}"#,
        r#"{"k":"i","t":31,"u":"a","x":[{"s":"q"}]}"#,
        r#"{"k":"c","t":90000,"u":"a","yes":true}"#,
    ]]);
    assert_eq!(result.examples["by-item"], []);
    assert_eq!((result.counts.accepted, result.counts.unconsented, result.counts.future), (2, 2, 1));
}

#[test]
fn retries_count_once_in_merge_order() {
    let result = run(&[
        &[GRANT, r#"{"k":"i","t":10,"u":"a","id":1,"x":[{"s":"second"}]}"#],
        &[
            r#"{"k":"i","t":9,"u":"a","id":"1","x":[{"s":"first"}]}"#,
            r#"{"k":"i","t":109,"u":"a","id":1,"x":[{"s":"third"}]}"#,
            r#"{"k":"i","t":110,"u":"a","id":1,"x":[{"s":"fourth"}]}"#,
            r#"{"k":"o","t":110,"u":"b","id":1,"s":"fourth"}"#,
        ],
    ]);
    assert_eq!(labels(&result, "by-item"), expect(&[(9, "first", false), (110, "fourth", false)]));
    assert_eq!((result.counts.duplicate, result.counts.unconsented), (2, 1));
}

#[test]
fn what_cannot_be_read_is_counted() {
    let result = run(&[&[
        "{\"k\":",
        "[]",
        "{\"k\":\"i\",\"u\":\"a\"}",
        "{\"k\":\"?\",\"t\":1}",
        "{\"k\":\"i\",\"bot\":true}",
        "",
        "{\"k\":\"i\",\"t\":\"x\",\"u\":\"a\"}",
        "{\"k\":\"i\",\"t\":1e400}",
        "{\"k\":\"i\",\"t\":1}",
    ]]);
    let counts = &result.counts;
    assert_eq!((counts.read, counts.rejected_total(), counts.skipped_total(), counts.unconsented), (9, 5, 3, 1));
}

fn text(path: &Path) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn otto_matches_seven_of_ten_orders() {
    if !has_datasets() {
        return;
    }
    let file = shared_data("otto/train.jsonl");
    let result = run_example("otto", &[("sessions", &file)]);
    assert_eq!((result.outcomes["order"].events, result.outcomes["order"].matched), (10, 7));
    // A plain reading of the file: carts of a session before an order of the same article.
    let mut matched = 0;
    for line in fs::read_to_string(&file).unwrap().lines() {
        let session: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut carts = BTreeSet::new();
        for event in session["events"].as_array().unwrap() {
            match event["type"].as_str().unwrap() {
                "carts" => drop(carts.insert(event["aid"].as_i64().unwrap())),
                "orders" => matched += u64::from(carts.contains(&event["aid"].as_i64().unwrap())),
                _ => {}
            }
        }
    }
    assert_eq!(matched, 7);
    assert_eq!((result.counts.read, result.counts.accepted), (20, 862));
    assert_eq!(result.examples["order"].len(), 52);
}

#[test]
fn eshop_gives_the_reference_base_rate() {
    if !has_datasets() {
        return;
    }
    let result =
        run_example("eshop-clickstream", &[("clicks", &shared_data("eshop-clickstream/clicks-2008-04-to-06.csv.gz"))]);
    let examples = &result.examples["continues"];
    let positives = examples.iter().filter(|e| e.label).count();
    assert_eq!(examples.len(), 116_095);
    assert_eq!(examples.len() - positives, 17_031, "the last click of each session");
    assert!((positives as f64 / examples.len() as f64 - 0.8533).abs() < 5e-5);
}

#[test]
fn open_bandit_equals_a_plain_reading() {
    if !has_datasets() {
        return;
    }
    let pattern = shared_data("open-bandit").join("*/all/all.csv.gz");
    let result = run_example("open-bandit", &[("recommendations", &pattern)]);
    let mut wanted = Vec::new();
    for policy in ["bts", "random"] {
        for line in text(&shared_data("open-bandit").join(policy).join("all/all.csv.gz")).lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let time = parse_rfc3339(cells[1]).unwrap();
            wanted.push((
                time,
                cells[2].to_owned(),
                cells[3].parse().unwrap(),
                cells[5].parse().unwrap(),
                cells[4] == "1",
            ));
        }
    }
    let found: Vec<(i64, String, i32, f64, bool)> = result.examples["ctr"]
        .iter()
        .map(|e| (e.impression, e.item.clone(), e.position, e.propensity, e.label))
        .collect();
    wanted.sort_by(|a: &(i64, String, i32, f64, bool), b| a.partial_cmp(b).unwrap());
    let mut sorted = found;
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(sorted.len(), 20_000);
    assert_eq!(sorted.iter().filter(|e| e.4).count(), 80);
    assert_eq!(sorted, wanted);
}

fn run_example(name: &str, sources: &[(&str, &PathBuf)]) -> OracleResult {
    let sources = sources.iter().map(|(name, path)| ((*name).to_owned(), (*path).clone())).collect();
    Oracle::open(&example(name), &sources).unwrap().run().unwrap()
}

#[test]
fn a_trace_holds_everything_and_is_reproducible() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = TraceConfig { events: 60_000, users: 2_000, ..TraceConfig::default() };
    write_trace(one.path(), &config).unwrap();
    write_trace(two.path(), &config).unwrap();
    for file in ["shop/part-00.jsonl", "shop/part-01.jsonl.gz", "tills/till.csv"] {
        assert!(fs::read(one.path().join(file)).unwrap() == fs::read(two.path().join(file)).unwrap(), "{file}");
    }
    let result = Oracle::open(&one.path().join("pipeline.yaml"), &BTreeMap::new()).unwrap().run().unwrap();
    let counts = &result.counts;
    println!("{counts:?} {:?}", result.outcomes);
    assert!(counts.late > 100 && counts.future > 100 && counts.duplicate > 100 && counts.unconsented > 1_000);
    assert!(counts.rejected_total() > 500 && counts.rejected.len() > 2 && counts.skipped.len() == 2);
    for (model, examples) in &result.examples {
        let positives = examples.iter().filter(|e| e.label).count();
        assert!(positives > examples.len() / 100 && positives < examples.len() / 2, "{model}: {positives}");
    }
}
