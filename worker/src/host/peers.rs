//! The other workers of a fleet: who of them owns which users, and asking them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use millrace_lifecycle::keys::{TaskId, TaskKind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::serve::{
    ServeError,
    client::{ClientError, Target},
    forwarded::Forwarded,
};

/// What workers show to each other.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A file with the admin token.
    pub token: Option<PathBuf>,
    /// PEM certificates that are trusted.
    pub authority: Option<PathBuf>,
}

#[derive(Default)]
pub struct Peers {
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
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Peers {
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, known: RwLock::default() }
    }

    /// Who owns what by now, as far as it is known.
    ///
    /// # Errors
    /// The token or the certificates cannot be read.
    pub fn learn(&self, owners: &BTreeMap<TaskId, String>) -> Result<(), ClientError> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let addresses: BTreeSet<&String> = owners.values().collect();
        known.targets.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if !known.targets.contains_key(address) {
                let Credentials { token, authority } = &self.credentials;
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
        self.known.read().unwrap_or_else(PoisonError::into_inner).owners.get(&partition).cloned()
    }

    fn all(&self) -> Vec<Arc<Target>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).targets.values().cloned().collect()
    }

    /// Asks the owner of an events partition. It may have been done where the error does not say otherwise.
    pub async fn ask<T: DeserializeOwned>(&self, partition: u32, ask: &Forwarded) -> Result<T, ServeError> {
        let not_here = ServeError::NotHere { retry_after: RETRY_AFTER };
        let owner = self.owner_of(partition).ok_or(not_here.clone())?;
        let asked = owner.ask(Method::POST, "/v1/forwarded", Some(ask.write()));
        let (status, body) = match timeout(ANSWERED_WITHIN, asked).await {
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

    /// Tells all workers, this one perhaps among them. Who does not hear it reads it in the log.
    pub async fn tell_all(&self, ask: &Forwarded) {
        let body = ask.write();
        let told = self.all().into_iter().map(|peer| {
            let body = body.clone();
            async move { drop(timeout(ANSWERED_WITHIN, peer.ask(Method::POST, "/v1/forwarded", Some(body))).await) }
        });
        futures::future::join_all(told).await;
    }
}
