//! Whose state a store holds: one object, replaced by compare-and-set, so that all workers of a fleet know the same of the
//! pipeline's versions and of its sources' partitions. What a data folder keeps in files.

use millrace_crds::Validated;
use millrace_engine::plan::ConfigureError;
use serde::{Deserialize, Serialize};

use crate::{
    configuration::Configuration,
    data::{GOES_ON, KeyCheck, configuration_of, forbidden_changes},
    pipeline::Pipeline,
    source::partitions::Registry,
    store::{
        Outcome, Store, StoreError, Version,
        data_dir::{Identity, Wanted},
        keys,
        sealed::{self, Unsealed},
    },
};

pub const FORMAT_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    pub format_version: u32,
    pub identity: Identity,
    pub key: KeyCheck,
    /// What the names of the pipeline's topics begin with.
    pub topics_prefix: String,
    pub sources: Registry,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("object `pipeline` of the store: {0}; restore it from a copy, or use an empty place")]
    Unusable(#[from] Unsealed),
    #[error("no fleet has its state in the store; are the bucket and the prefix in spec.checkpoints.s3 right?")]
    NotThere,
    #[error("the store is of pipeline {found}, not {wanted}; choose another bucket or prefix in spec.checkpoints.s3")]
    OtherPipeline { found: String, wanted: String },
    #[error(
        "the state was begun with {found} partitions, the pipeline now has {wanted}, and this cannot be changed; go back to \
         {found}, or choose another place in spec.checkpoints.s3"
    )]
    Partitions { found: u32, wanted: u32 },
    #[error(
        "the key `{key_id}` is not the one that the state was begun with, so no user would be known again; restore the key file"
    )]
    OtherKey { key_id: String },
    #[error("the state's logs are the topics {found}*, and the pipeline says {wanted}*; go back to that prefix")]
    OtherTopics { found: String, wanted: String },
    #[error(
        "the state was begun with other {}, and cannot go on under this pipeline ({GOES_ON}); go back, or choose another \
         place in spec.checkpoints.s3", changes.join(", ")
    )]
    Changed { changes: Vec<String> },
    #[error(
        "the fleet works under another version of this pipeline; changed: {}. Give whoever places its tasks this version \
         first (`millrace fleet`)", changes.join(", ")
    )]
    NotYet { changes: Vec<String> },
    #[error("the state of earlier versions: {0}; use the program that wrote it")]
    Generation(#[from] ConfigureError),
    #[error("others change the registration all the time; come again")]
    Contended,
}

/// What may be done about a version of the pipeline that is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It becomes the newest generation.
    Register,
    Refuse,
}

/// As it was read, to be replaced.
pub struct Found {
    pub registration: Registration,
    version: Version,
}

/// Others replace it as well, but rarely.
const ATTEMPTS_MAX: u32 = 10;

fn wanted_of(validated: &Validated) -> Wanted<'_> {
    Wanted {
        name: validated.name(),
        namespace: validated.namespace(),
        partitions: validated.spec().partitions,
        spec: validated.result_digest_text(),
    }
}

/// What is registered. `None` only if the store says that there is nothing.
pub fn read(store: &dyn Store) -> Result<Option<Found>, RegistrationError> {
    let Some(object) = store.get(keys::PIPELINE)? else { return Ok(None) };
    let registration = sealed::unseal(&object.bytes, FORMAT_VERSION)?;
    Ok(Some(Found { registration, version: object.version }))
}

/// The registration of this pipeline, of this very version, which must be there.
pub fn find(store: &dyn Store, pipeline: &Pipeline, topics_prefix: &str) -> Result<Registration, RegistrationError> {
    let mut found = read(store)?.ok_or(RegistrationError::NotThere)?.registration;
    found.check(pipeline, topics_prefix)?;
    if found.identity.spec != pipeline.validated.result_digest_text() {
        found.change(pipeline, Change::Refuse)?;
    }
    Ok(found)
}

