//! The simulator: real engine, lifecycle and placement over a simulated log, store, network and clock. What may go wrong goes
//! wrong, at times that a seed decides; what must never happen is looked for all the time.

pub mod check;
pub mod control;
pub mod faults;
pub mod ground;
pub mod node;
pub mod world;

use check::{SAME_AS_UNDISTURBED, Violation};
use faults::Faults;
use ground::{Ground, GroundError};
use world::{Report, Size, World};

/// A world's end.
pub type Ended = Result<Report, (Violation, Report)>;

/// Runs a world with its faults, and once more without any: both have to come to the same results, unless somebody was
/// erased, which only its own log tells of.
pub fn simulate(ground: &Ground, seed: u64, tell: Option<fn(&str)>) -> Result<Ended, GroundError> {
    let size = Size::default();
    let mut world = World::new(ground, seed, size.clone(), None)?;
    if let Some(tell) = tell {
        world.tell(tell);
    }
    let report = match world.run() {
        Ok(report) => report,
        Err(ended) => return Ok(Err(ended)),
    };
    if report.erased > 0 {
        return Ok(Ok(report));
    }
    let undisturbed = World::new(ground, seed, Size { nodes: 1, ..size }, Some(Faults::none()))?.run();
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
