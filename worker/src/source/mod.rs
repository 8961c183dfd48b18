//! Where events come from. For now: files; each file is a partition.

pub mod lines;
pub mod partitions;
