//! The pure data path of Millrace: no I/O, no clock, no randomness, no threads, no hash-order iteration.
//!
//! Data passes the modules in this order: `frame`, `decode`, `privacy`, `ingest`, `order`, `join`, `feature`,
//! `profile`, `learn`.

pub mod codec;
pub mod decode;
pub mod event;
pub mod example;
pub mod names;
pub mod privacy;
