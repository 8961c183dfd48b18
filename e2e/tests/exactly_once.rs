//! The same input gives the same profiles and models, bit for bit, however often it is killed and however it is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{path::Path, time::Duration};

use common::{Run, count, example, has_datasets, result, shared_data};
use millrace_e2e::{
    rng::Rng,
    trace::{TraceConfig, write_trace},
};
use serde_json::Value;

const KILLS: u32 = 20;

/// A trace in a folder of its own, and its result when nothing disturbs the run.
struct Traced {
    folder: tempfile::TempDir,
    undisturbed: Value,
}

impl Traced {
    fn new(events: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_trace(folder.path(), &TraceConfig { events, users: events / 50, ..TraceConfig::default() }).unwrap();
        let mut traced = Self { folder, undisturbed: Value::Null };
        let summary = traced.run("undisturbed").summary();
        assert!(count(&summary, "read") >= events, "{summary}");
        traced.undisturbed = result(&summary);
        traced
    }
    fn run(&self, name: &str) -> Run {
        Run::new(&self.folder.path().join("pipeline.yaml"), &self.folder.path().join(name))
    }
    fn same(&self, name: &str, arguments: &[&str]) {
        assert_eq!(result(&self.run(name).with(arguments).summary()), self.undisturbed, "{name}");
    }
}

/// Kills a run again and again at random moments, `rate` low enough that it cannot end before, then lets it end.
fn killed(run: &Run, rate: u64, seed: u64) -> Value {
    let mut rng = Rng::new(seed);
    let slow = run.clone().with(&["--max-rate", &rate.to_string()]);
    for kill in 0..KILLS {
        let mut running = slow.start();
        // Some die before they have opened anything, some in the middle of a checkpoint.
        if running.ended_within(Duration::from_millis(rng.range(5, 1_000))) {
            let ended = running.finish();
            panic!("it ended before kill {kill}: {} {}", ended.stdout, ended.stderr);
        }
        running.kill();
    }
    let learned = |run: &Run| {
        let mut examples = 0;
        run.for_each_example(|_| examples += 1);
        examples
    };
    let at_last_kill = learned(run);
    let summary = run.summary();
    let all = learned(run);
    assert!(0 < at_last_kill && at_last_kill < all, "not killed in the middle: {at_last_kill} of {all} examples");
    result(&summary)
}

#[test]
fn a_million_events_survive_twenty_kills() {
    let traced = Traced::new(1_000_000);
    assert_eq!(killed(&traced.run("killed"), 60_000, 1), traced.undisturbed);
    assert_eq!(traced.run("killed").other(&["replay"]).summary()["equal"], true);
}

#[test]
fn more_kills_at_other_moments() {
    let traced = Traced::new(100_000);
    for seed in 2..4 {
        assert_eq!(killed(&traced.run(&format!("killed {seed}")), 5_000, seed), traced.undisturbed, "seed {seed}");
    }
    let odd = traced.run("killed, odd").with(&["--threads", "1", "--frame-bytes", "3000"]);
    assert_eq!(killed(&odd, 5_000, 4), traced.undisturbed);
}

#[test]
fn threads_and_frames_do_not_matter() {
    let traced = Traced::new(100_000);
    traced.same("one thread", &["--threads", "1"]);
    traced.same("three threads", &["--threads", "3"]);
    traced.same("tiny frames", &["--frame-bytes", "1"]);
    traced.same("small frames", &["--frame-bytes", "700"]);
    traced.same("large frames", &["--frame-bytes", "1000000"]);
}

#[test]
fn read_order_does_not_matter() {
    let traced = Traced::new(100_000);
    for seed in ["1", "2", "3"] {
        traced.same(&format!("read order {seed}"), &["--read-order", seed]);
    }
}

#[test]
fn eshop_survives_twenty_kills() {
    if !has_datasets() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = shared_data("eshop-clickstream/clicks-2008-04-to-06.csv.gz");
    let run = |name: &str| {
        Run::new(&example("eshop-clickstream"), &folder.path().join(name)).source("clicks", Path::new(&data))
    };
    let undisturbed = result(&run("undisturbed").summary());
    assert_eq!(killed(&run("killed"), 7_000, 5), undisturbed);
    assert_eq!(run("killed").other(&["replay"]).summary()["equal"], true);
}

#[test]
fn a_run_over_what_is_done_changes_nothing() {
    let traced = Traced::new(20_000);
    traced.same("undisturbed", &[]);
    traced.same("undisturbed", &["--threads", "1"]);
}
