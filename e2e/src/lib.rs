//! What end-to-end tests need: a trace of awkward events, an oracle that reads raw sources, a seeded generator.

pub mod oracle;
pub mod rng;
pub mod trace;
