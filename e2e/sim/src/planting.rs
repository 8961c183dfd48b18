//! For each known bug, worlds until a check catches it. A bug that none catches means a check that is missing.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use planted::{Bug, Planted};

use crate::{Ended, ground::Ground, scenario::Scenario, simulate};

/// Where a bug was caught.
struct Caught {
    check: &'static str,
    seeds: u64,
    tick: u64,
    what: String,
}

/// Bugs of the engine's own logic. They are also planted in what worlds are compared with, where only the oracle is left.
const OF_THE_ENGINE: [Bug; 5] = [
    Bug::LatenessByFrameHeader,
    Bug::WindowBeforeWatermark,
    Bug::LateAccepted,
    Bug::DuplicatesAccepted,
    Bug::WithdrawalIgnored,
];

/// Prints a table; fails if a bug was not caught within so many seeds.
pub fn run(ground: &Ground, name: &str, first: u64, seeds: u64, threads: u64) -> ExitCode {
    let all = Bug::ALL.iter().map(|bug| Planted { bug: *bug, everywhere: false });
    let all = all.chain(OF_THE_ENGINE.map(|bug| Planted { bug, everywhere: true }));
    let all: Vec<Planted> = all.filter(|planted| format!("{:?}", planted.bug).starts_with(name)).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(planted) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = catch(ground, *planted, first, seeds);
                    println!("{}", row(*planted, &caught));
                    if let Ok(mut found) = found.lock() {
                        found.push(caught.is_some());
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_default();
    let caught = found.iter().filter(|caught| **caught).count();
    println!("planted: {} bugs, {caught} caught", all.len());
    if caught == all.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn catch(ground: &Ground, planted: Planted, first: u64, seeds: u64) -> Option<Caught> {
    (first..first + seeds).find_map(|seed| {
        let ended: Ended = planted::with(planted, || simulate(ground, &Scenario::drawn(seed), None)).ok()?;
        let (violation, report) = ended.err()?;
        Some(Caught { check: violation.check, seeds: seed + 1 - first, tick: report.ticks, what: violation.what })
    })
}

fn row(Planted { bug, everywhere }: Planted, caught: &Option<Caught>) -> String {
    let name = format!("{bug:?}{}", if everywhere { ", in what is compared with as well" } else { "" });
    match caught {
        Some(Caught { check, seeds, tick, what }) => {
            let what: String = what.chars().take(150).collect();
            format!("{name} | {check} | seeds: {seeds} | tick {tick} | {what}")
        }
        None => format!("{name} | NOT CAUGHT: {}", bug.what()),
    }
}
