//! What the partitions of a source are. A file, or a partition of a topic, keeps its number for the life of the data folder.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use millrace_engine::{frame::Origin, plan::FIRST_GENERATION};
use serde::{Deserialize, Serialize};

/// Version 1 had no lengths, version 2 no generations.
pub const FORMAT_VERSION: u32 = 3;

/// Names of a source's files, or of the partitions of its topics (`TOPIC/N`), by partition number. Kept in the data folder
/// as `sources.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    pub format_version: u32,
    pub sources: BTreeMap<String, Vec<RegisteredFile>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisteredFile {
    /// Relative to what the source's path has in common; `.` for a source of one file.
    pub name: String,
    /// There from the first start on: every merge waits for it.
    pub initial: bool,
    /// Its length when it was found; of a topic, the offset behind its last record. Unknown of compressed files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The pipeline's generation when it was found.
    #[serde(default = "first_generation", skip_serializing_if = "is_first_generation")]
    pub since: u32,
}

fn first_generation() -> u32 {
    FIRST_GENERATION
}
fn is_first_generation(since: &u32) -> bool {
    *since == FIRST_GENERATION
}

impl RegisteredFile {
    fn new(name: &str, path: &Path, initial: bool, since: u32) -> Self {
        let is_plain = path.extension().is_none_or(|extension| extension != "gz");
        let bytes = fs::metadata(path).ok().filter(|_| is_plain).map(|metadata| metadata.len());
        Self { name: name.to_owned(), initial, bytes, since }
    }

    /// Of one of these topics.
    fn partition_of(&self, number: usize, topics: &[String]) -> Option<Partition> {
        let (topic, partition) = self.name.rsplit_once('/')?;
        let (place, partition) = (topics.iter().position(|of| of == topic)?, partition.parse().ok()?);
        let location = Location::OfTopic { topic: topic.to_owned(), place: place as u16, partition };
        let snapshot_bytes = if self.initial { self.bytes.unwrap_or(0) } else { 0 };
        Some(Partition { number: number as u32, location, initial: self.initial, snapshot_bytes, since: self.since })
    }

    fn partition(&self, number: usize, path: PathBuf) -> Partition {
        let snapshot_bytes = if self.initial { self.bytes.unwrap_or(u64::MAX) } else { 0 };
        let (number, location) = (number as u32, Location::File(path));
        Partition { number, location, initial: self.initial, snapshot_bytes, since: self.since }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self { format_version: FORMAT_VERSION, sources: BTreeMap::new() }
    }
}

/// Where a source, or a partition of it, is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file; of a source also a folder or a pattern.
    File(PathBuf),
    /// A topic of our own log, to which what is posted goes first.
    Topic { partitions: u32 },
    /// All of a source's topics, of others.
    Topics(Vec<String>),
    /// A partition of the topic at this place among the source's.
    OfTopic { topic: String, place: u16, partition: u32 },
}

/// A partition of a topic as the brokers have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPartition {
    pub topic: String,
    pub partition: u32,
    /// Behind its last record, as Kafka counts.
    pub end: u64,
}

/// A partition of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub number: u32,
    pub location: Location,
    /// There from the first start on: every merge waits for it.
    pub initial: bool,
    /// What begins before this byte of its content was there at the first start.
    pub snapshot_bytes: u64,
    /// The pipeline's generation when it was first known. Nobody has read it under an earlier one.
    pub since: u32,
}