/// The registration of this pipeline, of this very version; made if there is none.
pub fn open(
    store: &dyn Store,
    pipeline: &Pipeline,
    topics_prefix: &str,
    change: Change,
) -> Result<Registration, RegistrationError> {
    for _ in 0..ATTEMPTS_MAX {
        let (registration, expected) = match read(store)? {
            None => {
                let new = Registration {
                    format_version: FORMAT_VERSION,
                    identity: Identity::new(&wanted_of(&pipeline.validated)),
                    key: KeyCheck::of(pipeline),
                    topics_prefix: topics_prefix.to_owned(),
                    sources: Registry::default(),
                };
                (new, None)
            }
            Some(mut found) => {
                found.registration.check(pipeline, topics_prefix)?;
                if found.registration.identity.spec == pipeline.validated.result_digest_text() {
                    return Ok(found.registration);
                }
                found.registration.change(pipeline, change)?;
                (found.registration, Some(found.version))
            }
        };
        if let Some(registration) = replace(store, registration, expected.as_ref())? {
            return Ok(registration);
        }
    }
    Err(RegistrationError::Contended)
}

/// Changes what is registered, unless `change` says that nothing is to be changed; gives what came of it.
pub fn update<T, E: From<RegistrationError>>(
    store: &dyn Store,
    mut change: impl FnMut(&mut Registration) -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(found) = read(store)? else { break };
        let mut registration = found.registration.clone();
        let came = change(&mut registration)?;
        if registration == found.registration || replace(store, registration, Some(&found.version))?.is_some() {
            return Ok(came);
        }
    }
    Err(RegistrationError::Contended.into())
}

/// `None`: somebody else was faster, or whether it was done is not known: it is read again then.
fn replace(
    store: &dyn Store,
    registration: Registration,
    expected: Option<&Version>,
) -> Result<Option<Registration>, RegistrationError> {
    let bytes = sealed::seal(&registration).map_err(|error| Unsealed::Damaged(error.to_string()))?;
    match store.swap(keys::PIPELINE, expected, &bytes) {
        Outcome::Done(_) => Ok(Some(registration)),
        Outcome::Conflict | Outcome::Unknown(_) => Ok(None),
        Outcome::Failed(error) => Err(error.into()),
    }
}

impl Registration {
    /// Is it of this pipeline?
    fn check(&self, pipeline: &Pipeline, topics_prefix: &str) -> Result<(), RegistrationError> {
        let (found, wanted) = (&self.identity, wanted_of(&pipeline.validated));
        if (found.namespace.as_str(), found.name.as_str()) != (wanted.namespace, wanted.name) {
            let found = format!("{}/{}", found.namespace, found.name);
            let wanted = format!("{}/{}", wanted.namespace, wanted.name);
            return Err(RegistrationError::OtherPipeline { found, wanted });
        }
        if found.partitions != wanted.partitions {
            return Err(RegistrationError::Partitions { found: found.partitions, wanted: wanted.partitions });
        }
        if self.key != KeyCheck::of(pipeline) {
            return Err(RegistrationError::OtherKey { key_id: self.key.key_id().to_owned() });
        }
        if self.topics_prefix != topics_prefix {
            let (found, wanted) = (self.topics_prefix.clone(), topics_prefix.to_owned());
            return Err(RegistrationError::OtherTopics { found, wanted });
        }
        Ok(())
    }

    fn change(&mut self, pipeline: &Pipeline, change: Change) -> Result<(), RegistrationError> {
        let changes = pipeline.validated.changes(&self.identity.spec);
        if change == Change::Refuse {
            return Err(RegistrationError::NotYet { changes });
        }
        let forbidden = forbidden_changes(&self.identity, pipeline)?;
        if !forbidden.is_empty() {
            return Err(RegistrationError::Changed { changes: forbidden });
        }
        tracing::info!(
            changed = changes.join(", "),
            "the pipeline has changed; its state goes on under the new version"
        );
        self.identity.change_spec(pipeline.validated.result_digest_text());
        Ok(())
    }

