//! What a task's manifest says, format version 1.

use crate::{
    keys::{FileKind, TaskId},
    sealed::{self, Unsealed, hex},
    store::{Digest, Object},
};
use serde::{Deserialize, Serialize};

pub const FORMAT_VERSION: u32 = 1;

/// Who owns a task, and its checkpoints. The only object of a task that is ever replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format_version: u32,
    /// The pipeline's identity: a manifest of another one is refused.
    pub pipeline: String,
    pub task: TaskId,
    /// Rises with every owner.
    pub epoch: u64,
    /// Of the epoch.
    pub owner: String,
    /// Of the owner. Another one may take over only what was released.
    pub engine_version: u32,
    /// The owner has given the task up, in order.
    pub released: bool,
    /// Differs between any two writes, so that a writer recognizes its own.
    pub write_token: String,
    /// Newest first. Offsets fall from one to the next.
    pub checkpoints: Vec<Checkpoint>,
}

/// A state of the task: the first file is a base, the others are deltas in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Under which it was written.
    pub epoch: u64,
    #[serde(flatten)]
    pub position: Position,
    pub engine_version: u32,
    pub files: Vec<FileRef>,
}

/// How far a state has come, and under which configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The next record to apply: all below are in the state.
    pub log_offset: u64,
    /// Of the frame before `log_offset`, 0 if there is none: a log that was truncated and grew again is found.
    #[serde(with = "hex")]
    pub frame_checksum: u64,
    pub generation: u32,
    #[serde(with = "hex")]
    pub spec_digest: u64,
    pub written_at_unix_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileRef {
    pub key: String,
    pub kind: FileKind,
    pub size_bytes: u64,
    #[serde(with = "hex")]
    pub digest: u64,
}

impl FileRef {
    pub fn of(key: String, kind: FileKind, digest: Digest) -> Self {
        Self { key, kind, size_bytes: digest.size_bytes, digest: digest.digest }
    }

    /// Whether what was found under its key has these bytes; the error says what is wrong.
    pub fn check_digest(&self, found: Option<Digest>) -> Result<(), String> {
        let Digest { size_bytes, digest } = found.ok_or_else(|| "it is missing".to_owned())?;
        if size_bytes != self.size_bytes {
            return Err(format!("it has {size_bytes} bytes instead of {}", self.size_bytes));
        }
        if digest != self.digest {
            return Err("its digest does not match".to_owned());
        }
        Ok(())
    }

    /// The bytes of what was found under its key, if they are these; the error says what is wrong.
    pub fn check_found(&self, found: Option<Object>) -> Result<Vec<u8>, String> {
        let object = found.ok_or_else(|| "it is missing".to_owned())?;
        self.check_digest(Some(object.digest)).map(|()| object.bytes)
    }
}

impl Checkpoint {
    /// Checkpoints with the same base are of one chain.
    pub fn base_key(&self) -> &str {
        self.files.first().map_or("", |base| &base.key)
    }
}

impl Manifest {
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        sealed::seal(self).map_err(|error| error.to_string())
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Unsealed> {
        sealed::unseal(bytes, FORMAT_VERSION)
    }

    /// All files that any checkpoint names, each once.
    pub fn files(&self) -> Vec<&FileRef> {
        let mut files: Vec<_> = self.checkpoints.iter().flat_map(|c| &c.files).collect();
        files.sort_by(|a, b| a.key.cmp(&b.key));
        files.dedup();
        files
    }

    /// Whether its checkpoints are what the task would have written.
    pub fn check_shape(&self) -> Result<(), String> {
        for checkpoint in &self.checkpoints {
            let kinds = checkpoint.files.iter().enumerate().all(|(i, f)| (f.kind == FileKind::Base) == (i == 0));
            if checkpoint.files.is_empty() || !kinds {
                return Err("a checkpoint does not begin with its only base".to_owned());
            }
            if checkpoint.epoch > self.epoch {
                return Err(format!("a checkpoint has epoch {}, above {}", checkpoint.epoch, self.epoch));
            }
        }
        let falls = |pair: &[Checkpoint]| pair[0].position.log_offset >= pair[1].position.log_offset;
        if !self.checkpoints.windows(2).all(falls) {
            return Err("offsets of its checkpoints do not fall".to_owned());
        }
        Ok(())
    }
}
