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

/// Version 1 knew no earlier specs.
const FORMAT_VERSION: u32 = 2;
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
    /// The spec that the state is to be under, as canonical text.
    pub spec: String,
    /// Those that it was under before, the first one first.
    #[serde(default)]
    pub earlier: Vec<String>,
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
    /// [`DataDir::identity`] still holds that one.
    OtherSpec,
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
    #[error(
        "{folder} is not a data folder: it has no {IDENTITY_FILE}; run the pipeline first, or name its folder with --data"
    )]
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
        // In this order: another process that is just creating the folder writes the identity before anything else.
        if has_other_files(folder)? && read_identity(folder)?.is_none() {
            return Err(DataDirError::NotEmpty { folder: folder.to_owned() });
        }
        let lock = disk::lock(folder)?;
        let (identity, found) = match read_identity(folder)? {
            Some(identity) => {
                check(folder, &identity, wanted)?;
                let same = identity.spec == wanted.spec;
                let found = if same { Found::Same } else { Found::OtherSpec };
                (identity, found)
            }
            None => (create_identity(folder, wanted)?, Found::New),
        };
        Ok((Self { folder: folder.to_owned(), identity, _lock: Some(lock) }, found))
    }

    /// Would [`DataDir::open`] find nothing there?
    pub fn is_new(folder: &Path) -> bool {
        matches!(read_identity(folder), Ok(None))
    }

    /// Opens a folder for looking, also while a run writes to it. Creates nothing.
    pub fn open_read_only(folder: &Path) -> Result<Self, DataDirError> {
        let identity = read_identity(folder)?.ok_or_else(|| DataDirError::NotThere { folder: folder.to_owned() })?;
        Ok(Self { folder: folder.to_owned(), identity, _lock: None })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// From now on the folder's state is to be under this spec: a further generation.
    pub fn change_spec(&mut self, spec: &str) -> Result<(), DataDirError> {
        let mut identity = self.identity.clone();
        identity.change_spec(spec);
        write_identity(&self.folder, &identity)?;
        self.identity = identity;
        Ok(())
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
        Ok(bytes) => {
            sealed::unseal(&bytes, FORMAT_VERSION).map(Some).map_err(|cause| DataDirError::Identity { path, cause })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DiskError::new(&path, &error).into()),
    }
}

