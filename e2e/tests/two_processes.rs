//! Two processes on one data folder: one works, the other is refused, and takes over once the first is dead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{fs, time::Duration};

use common::{Run, Running, result, trace};
use millrace_e2e::rng::Rng;

const KILLS: usize = 100;

/// Does the folder's lock name this process?
fn holds(run: &Run, process: &Running) -> bool {
    fs::read_to_string(run.data.join("lock")).is_ok_and(|holder| holder.trim() == process.id().to_string())
}

#[test]
fn one_of_two_works_and_a_hundred_kills_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, undisturbed) = trace(folder.path(), 60_000);
    let run = Run::new(&pipeline, &folder.path().join("shared"));
    let slow = run.clone().with(&["--max-rate", "2000"]);
    let (mut rng, mut took_over, mut refused) = (Rng::new(7), 0, 0);
    let mut first = slow.start();
    first.until("the first one has the folder", || run.data.join("pipeline.json").exists());
    for n in 0..KILLS {
        let mut second = slow.start();
        if n % 10 == 0 && holds(&run, &first) {
            // Whoever comes second is told who is there.
            second.finish().refused(&[&first.id().to_string()]);
            refused += 1;
            second = slow.start();
        }
        let wait = Duration::from_millis(rng.below(250));
        assert!(!first.ended_within(wait), "the one that works goes on: {:?}", first.finish());
        if rng.per_mille(300) {
            second.kill();
            continue;
        }
        first.kill();
        let verified = run.other(&["checkpoints", "verify"]);
        assert!(verified.status.success(), "after kill {n}: {verified:?}");
        // It may have been refused a moment before the first one died: somebody starts it again.
        while !holds(&run, &second) {
            if second.ended_within(Duration::from_millis(2)) {
                second = slow.start();
            }
        }
        took_over += 1;
        first = second;
    }
    first.kill();
    assert!(took_over > KILLS / 2 && refused > KILLS / 20, "{took_over} took over, {refused} were refused");
    assert_eq!(result(&run.summary()), undisturbed);
}
