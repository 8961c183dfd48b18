//! What the HTTP server asks, brought to the engine thread that knows: names become numbers and identities pseudonyms
//! here, and nothing behind it sees either.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use millrace_engine::{event::Pseudonym, event::Time, ingest::partition_of, plan::Plan, privacy::Pseudonymizer};
use millrace_lifecycle::{keys::TaskId, placement::Order};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Host,
    clock::now,
    decisions,
    desk::{Reply, Request},
    figures::Figures,
    fleet::{Fleet, TakesNoOrders},
    mailbox::{Mailbox, Refused},
    owners::Owners,
};
use crate::{
    pipeline::Pipeline,
    progress,
    serve::{
        Backend, ServeError,
        api::{Accepted, DecideAnswer, DecideRequest, EventsRequest, Identity, Rejected},
    },
    source::http::{NotAppended, Posted},
};

/// How to ask the engine threads.
#[derive(Clone)]
pub struct Asked {
    pub mailboxes: Vec<Arc<Mailbox<Request>>>,
    pub owners: Arc<Owners>,
    pub figures: Vec<Arc<Figures>>,
}

/// What the page is shown: replaced by the run every second.
#[derive(Default)]
pub struct Shown {
    pub status: Value,
    pub experiments: Value,
}

/// The server's side of a host.
pub struct Serving {
    plan: Arc<Plan>,
    keys: Pseudonymizer,
    asked: Asked,
    fleet: Arc<Fleet>,
    posted: Posted,
    shown: RwLock<Shown>,
    random: RandomState,
    drawn: AtomicU64,
}

