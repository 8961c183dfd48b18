//! Somebody asks that a user be forgotten.

use millrace::host::make::profile_task;
use millrace_engine::{
    control::{Control, Erase},
    event::Pseudonym,
    ingest::partition_of,
};

use crate::{ground, node::Node};

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
