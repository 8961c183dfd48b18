//! A checkpoint's way: the state is taken between two drains, waits until all effects up to there are durable, is written,
//! and then what nobody needs any more goes.

use std::mem;

use millrace_engine::{checkpoint::Extent, profile::Slice};
use millrace_lifecycle::{
    lineage::{Claim, Collect, Content, LineageError, Owner, Save, State},
    manifest::Position,
    placement::{Order, Role},
    store::{Answer, Next, Op, Procedure},
};

use super::{
    Command, Failed, Now, Seat, Station,
    arrive::{Ended, Shadow},
    seat::Leaving,
};
use crate::host::{HostError, task::Task};

/// The checkpoints of a task that this run wrote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub count: u64,
    /// Of the newest one.
    pub at_unix_ms: i64,
    pub bytes: usize,
    pub is_base: bool,
}

/// Who holds a task's ownership at the moment.
pub enum Custody {
    /// Nobody writes.
    Idle(Owner),
    /// The state is being encoded, while the task goes on.
    Taking(Owner, Begun),
    /// Not all effects up to the state are durable.
    Waiting(Owner, Taken),
    Saving {
        save: Save,
        asked: u64,
        last: bool,
        written: Written,
    },
    Collecting {
        collect: Collect,
        asked: u64,
    },
    /// Not owned: effects are held back.
    StandingBy {
        shadow: Shadow,
        looking: Option<u64>,
    },
    TakingOver {
        shadow: Shadow,
        claim: Claim,
        asked: u64,
        /// By which it claims. It may have been told something else since.
        order: Order,
    },
    /// Owned, and not yet where the former owner's checkpoint is.
    CatchingUp {
        owner: Owner,
        shadow: Shadow,
    },
    /// Given up, in order or because somebody took over.
    Gone,
}

/// A state as of a moment.
pub struct Begun {
    extent: Extent,
    position: Position,
    /// Of the last batch with its effects.
    ticket: u64,
    last: bool,
}

/// A state on its way to the store.
pub struct Taken {
    begun: Begun,
    content: Content,
}

impl Custody {
    /// What it waits for from the store.
    pub fn asked(&self) -> Option<u64> {
        match self {
            Self::Saving { asked, .. } | Self::Collecting { asked, .. } | Self::TakingOver { asked, .. } => {
                Some(*asked)
            }
            Self::StandingBy { looking, .. } => *looking,
            Self::Idle(_) | Self::Taking(..) | Self::Waiting(..) | Self::CatchingUp { .. } | Self::Gone => None,
        }
    }

    /// May its effects be told?
    pub fn is_owner(&self) -> bool {
        let is_before_save = matches!(self, Self::Idle(_) | Self::Taking(..) | Self::Waiting(..));
        is_before_save || matches!(self, Self::Saving { .. } | Self::Collecting { .. })
    }

    pub(super) fn shadow(&mut self) -> Option<&mut Shadow> {
        match self {
            Self::StandingBy { shadow, .. } | Self::TakingOver { shadow, .. } | Self::CatchingUp { shadow, .. } => {
                Some(shadow)
            }
            _ => None,
        }
    }
}

impl Station {
    /// Large states are taken one after the other, since each is in memory until it is written. None waits for longer than until
    /// its next one is due.
    pub(super) fn gives_way(&self, at: usize, now: Now) -> bool {
        // How large it will be is not known of the first one.
        let is_large = |seat: &Seat| seat.state_bytes == 0 || seat.state_bytes > self.cadence.release_at_once_bytes;
        let holds_a_state =
            |seat: &Seat| matches!(seat.custody, Custody::Taking(..) | Custody::Waiting(..) | Custody::Saving { .. });
        let seat = &self.seats[at];
        let is_overdue = now.since_start >= seat.next_checkpoint + self.cadence.checkpoint_every;
        !is_overdue && is_large(seat) && self.seats.iter().any(|other| holds_a_state(other) && is_large(other))
    }

