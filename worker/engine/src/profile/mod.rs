//! The profile task: one partition of the events log in; examples for each model, and dead letters, out.
//!
//! Records are applied in merge order to a table of users, each with feature cells, consent and open joins. Events at
//! a time precede the timers of that time.
//!
//! Control records act when their frame has been read, before anything of it is released: what lies before them in the log
//! has been applied as far as watermarks allow, and waits otherwise.

mod catalog;
mod checkpoint;
mod configure;
mod control;
mod decisions;
mod erased;
mod experiments;
mod view;

use std::sync::Arc;

pub use checkpoint::Slice;
pub use view::View;

use crate::{
    catalog::Catalog,
    dead_letter::{DeadLetter, LATE},
    dedupe::Dedupe,
    event::{ConsentChange, Event, Pseudonym, Seq, Time},
    example::{ExampleHead, write_example_of},
    experiment::VariantSums,
    feature::{Context, OwnedRow},
    frame::{
        Kind, Origin, OriginState, Progress,
        coverage::Coverage,
        outbox::{Handle, Outbox},
    },
    join::{Joins, OutcomeCounts},
    order::{Merge, OrderError, Taken},
    plan::{ExperimentPlan, FIRST_GENERATION, Plan},
    users::{Slot, Users, WARM_USERS},
};
use catalog::Catalogs;
use decisions::{Decisions, Served, Shown};
use erased::Erased;
use experiments::Experiments;

/// What became of the events of one partition, since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub duplicate: u64,
    pub unconsented: u64,
    /// Below the merged watermark: of a source that was idle, or had ended.
    pub late: u64,
    /// Events of users who were erased, from before that.
    pub erased: u64,
    /// That were filed.
    pub decisions: u64,
    /// Examples whose impression names a decision that is not filed, or did not show the item.
    pub decisions_missing: u64,
}

