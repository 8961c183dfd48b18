//! How a task comes to a station, stands by, takes over, and leaves.
//!
//! A *standby* is loaded from the newest checkpoint without a claim and follows the log; its effects are held back in an
//! outbox of its own. It looks at the manifest from time to time, and forgets what others have made durable. When it is to
//! take over it claims the task, which stops the former owner; effects above the manifest's offset are then its own to tell.
//! A reader that has had some of them from the former owner drops them, as coverage says.

use std::{collections::BTreeMap, mem, time::Duration};

use millrace_engine::{
    event::Seq,
    frame::outbox::{Handle, Outbox},
};
use millrace_lifecycle::{
    keys::{self, TaskId, TaskKind},
    lineage::{Claim, Claimant, Epoch, LineageError, Load, Owner, manifest_of},
    placement::{Order, Report, Role},
    store::{Answer, Next, Op, Procedure},
};

use super::{Command, Failed, Made, NewSeat, Now, Seat, Station, save::Custody, seat::Leaving};
use crate::{host::HostError, log::LogPartition};

/// A task on its way here.
pub struct Arrival {
    task: TaskId,
    order: Order,
    stage: Stage,
    /// What it waits for from the store.
    asked: u64,
}

/// What became of an order.
pub struct Ended {
    pub(super) order: Order,
    pub(super) role: Role,
}

enum Stage {
    Claiming(Claim),
    /// A standby's look at the manifest; once more, if what it named by then could not be loaded.
    Looking(Option<CannotLoad>),
    Loading(For, Load),
    /// Until whoever drives the station has made the task.
    Making(Option<Owner>),
}

/// For whom a checkpoint is loaded.
enum For {
    Owner(Box<Owner>),
    /// By the manifest with this token: somebody else may replace it, and remove files, meanwhile.
    Standby {
        write_token: String,
    },
}

struct CannotLoad {
    write_token: String,
    cause: LineageError,
}

/// What a standby has that an owner has not.
pub struct Shadow {
    /// Effects that are held back.
    pub(super) outbox: Outbox,
    pub(super) handle: Handle,
    pub(super) outputs: Vec<LogPartition>,
    next_look: Duration,
}

impl Station {
    /// Makes the orders come true: they are all that this station is to have, and whatever is not among them is dropped
    /// without another word to the store. Told again, it goes on with what it is doing. An error is that of the first task
    /// that failed; the others are seen to all the same.
    pub fn obey(&mut self, orders: &BTreeMap<TaskId, Order>, claimant: &Claimant, now: Now) -> Result<(), HostError> {
        self.now = now;
        if self.is_finishing {
            return Ok(());
        }
        self.arrivals.retain(|arrival| orders.get(&arrival.task) == Some(&arrival.order));
        self.ended.retain(|task, ended| orders.get(task) == Some(&ended.order));
        let is_ready = |(task, order): (&TaskId, &Order)| {
            // An ingest task has next to no state, and follows no log: it is quickly made when it is needed.
            (task.kind == TaskKind::Ingest && matches!(order, Order::Follow { .. })).then(|| (task.clone(), *order))
        };
        self.ready = orders.iter().filter_map(is_ready).collect();
        for at in (0..self.seats.len()).rev() {
            if !orders.contains_key(&self.seats[at].id) {
                self.unseat(at);
            }
        }
        let mut first = Ok(());
        for (task, order) in orders {
            if !self.ended.contains_key(task)
                && let Err(error) = self.obey_one(task, *order, claimant, now)
            {
                self.ends(task, *order, &error);
                first = first.and(Err(error));
            }
        }
        first
    }

    fn obey_one(&mut self, task: &TaskId, order: Order, claimant: &Claimant, now: Now) -> Result<(), HostError> {
        match (self.seat_of(task), order) {
            (Some(at), order) if self.seats[at].is_outdated(order) => {
                self.unseat(at);
                self.obey_one(task, order, claimant, now)
            }
            (Some(at), Order::Own { epoch, rolled_back }) => {
                let seat = &mut self.seats[at];
                (seat.order, seat.leaving) = (order, Leaving::No);
                self.take_over(at, claimant, Epoch::Given { epoch, rolled_back })
            }
            (Some(at), Order::Follow { .. }) => {
                self.seats[at].order = order;
                Ok(())
            }
            (Some(at), Order::Release { .. }) => {
                self.seats[at].order = order;
                if self.seats[at].leaving == Leaving::No {
                    self.seats[at].leaving = self.leaving_of(&self.seats[at]);
                }
                self.leave_if_clean(at, now)
            }
            (None, _) if self.arrivals.iter().any(|arrival| arrival.task == *task) => Ok(()),
            (None, Order::Own { epoch, rolled_back }) => {
                let claim = Claim::start(task, claimant, Epoch::Given { epoch, rolled_back });
                Ok(self.claiming(task.clone(), order, claim)?)
            }
            (None, Order::Follow { .. }) if task.kind == TaskKind::Ingest => Ok(()),
            (None, Order::Follow { .. }) => {
                self.look_up(task.clone(), order, None);
                Ok(())
            }
            // Whoever never owned it has nothing to release.
            (None, Order::Release { .. }) => Ok(()),
        }
    }