impl Partition {
    /// What its records come from, in a merge.
    pub fn origin(&self, source: usize) -> Origin {
        match &self.location {
            Location::OfTopic { place, partition, .. } => {
                Origin { topic: *place, ..Origin::of_source(source, *partition) }
            }
            _ => Origin::of_source(source, self.number),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PartitionsError {
    #[error("source `{source_name}`: no file at {path}; check spec.sources, or say --source {source_name}=PATH")]
    None { source_name: String, path: String },
    #[error("source `{source_name}`: {pattern} is not a pattern: {cause}")]
    Pattern { source_name: String, pattern: String, cause: String },
    #[error("source `{source_name}`: cannot look into {path}: {cause}")]
    Io { source_name: String, path: String, cause: io::Error },
    #[error(
        "source `{source_name}`: {} was read before and is gone; put it back under that name (an empty file will not do), \
         or start with an empty data folder", what(.name)
    )]
    Gone { source_name: String, name: String },
    #[error("sources.json is of format version {found}; this version reads up to {FORMAT_VERSION}: upgrade first")]
    Version { found: u32 },
    #[error(
        "source `{source_name}`: topic {topic} has {found} partitions and had {known}; a topic that was deleted and made \
         again is another source: give it another name, or start with an empty data folder"
    )]
    Fewer { source_name: String, topic: String, found: usize, known: usize },
    #[error("source `{source_name}`: topic {topic}: {cause}")]
    Topic { source_name: String, topic: String, cause: String },
    #[error("source `{source_name}` has {found} partitions; {MAX_FILES} is the most")]
    TooMany { source_name: String, found: usize },
}

/// All sources together have fewer origins than a merge can number: 32 sources of so many.
const MAX_FILES: usize = 2_000;

fn what(name: &str) -> &str {
    if name == "." { "a single file (not a folder or a pattern)" } else { name }
}

/// The files of a source, sorted: (name, path).
fn files(source_name: &str, location: &Path) -> Result<Vec<(String, PathBuf)>, PartitionsError> {
    let text = location.to_string_lossy().into_owned();
    let owned = || source_name.to_owned();
    let failed = |cause| PartitionsError::Io { source_name: owned(), path: text.clone(), cause };
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    if location.is_file() {
        found.push((".".into(), location.to_owned()));
    } else if location.is_dir() {
        for entry in fs::read_dir(location).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_file() && !name.starts_with('.') {
                found.push((name, path));
            }
        }
    } else {
        let fixed: PathBuf =
            location.components().take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '['])).collect();
        let matches = glob::glob(&text).map_err(|e| PartitionsError::Pattern {
            source_name: owned(),
            pattern: text.clone(),
            cause: e.to_string(),
        })?;
        for path in matches {
            let path = path.map_err(|e| failed(e.into()))?;
            let name = path.strip_prefix(&fixed).unwrap_or(&path).to_string_lossy().into_owned();
            if path.is_file() {
                found.push((name, path));
            }
        }
    }
    if found.is_empty() {
        return Err(PartitionsError::None { source_name: owned(), path: text });
    }
    found.sort();
    Ok(found)
}

impl Registry {
    /// What is registered of a source, without looking for the files.
    pub fn of(&self, source_name: &str, location: &Location) -> Vec<Partition> {
        let registered = self.sources.get(source_name).into_iter().flatten().enumerate();
        match location {
            Location::Topic { partitions } => return of_topic(*partitions),
            Location::Topics(topics) => {
                return registered.filter_map(|(n, known)| known.partition_of(n, topics)).collect();
            }
            Location::File(_) | Location::OfTopic { .. } => {}
        }
        let partition = |(n, file): (usize, &RegisteredFile)| file.partition(n, PathBuf::from(&file.name));
        registered.map(partition).collect()
    }

    /// The partitions of a source. Its new files are registered, as of this generation of the pipeline; a registered one that
    /// is gone is an error.
    pub fn resolve(
        &mut self,
        source_name: &str,
        location: &Location,
        generation: u32,
    ) -> Result<Vec<Partition>, PartitionsError> {
        match location {
            Location::File(path) => self.resolve_files(source_name, path, generation),
            Location::Topic { .. } | Location::Topics(_) | Location::OfTopic { .. } => {
                Ok(self.of(source_name, location))
            }
        }
    }

