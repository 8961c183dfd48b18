//! Tests of learning.

mod fast_and_naive;
mod leaks;
mod models;
mod real;
mod serving;
mod states;
mod support;