/// When a full mailbox may be asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Serving {
    pub fn new(pipeline: &Pipeline, host: &Host, posted: Posted) -> Self {
        Self {
            plan: pipeline.plan.clone(),
            keys: pipeline.keys.clone(),
            asked: host.asked(),
            fleet: host.fleet().clone(),
            posted,
            shown: RwLock::default(),
            random: RandomState::new(),
            drawn: AtomicU64::new(0),
        }
    }

    pub fn show(&self, shown: Shown) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    fn shown(&self, part: impl FnOnce(&Shown) -> Value) -> Value {
        part(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// By model: what decisions are made with.
    pub fn copies(&self) -> BTreeMap<String, Value> {
        let copies = Figures::serving(&self.asked.figures).into_iter();
        copies.map(|(model, copy)| (self.plan.models[model].name.clone(), copy.to_json())).collect()
    }

    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Nobody can foresee it: a keyed hash of a counter, the key drawn by the operating system.
    fn draw(&self) -> u64 {
        self.random.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }

    fn partition_of(&self, user: Pseudonym) -> usize {
        partition_of(user, self.plan.partitions)
    }

    fn ask(&self, partition: usize, request: Request) -> Result<(), ServeError> {
        let owner = self.asked.owners.of(partition).ok_or(ServeError::NotHere { retry_after: RETRY_AFTER })?;
        let asked = self.asked.mailboxes[owner].ask(request);
        asked.map_err(|refused| match refused {
            Refused::Busy => ServeError::Busy { retry_after: RETRY_AFTER },
            Refused::Closed => ServeError::Stopping,
        })
    }

    async fn answer<T>(&self, partition: usize, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ServeError> {
        let (reply, answer) = oneshot::channel();
        self.ask(partition, request(reply))?;
        answer.await.map_err(|_| match self.asked.mailboxes.iter().any(|mailbox| mailbox.is_closed()) {
            true => ServeError::Stopping,
            // It went between the question and the answer.
            false => ServeError::NotHere { retry_after: RETRY_AFTER },
        })
    }

    async fn accept_all(&self, request: EventsRequest) -> Result<Accepted, ServeError> {
        let source = self.posted.find(request.source.as_deref()).ok_or_else(|| {
            let known: Vec<&str> = self.posted.names().collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            ServeError::Invalid { field: "source", detail: format!("name a source of kind http; there is {known}") }
        })?;
        let batch = self.posted.decode(source, &request.records, now());
        let rejected = batch.rejected.iter();
        let rejected: Vec<Rejected> =
            rejected.map(|(n, reason)| Rejected { index: *n as u64, reason: reason.name().to_owned() }).collect();
        let accepted = (request.records.len() - rejected.len()) as u64;
        let withdrawn = batch.withdrawn.clone();
        self.posted.append(batch).await.map_err(|refused| match refused {
            NotAppended::Busy => ServeError::Busy { retry_after: RETRY_AFTER },
            NotAppended::Failed(cause) => ServeError::Failed(cause),
            NotAppended::Stopped => ServeError::Stopping,
        })?;
        // Before the answer, so that the very next decision knows.
        withdrawn.into_iter().for_each(|(user, stated)| self.withdrawn(user, stated));
        Ok(Accepted { accepted, rejected })
    }

    /// Tells the owner of the user's partition of a withdrawal that was accepted: it must count at once.
    fn withdrawn(&self, user: Pseudonym, stated: Time) {
        let owner = self.asked.owners.of(self.partition_of(user));
        // While it is taken over here, any thread may come to own it.
        let told =
            self.asked.mailboxes.iter().enumerate().filter(|(thread, _)| owner.is_none_or(|owner| owner == *thread));
        told.for_each(|(_, mailbox)| mailbox.tell(Request::Withdrawn { user, stated }));
    }

    async fn decide_one(&self, request: DecideRequest) -> Result<DecideAnswer, ServeError> {
        let explain = request.explain;
        let draws = decisions::Draws { id: self.draw(), seed: self.draw(), partition: self.draw() };
        let question = decisions::Question::of(&self.plan, &self.keys, request, draws, now())?;
        let partition = question.partition as usize;
        let made = self.answer(partition, |reply| Request::Decide(Box::new(decisions::Ask { question, reply })));
        decisions::answer(&self.plan, made.await?, explain)
    }
}

impl Backend for Serving {
    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<DecideAnswer, ServeError>> {
        Box::pin(self.decide_one(request))
    }

    fn accept(&self, request: EventsRequest) -> BoxFuture<'_, Result<Accepted, ServeError>> {
        Box::pin(self.accept_all(request))
    }

    fn erase(&self, user: Identity) -> BoxFuture<'_, Result<(), ServeError>> {
        let user = self.keys.user_of(user.reveal());
        let time = now();
        Box::pin(async move {
            let erased = self.answer(self.partition_of(user), move |reply| Request::Erase { user, time, reply });
            // It may be in the log, and be read by whoever owns the user next.
            erased.await.map_err(|error| match error {
                ServeError::NotHere { retry_after } => ServeError::NotKnown { retry_after },
                error => error,
            })
        })
    }

    fn profile(&self, user: Identity) -> BoxFuture<'_, Result<Value, ServeError>> {
        let user = self.keys.user_of(user.reveal());
        let partition = self.partition_of(user);
        Box::pin(async move {
            let found = self.answer(partition, |reply| Request::Profile { user, reply }).await?;
            let profile = found.ok_or(ServeError::UnknownUser)?;
            let features: BTreeMap<String, String> = profile.features.into_iter().collect();
            Ok(json!({"formatVersion": 1, "partition": partition, "consentSince": progress::time(profile.granted),
                "lastEvent": progress::time(profile.last_event), "asOf": progress::time(profile.watermark),
                "features": features}))
        })
    }

    fn tasks(&self) -> Value {
        self.fleet.to_json()
    }
    fn obey(&self, orders: BTreeMap<TaskId, Order>) -> Result<(), ServeError> {
        self.fleet.obey(&orders).map_err(|TakesNoOrders| ServeError::TakesNoOrders)
    }
    fn status(&self) -> Value {
        self.shown(|shown| shown.status.clone())
    }
    fn experiments(&self) -> Value {
        self.shown(|shown| shown.experiments.clone())
    }
    fn recent_decisions(&self) -> Value {
        let recent = Figures::recent(&self.asked.figures);
        json!({"formatVersion": 1, "decisions": recent.iter().map(|r| decisions::recent(&self.plan, r)).collect::<Vec<_>>()})
    }
}
