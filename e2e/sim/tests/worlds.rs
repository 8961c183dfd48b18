//! A fixed set of worlds, on every change. More: `make sim SEEDS=10000`.

use std::sync::atomic::{AtomicU64, Ordering};

use millrace_sim::{ground::Ground, scenario::Scenario, simulate};

const SEEDS: u64 = 500;

#[test]
fn nothing_that_must_never_happen_happens() {
    let ground = Ground::new().unwrap();
    let (next, crashes, moves) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
    let all = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > SEEDS {
                return;
            }
            match simulate(&ground, &Scenario::drawn(seed), None).unwrap() {
                Ok(report) => {
                    crashes.fetch_add(report.task_crashes, Ordering::Relaxed);
                    moves.fetch_add(report.moves, Ordering::Relaxed);
                }
                Err((violation, report)) => panic!("seed {seed}, tick {}: {violation:?}", report.ticks),
            }
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(all)));
    });
    let (crashes, moves) = (crashes.into_inner(), moves.into_inner());
    assert!(crashes > 5_000 && moves > 4_000, "{crashes} crashes and {moves} moves prove little");
}

#[test]
fn the_same_seed_is_the_same_world() {
    let ground = Ground::new().unwrap();
    let trace = |seed| simulate(&ground, &Scenario::drawn(seed), None).unwrap().unwrap().trace_hash;
    for seed in [3, 7] {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(3), trace(7));
}

/// Worlds that once failed, as small as they could be made.
#[test]
fn scenarios_that_are_kept_stay_mended() {
    let ground = Ground::new().unwrap();
    let folder = std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("scenarios");
    let mut all = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::from_text(&std::fs::read_to_string(&path).unwrap()).unwrap();
        if let Err((violation, _)) = simulate(&ground, &scenario, None).unwrap() {
            panic!("{}: {violation:?}", path.display());
        }
        all += 1;
    }
    assert!(all > 0);
}
