//! A simulated web shop that asks for decisions and reacts to them as its shoppers' hidden tastes have it.

pub mod bench;
pub mod drive;
pub mod expected;
pub mod rng;
pub mod world;
