//! A data folder, open: its lock, its log, its checkpoints, and which files its sources were.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use millrace_crds::spec::PipelineSpec;
use millrace_engine::{ENGINE_VERSION, plan::ConfigureError};
use serde::{Deserialize, Serialize};

use crate::{
    configuration::Configuration,
    host::Tasks,
    kafka::Fetcher,
    log::{
        Log, OpenError, ReadError,
        embedded::{EmbeddedLog, Options},
        kafka::{
            self,
            connect::{Connected, prefix},
        },
    },
    pipeline::Pipeline,
    source::partitions::{Location, Partition, PartitionsError, Registry},
    store::{
        Store,
        checkpoint::Claimant,
        data_dir::{DataDir, DataDirError, Found, Identity, Wanted},
        disk::{self, DiskError},
        folder::FolderStore,
        s3::{self, S3Store, Tuning},
    },
};

/// Where a run left the pipeline's file and its sources, for the commands that look at its data.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LastRun {
    format_version: u32,
    pipeline: PathBuf,
}

/// The embedded log writes the ends of all partitions with every append.
const MAX_LOCAL_PARTITIONS: u32 = 256;

/// Where the API of the last run was.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServingAt {
    format_version: u32,
    address: SocketAddr,
}

const SERVING: &str = "serving.json";
const LAST_RUN: &str = "last-run.json";
const SOURCES: &str = "sources.json";
const KEY: &str = "key.json";
const PLACES: &str = "places.json";

/// Where a folder's checkpoints and logs are. Absent where they were in the folder before they could be elsewhere.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Places {
    format_version: u32,
    checkpoints: String,
    logs: String,
}

const IN_FOLDER: &str = "the data folder";

impl Places {
    fn in_folder() -> Self {
        Self { format_version: 1, checkpoints: IN_FOLDER.to_owned(), logs: IN_FOLDER.to_owned() }
    }

    fn of(pipeline: &Pipeline) -> Self {
        let spec = pipeline.spec();
        let checkpoints = spec.checkpoints.s3.as_ref().map_or_else(|| IN_FOLDER.to_owned(), ToString::to_string);
        let topics = spec.kafka.as_ref().map(|kafka| format!("the topics {}*", prefix(kafka, pipeline)));
        Self { format_version: 1, checkpoints, logs: topics.unwrap_or_else(|| IN_FOLDER.to_owned()) }
    }
}

/// Tells whether the pseudonyms' key is still the one that a folder was begun with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyCheck {
    format_version: u32,
    key_id: String,
    /// The pseudonym of a text that is no user's id.
    check: String,
}

impl KeyCheck {
    pub fn of(pipeline: &Pipeline) -> Self {
        let check = format!("{:032x}", pipeline.keys.user_of("\0millrace key check").0);
        Self { format_version: 1, key_id: pipeline.keys.key_id().to_owned(), check }
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(transparent)]
    Folder(#[from] DataDirError),
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Partitions(#[from] PartitionsError),
    #[error("{} does not say which pipeline's file it was run with; name it with --pipeline FILE", folder.display())]
    NoLastRun { folder: PathBuf },
    #[error(
        "the {what} of {} are in {known}, and the pipeline says {wanted}; go back to that place, or copy all that is there to \
         the new one and then remove {PLACES} from the folder", folder.display()
    )]
    OtherPlace { folder: PathBuf, what: &'static str, known: String, wanted: String },
    #[error(
        "the key `{key_id}` is not the one that {} was written with, so no user would be known again; restore the key \
         file, or start with an empty folder (--data)", folder.display()
    )]
    OtherKey { folder: PathBuf, key_id: String },
    #[error(transparent)]
    S3(#[from] s3::OpenError),
    #[error(transparent)]
    Kafka(#[from] kafka::OpenError),
    #[error(
        "topic {topic} has records, and {} is empty: they belong to state that is elsewhere or lost; say where it is \
         (--data), or choose another spec.kafka.topics.prefix", folder.display()
    )]
    NotOurs { folder: PathBuf, topic: String },
    #[error("{}: {cause}; restore it from a copy, or start with an empty data folder", path.display())]
    Damaged { path: PathBuf, cause: String },
    #[error(
        "spec.partitions and the partitions of http sources are {partitions} together; the log of a local run takes at \
         most {MAX_LOCAL_PARTITIONS}"
    )]
    TooManyPartitions { partitions: u32 },
    #[error(
        "the state in {} was begun with other {}, and cannot go on under this pipeline ({GOES_ON}); go back, or start \
         with an empty folder (--data)", folder.display(), changes.join(", ")
    )]
    Changed { folder: PathBuf, changes: Vec<String> },
    #[error(
        "the state in {} is under another version of this pipeline; changed: {}. `millrace run` takes it over; or name \
         the file of that version with --pipeline", folder.display(), changes.join(", ")
    )]
    NotYet { folder: PathBuf, changes: Vec<String> },
    #[error("{}: {cause}; use the program that wrote it, or start with an empty folder (--data)", folder.display())]
    Generation { folder: PathBuf, cause: ConfigureError },
}

