//! Where tasks run: from what was observed and what is on record, who owns what and who stands by next.
//!
//! In the order in which data passes: [`facts`] are what was observed, [`settings`] what is wanted, [`record`] what is
//! stored; [`plan`] makes the next record and its [`decision`]s, and [`orders`] reads off what each member is told. Within
//! a plan: `fleet` counts, `advance` takes each task a step on, `heir` finds owners for those without, `leave` empties
//! shards that drain or are old, `balance` evens out, `stand_by` finds standbys.

pub mod decision;
pub mod facts;
pub mod orders;
pub mod plan;
pub mod record;
pub mod settings;
pub mod wire;

mod advance;
mod balance;
mod fleet;
mod heir;
mod leave;
mod stand_by;
#[cfg(test)]
mod tests;

pub use decision::{Blocked, Choice, Decision, Hold, MoveReason, PlaceReason, StandbyReason, Unfit};
pub use facts::{Capacity, Facts, MemberFacts, Report, Role};
pub use orders::Order;
pub use plan::{Planned, plan};
pub use record::{Assignment, Avoided, Heir, Member, Phase, Placement, Retired};
pub use settings::{Canary, Settings};