    /// What became of an order that failed or was done: it is not tried again until another one comes.
    pub(super) fn ends(&mut self, task: &TaskId, order: Order, error: &HostError) {
        let role = match error {
            HostError::Lineage { cause: LineageError::Fenced { epoch, .. }, .. } => {
                Role::Outdated { manifest_epoch: *epoch }
            }
            // A store that does not answer is asked again.
            HostError::Lineage { cause: LineageError::Store(_), .. } => return,
            error => Role::Failed { why: error.to_string() },
        };
        self.ended.insert(task.clone(), Ended { order, role });
    }

    /// What this station says of every task that it was told of.
    pub fn reports(&self) -> BTreeMap<TaskId, Report> {
        let report =
            |order: Order, role: Role| Report { epoch: order.epoch(), role, load_millicores: 0, state_bytes: 0 };
        let seated = self.seats.iter().map(|seat| (seat.id.clone(), report(seat.order, self.role_of(seat))));
        let level = Role::Follows { lag_records: 0, level_for_ms: u64::MAX };
        let ready = self.ready.iter().map(|(task, order)| (task.clone(), report(*order, level.clone())));
        let arriving = self.arrivals.iter().map(|arrival| (arrival.task.clone(), report(arrival.order, Role::Loads)));
        let ended = self.ended.iter().map(|(task, ended)| (task.clone(), report(ended.order, ended.role.clone())));
        ready.chain(arriving).chain(seated).chain(ended).collect()
    }

    /// A task that cannot go on reads no more here: what it needs next is gone. Of a log, since others have gone on without it.
    pub(super) fn gives_up(&mut self, at: usize, error: &HostError) {
        let (id, order) = (self.seats[at].id.clone(), self.seats[at].order);
        tracing::warn!(task = %id, %error, "what the task needs next is not there: it is given up here");
        self.unseat(at);
        self.ends(&id, order, error);
    }

    fn role_of(&self, seat: &Seat) -> Role {
        if seat.custody.is_owner() {
            return Role::Owns;
        }
        match seat.task.lag_records(self.log.as_ref()) {
            Some(lag_records) if matches!(seat.custody, Custody::StandingBy { .. }) => {
                Role::Follows { lag_records, level_for_ms: 0 }
            }
            _ => Role::Loads,
        }
    }

