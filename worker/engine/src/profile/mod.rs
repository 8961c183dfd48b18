//! The profile task: one partition of the events log in; examples for each model, and dead letters, out.
//!
//! Records are applied in merge order to a table of users, each with feature cells, consent and open joins. Events at
//! a time precede the timers of that time.

mod checkpoint;

use std::sync::Arc;

use crate::{
    dead_letter::{DeadLetter, LATE},
    dedupe::Dedupe,
    event::{ConsentChange, Event, Pseudonym, Seq, Time},
    example::write_example_of,
    feature::Context,
    frame::{
        Kind, Origin, OriginState, Progress,
        outbox::{Handle, Outbox},
    },
    join::{Joins, OutcomeCounts},
    order::{Merge, OrderError},
    plan::Plan,
    users::{Slot, Users, WARM_USERS},
};

/// What became of the events of one partition, since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub duplicate: u64,
    pub unconsented: u64,
    /// Below the merged watermark: of a source that was idle, or had ended.
    pub late: u64,
}

/// The state of one events partition.
pub struct Profile {
    plan: Arc<Plan>,
    merge: Merge,
    users: Users,
    joins: Joins,
    dedupe: Dedupe,
    counts: Counts,
    /// Offset of the log record in hand, and how many effects it has had.
    offset: u64,
    effects: u32,
    ahead: Ahead,
}

/// What was read ahead, so that waits for memory overlap. Nothing depends on it.
#[derive(Default)]
struct Ahead {
    /// Records read ahead that have not been applied yet.
    left: usize,
    users: Vec<Pseudonym>,
    ids: Vec<u128>,
    slots: Vec<Slot>,
}