    /// Begins to take a state if none is on its way. Everything that the task has recorded must have been flushed before.
    pub(super) fn checkpoint(&mut self, at: usize, now: Now) -> Result<(), HostError> {
        let seat = &mut self.seats[at];
        if !matches!(seat.custody, Custody::Idle(_)) {
            return Ok(()); // a last one is taken once that has ended
        }
        seat.next_checkpoint = now.since_start + self.cadence.checkpoint_every;
        let (log_offset, frame_checksum) = seat.task.position();
        let last = seat.leaving == Leaving::Now;
        if !last && seat.saved_position == Some(log_offset) && !seat.task.wants_checkpoint() {
            return Ok(()); // nothing was applied since
        }
        seat.may_be_released |= last && !planted::is(planted::Bug::ReleasedGoesOn);
        let Custody::Idle(owner) = mem::replace(&mut seat.custody, Custody::Gone) else { return Ok(()) };
        // Nobody is to wait for files to be joined.
        let compacts = owner.wants_base() && (!last || owner.newest().is_none());
        let wants_base = mem::take(&mut seat.must_be_base) || compacts || seat.task.wants_base();
        let (extent, whole) = seat.task.begin_checkpoint(if wants_base { Extent::Base } else { Extent::Changes });
        seat.saved_position = Some(log_offset);
        let position = Position {
            log_offset,
            frame_checksum,
            generation: seat.task.generation(),
            spec_digest: self.cadence.spec_digest,
            written_at_unix_ms: now.unix_ms,
        };
        let begun = Begun { extent, position, ticket: self.sent, last };
        seat.custody = match whole {
            Some(bytes) => Custody::Waiting(owner, Taken { begun, content: bytes.into() }),
            None => Custody::Taking(owner, begun),
        };
        if self.is_finishing {
            self.take_on(at, usize::MAX)?; // nobody steps it any more
        }
        Ok(self.save_if_durable(at)?)
    }

    /// Goes on with a state that is being taken, by about `budget` rows. Whether there was one.
    pub(super) fn take_on(&mut self, at: usize, budget: usize) -> Result<bool, Failed> {
        let seat = &mut self.seats[at];
        if !matches!(seat.custody, Custody::Taking(..)) {
            return Ok(false);
        }
        let slice = seat.task.continue_checkpoint(budget);
        if slice == Slice::More {
            return Ok(true);
        }
        if let Custody::Taking(owner, begun) = mem::replace(&mut seat.custody, Custody::Gone) {
            if let Slice::Done { bytes, digest } = slice {
                seat.custody = Custody::Waiting(owner, Taken { begun, content: Content { bytes, digest } });
            } else {
                // It is given up, and taken anew at the next flush.
                (seat.custody, seat.must_be_base, seat.saved_position) = (Custody::Idle(owner), true, None);
                seat.next_checkpoint = self.now.since_start;
            }
        }
        self.save_if_durable(at)?;
        Ok(true)
    }

    pub(super) fn save_if_durable(&mut self, at: usize) -> Result<(), Failed> {
        let custody = &mut self.seats[at].custody;
        let is_early = planted::is(planted::Bug::ManifestBeforeEffects);
        if !matches!(custody, Custody::Waiting(_, taken) if taken.begun.ticket <= self.acknowledged || is_early) {
            return Ok(());
        }
        let Custody::Waiting(owner, taken) = mem::replace(custody, Custody::Gone) else { return Ok(()) };
        let Taken { begun: Begun { extent, position, last, .. }, content } = taken;
        let (count, is_base) = (self.seats[at].written.count + 1, extent == Extent::Base);
        let written = Written { count, at_unix_ms: position.written_at_unix_ms, bytes: content.bytes.len(), is_base };
        let state = if is_base { State::Base(content) } else { State::Delta(content) };
        let save = if last { owner.release(state, position) } else { owner.save(state, position) };
        self.saving(at, save, last, written).map(|_| ())
    }

