//! The worker: logs, stores, sources, threads and the command line around the pure engine.

pub mod cli;
pub mod configuration;
mod data;
pub mod evaluate;
pub mod fleet;
pub mod host;
pub mod kafka;
pub mod log;
pub mod metrics;
pub mod overview;
pub mod pipeline;
pub mod progress;
pub mod replay;
pub mod serve;
pub mod source;
pub mod store;
pub mod summary;
pub mod values;
