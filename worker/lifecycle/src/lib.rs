//! Who owns a task, where it runs, and what of its checkpoints stays. Pure: no I/O, clock, randomness, threads or async.
//!
//! In the order in which a task's life passes: [`keys`] names objects of the checkpoint store, [`manifest`] says who owns a
//! task and which checkpoints it has, [`sealed`] guards what is written; [`placement`] plans where
//! tasks run.

pub mod keys;
pub mod manifest;
pub mod placement;
pub mod sealed;