    /// The store has answered.
    pub(super) fn go_on(&mut self, at: usize, answer: Answer, now: Now) -> Result<(), HostError> {
        match mem::replace(&mut self.seats[at].custody, Custody::Gone) {
            Custody::Saving { save, last, written, .. } => {
                if let Some(owner) = self.saving(at, save.answered(answer), last, written)? {
                    // A position in a source is worth nothing once there is a newer one; state is, while its log is kept.
                    let retain_ms = if self.seats[at].reads.is_some() { self.cadence.retain_ms } else { 0 };
                    self.collecting(at, owner.collect(now.unix_ms, retain_ms), now)?;
                }
                Ok(())
            }
            Custody::Collecting { collect, .. } => self.collecting(at, collect.answered(answer), now),
            Custody::StandingBy { shadow, .. } => self.looked(at, shadow, answer),
            Custody::TakingOver { shadow, claim, order, .. } => {
                self.taking_over(at, shadow, order, claim.answered(answer))
            }
            other => {
                self.seats[at].custody = other;
                Ok(())
            }
        }
    }

    pub(super) fn ask(&mut self, op: Op) -> u64 {
        self.asked += 1;
        self.commands.push_back(Command::Ask { id: self.asked, op });
        self.asked
    }

    /// Goes on with a save. The owner, once it has been written.
    fn saving(&mut self, at: usize, next: Next<Save>, last: bool, written: Written) -> Result<Option<Owner>, Failed> {
        match next {
            Next::Ask(save, op) => {
                let asked = self.ask(op);
                self.seats[at].custody = Custody::Saving { save, asked, last, written };
                Ok(None)
            }
            Next::Done((owner, Ok(()))) => {
                self.seats[at].written = written;
                Ok(Some(owner))
            }
            Next::Done((owner, Err(cause))) => Err(self.failed(at, owner, cause)),
        }
    }

    fn collecting(&mut self, at: usize, next: Next<Collect>, now: Now) -> Result<(), HostError> {
        match next {
            Next::Ask(collect, op) => {
                let asked = self.ask(op);
                self.seats[at].custody = Custody::Collecting { collect, asked };
                Ok(())
            }
            Next::Done((owner, Ok(_))) => self.saved(at, owner, now),
            Next::Done((owner, Err(cause))) => Err(self.failed(at, owner, cause).into()),
        }
    }

    fn saved(&mut self, at: usize, owner: Owner, now: Now) -> Result<(), HostError> {
        let seat = &mut self.seats[at];
        seat.state_bytes = owner.state_bytes();
        if let Task::Ingest(ingest, _) = &mut seat.task {
            ingest.saved(owner.oldest_generation());
        }
        if let Some(partition) = seat.reads.clone() {
            self.commands.push_back(Command::Trim { partition, before: owner.trimmable_offset() });
        }
        if owner.manifest().released {
            if !self.is_finishing {
                tracing::info!(task = %seat.id, "released");
                let offset = owner.newest().map_or(0, |newest| newest.position.log_offset);
                let ended = Ended { order: seat.order, role: Role::Released { offset } };
                self.ended.insert(seat.id.clone(), ended);
                self.unseat(at);
            }
            return Ok(());
        }
        (seat.custody, seat.may_be_released) = (Custody::Idle(owner), false);
        self.leave_if_clean(at, now)
    }

    fn failed(&mut self, at: usize, owner: Owner, cause: LineageError) -> Failed {
        let seat = &mut self.seats[at];
        let failed = Failed { task: seat.id.to_string(), cause };
        if self.is_finishing {
            seat.custody = Custody::Gone; // nobody waits for another try
        } else if matches!(failed.cause, LineageError::Store(_)) || planted::is(planted::Bug::FencedGoesOn) {
            let must_be_base = !planted::is(planted::Bug::DeltaAfterFailedSave);
            (seat.custody, seat.must_be_base, seat.saved_position) = (Custody::Idle(owner), must_be_base, None);
            seat.retry_at = self.now.since_start + self.cadence.checkpoint_every;
        } else {
            let (id, order) = (seat.id.clone(), seat.order);
            self.unseat(at);
            let error = HostError::from(failed.clone());
            self.ends(&id, order, &error);
        }
        failed
    }
}
