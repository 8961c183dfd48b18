//! Tests of learning.

mod fast_and_naive;
mod leaks;
mod models;
mod real;
mod states;
mod support;
