//! What end-to-end tests need: a real broker, servers that speak S3, a trace of awkward events, an oracle that reads raw sources, a
//! seeded generator.

pub mod broker;
pub mod oracle;
pub mod rng;
pub mod s3;
pub mod trace;
