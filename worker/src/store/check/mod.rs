//! Whether a store keeps what [`super::Store`] promises: found out by using it, from several clients at once.
//!
//! The same promises are tested of every store of ours, and asked of a bucket by `millrace store check`. What a check finds
//! broken is certainly broken; what it finds kept was kept this time.

mod alone;
mod race;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use super::{Outcome, Store, StoreError, Version, keys};

/// What checkpoints need of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Promise {
    Conditions,
    Creation,
    Succession,
    Freshness,
    Listing,
    Deletion,
    LargeObjects,
}

impl Promise {
    const ALL: [(Self, Proof); 7] = [
        (Self::Conditions, alone::conditions),
        (Self::Creation, race::creation),
        (Self::Succession, race::succession),
        (Self::Freshness, alone::freshness),
        (Self::Listing, alone::listing),
        (Self::Deletion, alone::deletion),
        (Self::LargeObjects, race::large_objects),
    ];

    pub fn what(self) -> &'static str {
        match self {
            Self::Conditions => "a write whose condition does not hold is refused",
            Self::Creation => "of many who create an object at once, one does",
            Self::Succession => "of many who replace a version at once, one does",
            Self::Freshness => "what was written is read and listed at once, by everybody",
            Self::Listing => "a listing is complete and in order, over several pages",
            Self::Deletion => "what was deleted is gone, and only that",
            Self::LargeObjects => "large objects are created once and come back whole",
        }
    }

    /// What comes of it where a store does not keep it.
    pub fn otherwise(self) -> &'static str {
        match self {
            Self::Conditions | Self::Creation | Self::Succession => {
                "two owners could both believe that they own a task: records would be counted twice, or lost"
            }
            Self::Freshness => {
                "an owner could go on from a checkpoint that is not the newest: records would be counted twice, or lost"
            }
            Self::Listing => "checkpoints would be overlooked, and never be removed",
            Self::Deletion => "users who were erased would stay, or checkpoints that are needed would go",
            Self::LargeObjects => "large checkpoints would be damaged, or another owner's",
        }
    }
}

/// Finds out whether a promise is kept, and says by what.
type Proof = fn(&Ground<'_>) -> Result<String, Fail>;

/// How much is done to find out.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Versions of one object that all clients want to replace.
    pub updates: usize,
    /// Objects that all clients want to create.
    pub creations: usize,
    /// Writes that are looked for by another client.
    pub looks: usize,
    /// Objects listed.
    pub objects: usize,
    pub large_bytes: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { updates: 300, creations: 40, looks: 40, objects: 25, large_bytes: 72 << 20 }
    }
}

/// What was found of one promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub promise: Promise,
    /// By what it was found kept, or broken.
    pub kept: Result<String, String>,
}

/// What was found, as far as it could be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Why no more could be found out.
    pub failed: Option<StoreError>,
    /// Why objects of the check are left, under [`keys::checks`].
    pub left: Option<StoreError>,
}

impl Report {
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|finding| finding.kept.is_err())
    }
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fail {
    Broken(String),
    /// It did not answer, or said that it failed: nothing is known of the promise.
    Store(StoreError),
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Fail::Store(error)
    }
}

fn broken<T>(what: impl fmt::Display) -> Result<T, Fail> {
    Err(Fail::Broken(what.to_string()))
}

/// Where promises are tried.
struct Ground<'a> {
    /// At least three, of one place; they may be one and the same.
    clients: &'a [&'a dyn Store],
    /// Names this check among others.
    run: &'a str,
    effort: &'a Effort,
}

impl<'a> Ground<'a> {
    fn key(&self, name: impl fmt::Display) -> String {
        keys::check(self.run, &name.to_string())
    }

    fn client(&self, number: usize) -> &'a dyn Store {
        self.clients[number % self.clients.len()]
    }

    /// Removes what the check wrote.
    fn tidy(&self) -> Result<(), StoreError> {
        let store = self.client(0);
        store.list(&keys::checks(self.run))?.iter().try_for_each(|listed| store.delete(&listed.key))
    }
}

/// Tries all promises, and removes what it wrote. `run` is new each time, and `clients` are not none.
pub fn check(clients: &[&dyn Store], run: &str, effort: &Effort) -> Report {
    let ground = Ground { clients, run, effort };
    let mut report = Report { findings: Vec::new(), failed: None, left: None };
    for (promise, proof) in Promise::ALL {
        match proof(&ground) {
            Ok(how) => report.findings.push(Finding { promise, kept: Ok(how) }),
            Err(Fail::Broken(what)) => report.findings.push(Finding { promise, kept: Err(what) }),
            Err(Fail::Store(error)) => {
                report.failed = Some(error);
                break;
            }
        }
    }
    report.left = ground.tidy().err();
    report
}

/// A write that nothing stands against.
fn done(outcome: Outcome, what: &str) -> Result<Version, Fail> {
    match outcome {
        Outcome::Done(version) => Ok(version),
        Outcome::Conflict => broken(format!("{what} was refused, though nothing stood against it")),
        Outcome::Failed(error) | Outcome::Unknown(error) => Err(error.into()),
    }
}

/// A write whose condition does not hold.
fn refused(outcome: Outcome, what: &str) -> Result<(), Fail> {
    match outcome {
        Outcome::Conflict => Ok(()),
        Outcome::Done(_) => broken(format!("{what} was done")),
        Outcome::Failed(error) | Outcome::Unknown(error) => Err(error.into()),
    }
}

/// That the object is this, for this client.
fn holds(store: &dyn Store, key: &str, expected: Option<&[u8]>, when: &str) -> Result<(), Fail> {
    let found = store.get(key)?.map(|object| object.bytes);
    if found.as_deref() == expected {
        return Ok(());
    }
    let say = |bytes: Option<&[u8]>| match bytes {
        None => "no object".to_owned(),
        Some(bytes) => format!("{} bytes", bytes.len()),
    };
    broken(format!("{when}, there were {} under {key} instead of {}", say(found.as_deref()), say(expected)))
}