/// Of a spec: what may change while state goes on.
const MAY_CHANGE: [&str; 7] =
    ["features", "outcomes", "models", "policies", "placements", "experiments", "privacy.user"];
/// Of a source: which of its records are what events, and where an event's fields are.
const MAY_CHANGE_OF_SOURCES: [&str; 5] = ["events", "drop", "platform", "session", "version"];
pub const GOES_ON: &str = "features, models, policies, placements and experiments may change on living state, and how a source's \
    records are mapped to the same events; outcomes may come and go; a name, once used, keeps its outcome";

/// Everything of one data folder.
pub struct Data {
    folder: PathBuf,
    _lock: DataDir,
    log: Arc<dyn Log>,
    /// Of a pipeline with brokers.
    connected: Option<Connected>,
    store: Arc<dyn Store>,
    claimant: Claimant,
    configuration: Configuration,
}

fn write_json(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), DataError> {
    let path = folder.join(name);
    let damaged = |cause: serde_json::Error| DataError::Damaged { path: path.clone(), cause: cause.to_string() };
    let bytes = serde_json::to_vec_pretty(value).map_err(damaged)?;
    Ok(disk::replace(&path, &folder.join(format!(".{name}.tmp")), &bytes).map_err(DiskError::from)?)
}

fn read_json<T: for<'de> Deserialize<'de>>(folder: &Path, name: &str) -> Result<Option<T>, DataError> {
    let path = folder.join(name);
    let damaged = |cause: String| DataError::Damaged { path: path.clone(), cause };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| damaged(e.to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DiskError::new(&path, &e).into()),
    }
}

/// The pipeline's file as of the last run on this folder.
pub fn last_pipeline(folder: &Path) -> Result<PathBuf, DataError> {
    DataDir::open_read_only(folder)?;
    let last: Option<LastRun> = read_json(folder, LAST_RUN)?;
    Ok(last.ok_or(DataError::NoLastRun { folder: folder.to_owned() })?.pipeline)
}

/// Where the pipeline says that checkpoints are: in a bucket, or in its folder.
pub fn in_bucket(spec: &PipelineSpec) -> Result<Option<Arc<dyn Store>>, s3::OpenError> {
    let Some(place) = &spec.checkpoints.s3 else { return Ok(None) };
    Ok(Some(Arc::new(S3Store::open(place, Tuning::default())?)))
}

/// The checkpoints of a pipeline with this folder, also while a run writes there. Nothing is written or removed.
pub fn checkpoints(folder: &Path, spec: &PipelineSpec) -> Result<Arc<dyn Store>, DataError> {
    let dir = DataDir::open_read_only(folder)?;
    Ok(in_bucket(spec)?.unwrap_or_else(|| Arc::new(FolderStore::open_read_only(&dir.checkpoints()))))
}

