//! What a pipeline must give, computed straight from its raw files, slowly and plainly.
//!
//! Nothing here is shared with the engine but the spec's types and the hash of a category. The rules:
//!
//! 1. **Records.** Each file is a partition; files are in the order of their names. Rows count from 1 (CSV: without the
//!    header). With `each`, every element is judged like a record. It is *skipped* if it matches `drop`, or no `when`;
//!    *unconsented* without a user, or if it refuses itself; *rejected* if it is no JSON object, above 1 MiB, has no
//!    readable event time or one before `notBefore`, or an id that is none. Otherwise it gives one event for each `when`
//!    that matches, in declared order. An event after `notAfter` is *future*.
//! 2. **Lateness.** An event is *late* if its time is below (highest time before it in its partition -
//!    `maxOutOfOrderness`). The highest time is that of every event, and unconsented record, that is not from the future.
//!    Events of one record are judged one after the other. A withdrawal is neither late nor from the future: it then acts at
//!    (highest - `maxOutOfOrderness`), which is the partition's watermark plus 1 us.
//! 3. **Merge.** By (time, source, partition, row, index in the record).
//! 4. **Consent.** A grant lets the user in; a withdrawal removes the user with all open joins, unless the standing grant's
//!    time is later than the time the withdrawal itself stated. Everything else of a user without consent is *unconsented*.
//! 5. **Duplicates.** An event is a *duplicate* if one with its (id, user, type, element) was accepted at most
//!    `dedupWithin` before it.
//! 6. **Joins.** An accepted event is first matched as an outcome, to the latest impression of its user that is at most
//!    `within` older and eligible: by item (each of the outcome's items on its own, labelled wherever it stood), by decision
//!    (the same id; labels the outcome's items in it or, if it has none, all; without an id: by item), or any impression of another
//!    record (all its items are labelled). Then, if it is an impression, its features are read and it is opened. Only then
//!    does it count in features.
//! 7. **Examples.** One per model and exposed item, at impression time + `within`. A withdrawal at that very time still
//!    prevents it.

mod input;
mod mapping;
mod state;
mod time;
mod values;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use millrace_crds::spec::PipelineSpec;
use serde::Deserialize;

pub use time::parse_rfc3339;
pub use values::OracleValue;

/// Why the oracle cannot say.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Pipeline { path: PathBuf, message: String },
}

/// What became of the records and events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines or rows.
    pub read: u64,
    /// Events, consent among them.
    pub accepted: u64,
    pub late: u64,
    pub future: u64,
    pub duplicate: u64,
    pub unconsented: u64,
    /// Records or elements.
    pub rejected: BTreeMap<String, u64>,
    /// Records or elements.
    pub skipped: BTreeMap<String, u64>,
}

impl Counts {
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }
    pub fn skipped_total(&self) -> u64 {
        self.skipped.values().sum()
    }
}

/// Events of an outcome's type (by item, where they have items and the join is not by user), and how many of them found
/// an impression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    pub events: u64,
    pub matched: u64,
}

/// One exposed item and its label. Times in microseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct OracleExample {
    pub time: i64,
    pub impression: i64,
    pub item: String,
    /// -1: absent.
    pub position: i32,
    pub label: bool,
    /// NaN: absent.
    pub propensity: f64,
    pub placement: String,
    pub platform: String,
    /// In the order of [`OracleResult::columns`]; empty unless asked for.
    pub values: Vec<OracleValue>,
}

/// Everything that the oracle computes.
#[derive(Clone, Debug, Default)]
pub struct OracleResult {
    pub counts: Counts,
    /// By model, in the order in which they are learned (at equal times: of the merge).
    pub examples: BTreeMap<String, Vec<OracleExample>>,
    pub outcomes: BTreeMap<String, OutcomeCounts>,
    /// By model: the columns whose values the oracle computes (those of the plain kinds).
    pub columns: BTreeMap<String, Vec<String>>,
    /// By raw user id, for users with consent at the end: plain features without `by`, read at the highest event time.
    pub profiles: BTreeMap<String, BTreeMap<String, OracleValue>>,
}

/// The pipeline and where its sources are.
#[derive(Clone, Debug)]
pub struct Oracle {
    spec: PipelineSpec,
    folder: PathBuf,
    sources: BTreeMap<String, PathBuf>,
    with_values: bool,
}

#[derive(Deserialize)]
struct Document {
    spec: PipelineSpec,
}

impl Oracle {
    /// `sources` replaces the paths of the sources named.
    pub fn open(pipeline: &Path, sources: &BTreeMap<String, PathBuf>) -> Result<Self, OracleError> {
        let text =
            fs::read_to_string(pipeline).map_err(|source| OracleError::Read { path: pipeline.into(), source })?;
        let document: Document = serde_saphyr::from_str(&text)
            .map_err(|e| OracleError::Pipeline { path: pipeline.into(), message: e.to_string() })?;
        let folder = pipeline.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Self { spec: document.spec, folder, sources: sources.clone(), with_values: false })
    }

    /// Also computes feature values and profiles: quadratic in the events of a user.
    pub fn with_values(mut self) -> Self {
        self.with_values = true;
        self
    }

    /// Reads everything and computes the result.
    pub fn run(&self) -> Result<OracleResult, OracleError> {
        let mut counts = Counts::default();
        let mut events = Vec::new();
        for (number, source) in self.spec.sources.iter().enumerate() {
            let path = match self.sources.get(&source.name) {
                Some(path) => path.clone(),
                None => self.folder.join(source.file.as_ref().map_or("", |file| file.path.as_str())),
            };
            let mapping = mapping::Mapping::new(&self.spec, source, self.with_values)?;
            for (partition, file) in input::files(&path)?.iter().enumerate() {
                let mut reader = mapping::PartitionReader::new(&mapping, (number, partition), &mut counts, &mut events);
                input::read(file, source, &mut |row, record| reader.record(row, record))?;
            }
        }
        events.sort_by_key(|e| (e.time, e.origin, e.row, e.index));
        let mut state = state::State::new(&self.spec, self.with_values, counts);
        for event in &events {
            state.apply(event);
        }
        Ok(state.finish(events.last().map_or(0, |e| e.time)))
    }
}
