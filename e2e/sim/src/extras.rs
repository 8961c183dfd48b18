//! What happens in some worlds besides faults: not trouble, but things that people do and that fleets go through.

use millrace::host::make::profile_task;
use millrace_e2e::rng::Rng;
use millrace_engine::{
    control::{Control, Erase},
    event::Pseudonym,
    ingest::partition_of,
};

use crate::{ground, node::Node};

/// Drawn for each seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// In thousandths, at each look of the control: somebody has a user erased.
    pub erase: u64,
    /// Some nodes run another engine version, so that tasks may go between them by a release only.
    pub mixed_versions: bool,
    /// In thousandths, at each look of the control: a node hears nothing of it for a while, and the other way round. It goes
    /// on working, since log and store are there.
    pub cut_off: u64,
    /// In thousandths: a standby does not come to work when its node does.
    pub lag: u64,
    /// In thousandths, at each look of the control: another one, which should not be there, tells a node to own a task.
    pub second_control: u64,
}

impl Extras {
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xe7a5);
        let erase = if rng.per_mille(250) { 1 + rng.below(100) } else { 0 };
        let mixed_versions = rng.per_mille(250);
        let mut some = |most: u64| if rng.per_mille(330) { 1 + rng.below(most) } else { 0 };
        Self { erase, mixed_versions, cut_off: some(60), lag: some(950), second_control: some(60) }
    }

    pub fn engine_version(self, node: usize) -> u32 {
        1 + u32::from(self.mixed_versions && node % 2 == 1)
    }
}

/// Whoever owns the user's profile appends the erasure, as its API would. Nobody may own it at the moment.
pub fn erase(nodes: &mut [Node<'_>], partitions: u32, user: Pseudonym, tick: u64, night_ms: u64) -> bool {
    let task = profile_task(partition_of(user, partitions) as u32);
    for work in nodes.iter_mut().filter(|node| node.paused_until <= tick).filter_map(|node| node.work.as_mut()) {
        let station = &mut work.station;
        if let Some(seat) = station.seats.iter_mut().find(|seat| seat.id == task && seat.is_owner()) {
            let erase = Erase { user, time: ground::time(tick, night_ms) };
            seat.append_control(&Control::Erase(erase), &mut station.outbox);
            return true;
        }
    }
    false
}
