//! Files of past experiments and of logged decisions: CSV with a header, plain or gzip, found by the names of columns.
//!
//! `table` reads one file; `users`, `counts` and `looks` make of it what `millrace experiment show` tells, `decisions`
//! what `millrace ope` does. The statistics are the engine's.

use std::{io, path::PathBuf};

use millrace_engine::off_policy::OffPolicyError;

pub mod counts;
pub mod decisions;
pub mod looks;
pub mod table;
#[cfg(test)]
mod tests;
pub mod users;

/// Why a file was not evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error("cannot read {}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("{} has no column {wanted}; its columns are {}", path.display(), list(found))]
    Column { path: PathBuf, wanted: String, found: Vec<String> },
    #[error("{}, line {line}: {why}", path.display())]
    Line { path: PathBuf, line: u64, why: String },
    #[error("{} holds no row", path.display())]
    Empty { path: PathBuf },
    /// Something that was asked for does not fit the file.
    #[error("{0}")]
    Asked(String),
    #[error("{}: {cause}", path.display())]
    OffPolicy { path: PathBuf, cause: OffPolicyError },
}

impl EvaluateError {
    /// Is it the arguments that are wrong?
    pub fn is_usage(&self) -> bool {
        matches!(self, EvaluateError::Column { .. } | EvaluateError::Asked(_))
    }
}

const MOST_LISTED: usize = 12;

fn list(names: &[String]) -> String {
    let shown = names.iter().take(MOST_LISTED).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(MOST_LISTED);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