    /// The partitions of a source of topics: those that brokers have are registered, as of this generation of the pipeline.
    pub fn resolve_topics(
        &mut self,
        source_name: &str,
        topics: &[String],
        found: &[FoundPartition],
        generation: u32,
    ) -> Result<Vec<Partition>, PartitionsError> {
        if self.format_version > FORMAT_VERSION {
            return Err(PartitionsError::Version { found: self.format_version });
        }
        let first_time = !self.sources.contains_key(source_name);
        let known = self.sources.entry(source_name.to_owned()).or_default();
        for topic in topics {
            let of_topic = |name: &str| name.rsplit_once('/').is_some_and(|(of, _)| of == topic);
            let known = known.iter().filter(|k| of_topic(&k.name)).count();
            let found = found.iter().filter(|found| found.topic == *topic).count();
            if found < known {
                let (source_name, topic) = (source_name.to_owned(), topic.clone());
                return Err(PartitionsError::Fewer { source_name, topic, found, known });
            }
        }
        for FoundPartition { topic, partition, end } in found {
            let name = format!("{topic}/{partition}");
            if !known.iter().any(|k| k.name == name) {
                known.push(RegisteredFile { name, initial: first_time, bytes: Some(*end), since: generation });
                self.format_version = FORMAT_VERSION;
            }
        }
        if known.len() > MAX_FILES {
            return Err(PartitionsError::TooMany { source_name: source_name.to_owned(), found: known.len() });
        }
        Ok(self.of(source_name, &Location::Topics(topics.to_vec())))
    }

    fn resolve_files(
        &mut self,
        source_name: &str,
        location: &Path,
        generation: u32,
    ) -> Result<Vec<Partition>, PartitionsError> {
        if self.format_version > FORMAT_VERSION {
            return Err(PartitionsError::Version { found: self.format_version });
        }
        let found = files(source_name, location)?;
        let first_time = !self.sources.contains_key(source_name);
        let found_count = found.len();
        let known = self.sources.entry(source_name.to_owned()).or_default();
        for (name, path) in &found {
            if !known.iter().any(|k| k.name == *name) {
                known.push(RegisteredFile::new(name, path, first_time, generation));
                self.format_version = FORMAT_VERSION;
            }
        }
        if known.len() > MAX_FILES {
            return Err(PartitionsError::TooMany { source_name: source_name.to_owned(), found: found_count });
        }
        let partition = |(number, file): (usize, &RegisteredFile)| {
            let path = found.iter().find(|(name, _)| *name == file.name).map(|(_, path)| path.clone());
            let gone = || PartitionsError::Gone { source_name: source_name.to_owned(), name: file.name.clone() };
            Ok(file.partition(number, path.ok_or_else(gone)?))
        };
        known.iter().enumerate().map(partition).collect()
    }
}

