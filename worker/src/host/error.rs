//! Why a host stops, in words for the person who has to do something about it.

use millrace_engine::{
    checkpoint::CheckpointError,
    codec::Corrupt,
    model::ModelError,
    order::OrderError,
    plan::{ConfigureError, PlanError},
};

use crate::{kafka, log, source, store};

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    #[error(transparent)]
    File(#[from] source::lines::FileError),
    #[error("source `{source_name}`, {file}: {cause}")]
    Header { source_name: String, file: String, cause: String },
    #[error("{partition}, offset {offset}: {cause}")]
    Apply { partition: log::LogPartition, offset: u64, cause: String },
    #[error(transparent)]
    Read(#[from] log::ReadError),
    #[error("{0}. Nothing that was acknowledged is lost: mend it and start again")]
    Append(#[from] log::AppendError),
    #[error("checkpoints of {task}: {cause}")]
    Lineage { task: String, cause: store::checkpoint::LineageError },
    #[error("checkpoint of {task} cannot be restored: {cause}")]
    Restore { task: String, cause: CheckpointError },
    #[error(
        "{partition} is not the log that the checkpoint was taken of: {why}. Restore the log's folder, or start with \
         an empty data folder"
    )]
    ForeignLog { partition: log::LogPartition, why: String },
    #[error("effects of {task} that were held back are damaged: {cause}; this is a bug")]
    HeldBack { task: String, cause: Corrupt },
    #[error("there is no task {task} in this pipeline: was a model or a source taken out of it?")]
    NoTask { task: String },
    #[error(
        "{cause}. What this pipeline goes on with is not there: bring it back, or start with an empty data folder (and other \
         spec.kafka.topics.prefix)"
    )]
    Source { partition: kafka::TopicPartition, cause: kafka::FetchError },
    #[error("{partition}: no broker answers: {cause}")]
    NoBroker { partition: kafka::TopicPartition, cause: String },
    #[error("source `{source_name}` is of topics, and there is no spec.kafka")]
    NoCluster { source_name: String },
    #[error("thread `{0}` ended unexpectedly; this is a bug")]
    Thread(String),
}

impl HostError {
    /// Does it end what a host has of one task, and nothing else?
    pub fn is_of_one_task(&self) -> bool {
        match self {
            Self::Lineage { .. } | Self::Restore { .. } | Self::ForeignLog { .. } | Self::NoTask { .. } => true,
            Self::Plan(_) | Self::Configure(_) | Self::File(_) | Self::Header { .. } => true,
            Self::Source { .. } | Self::NoBroker { .. } | Self::NoCluster { .. } => true,
            Self::Apply { .. } | Self::Read(_) | Self::Append(_) | Self::HeldBack { .. } | Self::Thread(_) => false,
        }
    }

    /// Has the store not answered, or not as it should? Then the same may go well a moment later.
    pub fn is_of_store(&self) -> bool {
        matches!(self, Self::Lineage { cause: store::checkpoint::LineageError::Store(_), .. })
    }

    pub fn order(partition: &log::LogPartition, offset: u64, cause: OrderError) -> Self {
        Self::Apply { partition: partition.clone(), offset, cause: cause.to_string() }
    }
    pub fn model(partition: &log::LogPartition, offset: u64, cause: ModelError) -> Self {
        Self::Apply { partition: partition.clone(), offset, cause: cause.to_string() }
    }
}
