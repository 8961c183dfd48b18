//! Many workers, one pipeline.
//!
//! What they have in common lies in the checkpoint store, beside the tasks: [`registration`] says whose state it is and under
//! which versions of the pipeline, the placement record who owns what. [`member`] opens all that a worker works with.
//! [`control`] places tasks: it asks workers what they have, plans, stores the plan, and tells them. [`local`] has workers as
//! processes of this machine.

pub mod control;
pub mod local;
pub mod member;
pub mod registration;

/// So long whoever waits for others of the fleet looks away.
pub const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(250);
