//! Whatever arrives becomes a dead letter or a counted skip; whatever is wrong around the process is a clear error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use common::{Run, count, files_below, result, trace, write_lines};
use millrace_e2e::rng::Rng;
use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: NAME}
spec:
  partitions: 2
  privacy:
    pseudonymKeys: {file: keys.txt, active: k}
    user: {field: u}
    consent: {assumed: generated}
    allowedAttributes: [item.c]
  sources:
  - name: s
    file: {path: "input/*"}
    format: Json
    eventTime:
      field: t
      unit: ms
      maxOutOfOrderness: 1h
      notBefore: "2020-01-01T00:00:00Z"
      notAfter: "2030-01-01T00:00:00Z"
    eventId: {field: id, dedupWithin: 1h}
    version: v
    events:
    - name: impression
      when: {k: i}
      fields: {items: "x[].s", positions: "x[].p", values: "x[].v", attributes: {item.c: "x[].c"}}
      versions: {1: {positions: "x[].pos"}}
    - {name: click, when: {k: o}, fields: {items: s, value: v}}
  features:
    clicks: {count: click}
    spent: {sum: click, of: value}
  outcomes:
    click: {event: click, join: item, within: 10m}
  models:
  - {name: ctr, outcome: click, features: [clicks, spent, item, item.c]}
"#;

const T: i64 = 1_700_000_000_000;

/// A folder with a pipeline and the files of its input.
struct Setup {
    folder: TempDir,
}

impl Setup {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pipeline.yaml"), PIPELINE.replace("NAME", name)).unwrap();
        fs::write(folder.path().join("keys.txt"), "k: 00112233445566778899aabbccddeeff\n").unwrap();
        fs::create_dir(folder.path().join("input")).unwrap();
        Self { folder }
    }
    fn input(&self, name: &str, lines: &[Vec<u8>]) -> PathBuf {
        let path = self.folder.path().join("input").join(name);
        write_lines(&path, lines);
        path
    }
    fn run(&self) -> Run {
        self.run_in(&self.folder.path().join("data"))
    }
    fn run_in(&self, data: &Path) -> Run {
        Run::new(&self.folder.path().join("pipeline.yaml"), data)
    }
}

