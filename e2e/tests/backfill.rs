//! Two sources hours apart, with nights between their records, one a hundred times the other: bounded memory, no
//! deadlock, the same result.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{Run, count, result, write_lines};
use millrace_e2e::{oracle::Oracle, rng::Rng};
use serde_json::Value;

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: backfill}
spec:
  partitions: 4
  ordering: {maxSkew: 2m}
  privacy:
    pseudonymKeys: {file: keys.txt, active: k}
    user: {field: u}
    consent: {assumed: generated}
  sources:
  - name: big
    file: {path: "big/*.jsonl"}
    format: Json
    eventTime: {field: t, unit: ms, maxOutOfOrderness: 1m, notAfter: "2030-01-01T00:00:00Z"}
    events:
    - {name: impression, fields: {items: s, positions: p}}
  - name: small
    file: {path: "small/*.jsonl"}
    format: Json
    eventTime: {field: t, unit: ms, maxOutOfOrderness: 10s, notAfter: "2030-01-01T00:00:00Z"}
    events:
    - {name: click, fields: {items: s}}
  features:
    clicks: {count: click, window: 1d}
    shown: {count: impression}
  outcomes:
    click: {event: click, join: item, within: 30m}
  models:
  - {name: ctr, outcome: click, features: [clicks, shown, item]}
"#;

const HOUR: u64 = 3_600_000;
const START: u64 = 1_750_000_000_000;

/// `n` records spread over days of `day` hours from `first` on, with nights between; `days` of them.
fn times(rng: &mut Rng, n: u64, first: u64, day: u64, days: u64) -> Vec<u64> {
    let mut times: Vec<u64> =
        (0..n).map(|_| START + first * HOUR + rng.below(days) * 24 * HOUR + rng.below(day * HOUR)).collect();
    times.sort_unstable();
    // A little out of order, within both sources' bounds.
    times.iter().map(|t| t - rng.below(9_000)).collect()
}

/// The big source is awake from 0 to 12 h, in two files, the small one from 11 to 15 h, and it has a day more.
fn write(folder: &Path, big: u64) -> Run {
    let mut rng = Rng::new(5);
    fs::create_dir_all(folder.join("big")).unwrap();
    fs::create_dir_all(folder.join("small")).unwrap();
    fs::write(folder.join("pipeline.yaml"), PIPELINE).unwrap();
    fs::write(folder.join("keys.txt"), "k: 00112233445566778899aabbccddeeff\n").unwrap();
    let mut records = |n: u64, first: u64, day: u64, days: u64| -> Vec<String> {
        let mut of = Rng::new(rng.next_u64());
        let line =
            |t: u64| format!(r#"{{"t":{t},"u":"u{}","s":"p{}","p":{}}}"#, of.below(500), of.below(5), of.below(4));
        times(&mut rng, n, first, day, days).into_iter().map(line).collect()
    };
    write_lines(&folder.join("big/a.jsonl"), records(big * 9 / 10, 0, 12, 6));
    write_lines(&folder.join("big/b.jsonl"), records(big / 10, 30, 6, 3));
    write_lines(&folder.join("small/a.jsonl"), records(big / 100, 11, 4, 7));
    Run::new(&folder.join("pipeline.yaml"), &folder.join("data"))
}

/// Runs it and returns its summary and the peak of its resident memory in MiB.
fn measured(run: &Run) -> (Value, u64) {
    let mut running = run.start();
    let mut peak_kib = 0;
    while !running.ended_within(std::time::Duration::from_millis(2)) {
        peak_kib = running.peak_kib().unwrap_or_default().max(peak_kib);
    }
    (running.finish().summary(), peak_kib / 1024)
}

#[test]
fn nights_and_sizes_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let run = write(folder.path(), 100_000);
    let oracle = Oracle::open(&run.pipeline, &BTreeMap::new()).unwrap().run().unwrap();
    let summary = run.summary();
    assert_eq!((count(&summary, "accepted"), count(&summary, "late")), (oracle.counts.accepted, 0));
    assert!(oracle.outcomes["click"].matched > 10, "{:?}", oracle.outcomes);
    assert_eq!(summary["outcomes"]["click"]["matched"], oracle.outcomes["click"].matched);
    assert_eq!(summary["models"]["ctr"]["examples"], oracle.examples["ctr"].len());
    for (name, arguments) in [
        ("one thread", &["--threads", "1"][..]),
        ("small frames", &["--frame-bytes", "500"]),
        ("another order", &["--read-order", "1"]),
    ] {
        let other = Run { data: folder.path().join(name), ..run.clone() }.with(arguments).summary();
        assert_eq!(result(&other), result(&summary), "{name}");
    }
}

#[test]
fn memory_does_not_grow_with_the_input() {
    let (one, ten) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, small_mib) = measured(&write(one.path(), 100_000));
    let (summary, large_mib) = measured(&write(ten.path(), 1_000_000));
    assert_eq!(count(&summary, "late"), 0);
    // What waits for the lowest watermark would be 1 GB if it were not bounded.
    assert!(large_mib < 300, "{large_mib} MiB");
    assert!(large_mib < small_mib + 150, "{small_mib} MiB for a tenth of the input, {large_mib} MiB");
}