/// A topic has its partitions from the beginning.
fn of_topic(partitions: u32) -> Vec<Partition> {
    let location = Location::Topic { partitions };
    let since = FIRST_GENERATION;
    let partition = |number| Partition { number, location: location.clone(), initial: true, snapshot_bytes: 0, since };
    (0..partitions).map(partition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(partition: &Partition) -> &Path {
        match &partition.location {
            Location::File(path) => path,
            _ => panic!("not a file"),
        }
    }
    fn at(path: impl Into<PathBuf>) -> Location {
        Location::File(path.into())
    }

    #[test]
    fn files_keep_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| fs::write(dir.path().join(name), "x\n").unwrap();
        touch("b.jsonl");
        touch("c.jsonl.gz");
        let mut registry = Registry::default();
        let numbers = |registry: &mut Registry| -> Vec<(u32, String, bool)> {
            let found = registry.resolve("s", &at(dir.path()), 1).unwrap();
            found
                .into_iter()
                .map(|p| (p.number, path(&p).file_name().unwrap().to_str().unwrap().into(), p.initial))
                .collect()
        };
        assert_eq!(numbers(&mut registry), [(0, "b.jsonl".into(), true), (1, "c.jsonl.gz".into(), true)]);
        touch("a.jsonl");
        assert_eq!(numbers(&mut registry)[2], (2, "a.jsonl".into(), false), "a newer file comes last");
        fs::remove_file(dir.path().join("b.jsonl")).unwrap();
        assert!(
            matches!(registry.resolve("s", &at(dir.path()), 1), Err(PartitionsError::Gone { name, .. }) if name == "b.jsonl")
        );
    }

    #[test]
    fn what_was_there_at_first_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("a.jsonl", "one\n");
        write("b.jsonl.gz", "compressed");
        let mut registry = Registry::default();
        let snapshots = |registry: &mut Registry| -> Vec<u64> {
            let found = registry.resolve("s", &at(dir.path()), 1).unwrap();
            found.into_iter().map(|partition| partition.snapshot_bytes).collect()
        };
        assert_eq!(snapshots(&mut registry), [4, u64::MAX]);
        write("a.jsonl", "one\ntwo\n");
        write("c.jsonl", "three\n");
        let mut registry: Registry = serde_json::from_str(&serde_json::to_string(&registry).unwrap()).unwrap();
        assert_eq!(snapshots(&mut registry), [4, u64::MAX, 0], "a later file is none of it");
        let old = r#"{"formatVersion":1,"sources":{"s":[{"name":"a.jsonl","initial":true}]}}"#;
        let mut old: Registry = serde_json::from_str(old).unwrap();
        assert_eq!(snapshots(&mut old), [u64::MAX, 0, 0], "version 1 has no lengths");
        assert_eq!(old.format_version, FORMAT_VERSION);
    }

    #[test]
    fn partitions_of_topics_keep_their_numbers_and_may_grow() {
        let topics = ["a".to_owned(), "b".to_owned()];
        let found = |list: &[(&str, u32)]| -> Vec<FoundPartition> {
            let of = |(topic, partition): &(&str, u32)| FoundPartition {
                topic: (*topic).to_owned(),
                partition: *partition,
                end: 10,
            };
            list.iter().map(of).collect()
        };
        let mut registry = Registry::default();
        let mut origins = |list: &[(&str, u32)], generation| -> Result<Vec<_>, PartitionsError> {
            let partitions = registry.resolve_topics("s", &topics, &found(list), generation)?;
            let of = |p: &Partition| {
                (p.number, p.origin(2).topic, p.origin(2).partition, p.initial, p.snapshot_bytes, p.since)
            };
            Ok(partitions.iter().map(of).collect())
        };
        let first = vec![(0, 0, 0, true, 10, 1), (1, 1, 0, true, 10, 1)];
        assert_eq!(origins(&[("a", 0), ("b", 0)], 1).unwrap(), first);
        let grown = [first, vec![(2, 0, 1, false, 0, 2)]].concat();
        assert_eq!(origins(&[("a", 0), ("a", 1), ("b", 0)], 2).unwrap(), grown);
        let fewer = origins(&[("a", 0), ("b", 0)], 2);
        assert!(matches!(fewer, Err(PartitionsError::Fewer { found: 1, known: 2, .. })), "{fewer:?}");
    }

    #[test]
    fn one_file_may_move_and_patterns_reach_into_folders() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["x", "y"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("all.csv"), "a\n").unwrap();
        }
        let mut registry = Registry::default();
        registry.resolve("one", &at(dir.path().join("x/all.csv")), 1).unwrap();
        assert_eq!(registry.resolve("one", &at(dir.path().join("y/all.csv")), 1).unwrap()[0].number, 0);
        let found = registry.resolve("two", &at(dir.path().join("*/all.csv")), 1).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(registry.sources["two"][1].name, "y/all.csv");
        let none = registry.resolve("three", &at(dir.path().join("nothing*")), 1);
        assert!(none.unwrap_err().to_string().contains("--source three=PATH"));
    }
}
