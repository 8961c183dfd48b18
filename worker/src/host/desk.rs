//! What an engine thread does for those who ask: profiles, erasures, decisions. It looks here between two slices.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_engine::{
    control::{self, Configure, Control, Erase},
    decide::Decider,
    event::{Pseudonym, Seq, Time},
    frame::{
        Progress,
        coverage::Coverage,
        outbox::{Handle, Outbox},
    },
    ingest::partition_of,
    learn::serving::{ServingDelta, ServingModel},
    model::ModelTask,
    plan::Plan,
    profile::Profile,
};
use millrace_lifecycle::{keys::TaskId, lineage::Claimant, placement::Order};
use tokio::sync::oneshot;

use super::{
    catch_up::CatchUp,
    copies::{Shipping, Wants},
    figures::Figures,
    mailbox::Mailbox,
};

/// One who waits for an answer; dropped without one, he is told that the worker is stopping.
pub type Reply<T> = oneshot::Sender<T>;

/// What may be asked of an engine thread, or told to it by another.
pub enum Request {
    Decide(Box<super::decisions::Ask>),
    /// Answered once the erasure is durable; in a fleet, once its task has read it.
    Erase {
        user: Pseudonym,
        time: Time,
        reply: Reply<()>,
    },
    Profile {
        user: Pseudonym,
        reply: Reply<Option<UserProfile>>,
    },
    /// A withdrawal was accepted: it counts before the log has been read up to it.
    Withdrawn {
        user: Pseudonym,
        stated: Time,
    },
    /// All that this thread is to have of a fleet's tasks from now on.
    Obey {
        orders: BTreeMap<TaskId, Order>,
        claimant: Claimant,
    },
    /// The pipeline as profile tasks may be told of it now.
    Configure(Configure),
    /// What a model has learned since the last time.
    Learned {
        model: usize,
        delta: Arc<ServingDelta>,
    },
}

/// What is kept of a user, for people.
#[derive(Clone, Debug)]
pub struct UserProfile {
    pub granted: Time,
    pub last_event: Time,
    pub watermark: Time,
    pub features: Vec<(String, String)>,
}

/// The control records of one events partition, as its owner appends them.
pub struct ControlLog {
    handle: Handle,
    epoch: u64,
    number: u64,
}

impl ControlLog {
    pub fn new(handle: Handle, epoch: u64) -> Self {
        Self { handle, epoch, number: 0 }
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Gives the record's sequence.
    pub fn append(&mut self, control: &Control, outbox: &mut Outbox) -> Seq {
        self.number += 1;
        let seq = control::seq(self.epoch, self.number);
        outbox.record(&self.handle, 0, |records| control.write(records, seq));
        outbox.advance(&self.handle, seq, Progress::default());
        seq
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// What serving copies have been told of a model task.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub model: usize,
    /// Examples that they know of.
    pub scored: Option<u64>,
}

/// How long a withdrawal is remembered beside the log: far longer than it takes to be read.
const WITHDRAWN_FOR: Duration = Duration::from_secs(86_400);

/// Withdrawals that were accepted a moment ago.
#[derive(Default)]
struct Withdrawals {
    stated: BTreeMap<Pseudonym, (Time, Instant)>,
    swept: Option<Instant>,
}

impl Withdrawals {
    fn add(&mut self, user: Pseudonym, stated: Time) {
        let now = Instant::now();
        let entry = self.stated.entry(user).or_insert((stated, now));
        *entry = (entry.0.max(stated), now);
        if self.swept.is_none_or(|swept| now - swept > WITHDRAWN_FOR) {
            self.stated.retain(|_, (_, added)| now - *added < WITHDRAWN_FOR);
            self.swept = Some(now);
        }
    }

    /// Does one stand against consent that was granted then?
    fn covers(&self, user: Pseudonym, granted: Time) -> bool {
        self.stated.get(&user).is_some_and(|(stated, _)| granted <= *stated)
    }
}

/// An erasure that was accepted.
pub struct Promised {
    /// Of the batch that holds it.
    pub ticket: u64,
    /// In a fleet, that it is durable says nothing: an owner that was replaced without knowing it writes what readers drop.
    pub read: Option<Read>,
    pub reply: Reply<()>,
}

/// Which control record is to have been read by the task itself: then every other reader has it as well.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub partition: u32,
    pub epoch: u64,
    pub seq: Seq,
}

impl Promised {
    /// `None`: not yet. `Some(false)`: never, as far as it is known here. `controls`: those that are applied, by partition.
    fn is_kept(&self, acknowledged: u64, controls: impl Fn(u32) -> Option<Coverage>) -> Option<bool> {
        if self.ticket > acknowledged {
            return None;
        }
        let Some(Read { partition, epoch, seq }) = self.read else { return Some(true) };
        match controls(partition) {
            Some(coverage) if coverage.epoch == epoch => (coverage.applied >= seq).then_some(true),
            Some(coverage) if coverage.epoch < epoch => None,
            // Another one owns it by now.
            _ => Some(false),
        }
    }
}

/// What an engine thread needs to answer.
pub struct Desk {
    pub mailbox: Arc<Mailbox<Request>>,
    /// Of all engine threads, this one included.
    pub everybody: Vec<Arc<Mailbox<Request>>>,
    pub figures: Arc<Figures>,
    pub plan: Arc<Plan>,
    /// Of the plan: tasks that are behind cannot be asked by it.
    pub generation: u32,
    /// By model: what decisions are scored with.
    pub models: Vec<ServingModel>,
    /// By model: its copy could not take a delta.
    is_behind: Vec<bool>,
    pub decider: Decider,
    withdrawals: Withdrawals,
    pub catch_up: Arc<CatchUp>,
    /// In a fleet, what models have learned goes through a log.
    shipping: Option<Arc<Shipping>>,
    /// Has this thread been told of every model?
    is_told: bool,
    promised: Vec<Promised>,
}

impl Desk {
    pub fn new(
        mailbox: Arc<Mailbox<Request>>,
        everybody: Vec<Arc<Mailbox<Request>>>,
        figures: Arc<Figures>,
        plan: Arc<Plan>,
        generation: u32,
        catch_up: Arc<CatchUp>,
        shipping: Option<Arc<Shipping>>,
    ) -> Self {
        let models = plan.serving_models();
        let decider = Decider::new(&plan);
        let (withdrawals, promised) = (Withdrawals::default(), Vec::new());
        let is_told = models.is_empty() || !plan.serves();
        if !is_told {
            catch_up.expect_thread();
        }
        Self {
            mailbox,
            everybody,
            figures,
            plan,
            generation,
            is_behind: vec![false; models.len()],
            models,
            decider,
            withdrawals,
            catch_up,
            shipping,
            is_told,
            promised,
        }
    }