/// Likewise, of this very pipeline.
pub fn checkpoints_of(folder: &Path, pipeline: &Pipeline) -> Result<(Arc<dyn Store>, Configuration), DataError> {
    let dir = DataDir::open_read_only(folder)?;
    if dir.identity().spec != pipeline.validated.result_digest_text() {
        let changes = pipeline.validated.changes(&dir.identity().spec);
        return Err(DataError::NotYet { folder: folder.to_owned(), changes });
    }
    check_key(folder, pipeline)?;
    let configuration = configuration_of(dir.identity(), pipeline).map_err(|cause| of_generation(folder, cause))?;
    Ok((checkpoints(folder, pipeline.spec())?, configuration))
}

/// Of this state, if the pipeline is what it is under; otherwise as it would be then.
pub fn configuration_of(identity: &Identity, pipeline: &Pipeline) -> Result<Configuration, ConfigureError> {
    let Identity { spec, earlier, .. } = identity;
    let last = pipeline.validated.result_digest_text();
    let before = (spec != last).then_some(spec);
    let earlier: Vec<&str> = earlier.iter().chain(before).map(String::as_str).collect();
    Configuration::new(last, &earlier, &pipeline.plan)
}

/// May this path of a spec change while state goes on?
fn may_change(path: &str) -> bool {
    let part = path.strip_prefix("spec.").unwrap_or_default();
    let is_in = |part: &str, names: &[&str]| {
        let is_it = |name| part.strip_prefix(name).is_some_and(|rest: &str| !rest.starts_with(char::is_alphanumeric));
        names.iter().any(|name| is_it(*name))
    };
    let of_source = part.strip_prefix("sources[").and_then(|rest| rest.split_once("].")).map(|(_, part)| part);
    is_in(part, &MAY_CHANGE) || of_source.is_some_and(|part| is_in(part, &MAY_CHANGE_OF_SOURCES))
}

/// What the pipeline changes that may not change while this state goes on.
pub fn forbidden_changes(identity: &Identity, pipeline: &Pipeline) -> Result<Vec<String>, ConfigureError> {
    let mut changes = pipeline.validated.changes(&identity.spec);
    changes.retain(|path| !may_change(path));
    let known = configuration_of(identity, pipeline)?;
    if known.first().names != pipeline.plan.names {
        // What an event is called, or whether decisions are impressions.
        changes.push("names of events".to_owned());
    }
    changes.extend(known.other_meanings());
    Ok(changes)
}

/// May the folder's state go on under this pipeline?
fn check_change(folder: &Path, dir: &DataDir, pipeline: &Pipeline) -> Result<(), DataError> {
    let changes = forbidden_changes(dir.identity(), pipeline).map_err(|cause| of_generation(folder, cause))?;
    if changes.is_empty() {
        return Ok(());
    }
    Err(DataError::Changed { folder: folder.to_owned(), changes })
}

fn of_generation(folder: &Path, cause: ConfigureError) -> DataError {
    DataError::Generation { folder: folder.to_owned(), cause }
}

fn check_key(folder: &Path, pipeline: &Pipeline) -> Result<bool, DataError> {
    match read_json::<KeyCheck>(folder, KEY)? {
        None => Ok(false),
        Some(known) if known == KeyCheck::of(pipeline) => Ok(true),
        Some(KeyCheck { key_id, .. }) => Err(DataError::OtherKey { folder: folder.to_owned(), key_id }),
    }
}

/// Checkpoints and logs that are elsewhere would count as none.
fn check_places(folder: &Path, dir: &DataDir, pipeline: &Pipeline) -> Result<(), DataError> {
    let wanted = Places::of(pipeline);
    let is_used = || fs::read_dir(dir.checkpoints()).is_ok_and(|mut entries| entries.next().is_some());
    let known = match read_json::<Places>(folder, PLACES)? {
        Some(known) => known,
        None if is_used() => Places::in_folder(),
        None => return Ok(()),
    };
    let both = [("checkpoints", known.checkpoints, wanted.checkpoints), ("logs", known.logs, wanted.logs)];
    match both.into_iter().find(|(_, known, wanted)| known != wanted) {
        Some((what, known, wanted)) => Err(DataError::OtherPlace { folder: folder.to_owned(), what, known, wanted }),
        None => Ok(()),
    }
}

