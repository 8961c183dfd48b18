//! What can go wrong, whose fault it is, and what to do about it.

use std::path::PathBuf;

use super::{LogPartition, MAX_LOG_NAME_BYTES, MAX_RECORD_BYTES};
use crate::store::disk::{DiskError, LockError};

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program asked for something that cannot be done.
    Caller,
    /// The disk is full, or may not be written, or does not answer.
    Machine,
    /// What is stored is not what was written.
    Data,
}

/// When the same call may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Once the log was opened again, by a new process or by this one.
    AfterReopen,
    /// Once somebody repaired what the message names.
    AfterRepair,
    Never,
}

/// Why the storage did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{0}; start again, and restore the folder from a copy if it stays")]
    Storage(String),
    #[error("an append failed before ({0}); start again to learn how it ended")]
    Broken(String),
    #[error("a record of {0} bytes is longer than {MAX_RECORD_BYTES}")]
    TooLong(usize),
    #[error("{0}; it is tried again after a restart")]
    Remote(String),
    #[error("a log's name needs 1 to {MAX_LOG_NAME_BYTES} bytes, not {0:?}")]
    BadName(String),
}

impl Cause {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Disk(_) | Self::Broken(_) | Self::Remote(_) => Fault::Machine,
            Self::Storage(_) => Fault::Data,
            Self::TooLong(_) | Self::BadName(_) => Fault::Caller,
        }
    }
    pub fn retry(&self) -> Retry {
        match self {
            Self::Disk(_) => Retry::AfterRepair,
            Self::Storage(_) | Self::Broken(_) | Self::Remote(_) => Retry::AfterReopen,
            Self::TooLong(_) | Self::BadName(_) => Retry::Never,
        }
    }
}

/// How an append ended that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("nothing was appended: {0}")]
    Failed(Cause),
    /// All of the batch is there or none of it, which shows when the log is opened again.
    #[error("it is not known whether the batch was appended: {0}")]
    Unknown(Cause),
}

impl AppendError {
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Failed(cause) | Self::Unknown(cause) => cause,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("offset {from} of log {partition} was trimmed; the oldest kept is {oldest}")]
    Trimmed { partition: LogPartition, from: u64, oldest: u64 },
    #[error("offset {from} of log {partition} lies beyond its end {end}: the reader is ahead of the log")]
    BeyondEnd { partition: LogPartition, from: u64, end: u64 },
    #[error("log {partition} is damaged at offset {offset}: {cause}; restore its folder from a copy")]
    Damaged { partition: LogPartition, offset: u64, cause: String },
    #[error("log {partition} cannot be read now: {cause}")]
    Unavailable { partition: LogPartition, cause: String },
    #[error("log {partition} could not be read at offset {offset}: {cause}")]
    Disk { partition: LogPartition, offset: u64, cause: DiskError },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log {partition} could not be trimmed: {cause}")]
pub struct TrimError {
    pub partition: LogPartition,
    pub cause: Cause,
}

/// Offsets `from..=to` were acknowledged, and are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub partition: LogPartition,
    pub from: u64,
    pub to: u64,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} offsets {} to {}", self.partition, self.from, self.to)
    }
}

/// Why a log was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the log in {folder} cannot be opened: {cause}; restore the folder from a copy")]
    Storage { folder: PathBuf, cause: String },
    #[error("the log in {folder} has format {found}, this program reads up to {known}; use a newer program")]
    NewerFormat { folder: PathBuf, found: u16, known: u16 },
    #[error(
        "the log in {folder} has lost records that were acknowledged: {}; restore the folder from a copy, or \
         start with an empty data folder", list(.losses)
    )]
    Lost { folder: PathBuf, losses: Vec<Loss> },
    #[error(
        "the end mark of the log in {folder} is {what}, so lost records would not be noticed; restore the folder from \
         a copy, or start with an empty data folder"
    )]
    Mark { folder: PathBuf, what: &'static str },
    #[error(transparent)]
    Damaged(#[from] ReadError),
}

fn list(losses: &[Loss]) -> String {
    losses.iter().map(Loss::to_string).collect::<Vec<_>>().join(", ")
}
