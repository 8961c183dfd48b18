//! The `PersonalizationPipeline` resource: what users write, and whether it is right.
//!
//! [`load`] does all: YAML, its shape, its meaning. All problems are found at once.

pub mod names;
pub mod paths;
pub mod problem;
pub mod read;
pub mod resource;
pub mod scalar;
pub mod schema;
pub mod spec;
mod tree;
pub mod validate;

pub use problem::{Problem, Problems};
pub use read::{Document, read};
pub use validate::{Validated, spec_of_result_digest_text, validate};

/// Reads and validates one pipeline.
pub fn load(yaml: &str) -> Result<Validated, Problems> {
    validate(read(yaml)?)
}
