//! The simulator: real engine, lifecycle and placement over a simulated log, store, network and clock. What may go wrong goes
//! wrong, at times that a seed decides; what must never happen is looked for all the time.

pub mod changes;
pub mod check;
pub mod control;
pub mod erasure;
pub mod faults;
pub mod ground;
pub mod ledger;
pub mod node;
#[cfg(feature = "planted")]
pub mod planting;
pub mod raw;
pub mod scenario;
pub mod sim_log;
pub mod source;
pub mod world;

use check::{SAME_AS_UNDISTURBED, Violation};
use ground::{Ground, GroundError};
use scenario::Scenario;
use world::{Report, World};

/// A world's end.
pub type Ended = Result<Report, (Violation, Report)>;

/// Runs a world with its faults, and once more without any: both have to come to the same results. `tell` hears of
/// everything that happens in the first one.
pub fn simulate(ground: &Ground, scenario: &Scenario, tell: Option<fn(&str)>) -> Result<Ended, GroundError> {
    let faults = &scenario.faults;
    if faults.changes > 0 || faults.idle > 0 {
        let ground = Ground::changing(scenario.seed, faults)?;
        // When it changes, and what comes late after a source was idle, depends on what goes wrong.
        return world(&ground, scenario, tell);
    }
    let ended = world(ground, scenario, tell)?;
    let Ok(report) = &ended else { return Ok(ended) };
    // What is erased when depends on what goes wrong.
    if report.erasures > 0 {
        return Ok(ended);
    }
    compare(ground, scenario, report.clone())
}

fn world(ground: &Ground, scenario: &Scenario, tell: Option<fn(&str)>) -> Result<Ended, GroundError> {
    let mut world = World::new(ground, scenario)?;
    if let Some(tell) = tell {
        world.tell(tell);
    }
    Ok(world.run())
}

fn compare(ground: &Ground, scenario: &Scenario, report: Report) -> Result<Ended, GroundError> {
    let undisturbed = planted::reference(|| World::new(ground, &scenario.undisturbed()).map(World::run))?;
    let other = match undisturbed {
        Ok(undisturbed) => {
            undisturbed.digests.into_iter().find(|(task, digest)| report.digests.get(task) != Some(digest))
        }
        Err((violation, _)) => return Ok(Err((violation, report))),
    };
    Ok(match other {
        None => Ok(report),
        Some((task, _)) => {
            let what = format!("{task} came to another state");
            Err((Violation { check: SAME_AS_UNDISTURBED, what }, report))
        }
    })
}

/// The smallest scenario found that fails the same check.
pub fn minimize(ground: &Ground, scenario: &Scenario, check: &str) -> Scenario {
    scenario.minimized(
        |smaller| matches!(simulate(ground, smaller, None), Ok(Err((violation, _))) if violation.check == check),
    )
}
