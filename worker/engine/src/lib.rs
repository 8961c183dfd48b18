//! The pure data path of Millrace: no I/O, no clock, no randomness, no threads, no hash-order iteration.
//!
//! Data passes the modules in this order: `decode`, `privacy`, `ingest`, `frame`, `order`, `dedupe`, `join`,
//! `feature`, `users`, `profile`, `learn`, `model`.

/// Raised by every change that alters results: only the same version may go on from a checkpoint not released.
pub const ENGINE_VERSION: u32 = 4;

pub mod catalog;
pub mod checkpoint;
pub mod codec;
pub mod control;
pub mod dead_letter;
pub mod decide;
pub mod decode;
pub mod dedupe;
pub mod distributions;
pub mod event;
pub mod example;
pub mod experiment;
pub mod feature;
pub mod frame;
pub mod ingest;
pub mod join;
pub mod learn;
pub mod model;
pub mod names;
pub mod off_policy;
pub mod order;
pub mod plan;
pub mod privacy;
pub mod profile;
pub mod snapshot;
pub mod users;
