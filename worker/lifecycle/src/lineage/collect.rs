//! Garbage collection: everything is classified first, then the manifest forgets, then files go.

use std::collections::VecDeque;

use crate::{
    keys::{self, Named},
    manifest::Manifest,
    store::{Answer, Listed, Next, Op, Procedure},
};

use super::{LineageError, Owner, owner::thin, replace::Replace};

/// A collection under way. Gives the number of files that went.
#[derive(Debug)]
pub struct Collect(Stage);

#[derive(Debug)]
enum Stage {
    /// The end of the write before is unknown.
    Resolving(Owner, Horizon),
    Listing(Owner, Manifest),
    Replacing(Replace, VecDeque<String>),
    Deleting(Owner, VecDeque<String>, usize),
}

#[derive(Clone, Copy, Debug)]
struct Horizon {
    now_unix_ms: i64,
    retain_ms: i64,
}

impl Collect {
    pub(super) fn start(owner: Owner, now_unix_ms: i64, retain_ms: i64) -> Next<Self> {
        let horizon = Horizon { now_unix_ms, retain_ms };
        if owner.in_doubt {
            let key = keys::manifest(owner.task());
            return Next::Ask(Self(Stage::Resolving(owner, horizon)), Op::Get { key });
        }
        Self::list(owner, horizon)
    }

    fn list(mut owner: Owner, horizon: Horizon) -> Next<Self> {
        let is_young = |written: i64| horizon.now_unix_ms.saturating_sub(written) <= horizon.retain_ms;
        let all = &owner.manifest.checkpoints;
        let expired = all.iter().map(|c| &c.position).filter(|p| !is_young(p.written_at_unix_ms));
        owner.expired_offset = expired.map(|p| p.log_offset).max().unwrap_or(0).max(owner.expired_offset);
        let checkpoints = thin(all.clone(), |c| is_young(c.position.written_at_unix_ms));
        let next = Manifest { checkpoints, ..owner.manifest.clone() };
        let prefix = keys::task(owner.task());
        Next::Ask(Self(Stage::Listing(owner, next)), Op::List { prefix })
    }

    /// Also if the manifest says the same as before: a late write of ours, which may name some of this, fails from now
    /// on.
    fn forget(owner: Owner, next: Manifest, listed: &[Listed]) -> Next<Self> {
        let garbage = garbage(&next, listed);
        if garbage.is_empty() && next.checkpoints.len() == owner.manifest.checkpoints.len() {
            return Next::Done((owner, Ok(0)));
        }
        if planted::is(planted::Bug::DeletedBeforeForgotten) {
            return Self::delete(owner, garbage, 0);
        }
        Self::replacing(Replace::start(owner, next), garbage)
    }

    fn replacing(next: Next<Replace>, garbage: VecDeque<String>) -> Next<Self> {
        match next {
            Next::Ask(replace, op) => Next::Ask(Self(Stage::Replacing(replace, garbage)), op),
            Next::Done((owner, Ok(()))) => Self::delete(owner, garbage, 0),
            Next::Done((owner, Err(error))) => Next::Done((owner, Err(error))),
        }
    }

    fn delete(owner: Owner, mut garbage: VecDeque<String>, gone: usize) -> Next<Self> {
        match garbage.pop_front() {
            Some(key) => Next::Ask(Self(Stage::Deleting(owner, garbage, gone)), Op::Delete { key }),
            None => Next::Done((owner, Ok(gone))),
        }
    }
}

/// Files that a manifest does not name, oldest first.
fn garbage(manifest: &Manifest, listed: &[Listed]) -> VecDeque<String> {
    let newest = |key: &str| manifest.checkpoints.first().is_some_and(|c| c.files.iter().any(|f| f.key == key));
    let is_spared = |key: &&str| !planted::is(planted::Bug::NamedIsGarbage) || newest(key);
    let named: Vec<&str> = manifest.files().into_iter().map(|f| f.key.as_str()).filter(is_spared).collect();
    let unnamed = |key: &str| match keys::parse(key) {
        Some(Named::File { epoch, number, .. }) if epoch <= manifest.epoch && named.binary_search(&key).is_err() => {
            Some((epoch, number, key.to_owned()))
        }
        _ => None,
    };
    let mut garbage: Vec<_> = listed.iter().filter_map(|listed| unnamed(&listed.key)).collect();
    garbage.sort();
    garbage.into_iter().map(|(_, _, key)| key).collect()
}

impl Procedure for Collect {
    type Output = (Owner, Result<usize, LineageError>);

    fn answered(self, answer: Answer) -> Next<Self> {
        match self.0 {
            Stage::Resolving(mut owner, horizon) => match owner.resolve(answer.object()) {
                Ok(()) => Self::list(owner, horizon),
                Err(error) => Next::Done((owner, Err(error))),
            },
            Stage::Listing(owner, next) => match answer.listed() {
                Ok(listed) => Self::forget(owner, next, &listed),
                Err(error) => Next::Done((owner, Err(error.into()))),
            },
            Stage::Replacing(replace, garbage) => Self::replacing(replace.answered(answer), garbage),
            Stage::Deleting(owner, garbage, gone) => match answer.deleted() {
                Ok(()) => Self::delete(owner, garbage, gone + 1),
                Err(error) => Next::Done((owner, Err(error.into()))),
            },
        }
    }
}
