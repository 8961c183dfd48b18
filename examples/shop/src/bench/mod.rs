//! The benchmark of what decisions learn: the simulated shop against the real pipeline, in virtual time.

pub mod pipeline;
pub mod run;
mod source;
pub mod summary;
pub mod table;
pub mod threads;

#[cfg(test)]
mod tests;
