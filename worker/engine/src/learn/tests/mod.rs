//! Tests of learning.

mod real;
mod support;