fn good(n: usize) -> Vec<u8> {
    let (t, user, item) = (T + n as i64 * 100, n % 50, n % 7);
    if n % 3 == 2 {
        format!(r#"{{"k":"o","t":{t},"u":"u{user}","s":"p{item}","v":2.5}}"#).into_bytes()
    } else {
        format!(r#"{{"k":"i","t":{t},"u":"u{user}","x":[{{"s":"p{item}","p":1,"c":"a"}}]}}"#).into_bytes()
    }
}

/// Records of which none may be accepted.
fn never_accepted() -> Vec<Vec<u8>> {
    let impression = |t: &str| format!(r#"{{"k":"i","t":{t},"u":"u1","x":[{{"s":"p1"}}]}}"#);
    let mut lines: Vec<Vec<u8>> = [
        "{",
        "}",
        "[]",
        "null",
        "1",
        "\"text\"",
        "{\"k\":\"i\"",
        "{\"k\":\"i\",}",
        "{'k':'i'}",
        "{\"k\":\"unknown\",\"t\":1}",
        "{\"t\":1700000000000,\"u\":\"u1\"}",
        "{\"k\":[],\"t\":1700000000000,\"u\":\"u1\"}",
        "\u{feff}{}",
        "\0\0\0",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let times = [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1e300",
        "9223372036854775807",
        "-9223372036854775808",
        "99999999999999999999999",
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "\"2020-13-45T00:00:00Z\"",
        "\"0001-01-01T00:00:00Z\"",
        "\"9999-12-31T23:59:59Z\"",
        "-62135596800000",
        "253402300799000",
        "0x10",
        "1_000",
    ];
    lines.extend(times.iter().map(|t| impression(t).into_bytes()));
    for user in ["\"\"", "null"] {
        lines.push(format!(r#"{{"k":"i","t":{T},"u":{user},"x":[{{"s":"p1"}}]}}"#).into_bytes());
    }
    lines.push(b"{\"k\":\"i\",\"t\":1700000000000,\"u\":\"\xff\xfe\",\"x\":[]}".to_vec());
    lines.push(format!("{{\"k\":\"i\",\"deep\":{}", "[".repeat(1_000_000)).into_bytes());
    lines.push(format!("{{\"k\":\"i\",\"deep\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000)).into_bytes());
    lines.push(format!("{{\"k\":\"i\",\"t\":{T},\"u\":\"u1\",\"x\":\"{}\"}}", "y".repeat(10_000_000)).into_bytes());
    lines.push(vec![b'x'; 10_000_000]);
    lines
}

/// Records of which some may be accepted, as far as they can be read.
fn doubtful() -> Vec<Vec<u8>> {
    let long = "z".repeat(100_000);
    let many: String = (0..70_000).map(|n| format!(r#"{{"s":"p{n}"}},"#)).collect();
    let mut lines: Vec<String> = [
        "1",
        "\"p\"",
        "null",
        "{}",
        "[1,2]",
        "[null]",
        "[[]]",
        "[{\"s\":{}}]",
        "[{\"s\":null}]",
        "[{\"s\":true}]",
        "[{\"s\":\"\"}]",
        "[{\"s\":\"p\",\"p\":\"one\"}]",
        "[{\"s\":\"p\",\"p\":1e99}]",
        "[{\"s\":\"p\",\"p\":-5}]",
        "[{\"s\":\"p\",\"v\":1e308}]",
        "[{\"s\":\"p\",\"c\":[]}]",
        "[{\"s\":\"p\",\"c\":{\"a\":1}}]",
        "[{\"s\":\"\\u0000\"}]",
        "[{\"s\":\"\\ud800\"}]",
    ]
    .iter()
    .map(|x| format!(r#"{{"k":"i","t":{T},"u":"u1","x":{x}}}"#))
    .collect();
    lines.push(format!(r#"{{"k":"i","t":{T},"u":"{long}","x":[{{"s":"p1"}}]}}"#));
    lines.push(format!(r#"{{"k":"i","t":{T},"u":"u1","id":"{long}","x":[{{"s":"{long}","c":"{long}"}}]}}"#));
    lines.push(format!(r#"{{"k":"i","t":{T},"u":"u1","x":[{many}{{"s":"last"}}]}}"#));
    for version in ["0", "1", "2", "99", "-1", "\"x\"", "null", "{}", "1e99"] {
        lines.push(format!(r#"{{"k":"i","v":{version},"t":{T},"u":"u1","x":[{{"s":"p1"}}]}}"#));
    }
    for user in ["1", "1.5", "true", "[]", "{}", "{\"u\":1}", "-0", "1e30"] {
        lines.push(format!(r#"{{"k":"i","t":{T},"u":{user},"x":[{{"s":"p1"}}]}}"#));
    }
    lines.push(format!(r#"{{"k":"o","t":{T},"u":"u1","s":"p1","v":1e308}}"#));
    lines.push(format!(r#"{{"k":"i","k":"o","t":{T},"u":"u1","u":"u2","s":"p1"}}"#));
    lines.into_iter().map(String::into_bytes).collect()
}

/// Every record became something.
fn adds_up(summary: &Value) {
    let parts = ["accepted", "late", "future", "duplicate", "unconsented", "rejected", "skipped"];
    let sum: u64 = parts.iter().map(|part| count(summary, part)).sum();
    assert_eq!(count(summary, "read"), sum, "{summary}");
    for figure in ["logLoss", "auc", "calibration"] {
        assert!(summary["models"]["ctr"][figure].as_f64().is_some_and(f64::is_finite), "{figure} in {summary}");
    }
}

#[test]
fn what_cannot_be_read_stops_nothing() {
    let setup = Setup::new("hostile");
    let bad = never_accepted();
    let mut lines: Vec<Vec<u8>> = (0..1_000).map(good).collect();
    for (n, line) in bad.iter().enumerate() {
        lines.insert(1 + n * 10, line.clone());
    }
    setup.input("a.jsonl", &lines);
    let summary = setup.run().summary();
    adds_up(&summary);
    assert_eq!((count(&summary, "accepted"), count(&summary, "read")), (1_000, 1_000 + bad.len() as u64), "{summary}");
}

#[test]
fn doubtful_records_and_garbage_stop_nothing() {
    let setup = Setup::new("hostile");
    let mut lines: Vec<Vec<u8>> = (0..1_000).map(good).collect();
    lines.extend(doubtful());
    let mut rng = Rng::new(11);
    for _ in 0..2_000 {
        lines.push((0..rng.below(300)).map(|_| rng.below(256) as u8).collect());
    }
    // Records with one byte changed, cut or added.
    for n in 0..5_000 {
        let mut line = good(n);
        let at = rng.below(line.len() as u64) as usize;
        match rng.below(3) {
            0 => line[at] = rng.below(256) as u8,
            1 => line.truncate(at),
            _ => line.insert(at, rng.below(256) as u8),
        }
        lines.push(line);
    }
    lines.extend((1_000..2_000).map(good));
    setup.input("a.jsonl", &lines);
    let summary = setup.run().summary();
    adds_up(&summary);
    // A changed digit of a time can make what follows late.
    assert!(count(&summary, "accepted") >= 1_000, "{summary}");
    assert!(count(&summary, "accepted") + count(&summary, "late") >= 2_000, "{summary}");
}

#[test]
fn a_cut_gzip_gives_what_it_has() {
    let setup = Setup::new("hostile");
    let lines: Vec<Vec<u8>> = (0..20_000).map(good).collect();
    setup.input("b.jsonl", &lines[..500]);
    let path = setup.input("a.jsonl.gz", &lines);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let summary = setup.run().summary();
    let accepted = count(&summary, "accepted");
    assert!((500 + 1_000..500 + 20_000).contains(&accepted) && count(&summary, "rejected") >= 1, "{summary}");
    // What is no gzip at all.
    fs::write(&path, b"{\"k\":\"i\"}\n").unwrap();
    let other = setup.run_in(&setup.folder.path().join("other")).summary();
    assert!(count(&other, "accepted") == 500 && count(&other, "rejected") >= 1, "{other}");
}

fn small() -> Setup {
    let setup = Setup::new("small");
    setup.input("a.jsonl", &(0..5_000).map(good).collect::<Vec<_>>());
    setup
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let setup = small();
    // Nobody can make a folder there, root neither.
    setup.run_in(Path::new("/proc/millrace-data")).finish().refused(&["/proc/millrace-data"]);
    let file = setup.folder.path().join("pipeline.yaml").join("below-a-file");
    setup.run_in(&file).finish().refused(&["below-a-file"]);
}

#[test]
fn a_folder_of_another_pipeline_is_refused_and_left_alone() {
    let (setup, other) = (small(), Setup::new("another"));
    other.input("a.jsonl", &[good(1)]);
    let first = result(&setup.run().summary());
    other.run_in(&setup.run().data).finish().refused(&["small", "another"]);
    assert_eq!(result(&setup.run().summary()), first);
}

#[test]
fn the_second_process_on_a_folder_is_refused() {
    let setup = small();
    let mut first = setup.run().with(&["--max-rate", "5"]).start();
    first.until("the folder is in use", || setup.run().data.is_dir() && !files_below(&setup.run().data).is_empty());
    let data = setup.run().data.display().to_string();
    // The second may not win either: the first must still be there afterwards.
    setup.run().finish().refused(&[&data]);
    assert!(!first.ended_within(std::time::Duration::ZERO));
    first.kill();
    assert_eq!(count(&setup.run().summary(), "accepted"), 5_000);
}

#[test]
fn an_occupied_port_is_an_error() {
    let setup = small();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    setup.run().with(&["--metrics-address", &address]).finish().refused(&[&address]);
    assert_eq!(count(&setup.run().summary(), "accepted"), 5_000);
}

#[test]
fn missing_input_and_wrong_arguments_are_errors() {
    let setup = Setup::new("empty");
    setup.run().finish().refused(&["input"]);
    setup.run().source("nobody", Path::new("x")).finish().refused(&["nobody"]);
    Run::new(&setup.folder.path().join("none.yaml"), &setup.run().data).finish().refused(&["none.yaml"]);
}

/// Flips a byte in the middle of the newest file whose path holds `part` and not `not`.
fn damage(data: &Path, part: &str, not: &str) -> PathBuf {
    let name = |path: &PathBuf| path.strip_prefix(data).unwrap().display().to_string();
    let mut files = files_below(data);
    files
        .retain(|path| name(path).contains(part) && !name(path).contains(not) && fs::metadata(path).unwrap().len() > 0);
    let newest = files.into_iter().max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let newest = newest.unwrap_or_else(|| panic!("no {part} in {}", data.display()));
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&newest, bytes).unwrap();
    newest
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, undisturbed) = trace(folder.path(), 60_000);
    let run = Run::new(&pipeline, &folder.path().join("damaged"));
    for _part in 0..3 {
        let mut running = run.clone().with(&["--max-rate", "10000"]).start();
        assert!(!running.ended_within(std::time::Duration::from_millis(1_500)));
        running.kill();
    }
    let name = loop {
        let damaged = damage(&run.data, "/delta-", ".tmp");
        let name = damaged.file_name().unwrap().to_string_lossy().into_owned();
        if run.other(&["checkpoints", "verify"]).stdout.contains(&name) {
            break name;
        }
        // It was written just before a kill: no manifest names it, and it matters to nobody.
        fs::remove_file(&damaged).unwrap();
    };
    assert!(!run.other(&["checkpoints", "verify"]).status.success());
    let ended = run.finish();
    assert!(ended.stderr.contains(&name), "the damaged file is not named: {}", ended.stderr);
    assert_eq!(result(&ended.summary()), undisturbed);
}
