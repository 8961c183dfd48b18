//! Tests of learning.

mod drifts;
mod fast_and_naive;
mod leaks;
mod models;
mod real;
mod serving;
mod states;
mod support;
