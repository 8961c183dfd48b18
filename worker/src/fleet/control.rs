//! Places tasks on workers, again and again: hears what they have, plans, stores the plan, tells them. Nothing is told that
//! is not stored; whoever cannot store his plan reads the record again, so two who do this at once do no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{Method, StatusCode},
};
use futures::future::join_all;
use millrace_lifecycle::{
    keys::{self, TaskId, TaskKind},
    placement::{
        Capacity, Decision, Facts, Member, MemberFacts, Placement, Role, Settings, plan,
        wire::{FORMAT_VERSION, OrderOfTask, Orders, Tasks},
    },
    sealed::Unsealed,
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    host::{clock::unix_ms, peers::Credentials},
    serve::client::{ClientError, Target},
    store::{Outcome, Store, StoreError, Version},
};

/// Where a worker of the fleet is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerAt {
    pub member: Member,
    /// `http://HOST:PORT`.
    pub address: String,
    /// The failure domain.
    pub zone: String,
    /// It is to be emptied.
    pub draining: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the placement record in the store: {0}; restore it from a copy")]
    Record(#[from] Unsealed),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    #[error("a placement that must not be stored was planned: {0}; this is a bug, and nothing was changed")]
    Wrong(String),
}

impl ControlError {
    /// Does trying again help?
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}

/// What is placed, and by which rules.
pub struct Control {
    store: Arc<dyn Store>,
    credentials: Credentials,
    runtime: Runtime,
    settings: Settings,
    tasks: BTreeSet<TaskId>,
    /// Of the pipeline, by now.
    generation: u32,
    placement: Placement,
    version: Option<Version>,
    /// As they were heard last.
    heard: BTreeMap<Member, MemberFacts>,
    silent: BTreeSet<Member>,
    /// Of the record, as any worker was told of it.
    newest_revision: u64,
    /// The generation that each model has read of, as far as it was heard.
    models: BTreeMap<TaskId, u32>,
    targets: BTreeMap<String, Target>,
    /// What each worker has taken last, and when.
    told: BTreeMap<Member, (Orders, Instant)>,
}

/// Workers are asked all the time: what takes longer is a worker that does not answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// Orders are told again after this, whether or not they changed.
const TOLD_EVERY: Duration = Duration::from_secs(2);

