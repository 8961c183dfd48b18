//! Where events come from: files, each a partition, and what is posted.

pub mod http;
pub mod lines;
pub mod partitions;
