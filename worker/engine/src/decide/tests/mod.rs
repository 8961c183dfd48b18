//! Whole decisions.

mod catalogs;
mod courses;
mod support;
mod values;