    /// May this user be personalized, as far as the last minutes' withdrawals say?
    pub fn is_withdrawn(&self, user: Pseudonym, granted: Time) -> bool {
        self.withdrawals.covers(user, granted)
    }

    pub fn withdraw(&mut self, user: Pseudonym, stated: Time) {
        self.figures.forget(user);
        self.withdrawals.add(user, stated);
    }

    pub fn learn(&mut self, model: usize, delta: &ServingDelta) {
        let copy = &mut self.models[model];
        match copy.apply(delta) {
            Ok(_) => {
                self.is_behind[model] = false;
                self.figures.serves(model, copy.version(), copy.standing());
                if !self.is_told && self.models.iter().all(|copy| copy.seen().is_some()) {
                    self.is_told = true;
                    self.catch_up.thread_is_told();
                }
            }
            // Until the next full one, each says the same.
            Err(_) if self.is_behind[model] => {}
            Err(error) => {
                self.is_behind[model] = true;
                let model = &self.plan.models[model].name;
                tracing::error!(model, %error, "a serving copy could not be brought up to date; the next full delta can");
            }
        }
    }

    pub fn profile(&self, profile: &mut Profile, user: Pseudonym) -> Option<UserProfile> {
        let (watermark, plan) = (profile.watermark(), profile.plan().clone());
        let row = profile.view(user).row?;
        if self.is_withdrawn(user, row.granted()) {
            return None;
        }
        let (granted, last_event) = (row.granted(), row.last_event());
        Some(UserProfile { granted, last_event, watermark, features: plan.features.describe(row, watermark) })
    }

    /// Appends the erasure. Until it has been read, nothing from before it is served. Gives its sequence.
    pub fn erase(&mut self, log: &mut ControlLog, outbox: &mut Outbox, erase: Erase) -> Seq {
        self.withdraw(erase.user, erase.time);
        log.append(&Control::Erase(erase), outbox)
    }

    pub fn has_promised(&self) -> bool {
        !self.promised.is_empty()
    }

    pub fn promise(&mut self, promised: Promised) {
        self.promised.push(promised);
    }

    /// Answers those to whom it was promised. Who is not answered is told to come again.
    pub fn acknowledge(&mut self, acknowledged: u64, controls: impl Fn(u32) -> Option<Coverage>) {
        for promised in std::mem::take(&mut self.promised) {
            match promised.is_kept(acknowledged, &controls) {
                None => self.promised.push(promised),
                // Whoever asked may be gone.
                Some(true) => drop(promised.reply.send(())),
                Some(false) => {}
            }
        }
    }

    /// Tells all threads, or the fleet, what a model of this one has learned since the last time. `epoch`: its owner's.
    pub fn publish(&self, task: &mut ModelTask, published: &mut Published, epoch: u64) {
        let scored = task.model().scored();
        let (model, is_behind) = (published.model, task.generation() < self.generation);
        match &self.shipping {
            _ if is_behind => {}
            None if published.scored == Some(scored) => {}
            None => {
                published.scored = Some(scored);
                let delta = Arc::new(task.serving_delta());
                self.everybody
                    .iter()
                    .for_each(|mailbox| mailbox.tell(Request::Learned { model, delta: delta.clone() }));
            }
            Some(shipping) => match shipping.wants(model) {
                Wants::Nothing => {}
                Wants::Changes if published.scored == Some(scored) => {}
                wants => {
                    if wants == Wants::All {
                        task.ship_in_full();
                    }
                    published.scored = Some(scored);
                    shipping.ship(model, epoch, task.serving_delta());
                }
            },
        }
    }

    pub fn partition_of(&self, user: Pseudonym) -> u32 {
        partition_of(user, self.plan.partitions) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_is_acknowledged_once_its_reader_has_it() {
        let promised = |read| Promised { ticket: 5, read, reply: oneshot::channel().0 };
        let covered = |epoch, number| Some(Coverage { epoch, applied: control::seq(epoch, number) });
        let alone = promised(None);
        assert_eq!((alone.is_kept(4, |_| None), alone.is_kept(5, |_| None)), (None, Some(true)));
        let fleet = promised(Some(Read { partition: 1, epoch: 3, seq: control::seq(3, 2) }));
        for (acknowledged, coverage, kept) in [
            (4, covered(3, 2), None),
            (5, covered(2, 9), None),
            (5, covered(3, 1), None),
            (5, covered(3, 2), Some(true)),
            // Somebody else's frame came first: ours was dropped, perhaps.
            (5, covered(4, 1), Some(false)),
            // The task is not here any more.
            (5, None, Some(false)),
        ] {
            assert_eq!(
                fleet.is_kept(acknowledged, |partition| coverage.filter(|_| partition == 1)),
                kept,
                "{coverage:?}"
            );
        }
    }
}