/// The state of one events partition.
pub struct Profile {
    plan: Arc<Plan>,
    merge: Merge,
    users: Users,
    joins: Joins,
    dedupe: Dedupe,
    decisions: Decisions,
    experiments: Experiments,
    erased: Erased,
    catalogs: Option<Catalogs>,
    /// An event with what the catalog knows of its items.
    completed: Vec<u8>,
    /// Since the last base, something was erased, or a checkpoint was cancelled.
    wants_base: bool,
    under_way: Option<Box<checkpoint::UnderWay>>,
    /// The last checkpoint that ended was.
    was_cancelled: bool,
    generation: u32,
    /// The last configuration, if there was another one than that of the start.
    configured: Option<String>,
    served: Served,
    counts: Counts,
    /// For `view`.
    scratch: OwnedRow,
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
        let mut merge = Merge::new(Kind::Events, origins);
        if plan.serves() {
            merge.index_users();
        }
        Self {
            merge,
            users: Users::new(&plan.features),
            joins: Joins::new(plan.outcomes.clone(), &plan.example_plans()),
            dedupe: Dedupe::new(plan.dedupe_micros),
            decisions: Decisions::default(),
            experiments: Experiments::new(&plan.experiments),
            erased: Erased::default(),
            catalogs: plan.has_catalog().then(Catalogs::default),
            completed: Vec::new(),
            wants_base: false,
            under_way: None,
            was_cancelled: false,
            generation: FIRST_GENERATION,
            configured: None,
            served: plan.served_columns().collect(),
            counts: Counts::default(),
            scratch: plan.features.new_row(),
            offset: 0,
            effects: 0,
            ahead: Ahead::default(),
            plan,
        }
    }

    /// The pipeline as it is by now; another one than it was made with after a `Configure`.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
    /// Of the pipeline as it is by now.
    pub fn generation(&self) -> u32 {
        self.generation
    }
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
    pub fn outcome_counts(&self) -> &[OutcomeCounts] {
        &self.joins.counts
    }
    /// The items that decisions choose from, as they were read; `None` without a catalog.
    pub fn catalog(&self) -> Option<&Catalog> {
        self.catalogs.as_ref().map(Catalogs::read)
    }
    /// Each experiment with its variants' sums, in the order of [`ExperimentPlan::variants`].
    pub fn experiments(&self) -> impl Iterator<Item = (&ExperimentPlan, &[VariantSums])> {
        self.plan.experiments.iter().enumerate().map(|(n, plan)| (plan, self.experiments.of(n)))
    }
    /// What of experiments would have left the range of a sum, and was not counted.
    pub fn experiments_out_of_range(&self) -> u64 {
        self.experiments.out_of_range
    }
    /// Decisions that are filed, and their bytes as encoded.
    pub fn filed_decisions(&self) -> (usize, usize) {
        (self.decisions.count(), self.decisions.encoded_bytes())
    }
    /// The next checkpoint must be a base: older files hold what was erased.
    pub fn wants_base(&self) -> bool {
        self.wants_base
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
    /// Which control records of its partition have been applied.
    pub fn controls_applied(&self, partition: u32) -> Coverage {
        self.merge.coverage_of(Origin::control(partition)).unwrap_or_default()
    }
    /// Up to where an origin has been read; `None`: nothing was heard of it.
    pub fn coverage_of(&self, origin: Origin) -> Option<Coverage> {
        self.merge.coverage_of(origin)
    }
    /// Offset of the last log record that was applied.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes in the log record at `offset`. If that holds a `Configure`, models may be others afterwards: `out` of what
    /// follows is to have the outputs of [`Profile::plan`], see [`Outbox::rewire`]. `drain` then applies what it makes ready,
    /// and must have returned true before the next record.
    pub fn accept(
        &mut self,
        offset: u64,
        frame: &Arc<[u8]>,
        outbox: &mut Outbox,
        out: &Handle,
    ) -> Result<(), OrderError> {
        self.offset = offset;
        self.effects = 0;
        let Self { plan, merge, erased, catalogs, counts, .. } = self;
        let before = merge.watermark();
        let accepted = merge.accept_by(frame, |origin, record| {
            if plan.is_catalog(origin) {
                return Taken::Apart;
            }
            let gone = erased.covers_event(record);
            counts.erased += u64::from(gone);
            if gone { Taken::Dropped } else { Taken::InTurn }
        })?;
        if let Some(catalogs) = catalogs {
            accepted.apart.iter().try_for_each(|item| catalogs.accept(item.origin, &item.bytes, before))?;
        }
        for late in accepted.late {
            let event = Event::read(&late.bytes)?;
            self.late(late.origin, &event, outbox, out);
        }
        accepted.control.iter().try_for_each(|record| self.control(record.origin, &record.bytes))
    }

    /// Applies up to `budget` records and timers, fewer when the outbox is full. True when everything that was ready is applied.
    pub fn drain(&mut self, budget: usize, outbox: &mut Outbox, out: &Handle) -> Result<bool, OrderError> {
        for _ in 0..budget {
            let (event, timer) = (self.merge.peek(), self.joins.due());
            let fires = match (event, timer) {
                (Some(event), Some(timer)) => timer < event,
                (None, Some(_)) if planted::is(planted::Bug::WindowBeforeWatermark) => true,
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
            if planted::is(planted::Bug::WatermarkAheadOfEffects) {
                let progress = Progress { watermark: self.merge.watermark(), ..Progress::default() };
                outbox.advance(out, to, progress);
            }
            outbox.cover(out, to);
        }
        Ok(false)
    }

    fn finish(&mut self, outbox: &mut Outbox, out: &Handle) -> bool {
        if let Some(catalogs) = &mut self.catalogs {
            catalogs.advance(self.merge.watermark());
        }
        self.decisions.expire(self.merge.watermark());
        self.erased.expire(self.merge.watermark());
        // The highest time is each model's own: it follows from the examples that its log gets.
        let progress = Progress { watermark: self.merge.watermark(), highest: Time::MIN, state: self.state_told() };
        outbox.advance(out, Seq::end_of(self.offset), progress);
        true
    }

    /// Never idle: partitions become idle and go on one after the other, and a model that did not wait for the last of them
    /// would have passed the times of its examples. Watermarks go on in all partitions alike, so nobody waits for long.
    fn state_told(&self) -> OriginState {
        let passes_on = planted::is(planted::Bug::IdlePassedOn);
        if self.merge.all_ended() || passes_on { self.merge.state() } else { OriginState::Active }
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
        let Self { plan, merge, users, joins, dedupe, decisions, experiments, catalogs, completed, counts, .. } = self;
        let Some(released) = merge.release() else { return Ok(()) };
        let event = Event::read(released.bytes)?;
        // A decision that is an impression is none of the events that were read.
        let one = u64::from(!released.origin.is_control());
        if let Some(catalogs) = catalogs {
            catalogs.advance(event.head.time);
        }
        match event.head.consent {
            ConsentChange::Grant => {
                counts.accepted += 1;
                let slot = users.get_or_insert(event.head.user);
                users.row_mut(slot).set_granted(event.head.stated);
                return Ok(());
            }
            ConsentChange::Withdraw => {
                counts.accepted += 1;
                if !planted::is(planted::Bug::WithdrawalIgnored) {
                    withdraw(users, joins, decisions, &event);
                }
                return Ok(());
            }
            ConsentChange::None => {}
        }
        let slot = match users.find(event.head.user) {
            Some(slot) => slot,
            // Without a row there was no grant.
            None if plan.consent_by_event => {
                counts.unconsented += one;
                return Ok(());
            }
            None => users.get_or_insert(event.head.user),
        };
        if event.head.id != 0 && !dedupe.first(event.head.id, event.head.time) {
            counts.duplicate += 1;
            return Ok(());
        }
        counts.accepted += one;
        let event = match catalogs {
            Some(catalogs) => catalogs.complete(event, completed)?,
            None => event,
        };
        joins.label(slot.0, released.origin, &event);
        let is_impression = Some(event.head.event_type) == plan.impression && plan.exposes(released.origin, &event);
        if is_impression {
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
        let row = &mut users.row_mut(slot);
        experiments.count(&plan.experiments, row, &event, joins, is_impression);
        plan.features.update(row, &event);
        Ok(())
    }

    fn fire(&mut self, outbox: &mut Outbox, out: &Handle) {
        let Self { plan, joins, decisions, served, counts, offset, effects, generation, .. } = self;
        // Of one impression, so that it is looked up once.
        let mut shown: Option<Option<Shown<'_>>> = None;
        joins.fire(|model, of, head, own| {
            let seq = Seq { offset: *offset, index: *effects };
            *effects += 1;
            let head = ExampleHead { seq, generation: *generation, ..head };
            let find = || if of.decision == 0 { None } else { decisions.find(of.user, of.decision).map(Shown::of) };
            let shown = shown.get_or_insert_with(find);
            let completed =
                shown.as_ref().and_then(|shown| shown.complete(served, &plan.models[model].name, head, own));
            counts.decisions_missing += u64::from(completed.is_none() && of.decision != 0 && plan.serves());
            let (head, values) = completed.unwrap_or((head, own));
            outbox.record(out, model, |records| write_example_of(records, &head, values));
        });
    }

    /// An event below the merged watermark. A withdrawal still acts, at once.
    fn late(&mut self, origin: Origin, event: &Event<'_>, outbox: &mut Outbox, out: &Handle) {
        if event.head.consent == ConsentChange::Withdraw {
            self.counts.accepted += 1;
            withdraw(&mut self.users, &mut self.joins, &mut self.decisions, event);
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

    /// Of rows, open joins, filed decisions, experiments and the catalog; independent of how the log was cut and of the order of rows.
    pub fn digest(&mut self) -> u128 {
        let catalog = self.catalogs.as_ref().map_or(0, Catalogs::digest);
        let parts =
            [self.users.digest(), self.joins.digest(), self.decisions.digest(), self.experiments.digest(), catalog];
        parts.into_iter().fold(0, u128::wrapping_add)
    }
}

/// Removes all that is kept of the user, unless a grant with a later time stands.
fn withdraw(users: &mut Users, joins: &mut Joins, decisions: &mut Decisions, event: &Event<'_>) {
    let Some(slot) = users.find(event.head.user) else { return };
    if users.row(slot).granted() > event.head.stated {
        return;
    }
    joins.forget(slot.0);
    decisions.forget(event.head.user);
    users.remove(event.head.user);
}

#[cfg(test)]
mod tests;
