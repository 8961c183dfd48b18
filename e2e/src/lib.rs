//! What end-to-end tests need: a real broker, a trace of awkward events, an oracle that reads raw sources, a seeded generator.

pub mod broker;
pub mod oracle;
pub mod rng;
pub mod trace;