    /// # Errors
    /// This engine cannot read an earlier generation.
    pub fn configuration(&self, pipeline: &Pipeline) -> Result<Configuration, ConfigureError> {
        configuration_of(&self.identity, pipeline)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;
    use crate::store::memory::MemoryStore;

    const TOUR: &str = include_str!("../../../examples/tour/pipeline.yaml");

    fn pipeline(folder: &Path, yaml: &str, key: char) -> Pipeline {
        let file = folder.join("pipeline.yaml");
        fs::write(&file, yaml).unwrap();
        fs::write(folder.join("demo-keys.txt"), format!("demo: {}", key.to_string().repeat(32))).unwrap();
        Pipeline::load(&file, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_store_belongs_to_one_pipeline_and_remembers_its_versions() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
        let first = pipeline(dir.path(), TOUR, 'a');
        let registered = open(&store, &first, "p.", Change::Refuse).unwrap();
        assert_eq!(open(&store, &first, "p.", Change::Refuse).unwrap(), registered, "whoever comes next finds it");
        let second = pipeline(dir.path(), &TOUR.replace("halfLife: 14d", "halfLife: 15d"), 'a');
        let Err(RegistrationError::NotYet { changes }) = open(&store, &second, "p.", Change::Refuse) else {
            panic!("let through")
        };
        assert_eq!(changes, ["spec.features.taste.halfLife"]);
        let changed = open(&store, &second, "p.", Change::Register).unwrap();
        assert_eq!(changed.configuration(&second).unwrap().generation(), 2);
        assert_eq!(changed.identity.identity, registered.identity.identity);
        assert!(matches!(open(&store, &first, "p.", Change::Refuse), Err(RegistrationError::NotYet { .. })));
        let forbidden = pipeline(dir.path(), &TOUR.replace("dedupWithin: 1h", "dedupWithin: 2h"), 'a');
        assert!(matches!(open(&store, &forbidden, "p.", Change::Register), Err(RegistrationError::Changed { .. })));
        assert!(matches!(open(&store, &second, "q.", Change::Register), Err(RegistrationError::OtherTopics { .. })));
        let other_key = pipeline(dir.path(), TOUR, 'b');
        assert!(matches!(open(&store, &other_key, "p.", Change::Register), Err(RegistrationError::OtherKey { .. })));
    }

    #[test]
    fn what_is_registered_is_changed_by_one_after_the_other() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
        let first = pipeline(dir.path(), TOUR, 'a');
        open(&store, &first, "p.", Change::Refuse).unwrap();
        let mut disturbed = false;
        let add = |registration: &mut Registration, name: &str| {
            registration.sources.sources.insert(name.to_owned(), Vec::new());
            Ok(())
        };
        update::<_, RegistrationError>(&store, |registration| {
            if !std::mem::replace(&mut disturbed, true) {
                update::<_, RegistrationError>(&store, |other| add(other, "b"))?;
            }
            add(registration, "a")
        })
        .unwrap();
        let names: Vec<String> = read(&store).unwrap().unwrap().registration.sources.sources.into_keys().collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_damaged_or_newer_registration_is_refused() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
        let first = pipeline(dir.path(), TOUR, 'a');
        let mut registered = open(&store, &first, "p.", Change::Refuse).unwrap();
        let whole = store.objects()[keys::PIPELINE].clone();
        for bit in (0..whole.len() * 8).step_by(997) {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            store.objects().insert(keys::PIPELINE.to_owned(), bad);
            assert!(matches!(read(&store), Err(RegistrationError::Unusable(Unsealed::Damaged(_)))), "bit {bit}");
        }
        registered.format_version += 1;
        store.objects().insert(keys::PIPELINE.to_owned(), sealed::seal(&registered).unwrap());
        assert!(matches!(read(&store), Err(RegistrationError::Unusable(Unsealed::Newer { found: 2, known: 1 }))));
    }
}
