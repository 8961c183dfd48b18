//! The other workers of a fleet: who of them owns which users, and asking them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use futures::future::join_all;
use millrace_lifecycle::keys::{TaskId, TaskKind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::serve::{
    ServeError,
    client::{ClientError, Target},
    forwarded::{Forwarded, Question},
};

/// What workers show to each other.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A file with the admin token.
    pub token: Option<PathBuf>,
    /// PEM certificates that are trusted.
    pub authority: Option<PathBuf>,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Peers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    credentials: Credentials,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// By address. Kept while anybody is there, with their connections.
    targets: BTreeMap<String, Arc<Target>>,
    /// By events partition.
    owners: BTreeMap<u32, Arc<Target>>,
}

/// Until another worker must have answered: one that stands still is asked again, or its successor is.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// An erasure is answered once it has been read.
const ERASED_WITHIN: Duration = Duration::from_secs(25);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const PATH: &str = "/v1/forwarded";
/// How often a worker is told of a withdrawal that does not take it.
const TELL_TIMES: u32 = 10;

impl Peers {
    pub fn new(credentials: Credentials) -> Self {
        Self(Arc::new(Inner { credentials, known: RwLock::default() }))
    }

    /// Who owns what by now, as far as it is known, and where all workers are.
    ///
    /// # Errors
    /// The token or the certificates cannot be read.
    pub fn learn(&self, owners: &BTreeMap<TaskId, String>, workers: &[String]) -> Result<(), ClientError> {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        let addresses: BTreeSet<&String> = owners.values().chain(workers).collect();
        known.targets.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if !known.targets.contains_key(address) {
                let Credentials { token, authority } = &self.0.credentials;
                let target = Target::new(address, token.as_deref(), authority.as_deref())?;
                known.targets.insert(address.clone(), Arc::new(target));
            }
        }
        let profiles = owners.iter().filter(|(task, _)| task.kind == TaskKind::Profile);
        let of =
            profiles.filter_map(|(task, address)| Some((task.name.parse().ok()?, known.targets.get(address)?.clone())));
        known.owners = of.collect();
        Ok(())
    }

    fn owner_of(&self, partition: u32) -> Option<Arc<Target>> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).owners.get(&partition).cloned()
    }

    fn all(&self) -> Vec<Arc<Target>> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).targets.values().cloned().collect()
    }

    /// Asks the owner of an events partition. It may have been done where the error does not say otherwise.
    pub async fn ask<T: DeserializeOwned>(&self, partition: u32, question: &Question) -> Result<T, ServeError> {
        let not_here = ServeError::NotHere { retry_after: RETRY_AFTER };
        let owner = self.owner_of(partition).ok_or(not_here.clone())?;
        let within = match question.ask {
            Forwarded::Erase { .. } => ERASED_WITHIN,
            _ => ANSWERED_WITHIN,
        };
        let asked = owner.ask(Method::POST, PATH, Some(question.write()));
        let (status, body) = match timeout(within, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(ClientError::Connect { .. })) => return Err(not_here),
            Ok(Err(error)) => {
                tracing::debug!(%error, "another worker broke off");
                return Err(ServeError::NotKnown { retry_after: RETRY_AFTER });
            }
            Err(_) => return Err(ServeError::NotKnown { retry_after: RETRY_AFTER }),
        };
        let wrong =
            |what: String| ServeError::Failed(format!("another worker answered a forwarded request with {what}"));
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()));
        }
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let kind = problem["type"].as_str().and_then(|kind| kind.strip_prefix("/problems/")).unwrap_or_default();
        let retry_after = problem["retryAfter"].as_u64().map_or(RETRY_AFTER, Duration::from_secs);
        Err(match kind {
            "moving" | "stopping" => not_here,
            "busy" | "too-frequent" => ServeError::Busy { retry_after },
            "no-answer" => ServeError::NotKnown { retry_after },
            "unknown-user" => ServeError::UnknownUser,
            "invalid-request" => ServeError::Invalid {
                field: "request",
                detail: problem["detail"].as_str().unwrap_or_default().to_owned(),
            },
            _ => wrong(format!("status {status}: {}", problem["detail"].as_str().unwrap_or(kind))),
        })
    }

    /// Tells all workers, this one perhaps among them, and some again that do not answer. Who does not hear it all the same
    /// reads it in the log.
    pub async fn tell_all(self, question: Question) {
        let body = question.write();
        let told = self.all().into_iter().map(|peer| tell(peer, body.clone()));
        let untold = join_all(told).await.into_iter().filter(|is_told| !is_told).count();
        if untold > 0 {
            tracing::warn!(untold, "workers could not be told of a withdrawal; they know it once they have read it");
        }
    }
}

async fn tell(peer: Arc<Target>, body: Vec<u8>) -> bool {
    for _ in 0..TELL_TIMES {
        match timeout(ANSWERED_WITHIN, peer.ask(Method::POST, PATH, Some(body.clone()))).await {
            Ok(Ok((StatusCode::OK, _))) => return true,
            // Nobody is there who could be wrong about it: whoever comes reads the log first.
            Ok(Err(ClientError::Connect { cause, .. })) if cause.kind() == ErrorKind::ConnectionRefused => return true,
            answer => tracing::debug!(?answer, "a worker does not take a withdrawal"),
        }
        tokio::time::sleep(ANSWERED_WITHIN).await;
    }
    false
}
