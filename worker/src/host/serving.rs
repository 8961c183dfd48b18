//! What the HTTP server asks, brought to the engine thread that knows: names become numbers and identities pseudonyms
//! here, and nothing behind it sees either.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, join_all};
use millrace_engine::{event::Pseudonym, event::Time, ingest::partition_of, plan::Plan, privacy::Pseudonymizer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Host,
    clock::now,
    decisions::{self, Asking},
    desk::{Reply, Request},
    figures::Figures,
    fleet::Fleet,
    mailbox::{Mailbox, Refused},
    owners::Owners,
    peers::Peers,
    start::Tasks,
};
use crate::{
    pipeline::Pipeline,
    progress,
    serve::{
        Backend, ServeError,
        api::{Accepted, DecideAnswer, DecideRequest, EventsRequest, Identity, Rejected},
        forwarded::{Draws, Forwarded, Question, User, Whose},
        orders::Told,
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
    peers: Peers,
    posted: Posted,
    shown: RwLock<Shown>,
    random: RandomState,
    drawn: AtomicU64,
    obeying: Mutex<()>,
}

/// When a full mailbox may be asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// So long a user's profile may be on its way from one worker to another while a request waits for it.
const MOVED_WITHIN: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// So long an answer to events waits until all workers know of withdrawals among them.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// Withdrawals in one message: it is smaller than what other workers take, whatever that is set to.
const TOLD_AT_ONCE: usize = 500;

impl Serving {
    pub fn new(pipeline: &Pipeline, host: &Host, peers: Peers, posted: Posted) -> Self {
        Self {
            plan: pipeline.plan.clone(),
            keys: pipeline.keys.clone(),
            asked: host.asked(),
            fleet: host.fleet().clone(),
            peers,
            posted,
            shown: RwLock::default(),
            random: RandomState::new(),
            drawn: AtomicU64::new(0),
            obeying: Mutex::default(),
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
        withdrawn.iter().for_each(|(user, stated)| self.withdrawn(*user, *stated));
        if self.is_of_a_fleet() && !withdrawn.is_empty() {
            let users: Vec<(User, i64)> = withdrawn.into_iter().map(|(user, stated)| (User(user), stated.0)).collect();
            let told = users.chunks(TOLD_AT_ONCE).map(|users| {
                self.peers.clone().tell_all(self.question(Forwarded::Withdrawn { users: users.to_vec() }))
            });
            // Goes on if it takes longer, or whoever posted does not wait.
            let _ = timeout(TOLD_WITHIN, tokio::spawn(join_all(told.collect::<Vec<_>>()))).await;
        }
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

    fn is_of_a_fleet(&self) -> bool {
        self.fleet.tasks == Tasks::AsTold
    }

    fn question(&self, ask: Forwarded) -> Question {
        Question::new(&self.fleet.claimant.pipeline, ask)
    }

    /// Asks whoever owns the partition: this worker, or another one; while it is on its way, whoever comes to own it. What is
    /// asked must bear being asked twice.
    async fn ask_owner<'a, T: DeserializeOwned>(
        &'a self,
        partition: usize,
        forwarded: impl Fn() -> Forwarded,
        here: impl Fn() -> BoxFuture<'a, Result<T, ServeError>>,
    ) -> Result<T, ServeError> {
        let began = Instant::now();
        loop {
            let answer = match self.asked.owners.of(partition) {
                Some(_) => here().await,
                None => self.peers.ask(partition as u32, &self.question(forwarded())).await,
            };
            match answer {
                Err(ServeError::NotHere { .. } | ServeError::NotKnown { .. })
                    if self.is_of_a_fleet() && began.elapsed() < MOVED_WITHIN =>
                {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                answer => return answer,
            }
        }
    }

    async fn decide_for(&self, mut request: DecideRequest) -> Result<DecideAnswer, ServeError> {
        let user = request.user.as_ref().map(|user| User(self.keys.user_of(user.reveal())));
        let session = request.session.as_ref().map_or(0, |session| self.keys.session_of(session.reveal()));
        let partition = match user {
            Some(user) => self.partition_of(user.0),
            None => self.any_partition(),
        };
        let asked = Asking {
            whose: Whose { user, session },
            partition: partition as u32,
            draws: Draws { id: self.draw(), seed: self.draw() },
            time: now(),
        };
        if !self.is_of_a_fleet() {
            return self.decide_here(asked, request).await;
        }
        self.strip(&mut request);
        let Asking { whose, partition: number, draws, time } = asked;
        let forwarded = || {
            let request = Box::new(request.clone());
            Forwarded::Decide { whose, partition: number, draws, time_us: time.0, request }
        };
        self.ask_owner(partition, forwarded, || Box::pin(self.decide_here(asked, request.clone()))).await
    }

    /// Attributes that are not allowed go no further.
    fn strip(&self, request: &mut DecideRequest) {
        let is_allowed = |name: &String| self.plan.names.attribute(name).is_some();
        request.attributes.retain(|name, _| is_allowed(name));
        for candidate in request.candidates.iter_mut().flatten() {
            candidate.attributes.retain(|name, _| is_allowed(name));
        }
    }

    /// For somebody who is not logged in: any partition will do, one that is here if there is one.
    fn any_partition(&self) -> usize {
        let (partitions, first) = (self.plan.partitions as usize, self.draw());
        let mut all = (0..partitions).map(|n| (n + first as usize % partitions) % partitions);
        let is_here = |partition: &usize| self.asked.owners.of(*partition).is_some();
        all.clone().find(is_here).or_else(|| all.next()).unwrap_or(0)
    }

    async fn decide_here(&self, asked: Asking, request: DecideRequest) -> Result<DecideAnswer, ServeError> {
        let (explain, partition) = (request.explain, asked.partition as usize);
        let question = decisions::Question::of(&self.plan, &self.keys, asked, request)?;
        let made = self.answer(partition, |reply| Request::Decide(Box::new(decisions::Ask { question, reply })));
        decisions::answer(&self.plan, made.await?, explain)
    }

    async fn erase_here(&self, user: Pseudonym, time: Time) -> Result<(), ServeError> {
        self.answer(self.partition_of(user), move |reply| Request::Erase { user, time, reply }).await
    }

    async fn profile_here(&self, user: Pseudonym) -> Result<Value, ServeError> {
        let partition = self.partition_of(user);
        let found = self.answer(partition, |reply| Request::Profile { user, reply }).await?;
        let profile = found.ok_or(ServeError::UnknownUser)?;
        let features: BTreeMap<String, String> = profile.features.into_iter().collect();
        Ok(json!({"formatVersion": 1, "partition": partition, "consentSince": progress::time(profile.granted),
            "lastEvent": progress::time(profile.last_event), "asOf": progress::time(profile.watermark),
            "features": features}))
    }

    async fn answer_forwarded(&self, Question { pipeline, ask, .. }: Question) -> Result<Value, ServeError> {
        if pipeline != self.fleet.claimant.pipeline {
            return Err(ServeError::NotHere { retry_after: RETRY_AFTER });
        }
        let failed = |error: serde_json::Error| ServeError::Failed(error.to_string());
        match ask {
            Forwarded::Decide { whose, partition, draws, time_us, request } => {
                let asked = Asking { whose, partition, draws, time: Time(time_us) };
                serde_json::to_value(self.decide_here(asked, *request).await?).map_err(failed)
            }
            Forwarded::Erase { user, time_us } => self.erase_here(user.0, Time(time_us)).await.map(|()| Value::Null),
            Forwarded::Profile { user } => self.profile_here(user.0).await,
            Forwarded::Withdrawn { users } => {
                users.iter().for_each(|(user, stated_us)| self.withdrawn(user.0, Time(*stated_us)));
                Ok(Value::Null)
            }
        }
    }
}

/// An erasure may be in the log, and be read by whoever owns the user next.
fn maybe_done(error: ServeError) -> ServeError {
    match error {
        ServeError::NotHere { retry_after } => ServeError::NotKnown { retry_after },
        error => error,
    }
}

impl Backend for Serving {
    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<DecideAnswer, ServeError>> {
        Box::pin(self.decide_for(request))
    }

    fn accept(&self, request: EventsRequest) -> BoxFuture<'_, Result<Accepted, ServeError>> {
        Box::pin(self.accept_all(request))
    }

    fn erase(&self, user: Identity) -> BoxFuture<'_, Result<(), ServeError>> {
        let (user, time) = (self.keys.user_of(user.reveal()), now());
        Box::pin(async move {
            let forwarded = || Forwarded::Erase { user: User(user), time_us: time.0 };
            let here = || -> BoxFuture<'_, Result<(), ServeError>> { Box::pin(self.erase_here(user, time)) };
            self.ask_owner(self.partition_of(user), forwarded, here).await.map_err(maybe_done)
        })
    }

    fn profile(&self, user: Identity) -> BoxFuture<'_, Result<Value, ServeError>> {
        let user = self.keys.user_of(user.reveal());
        Box::pin(async move {
            let forwarded = || Forwarded::Profile { user: User(user) };
            let here = || -> BoxFuture<'_, Result<Value, ServeError>> { Box::pin(self.profile_here(user)) };
            self.ask_owner(self.partition_of(user), forwarded, here).await
        })
    }

    fn forwarded(&self, question: Question) -> BoxFuture<'_, Result<Value, ServeError>> {
        Box::pin(self.answer_forwarded(question))
    }

    fn tasks(&self) -> Value {
        serde_json::to_value(self.fleet.said()).unwrap_or_default()
    }
    fn obey(&self, told: Told) -> Result<(), ServeError> {
        // Both of the same orders.
        let _alone = self.obeying.lock().unwrap_or_else(PoisonError::into_inner);
        self.fleet.hear(&told)?;
        self.peers.learn(&told.owners, &told.workers).map_err(|error| ServeError::Failed(error.to_string()))
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