/// What a first run that was killed leaves does not count.
fn has_other_files(folder: &Path) -> Result<bool, DiskError> {
    let no_matter = ["lock", IDENTITY_TEMPORARY, "lost+found"];
    for entry in disk::at(folder, std::fs::read_dir(folder))? {
        if !no_matter.iter().any(|name| entry.as_ref().is_ok_and(|e| e.file_name() == *name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check(folder: &Path, found: &Identity, wanted: &Wanted<'_>) -> Result<(), DataDirError> {
    let folder = folder.to_owned();
    if (found.namespace.as_str(), found.name.as_str()) != (wanted.namespace, wanted.name) {
        let found = format!("{}/{}", found.namespace, found.name);
        return Err(DataDirError::OtherPipeline {
            folder,
            found,
            wanted: format!("{}/{}", wanted.namespace, wanted.name),
        });
    }
    if found.partitions != wanted.partitions {
        return Err(DataDirError::Partitions { folder, found: found.partitions, wanted: wanted.partitions });
    }
    Ok(())
}

impl Identity {
    /// Of a pipeline that begins now.
    pub fn new(wanted: &Wanted<'_>) -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let unique = format!("{}/{} {nanos} {}", wanted.namespace, wanted.name, std::process::id());
        Self {
            format_version: FORMAT_VERSION,
            name: wanted.name.to_owned(),
            namespace: wanted.namespace.to_owned(),
            partitions: wanted.partitions,
            identity: format!("{:032x}", xxh3_128(unique.as_bytes())),
            spec: wanted.spec.to_owned(),
            earlier: Vec::new(),
        }
    }

    /// From now on the state is to be under this spec: a further generation.
    pub fn change_spec(&mut self, spec: &str) {
        self.earlier.push(std::mem::replace(&mut self.spec, spec.to_owned()));
        self.format_version = FORMAT_VERSION;
    }
}

fn create_identity(folder: &Path, wanted: &Wanted<'_>) -> Result<Identity, DataDirError> {
    let identity = Identity::new(wanted);
    write_identity(folder, &identity)?;
    Ok(identity)
}

fn write_identity(folder: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let path = folder.join(IDENTITY_FILE);
    let damaged = |error: serde_json::Error| Unsealed::Damaged(error.to_string());
    let bytes = sealed::seal(identity).map_err(|e| DataDirError::Identity { path: path.clone(), cause: damaged(e) })?;
    disk::replace(&path, &folder.join(IDENTITY_TEMPORARY), &bytes).map_err(DiskError::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(spec: &'static str) -> Wanted<'static> {
        Wanted { name: "shop", namespace: "default", partitions: 4, spec }
    }

    fn open_dir(folder: &Path, spec: &'static str) -> Result<(DataDir, Found), DataDirError> {
        DataDir::open(folder, &wanted(spec))
    }

    #[test]
    fn a_data_folder_belongs_to_one_pipeline_and_one_process() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        assert!(matches!(DataDir::open_read_only(&folder), Err(DataDirError::NotThere { .. })));
        let (dir, found) = open_dir(&folder, "spec 1").unwrap();
        assert_eq!(found, Found::New);
        let identity = dir.identity().clone();
        let held = LockError::Held { folder: folder.clone(), holder: std::process::id().to_string() };
        assert_eq!(open_dir(&folder, "spec 1").err(), Some(held.into()));
        assert_eq!(DataDir::open_read_only(&folder).unwrap().identity(), &identity, "while a run has it");
        drop(dir);
        let (dir, found) = open_dir(&folder, "spec 1").unwrap();
        assert_eq!((dir.identity(), found), (&identity, Found::Same));
        drop(dir);
        let (mut dir, found) = open_dir(&folder, "spec 2").unwrap();
        assert_eq!((found, dir.identity()), (Found::OtherSpec, &identity));
        dir.change_spec("spec 2").unwrap();
        drop(dir);
        let (dir, found) = open_dir(&folder, "spec 2").unwrap();
        assert_eq!((found, dir.identity().earlier.as_slice()), (Found::Same, &["spec 1".to_owned()][..]));
        assert_eq!(dir.identity().identity, identity.identity);
        drop(dir);
        let other = Wanted { name: "other", ..wanted("spec 1") };
        assert!(matches!(DataDir::open(&folder, &other).err(), Some(DataDirError::OtherPipeline { .. })));
        let other = Wanted { partitions: 8, ..wanted("spec 1") };
        assert_eq!(
            DataDir::open(&folder, &other).err(),
            Some(DataDirError::Partitions { folder: folder.clone(), found: 4, wanted: 8 })
        );
        let second = open_dir(&parent.path().join("second"), "spec 1").unwrap().0;
        assert_ne!(second.identity().identity, identity.identity);
    }

    #[test]
    fn a_folder_of_format_1_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let content =
            r#"{"formatVersion":1,"name":"shop","namespace":"default","partitions":4,"identity":"7f","spec":"spec 1"}"#;
        let sum = xxhash_rust::xxh3::xxh3_64(content.as_bytes());
        let sealed = format!("{{\"checksum\":\"{sum:016x}\",\"content\":{content}}}\n");
        std::fs::write(folder.path().join(IDENTITY_FILE), sealed).unwrap();
        let (dir, found) = open_dir(folder.path(), "spec 1").unwrap();
        assert_eq!((found, dir.identity().identity.as_str(), dir.identity().earlier.len()), (Found::Same, "7f", 0));
    }

    #[test]
    fn a_data_folder_that_is_damaged_or_not_ours_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("thesis.doc"), b"").unwrap();
        assert!(matches!(open_dir(parent.path(), "spec"), Err(DataDirError::NotEmpty { .. })));
        assert!(!parent.path().join("lock").exists(), "it is left as it was");
        let folder = parent.path().join("data");
        drop(open_dir(&folder, "spec").unwrap());
        let path = folder.join("pipeline.json");
        let whole = std::fs::read(&path).unwrap();
        for bit in (0..whole.len() * 8).step_by(7) {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(open_dir(&folder, "spec"), Err(DataDirError::Identity { .. })), "bit {bit}");
        }
    }
}
