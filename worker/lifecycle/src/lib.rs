//! Who owns a task, where it runs, and what of its checkpoints stays. Pure: no I/O, clock, randomness, threads or async.
//!
//! [`store`] is what is asked of the checkpoint store, as data; [`keys`] names its objects, [`sealed`] guards them,
//! [`manifest`] says who owns a task and which checkpoints it has. [`lineage`] is the sequence of questions by which a task is
//! claimed, loaded, saved and rid of old files. [`placement`] plans where tasks run.

pub mod keys;
pub mod lineage;
pub mod manifest;
pub mod placement;
pub mod sealed;
pub mod store;