impl Profile {
    /// `origins`: all that the merge waits for from the start.
    pub fn new(plan: Arc<Plan>, origins: &[Origin]) -> Self {
        Self {
            merge: Merge::new(Kind::Events, origins),
            users: Users::new(&plan.features),
            joins: Joins::new(plan.outcomes.clone(), plan.example_plans()),
            dedupe: Dedupe::new(plan.dedupe_micros),
            counts: Counts::default(),
            offset: 0,
            effects: 0,
            ahead: Ahead::default(),
            plan,
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }
    pub fn outcome_counts(&self) -> &[OutcomeCounts] {
        &self.joins.counts
    }
    pub fn users(&self) -> &Users {
        &self.users
    }
    pub fn watermark(&self) -> Time {
        self.merge.watermark()
    }
    pub fn waiting(&self) -> usize {
        self.merge.waiting()
    }
    pub fn open_joins(&self) -> usize {
        self.joins.open_count()
    }
    pub fn state(&self) -> OriginState {
        self.merge.state()
    }
    /// Offset of the last log record that was applied.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes in the log record at `offset`; `drain` then applies what it makes ready, and must have returned true
    /// before the next record.
    pub fn accept(
        &mut self,
        offset: u64,
        frame: &Arc<[u8]>,
        outbox: &mut Outbox,
        out: &Handle,
    ) -> Result<(), OrderError> {
        self.offset = offset;
        self.effects = 0;
        for late in self.merge.accept(frame)? {
            let event = Event::read(&late.bytes)?;
            self.late(late.origin, &event, outbox, out);
        }
        Ok(())
    }

    /// Applies up to `budget` records and timers, fewer when the outbox is full. True when everything that was ready is applied.
    pub fn drain(&mut self, budget: usize, outbox: &mut Outbox, out: &Handle) -> Result<bool, OrderError> {
        for _ in 0..budget {
            let (event, timer) = (self.merge.peek(), self.joins.due());
            let fires = match (event, timer) {
                (Some(event), Some(timer)) => timer < event,
                (None, Some(timer)) => timer <= self.merge.watermark() || self.merge.all_ended(),
                (Some(_), None) => false,
                (None, None) => return Ok(self.finish(outbox, out)),
            };
            if fires {
                self.fire(outbox, out);
                if outbox.is_full() {
                    break;
                }
            } else if event.is_some() {
                self.apply_next()?;
            } else {
                return Ok(self.finish(outbox, out));
            }
        }
        if self.effects > 0 {
            let to = Seq { offset: self.offset, index: self.effects - 1 };
            // The watermark stays what it was until everything below it has been emitted.
            outbox.cover(out, to);
        }
        Ok(false)
    }

    fn finish(&mut self, outbox: &mut Outbox, out: &Handle) -> bool {
        // The highest time is each model's own: it follows from the examples that its log gets.
        let progress = Progress { watermark: self.merge.watermark(), highest: Time::MIN, state: self.merge.state() };
        outbox.advance(out, Seq::end_of(self.offset), progress);
        true
    }

    /// Reads what the next records will need.
    fn read_ahead(&mut self) {
        let Self { merge, users, joins, dedupe, ahead, .. } = self;
        ahead.users.clear();
        ahead.ids.clear();
        for (user, id) in merge.upcoming().take(WARM_USERS).filter_map(Event::user_and_id) {
            ahead.users.push(user);
            ahead.ids.extend((id != 0).then_some(id));
        }
        dedupe.warm(&ahead.ids);
        users.warm(ahead.users.iter().copied(), &mut ahead.slots);
        joins.warm_users(ahead.slots.iter().map(|slot| slot.0));
        ahead.left = ahead.users.len().max(1);
    }

    fn apply_next(&mut self) -> Result<(), OrderError> {
        if self.ahead.left == 0 {
            self.read_ahead();
        }
        self.ahead.left -= 1;
        let Self { plan, merge, users, joins, dedupe, counts, .. } = self;
        let Some(released) = merge.release() else { return Ok(()) };
        let event = Event::read(released.bytes)?;
        match event.head.consent {
            ConsentChange::Grant => {
                counts.accepted += 1;
                let slot = users.get_or_insert(event.head.user);
                users.row_mut(slot).set_granted(event.head.stated);
                return Ok(());
            }
            ConsentChange::Withdraw => {
                counts.accepted += 1;
                withdraw(users, joins, &event);
                return Ok(());
            }
            ConsentChange::None => {}
        }
        let slot = match users.find(event.head.user) {
            Some(slot) => slot,
            // Without a row there was no grant.
            None if plan.consent_by_event => {
                counts.unconsented += 1;
                return Ok(());
            }
            None => users.get_or_insert(event.head.user),
        };
        if event.head.id != 0 && !dedupe.first(event.head.id, event.head.time) {
            counts.duplicate += 1;
            return Ok(());
        }
        counts.accepted += 1;
        joins.label(slot.0, released.origin, &event);
        if Some(event.head.event_type) == plan.impression {
            let row = users.row(slot);
            joins.open(slot.0, released.origin, &event, |model, item, values| {
                let context = Context { time: event.head.time, event: &event, item: Some(*item) };
                let projection = &plan.models[model].projection;
                match values.is_empty() {
                    true => plan.features.read(projection, Some(row), &context, values),
                    false => plan.features.read_other_item(projection, Some(row), &context, values),
                }
            });
        }
        plan.features.update(&mut users.row_mut(slot), &event);
        Ok(())
    }

    fn fire(&mut self, outbox: &mut Outbox, out: &Handle) {
        let Self { joins, offset, effects, .. } = self;
        joins.fire(|model, mut head, values| {
            head.seq = Seq { offset: *offset, index: *effects };
            *effects += 1;
            outbox.record(out, model, |records| write_example_of(records, &head, values));
        });
    }

    /// An event below the merged watermark. A withdrawal still acts, at once.
    fn late(&mut self, origin: Origin, event: &Event<'_>, outbox: &mut Outbox, out: &Handle) {
        if event.head.consent == ConsentChange::Withdraw {
            self.counts.accepted += 1;
            withdraw(&mut self.users, &mut self.joins, event);
            return;
        }
        self.counts.late += 1;
        if !self.plan.late_to_dead_letters(origin) {
            return;
        }
        let seq = Seq { offset: self.offset, index: self.effects };
        self.effects += 1;
        let letter = DeadLetter {
            seq,
            reason: LATE,
            source: origin.source,
            partition: origin.partition,
            offset: event.head.seq.offset,
            time: event.head.stated,
            sample: "below the merged watermark",
        };
        outbox.record(out, self.plan.models.len(), |records| letter.write(records));
    }

    /// Of rows and open joins; independent of how the log was cut and of the order of rows.
    pub fn digest(&mut self) -> u128 {
        self.users.digest().wrapping_add(self.joins.digest())
    }
}

/// Removes all that is kept of the user, unless a grant with a later time stands.
fn withdraw(users: &mut Users, joins: &mut Joins, event: &Event<'_>) {
    let Some(slot) = users.find(event.head.user) else { return };
    if users.row(slot).granted() > event.head.stated {
        return;
    }
    joins.forget(slot.0);
    users.remove(event.head.user);
}

#[cfg(test)]
mod tests;