    pub fn seat_of(&self, task: &TaskId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.id == *task)
    }

    fn claiming(&mut self, task: TaskId, order: Order, next: Next<Claim>) -> Result<(), Failed> {
        match next {
            Next::Ask(claim, op) => {
                let asked = self.ask(op);
                self.arrivals.push(Arrival { task, order, stage: Stage::Claiming(claim), asked });
            }
            Next::Done(Ok(owner)) => {
                let load = owner.load();
                self.loading(task, order, For::Owner(Box::new(owner)), load)?;
            }
            Next::Done(Err(cause)) => return Err(Failed { task: task.to_string(), cause }),
        }
        Ok(())
    }

    fn look_up(&mut self, task: TaskId, order: Order, failed: Option<CannotLoad>) {
        let asked = self.ask(Op::Get { key: keys::manifest(&task) });
        self.arrivals.push(Arrival { task, order, stage: Stage::Looking(failed), asked });
    }

    fn looked_up(
        &mut self,
        task: TaskId,
        order: Order,
        failed: Option<CannotLoad>,
        answer: Answer,
    ) -> Result<(), Failed> {
        let found = answer.object().map_err(LineageError::from).and_then(|found| manifest_of(&task, found));
        let found = found.map_err(|cause| Failed { task: task.to_string(), cause })?;
        let (checkpoints, write_token) =
            found.map(|(manifest, _)| (manifest.checkpoints, manifest.write_token)).unwrap_or_default();
        match failed {
            Some(failed) if failed.write_token == write_token => {
                Err(Failed { task: task.to_string(), cause: failed.cause })
            }
            _ => {
                let load = Load::start(&task, checkpoints);
                self.loading(task, order, For::Standby { write_token }, load)
            }
        }
    }

    fn loading(&mut self, task: TaskId, order: Order, whose: For, next: Next<Load>) -> Result<(), Failed> {
        match (next, whose) {
            (Next::Ask(load, op), whose) => {
                let asked = self.ask(op);
                self.arrivals.push(Arrival { task, order, stage: Stage::Loading(whose, load), asked });
            }
            (Next::Done(Ok(restored)), whose) => {
                let owner = match whose {
                    For::Owner(mut owner) => {
                        owner.go_on_from(restored.as_ref().map(|restored| &restored.checkpoint));
                        Some(*owner)
                    }
                    For::Standby { .. } => None,
                };
                self.asked += 1;
                self.commands.push_back(Command::Make { id: self.asked, task: task.clone(), restored });
                self.arrivals.push(Arrival { task, order, stage: Stage::Making(owner), asked: self.asked });
            }
            (Next::Done(Err(cause @ LineageError::AllDamaged { .. })), For::Standby { write_token }) => {
                self.look_up(task, order, Some(CannotLoad { write_token, cause }));
            }
            (Next::Done(Err(cause)), _) => return Err(Failed { task: task.to_string(), cause }),
        }
        Ok(())
    }

    /// The store's answer to a task on its way here.
    pub(super) fn arrive(&mut self, at: usize, answer: Answer) -> Result<(), HostError> {
        let Arrival { task, order, stage, .. } = self.arrivals.remove(at);
        let arrived = match stage {
            Stage::Claiming(claim) => self.claiming(task.clone(), order, claim.answered(answer)),
            Stage::Loading(whose, load) => self.loading(task.clone(), order, whose, load.answered(answer)),
            Stage::Looking(failed) => self.looked_up(task.clone(), order, failed, answer),
            Stage::Making(_) => Ok(()),
        };
        arrived.map_err(|failed| {
            let error = failed.into();
            self.ends(&task, order, &error);
            error
        })
    }

    pub(super) fn arrival_of(&self, asked: u64) -> Option<usize> {
        self.arrivals.iter().position(|arrival| arrival.asked == asked)
    }

    /// What [`Command::Make`] with this id wanted. It may not be wanted any more.
    pub fn made(&mut self, id: u64, made: Made) {
        let Some(at) = self.arrival_of(id) else { return self.let_go(made.task) };
        let arrival = self.arrivals.remove(at);
        match arrival.stage {
            Stage::Making(Some(owner)) => self.seat(NewSeat { made, owner }),
            _ => self.stand_by(made),
        }
        if let Some(seat) = self.seats.last_mut() {
            seat.order = arrival.order;
        }
    }

    /// It could not be made.
    pub fn not_made(&mut self, id: u64, error: &HostError) {
        if let Some(at) = self.arrival_of(id) {
            let Arrival { task, order, .. } = self.arrivals.remove(at);
            self.ends(&task, order, error);
        }
    }

    fn stand_by(&mut self, made: Made) {
        let kinds: Vec<_> = self.numbers_of(&made.outputs).iter().map(|output| self.outbox.kind_of(*output)).collect();
        let mut outbox = Outbox::new(self.cadence.generation, &kinds);
        let all: Vec<usize> = (0..kinds.len()).collect();
        let handle = outbox.register(made.origin.unwrap_or_default(), 0, made.from, &all);
        let next_look = self.now.since_start + self.cadence.checkpoint_every;
        let shadow = Shadow { outbox, handle: handle.clone(), outputs: made.outputs.clone(), next_look };
        let seat = self.new_seat(made, handle, Custody::StandingBy { shadow, looking: None });
        self.seats.push(seat);
    }

    /// Standbys look at their manifests, when it is time.
    pub(super) fn look(&mut self, at: usize, now: Now) {
        let Custody::StandingBy { shadow, looking: None } = &self.seats[at].custody else { return };
        if shadow.next_look > now.since_start {
            return;
        }
        let asked = self.ask(Op::Get { key: keys::manifest(&self.seats[at].id) });
        if let Custody::StandingBy { shadow, looking } = &mut self.seats[at].custody {
            *looking = Some(asked);
            shadow.next_look = now.since_start + self.cadence.checkpoint_every;
        }
    }

    /// What the manifest says is durable is not ours to tell.
    pub(super) fn looked(&mut self, at: usize, mut shadow: Shadow, answer: Answer) -> Result<(), HostError> {
        let id = self.seats[at].id.clone();
        let found = answer.object().map_err(LineageError::from).and_then(|found| manifest_of(&id, found));
        if let Ok(Some((manifest, _))) = &found
            && let Some(newest) = manifest.checkpoints.first()
        {
            shadow.forget(&id, newest.position.log_offset)?;
        }
        self.seats[at].custody = Custody::StandingBy { shadow, looking: None };
        found.map(|_| ()).map_err(|cause| Failed { task: id.to_string(), cause }.into())
    }

    fn take_over(&mut self, at: usize, claimant: &Claimant, epoch: Epoch) -> Result<(), HostError> {
        let seat = &mut self.seats[at];
        match mem::replace(&mut seat.custody, Custody::Gone) {
            Custody::StandingBy { shadow, .. } => {
                let (order, claim) = (seat.order, Claim::start(&seat.id, claimant, epoch));
                self.taking_over(at, shadow, order, claim)
            }
            other => {
                seat.custody = other;
                Ok(())
            }
        }
    }

    /// Goes on with a standby's claim.
    pub(super) fn taking_over(
        &mut self,
        at: usize,
        shadow: Shadow,
        order: Order,
        next: Next<Claim>,
    ) -> Result<(), HostError> {
        match next {
            Next::Ask(claim, op) => {
                let asked = self.ask(op);
                self.seats[at].custody = Custody::TakingOver { shadow, claim, asked, order };
                Ok(())
            }
            Next::Done(Ok(owner)) => {
                self.seats[at].custody = Custody::CatchingUp { owner, shadow };
                self.own_if_level(at)
            }
            Next::Done(Err(cause)) => {
                let (id, is_wanted) = (self.seats[at].id.clone(), self.seats[at].order == order);
                self.seats[at].custody = Custody::StandingBy { shadow, looking: None };
                let error = Failed { task: id.to_string(), cause }.into();
                if is_wanted {
                    self.ends(&id, order, &error);
                }
                Err(error)
            }
        }
    }

    /// A standby that has claimed its task works on quietly up to the manifest's offset: that was told by others.
    pub(super) fn own_if_level(&mut self, at: usize) -> Result<(), HostError> {
        let seat = &mut self.seats[at];
        let Custody::CatchingUp { owner, .. } = &seat.custody else { return Ok(()) };
        let durable = owner.newest().map_or(0, |newest| newest.position.log_offset);
        if seat.task.position().0 < durable && !planted::is(planted::Bug::OwnsBeforeLevel) {
            return Ok(());
        }
        let Custody::CatchingUp { owner, mut shadow } = mem::replace(&mut seat.custody, Custody::Gone) else {
            return Ok(());
        };
        let told = if planted::is(planted::Bug::OwnPositionForManifests) { seat.task.position().0 } else { durable };
        shadow.forget(&seat.id, told)?;
        let (epoch, state_bytes) = (owner.epoch(), owner.state_bytes());
        let outputs = self.seats[at].outputs.clone();
        let mut outputs = self.numbers_of(&outputs);
        if planted::is(planted::Bug::OutputsSwapped) {
            outputs.reverse();
        }
        let handle = self.outbox.adopt(&mut shadow.outbox, &shadow.handle, epoch, &outputs);
        let mut seat = self.seats.remove(at);
        seat.state_bytes = state_bytes;
        if planted::is(planted::Bug::DeltaAfterPromotion) {
            seat.task.begin_checkpoint(millrace_engine::checkpoint::Extent::Changes);
            seat.task.continue_checkpoint(usize::MAX);
        }
        (seat.handle, seat.custody, seat.must_be_base) =
            (handle, Custody::Idle(owner), !planted::is(planted::Bug::DeltaAfterPromotion));
        self.own(&mut seat, epoch);
        self.seats.insert(at, seat);
        Ok(())
    }

    fn leaving_of(&self, seat: &Seat) -> Leaving {
        match seat.custody {
            _ if seat.state_bytes <= self.cadence.release_at_once_bytes => Leaving::Now,
            Custody::Idle(_) => Leaving::AfterSaves(1),
            // What is under way was begun some time ago.
            _ => Leaving::AfterSaves(2),
        }
    }

    pub(super) fn leave_if_clean(&mut self, at: usize, now: Now) -> Result<(), HostError> {
        let seat = &mut self.seats[at];
        if seat.leaving == Leaving::No || !seat.task.is_clean() || !matches!(seat.custody, Custody::Idle(_)) {
            return Ok(());
        }
        let is_saved = seat.saved_position == Some(seat.task.position().0);
        match &mut seat.leaving {
            Leaving::AfterSaves(saves) if *saves > 0 && !is_saved => {
                *saves -= 1;
                self.flush();
                return self.checkpoint(at, now);
            }
            leaving => *leaving = Leaving::Now,
        }
        if planted::is(planted::Bug::DroppedAtRelease) {
            self.outbox.unregister(&self.seats[at].handle);
        }
        self.flush();
        self.checkpoint(at, now)
    }
}

impl Shadow {
    /// Records below this log offset have had their effects made durable by others.
    fn forget(&mut self, task: &TaskId, log_offset: u64) -> Result<(), HostError> {
        let failed = |cause| HostError::HeldBack { task: task.to_string(), cause };
        self.outbox.forget(&self.handle, Seq::end_of(log_offset.saturating_sub(1))).map_err(failed)
    }
}
