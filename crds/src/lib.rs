//! The `PersonalizationPipeline` resource: what users write, and whether it is right.

pub mod scalar;
pub mod spec;
