//! The folder that `millrace run --data` keeps everything in: one pipeline, one process at a time.
//!
//! `pipeline.json` says whose it is, `lock` who uses it, `log/` holds the log, `checkpoints/` the store.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::disk::{self, DiskError, LockError};
use super::sealed::{self, Unsealed};

const FORMAT_VERSION: u32 = 1;
const IDENTITY_FILE: &str = "pipeline.json";
const IDENTITY_TEMPORARY: &str = ".pipeline.json.tmp";

/// Which pipeline a folder is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    pub format_version: u32,
    pub name: String,
    pub namespace: String,
    /// Of the events log; never changes.
    pub partitions: u32,
    /// Differs between any two folders. Every manifest carries it.
    pub identity: String,
    /// The spec that the state was built under, as canonical text.
    pub spec: String,
}

/// What a pipeline's file says of it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub partitions: u32,
    /// Canonical text: equal if and only if the state can go on under it.
    pub spec: &'a str,
}

/// How the folder's spec compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The folder was empty.
    New,
    Same,
    /// What the folder's state was built under; [`DataDir::identity`] still holds it.
    OtherSpec { old: String },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataDirError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{path}: {cause}; restore it from a copy, or choose another folder with --data")]
    Identity { path: PathBuf, cause: Unsealed },
    #[error("{folder} belongs to pipeline {found}, not {wanted}; choose another folder with --data")]
    OtherPipeline { folder: PathBuf, found: String, wanted: String },
    #[error(
        "{folder} was written with {found} partitions, the pipeline now has {wanted}, and this cannot be changed; go \
         back to {found}, or choose another folder with --data"
    )]
    Partitions { folder: PathBuf, found: u32, wanted: u32 },
    #[error("{folder} is not a data folder: it has no {IDENTITY_FILE}; run the pipeline first, or name its folder with --data")]
    NotThere { folder: PathBuf },
    #[error("{folder} is not empty and has no {IDENTITY_FILE}; choose an empty folder with --data")]
    NotEmpty { folder: PathBuf },
}

/// An open data folder. With a lock, no other process has it open for writing.
#[derive(Debug)]
pub struct DataDir {
    folder: PathBuf,
    identity: Identity,
    _lock: Option<File>,
}

impl DataDir {
    /// Opens or creates a folder for a run.
    pub fn open(folder: &Path, wanted: &Wanted<'_>) -> Result<(Self, Found), DataDirError> {
        disk::create_dir(folder)?;
        let is_foreign = read_identity(folder)?.is_none() && has_other_files(folder)?;
        if is_foreign {
            return Err(DataDirError::NotEmpty { folder: folder.to_owned() });
        }
        let lock = disk::lock(folder)?;
        let (identity, found) = match read_identity(folder)? {
            Some(identity) => {
                check(folder, &identity, wanted)?;
                let same = identity.spec == wanted.spec;
                let found = if same { Found::Same } else { Found::OtherSpec { old: identity.spec.clone() } };
                (identity, found)
            }
            None => (create_identity(folder, wanted)?, Found::New),
        };
        Ok((Self { folder: folder.to_owned(), identity, _lock: Some(lock) }, found))
    }

    /// Opens a folder for looking, also while a run writes to it. Creates nothing.
    pub fn open_read_only(folder: &Path) -> Result<Self, DataDirError> {
        let identity = read_identity(folder)?.ok_or_else(|| DataDirError::NotThere { folder: folder.to_owned() })?;
        Ok(Self { folder: folder.to_owned(), identity, _lock: None })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
    pub fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }
}

fn read_identity(folder: &Path) -> Result<Option<Identity>, DataDirError> {
    let path = folder.join(IDENTITY_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => sealed::unseal(&bytes, FORMAT_VERSION)
            .map(Some)
            .map_err(|cause| DataDirError::Identity { path, cause }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DiskError::new(&path, &error).into()),
    }
}

/// What a first run that was killed leaves does not count.
fn has_other_files(folder: &Path) -> Result<bool, DiskError> {
    let ours = ["lock", IDENTITY_TEMPORARY];
    for entry in disk::at(folder, std::fs::read_dir(folder))? {
        if !ours.iter().any(|name| entry.as_ref().is_ok_and(|e| e.file_name() == *name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check(folder: &Path, found: &Identity, wanted: &Wanted<'_>) -> Result<(), DataDirError> {
    let folder = folder.to_owned();
    if (found.namespace.as_str(), found.name.as_str()) != (wanted.namespace, wanted.name) {
        let found = format!("{}/{}", found.namespace, found.name);
        return Err(DataDirError::OtherPipeline { folder, found, wanted: format!("{}/{}", wanted.namespace, wanted.name) });
    }
    if found.partitions != wanted.partitions {
        return Err(DataDirError::Partitions { folder, found: found.partitions, wanted: wanted.partitions });
    }
    Ok(())
}

fn create_identity(folder: &Path, wanted: &Wanted<'_>) -> Result<Identity, DataDirError> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let unique = format!("{}/{} {nanos} {}", wanted.namespace, wanted.name, std::process::id());
    let identity = Identity {
        format_version: FORMAT_VERSION,
        name: wanted.name.to_owned(),
        namespace: wanted.namespace.to_owned(),
        partitions: wanted.partitions,
        identity: format!("{:032x}", xxh3_128(unique.as_bytes())),
        spec: wanted.spec.to_owned(),
    };
    let path = folder.join(IDENTITY_FILE);
    let damaged = |error: serde_json::Error| Unsealed::Damaged(error.to_string());
    let bytes = sealed::seal(&identity).map_err(|e| DataDirError::Identity { path: path.clone(), cause: damaged(e) })?;
    disk::replace(&path, &folder.join(IDENTITY_TEMPORARY), &bytes).map_err(DiskError::from)?;
    Ok(identity)
}