impl Control {
    /// `pipeline`: its identity. `generation`: the newest of the pipeline.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        pipeline: &str,
        (tasks, generation): (BTreeSet<TaskId>, u32),
        settings: Settings,
        credentials: Credentials,
    ) -> Result<Self, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut control = Self {
            store,
            credentials,
            runtime: runtime.map_err(ControlError::Runtime)?,
            settings,
            tasks,
            generation,
            placement: Placement::new(pipeline),
            version: None,
            heard: BTreeMap::new(),
            silent: BTreeSet::new(),
            newest_revision: 0,
            models: BTreeMap::new(),
            targets: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        control.read()?;
        Ok(control)
    }

    /// Of members that were heard lately, what each said.
    pub fn heard(&self) -> &BTreeMap<Member, MemberFacts> {
        &self.heard
    }

    fn read(&mut self) -> Result<(), ControlError> {
        match self.store.get(keys::PLACEMENT)? {
            Some(object) => {
                self.placement = Placement::decode(&object.bytes, &self.placement.pipeline)?;
                self.version = Some(object.version);
            }
            None => (self.placement, self.version) = (Placement::new(self.placement.pipeline.clone()), None),
        }
        Ok(())
    }

    /// Plans with what was heard, and tells: gives what was decided. `workers`: all that exist.
    ///
    /// # Errors
    /// The store fails; nobody is told anything then.
    pub fn place(&mut self, workers: &[WorkerAt]) -> Result<Vec<Decision>, ControlError> {
        let now_ms = now_ms();
        let facts = Facts { tasks: self.tasks.clone(), members: self.heard.clone() };
        let planned = plan(now_ms, &self.placement, &facts, &self.settings);
        // A record that was restored from a copy, perhaps: workers would take it for an old one.
        let is_behind = self.newest_revision > self.placement.revision;
        if (is_behind || planned.placement != self.placement) && !self.store(&planned.placement)? {
            self.read()?;
            return Ok(Vec::new());
        }
        self.tell(workers);
        Ok(planned.decisions)
    }

    /// False: it is not known to be stored.
    fn store(&mut self, placement: &Placement) -> Result<bool, ControlError> {
        let revision = self.placement.revision.max(self.newest_revision) + 1;
        let placement = Placement { revision, ..placement.clone() };
        self.placement.check_successor(&placement).map_err(ControlError::Wrong)?;
        let bytes = placement.encode().map_err(ControlError::Wrong)?;
        match self.store.swap(keys::PLACEMENT, self.version.as_ref(), &bytes) {
            Outcome::Done(version) => {
                (self.placement, self.version) = (placement, Some(version));
                Ok(true)
            }
            Outcome::Conflict => {
                tracing::warn!("somebody else places this pipeline's tasks as well; their record is taken over");
                Ok(false)
            }
            Outcome::Unknown(error) => {
                tracing::warn!(%error, "it is not known whether the placement was stored; it is read again");
                Ok(false)
            }
            Outcome::Failed(error) => Err(error.into()),
        }
    }

    /// Asks all workers what they have. `workers`: all that exist.
    ///
    /// # Errors
    /// An address, the token or the certificates cannot be used.
    pub fn hear(&mut self, workers: &[WorkerAt]) -> Result<(), ControlError> {
        let now_ms = now_ms();
        for WorkerAt { address, .. } in workers {
            if !self.targets.contains_key(address) {
                let Credentials { token, authority } = &self.credentials;
                self.targets.insert(address.clone(), Target::new(address, token.as_deref(), authority.as_deref())?);
            }
        }
        let asked = workers.iter().map(|worker| ask(&self.targets[&worker.address], Method::GET, "/v1/tasks", None));
        let answers = self.runtime.block_on(join_all(asked));
        self.heard.retain(|member, _| workers.iter().any(|worker| worker.member == *member));
        self.told.retain(|member, _| workers.iter().any(|worker| worker.member == *member));
        self.silent.retain(|member| workers.iter().any(|worker| worker.member == *member));
        for (worker, answer) in workers.iter().zip(answers) {
            self.tell_of_silence(worker, answer.as_ref().err());
            let said: Option<Tasks> = answer.ok().and_then(|body| serde_json::from_slice(&body).ok());
            // At its address is somebody else by now: of an earlier life, or the next.
            if let Some(said) = said.filter(|said| said.member.as_ref() == Some(&worker.member)) {
                self.heard_of(worker, &said, now_ms);
            } else if let Some(facts) = self.heard.get_mut(&worker.member) {
                facts.draining = worker.draining;
            }
        }
        Ok(())
    }

    /// Once, when a worker is heard no more; and when it is again.
    fn tell_of_silence(&mut self, worker: &WorkerAt, why: Option<&String>) {
        let (name, was_silent) = (&worker.member.shard, self.silent.contains(&worker.member));
        match why {
            Some(why) if !was_silent && self.heard.contains_key(&worker.member) => {
                tracing::warn!(worker = name, why, "a worker is not heard any more");
                self.silent.insert(worker.member.clone());
            }
            None if was_silent => {
                tracing::info!(worker = name, "a worker is heard again");
                self.silent.remove(&worker.member);
            }
            _ => {}
        }
    }

    fn heard_of(&mut self, worker: &WorkerAt, said: &Tasks, now_ms: u64) {
        self.newest_revision = self.newest_revision.max(said.revision);
        let reports: BTreeMap<TaskId, _> = said.tasks.iter().filter_map(|task| task.report().ok()).collect();
        for task in &said.tasks {
            let generation = task.progress.as_ref().map(|progress| progress.generation);
            if let (Ok((id, report)), Some(generation)) = (task.report(), generation)
                && (id.kind, &report.role) == (TaskKind::Model, &Role::Owns)
            {
                let known = self.models.entry(id).or_default();
                *known = generation.max(*known);
            }
        }
        let facts = MemberFacts {
            zone: worker.zone.clone(),
            template: self.settings.template.clone(),
            engine_version: said.engine_version,
            capacity: CAPACITY,
            ready: true,
            draining: worker.draining,
            heard_at_ms: now_ms,
            reports,
        };
        self.heard.insert(worker.member.clone(), facts);
    }

    /// Up to which generation profile tasks may be told.
    fn profiles_generation(&self) -> Option<u32> {
        let mut models = self.tasks.iter().filter(|task| task.kind == TaskKind::Model);
        let all_know = models.all(|task| self.models.get(task).is_some_and(|known| *known >= self.generation));
        all_know.then_some(self.generation)
    }

    fn tell(&mut self, workers: &[WorkerAt]) {
        let address_of = |member: &Member| workers.iter().find(|worker| worker.member == *member);
        let owner = |(task, assignment): (&TaskId, &millrace_lifecycle::placement::Assignment)| {
            Some((task.to_string(), address_of(assignment.owner())?.address.clone()))
        };
        let owners: BTreeMap<String, String> = self.placement.tasks.iter().filter_map(owner).collect();
        let addresses: Vec<String> = workers.iter().map(|worker| worker.address.clone()).collect();
        let mut sent = Vec::new();
        for worker in workers.iter().filter(|worker| self.heard.contains_key(&worker.member)) {
            let orders = Orders {
                format_version: FORMAT_VERSION,
                member: Some(worker.member.clone()),
                revision: Some(self.placement.revision),
                workers: addresses.clone(),
                orders: self
                    .placement
                    .orders(&worker.member)
                    .iter()
                    .map(|(t, order)| OrderOfTask::new(t, *order))
                    .collect(),
                owners: owners.clone(),
                profiles_generation: self.profiles_generation(),
            };
            let is_told = |(told, at): &(Orders, Instant)| *told == orders && at.elapsed() < TOLD_EVERY;
            if !self.told.get(&worker.member).is_some_and(is_told) {
                sent.push((worker, orders));
            }
        }
        let told = sent.iter().map(|(worker, orders)| {
            let body = serde_json::to_vec(orders).ok();
            ask(&self.targets[&worker.address], Method::PUT, "/v1/orders", body)
        });
        let answers = self.runtime.block_on(join_all(told));
        for ((worker, orders), answer) in sent.into_iter().zip(answers) {
            match answer {
                Ok(_) => drop(self.told.insert(worker.member.clone(), (orders, Instant::now()))),
                Err(why) => tracing::debug!(worker = worker.member.shard, why, "orders were not taken"),
            }
        }
    }
}

/// Of a worker that says nothing of it.
const CAPACITY: Capacity = Capacity { millicores: 1_000, state_bytes: 1 << 40 };

fn now_ms() -> u64 {
    unix_ms().max(0) as u64
}

/// The body of a good answer, or what came instead.
async fn ask(target: &Target, method: Method, path: &str, json: Option<Vec<u8>>) -> Result<Bytes, String> {
    match timeout(ANSWERED_WITHIN, target.ask(method, path, json)).await {
        Ok(Ok((StatusCode::OK | StatusCode::ACCEPTED, body))) => Ok(body),
        Ok(Ok((status, body))) => Err(format!("it answered {status}: {}", String::from_utf8_lossy(&body))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within a second".to_owned()),
    }
}
