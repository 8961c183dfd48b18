//! Stopping, growing, trimming, running out of disk: what an operator meets in a week.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::{Ended, Run, Running, count, result, trace, write_lines};

fn signal(running: &Running, name: &str) {
    let sent = Command::new("kill").args([name, &running.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_stop_saves_everything_and_the_next_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, undisturbed) = trace(folder.path(), 30_000);
    let run = Run::new(&pipeline, &folder.path().join("stopped"));
    let mut read = 0;
    for name in ["-INT", "-TERM", "-INT"] {
        let mut running = run.clone().with(&["--max-rate", "8000"]).start();
        assert!(!running.ended_within(Duration::from_millis(700)));
        signal(&running, name);
        let summary = running.finish().summary();
        assert!(count(&summary, "read") > read, "it went on where it stopped: {summary}");
        read = count(&summary, "read");
        // What was told when it stopped is what is kept.
        let replay = run.other(&["replay"]).summary();
        assert_eq!(replay["equal"], true, "{replay}");
    }
    assert_eq!(result(&run.summary()), undisturbed);
}

#[test]
fn files_that_grow_are_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let pipeline = folder.path().join("pipeline.yaml");
    fs::write(folder.path().join("keys.txt"), "k: 000102030405060708090a0b0c0d0e0f\n").unwrap();
    fs::write(&pipeline, GROWING).unwrap();
    let line = |n: u64| {
        let kind = if n.is_multiple_of(3) { "click" } else { "impression" };
        format!(
            "{{\"type\":\"{kind}\",\"u\":\"u{}\",\"t\":{},\"item\":\"i{}\"}}\n",
            n % 7,
            1_000_000 + n * 1_000,
            n % 2
        )
    };
    let run = Run::new(&pipeline, &folder.path().join("data"));
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    for part in 0..3u64 {
        (part * 100..part * 100 + 100).for_each(|n| file.write_all(line(n).as_bytes()).unwrap());
        let summary = run.summary();
        assert_eq!(count(&summary, "read"), part * 100 + 100);
        assert_eq!(count(&summary, "accepted"), part * 100 + 100);
        let impressions = (0..part * 100 + 100).filter(|n| !n.is_multiple_of(3)).count() as u64;
        assert_eq!(summary["models"]["ctr"]["examples"], impressions, "all windows were closed at the end");
    }
    fs::write(&path, line(999)).unwrap();
    run.finish().refused(&["events.jsonl", "is not the file that was read before"]);
}

const GROWING: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: growing}
spec:
  partitions: 2
  privacy:
    pseudonymKeys: {file: keys.txt, active: k}
    user: {field: u}
    consent: {assumed: "a test"}
  sources:
  - name: events
    file: {path: events.jsonl}
    format: Json
    eventTime: {field: t, unit: ms, notAfter: "2000-01-01T00:00:00Z"}
    events:
    - {name: impression, when: {type: impression}, fields: {items: item}}
    - {name: click, when: {type: click}, fields: {items: item}}
  features:
    clicks: {count: click}
  outcomes:
    click: {event: click, join: item, within: 10s}
  models:
  - {name: ctr, outcome: click, features: [clicks, item]}
"#;

/// Two files that end and grow on two threads, and two models whose windows are far apart.
#[test]
fn several_files_grow_and_nothing_of_them_is_late() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("keys.txt"), "k: 000102030405060708090a0b0c0d0e0f\n").unwrap();
    fs::create_dir(folder.path().join("events")).unwrap();
    let pipeline = folder.path().join("pipeline.yaml");
    let yaml = GROWING.replace("path: events.jsonl", "path: events").replace(
        "  models:",
        "    later: {event: click, join: item, within: 7d}\n  models:\n  - {name: later, outcome: later, features: [clicks]}",
    );
    fs::write(&pipeline, yaml).unwrap();
    let run = Run::new(&pipeline, &folder.path().join("data")).with(&["--threads", "2"]);
    let mut impressions = 0;
    for day in 0..4u64 {
        for name in ["a.jsonl", "b.jsonl", "c.jsonl"] {
            let path = folder.path().join("events").join(name);
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
            for n in 0..2_000u64 {
                let t = day * 86_400_000 + n * 1_000;
                writeln!(file, "{{\"type\":\"impression\",\"u\":\"u{}\",\"t\":{t},\"item\":\"i\"}}", n % 50).unwrap();
                impressions += 1;
            }
        }
        let summary = run.summary();
        assert_eq!((count(&summary, "late"), count(&summary, "accepted")), (0, impressions), "day {day}: {summary}");
        for model in ["ctr", "later"] {
            assert_eq!(summary["models"][model]["examples"], impressions, "day {day}, {model}: {summary}");
        }
    }
}

#[test]
fn a_trimmed_log_is_replayed_from_the_oldest_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("keys.txt"), "k: 000102030405060708090a0b0c0d0e0f\n").unwrap();
    // Enough for several segments of the log's one partition.
    let line = |n: u64| {
        let kind = if n.is_multiple_of(3) { "click" } else { "impression" };
        format!("{{\"type\":\"{kind}\",\"u\":\"u{}\",\"t\":{},\"item\":\"i{}\"}}\n", n % 997, 1_000_000 + n * 10, n % 7)
    };
    write_lines(&folder.path().join("events.jsonl"), (0..300_000).map(line));
    let run = |name: &str, checkpoints: &str| {
        let pipeline = folder.path().join(format!("{name}.yaml"));
        fs::write(&pipeline, GROWING.replace("  partitions: 2", &format!("  partitions: 1\n  {checkpoints}"))).unwrap();
        Run::new(&pipeline, &folder.path().join(name))
    };
    let kept = run("kept", "checkpoints: {interval: 1m, retain: 1h}");
    let trimmed = run("trimmed", "checkpoints: {interval: 20ms, retain: 20ms}");
    let undisturbed = result(&kept.summary());
    assert_eq!(result(&trimmed.clone().with(&["--max-rate", "100000"]).summary()), undisturbed);
    for (run, since) in [(&kept, "beginning"), (&trimmed, "checkpoint")] {
        let replay = run.other(&["replay"]).summary();
        assert_eq!(replay["equal"], true, "{replay}");
        assert_eq!(replay["tasks"][0]["since"], since, "{replay}");
        assert_eq!(run.other(&["checkpoints", "verify"]).summary()["sound"], true);
    }
}

/// A file system of so many MiB, if this machine lets us have one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, mib: u32) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let options = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|m| m.status.success()).then(|| Self(path.to_owned()))
    }
    fn grow(&self, mib: u32) {
        let options = format!("remount,size={mib}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 90) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let (pipeline, undisturbed) = trace(folder.path(), 250_000);
    let run = Run::new(&pipeline, &disk.0.join("data"));
    let full: Ended = run.finish();
    full.refused(&["no space is left"]);
    let again = run.finish();
    again.refused(&["no space is left"]);
    disk.grow(2_000);
    assert_eq!(result(&run.summary()), undisturbed);
    assert_eq!(run.other(&["replay"]).summary()["equal"], true);
}
