//! What end-to-end tests need: a trace of awkward events, an oracle that reads raw sources, a seeded generator, stores that
//! speak S3.

pub mod oracle;
pub mod rng;
pub mod s3;
pub mod trace;
