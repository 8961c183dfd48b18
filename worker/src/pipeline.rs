//! A pipeline as a command line gives it: the YAML file, its keys, and where its sources are.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use millrace_crds::{
    Problems, Validated,
    spec::{PipelineSpec, Source},
};
use millrace_engine::{
    plan::{Plan, PlanError},
    privacy::{self, Pseudonymizer},
};

use crate::source::partitions::Location;

/// A pipeline that may run.
pub struct Pipeline {
    pub validated: Validated,
    pub plan: Arc<Plan>,
    pub keys: Pseudonymizer,
    /// To which files that the spec names are relative.
    pub folder: PathBuf,
    /// Where each source is, in the spec's order.
    pub locations: Vec<Location>,
}

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{} is not a valid pipeline:\n{problems}", path.display())]
    Invalid { path: PathBuf, problems: Problems },
    #[error("pseudonym keys in {}: {cause}", path.display())]
    Keys { path: PathBuf, cause: String },
    #[error("--source {name}=…: there is no such source; the pipeline has {known}")]
    NoSource { name: String, known: String },
    #[error("--source {name}=…: events are posted to this source; it is not read from a place")]
    Posted { name: String },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Reads and validates a pipeline's file.
pub fn validate(path: &Path) -> Result<Validated, PipelineError> {
    let text = fs::read_to_string(path).map_err(|cause| PipelineError::Read { path: path.to_owned(), cause })?;
    millrace_crds::load(&text).map_err(|problems| PipelineError::Invalid { path: path.to_owned(), problems })
}

impl Pipeline {
    /// `sources`: places that replace those in the file. Paths in the file are relative to it.
    pub fn load(path: &Path, sources: &BTreeMap<String, PathBuf>) -> Result<Self, PipelineError> {
        let validated = validate(path)?;
        let beside = path.parent().unwrap_or(Path::new("."));
        let spec = validated.spec();
        let plan = Arc::new(Plan::compile(spec)?);
        let keys = read_keys(beside, spec)?;
        let names: Vec<&str> = spec.sources.iter().map(|s| s.name.as_str()).collect();
        if let Some(name) = sources.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(PipelineError::NoSource { name: name.clone(), known: names.join(", ") });
        }
        let location = |source: &Source| match (&source.http, sources.get(&source.name)) {
            (Some(_), Some(_)) => Err(PipelineError::Posted { name: source.name.clone() }),
            (Some(http), None) => Ok(Location::Topic { partitions: http.partitions }),
            (None, Some(path)) => Ok(Location::File(path.clone())),
            (None, None) if source.kafka.is_some() => {
                Ok(Location::Topics(source.kafka.iter().flat_map(|kafka| kafka.topics.clone()).collect()))
            }
            (None, None) => Ok(Location::File(beside.join(source.file.as_ref().map_or("", |f| f.path.as_str())))),
        };
        let locations = spec.sources.iter().map(location).collect::<Result<_, _>>()?;
        Ok(Self { locations, plan, keys, folder: beside.to_owned(), validated })
    }

    pub fn spec(&self) -> &PipelineSpec {
        self.validated.spec()
    }
}

fn read_keys(beside: &Path, spec: &PipelineSpec) -> Result<Pseudonymizer, PipelineError> {
    let keys = &spec.privacy.pseudonym_keys;
    let Some(file) = &keys.file else {
        let cause = "a Secret exists only in a cluster; give spec.privacy.pseudonymKeys.file for a local run".into();
        return Err(PipelineError::Keys { path: PathBuf::from("spec.privacy.pseudonymKeys"), cause });
    };
    let path = beside.join(file);
    let failed = |cause: String| PipelineError::Keys { path: path.clone(), cause };
    let text = fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
    let mut known = privacy::parse_keys(&text).map_err(|e| failed(e.to_string()))?;
    let active = known.remove(&keys.active).ok_or_else(|| failed(format!("there is no key `{}`", keys.active)))?;
    Ok(Pseudonymizer::new(&active))
}