/// The partitions of each source as they are found now, in the spec's order; new ones are added to the registry.
pub fn resolve(
    registry: &mut Registry,
    pipeline: &Pipeline,
    connected: Option<&Connected>,
    generation: u32,
) -> Result<Vec<Vec<Partition>>, PartitionsError> {
    let sources = pipeline.spec().sources.iter().zip(&pipeline.locations);
    let found = sources.map(|(source, location)| match (location, connected) {
        (Location::Topics(topics), Some(connected)) => {
            let found = connected.find(topics).map_err(|(topic, cause)| PartitionsError::Topic {
                source_name: source.name.clone(),
                topic,
                cause,
            })?;
            registry.resolve_topics(&source.name, topics, &found, generation)
        }
        _ => registry.resolve(&source.name, location, generation),
    });
    found.collect()
}

impl Data {
    /// Opens or creates a folder for a run. Fails if another process has it, or another pipeline, or if its state cannot
    /// go on under this version of the pipeline.
    pub fn open(folder: &Path, pipeline_file: &Path, pipeline: &Pipeline) -> Result<Self, DataError> {
        let data = Self::open_and(folder, pipeline, |dir| {
            check_change(folder, dir, pipeline)?;
            tracing::info!(
                changed = pipeline.validated.changes(&dir.identity().spec).join(", "),
                "the pipeline has changed; its state goes on under the new version"
            );
            Ok(dir.change_spec(pipeline.validated.result_digest_text())?)
        })?;
        if !check_key(folder, pipeline)? {
            write_json(folder, KEY, &KeyCheck::of(pipeline))?;
        }
        write_json(folder, PLACES, &Places::of(pipeline))?;
        let path = fs::canonicalize(pipeline_file).unwrap_or_else(|_| pipeline_file.to_owned());
        write_json(folder, LAST_RUN, &LastRun { format_version: 1, pipeline: path })?;
        Ok(data)
    }

    fn open_and(
        folder: &Path,
        pipeline: &Pipeline,
        changed: impl FnOnce(&mut DataDir) -> Result<(), DataError>,
    ) -> Result<Self, DataError> {
        let (validated, text) = (&pipeline.validated, pipeline.validated.result_digest_text());
        let wanted = Wanted {
            name: validated.name(),
            namespace: validated.namespace(),
            partitions: validated.spec().partitions,
            spec: text,
        };
        let kafka = validated.spec().kafka.as_ref();
        let posted = validated.spec().sources.iter().filter_map(|source| source.http.as_ref());
        let partitions = wanted.partitions + posted.map(|http| http.partitions).sum::<u32>();
        if kafka.is_none() && partitions > MAX_LOCAL_PARTITIONS {
            return Err(DataError::TooManyPartitions { partitions });
        }
        let connected = kafka.map(|kafka| Connected::to(kafka, pipeline, Tasks::All)).transpose()?;
        if DataDir::is_new(folder)
            && let Some(topic) = connected.as_ref().map(Connected::not_empty).transpose()?.flatten()
        {
            return Err(DataError::NotOurs { folder: folder.to_owned(), topic });
        }
        let (mut dir, found) = DataDir::open(folder, &wanted)?;
        check_key(folder, pipeline)?;
        check_places(folder, &dir, pipeline)?;
        if found == Found::OtherSpec {
            changed(&mut dir)?;
        }
        let configuration = configuration_of(dir.identity(), pipeline).map_err(|cause| of_generation(folder, cause))?;
        let log: Arc<dyn Log> = match &connected {
            Some(connected) => connected.log.clone(),
            None => Arc::new(EmbeddedLog::open(&dir.log(), Options::default())?),
        };
        let store = match in_bucket(validated.spec())? {
            Some(store) => store,
            None => Arc::new(FolderStore::open(&dir.checkpoints())?),
        };
        let started = crate::host::clock::unix_ms();
        let claimant = Claimant {
            pipeline: dir.identity().identity.clone(),
            owner: format!("{}-{started}", std::process::id()),
            engine_version: ENGINE_VERSION,
        };
        Ok(Self { folder: folder.to_owned(), _lock: dir, log, connected, store, claimant, configuration })
    }

    /// Opens a folder that a run has left, for looking. Creates none, and takes no other version of the pipeline over.
    pub fn open_existing(folder: &Path, pipeline: &Pipeline) -> Result<Self, DataError> {
        DataDir::open_read_only(folder)?;
        Self::open_and(folder, pipeline, |dir| {
            let changes = pipeline.validated.changes(&dir.identity().spec);
            Err(DataError::NotYet { folder: folder.to_owned(), changes })
        })
    }

    /// Leaves word where the API is.
    pub fn tell_address(&self, address: SocketAddr) -> Result<(), DataError> {
        write_json(&self.folder, SERVING, &ServingAt { format_version: 1, address })
    }

    pub fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }
    /// Reads topics of others, if the pipeline has brokers.
    pub fn fetcher(&self) -> Option<Arc<Fetcher>> {
        self.connected.as_ref().map(|connected| connected.fetcher.clone())
    }
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
    pub fn claimant(&self) -> &Claimant {
        &self.claimant
    }
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    fn registry(&self) -> Result<Registry, DataError> {
        Ok(read_json(&self.folder, SOURCES)?.unwrap_or_default())
    }

    /// The partitions of each source, in the spec's order; new files are registered before anything is read of them.
    pub fn partitions(&self, pipeline: &Pipeline) -> Result<Vec<Vec<Partition>>, DataError> {
        let before = self.registry()?;
        let mut registry = before.clone();
        let found = resolve(&mut registry, pipeline, self.connected.as_ref(), self.configuration.generation())?;
        if registry != before {
            write_json(&self.folder, SOURCES, &registry)?;
        }
        Ok(found)
    }

    /// The partitions as they were registered, wherever their files are now.
    pub fn registered(&self, pipeline: &Pipeline) -> Result<Vec<Vec<Partition>>, DataError> {
        let registry = self.registry()?;
        let sources = pipeline.spec().sources.iter().zip(&pipeline.locations);
        Ok(sources.map(|(source, location)| registry.of(&source.name, location)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TOUR: &str = include_str!("../../examples/tour/pipeline.yaml");

    fn pipeline(folder: &Path, yaml: &str, key: char) -> (PathBuf, Pipeline) {
        let file = folder.join("pipeline.yaml");
        fs::write(&file, yaml).unwrap();
        fs::write(folder.join("demo-keys.txt"), format!("demo: {}", key.to_string().repeat(32))).unwrap();
        let pipeline = Pipeline::load(&file, &BTreeMap::new()).unwrap();
        (file, pipeline)
    }

    #[test]
    fn another_key_or_spec_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let (file, first) = pipeline(dir.path(), TOUR, 'a');
        assert!(Data::open_existing(&folder, &first).is_err() && !folder.exists(), "looking creates nothing");
        drop(Data::open(&folder, &file, &first).unwrap());
        assert!(checkpoints_of(&folder, &first).is_ok());
        let (_, other_key) = pipeline(dir.path(), TOUR, 'b');
        assert!(matches!(Data::open(&folder, &file, &other_key), Err(DataError::OtherKey { .. })));
        assert!(matches!(checkpoints_of(&folder, &other_key), Err(DataError::OtherKey { .. })));
        let (_, other_spec) = pipeline(dir.path(), &TOUR.replace("dedupWithin: 1h", "dedupWithin: 2h"), 'a');
        let Err(DataError::Changed { changes, .. }) = Data::open(&folder, &file, &other_spec) else {
            panic!("let through")
        };
        assert_eq!(changes, ["spec.sources[0].eventId.dedupWithin"]);
    }

    #[test]
    fn features_and_models_may_change_and_every_version_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let (file, first) = pipeline(dir.path(), TOUR, 'a');
        drop(Data::open(&folder, &file, &first).unwrap());
        let (_, second) = pipeline(dir.path(), &TOUR.replace("halfLife: 14d", "halfLife: 15d"), 'a');
        assert!(matches!(checkpoints_of(&folder, &second), Err(DataError::NotYet { .. })));
        let Err(DataError::NotYet { changes, .. }) = Data::open_existing(&folder, &second) else {
            panic!("let through")
        };
        assert_eq!(changes, ["spec.features.taste.halfLife"]);
        for _ in 0..2 {
            let data = Data::open(&folder, &file, &second).unwrap();
            assert_eq!(data.configuration().generation(), 2, "the same again is no other");
        }
        let back = Data::open(&folder, &file, &first).unwrap();
        let configuration = back.configuration();
        assert_eq!(
            (configuration.generation(), configuration.spec.as_str()),
            (3, first.validated.result_digest_text())
        );
        assert_eq!(configuration.beginning_of("ctr").unwrap().1, 0);
    }

    #[test]
    fn a_name_that_was_used_keeps_its_outcome_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let (file, first) = pipeline(dir.path(), TOUR, 'a');
        drop(Data::open(&folder, &file, &first).unwrap());
        let refused = |yaml: &str| {
            let (file, other) = pipeline(dir.path(), yaml, 'a');
            match Data::open(&folder, &file, &other) {
                Err(DataError::Changed { changes, .. }) => changes,
                _ => panic!("let through"),
            }
        };
        let longer = TOUR.replace("within: 30m", "within: 31m");
        assert_eq!(refused(&longer), ["the meaning of outcome `click`"]);
        let renamed = TOUR
            .replace("    click: {event: click,", "    tap: {event: click,")
            .replace("outcome: click", "outcome: tap");
        assert_eq!(refused(&renamed), ["the outcome of model `ctr`"]);
        let renamed = renamed.replace("name: ctr", "name: ctr2");
        let (file, second) = pipeline(dir.path(), &renamed, 'a');
        drop(Data::open(&folder, &file, &second).unwrap());
        // Also after it was gone for a while.
        assert_eq!(refused(&longer), ["the meaning of outcome `click`"]);
        let (file, first) = pipeline(dir.path(), TOUR, 'a');
        assert_eq!(Data::open(&folder, &file, &first).unwrap().configuration().generation(), 3);
    }

    #[test]
    fn checkpoints_are_looked_for_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let (file, first) = pipeline(dir.path(), TOUR, 'a');
        drop(Data::open(&folder, &file, &first).unwrap());
        let elsewhere = "spec:\n  checkpoints: {s3: {bucket: shop, region: eu-west-1}}\n";
        let (file, other) = pipeline(dir.path(), &TOUR.replacen("spec:\n", elsewhere, 1), 'a');
        let refused = Data::open(&folder, &file, &other).err().unwrap().to_string();
        assert!(refused.contains("in the data folder") && refused.contains("s3://shop/ in eu-west-1"), "{refused}");
        fs::remove_file(folder.join(PLACES)).unwrap();
        fs::write(folder.join("checkpoints/left-by-a-run"), "").unwrap();
        assert!(
            matches!(Data::open(&folder, &file, &other), Err(DataError::OtherPlace { what: "checkpoints", .. })),
            "a folder of before"
        );
    }

    #[test]
    fn looking_at_checkpoints_leaves_what_a_run_is_writing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let (file, pipeline) = pipeline(dir.path(), TOUR, 'a');
        let run = Data::open(&folder, &file, &pipeline).unwrap();
        let half_written = folder.join("checkpoints/.tmp-1-1");
        fs::write(&half_written, b"half").unwrap();
        checkpoints(&folder, pipeline.spec()).unwrap();
        assert!(half_written.exists());
        drop(run);
    }
}
