//! Impressions that wait for their outcomes, and the timers at which they become examples.
//!
//! An impression is open for an outcome until its event time + `within`. An outcome labels one impression for each
//! of its items: the latest eligible. Timers order by (fire time, outcome, merge order); since impressions are opened
//! in merge order, each outcome's timers are a plain queue.

mod saved;
mod shape;

use std::collections::VecDeque;

use millrace_crds::spec;

pub use saved::Restoring;
use shape::{Shape, shape_of};

use crate::{
    event::{Event, EventType, Pseudonym, Seq, Time, category_of_text},
    example::{ExampleHead, FeatureValue, VALUE_BYTES},
    frame::Origin,
    snapshot::{Bits, Rows, UnderWay},
};

/// What an impression waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomePlan {
    pub name: String,
    pub event: EventType,
    pub join: spec::Join,
    pub within_micros: i64,
}

/// What a model needs of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExamplePlan {
    pub model: String,
    /// Index among the outcomes; at most 32 of them.
    pub outcome: usize,
    /// [`crate::example::Schema::id`].
    pub schema: u64,
    pub columns: usize,
}

/// Items of an impression that got an outcome for the first time.
#[derive(Clone, Copy, Debug)]
pub struct Labelled {
    /// Index among the outcomes.
    pub outcome: usize,
    pub items: u32,
    slot: u32,
}

/// Whose impression became examples, and by which decision it was shown (0: none).
#[derive(Clone, Copy, Debug)]
pub struct Fired {
    pub user: Pseudonym,
    pub decision: u64,
}

/// No slot.
const NONE: u32 = u32::MAX;

struct OpenItem {
    /// Bytes of `text`.
    id: std::ops::Range<u32>,
    category: u64,
    position: i32,
    propensity: f64,
    /// Bit n: outcome n came.
    labels: u32,
}

/// One open impression. Slots and their buffers are used again.
struct OpenJoin {
    /// In the order of opening; 0: the slot is free.
    number: u64,
    user: Pseudonym,
    user_slot: u32,
    older: u32,
    newer: u32,
    time: Time,
    origin: Origin,
    seq: Seq,
    decision: u64,
    /// Bit n: outcome n's time has passed.
    fired: u32,
    /// Placement, platform, then the items' ids.
    text: String,
    placement_len: u32,
    platform_len: u32,
    items: Vec<OpenItem>,
    /// Index among the shapes: which models the values are of.
    shape: u32,
    /// For each model, for each item, its columns; encoded as the example will hold them.
    values: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Timer {
    at: Time,
    slot: u32,
    number: u64,
}

/// Events of an outcome's type and how many of their items found an impression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    pub events: u64,
    pub matched: u64,
}

/// All open impressions of one events partition.
pub struct Joins {
    outcomes: Vec<OutcomePlan>,
    /// One for each configuration that had any impressions; the last is that of now.
    shapes: Vec<Shape>,
    slots: Vec<OpenJoin>,
    free: Vec<u32>,
    /// Slots of all open impressions.
    open: Bits,
    /// The checkpoint under way.
    snapshot: UnderWay,
    /// Since the last checkpoint began: slots of what was opened or changed, and numbers of what it held and is closed.
    changed: Bits,
    closed: Vec<u64>,
    /// Number of the last impression that was opened before it began.
    saved: u64,
    /// By user slot: the newest open impression.
    newest: Vec<u32>,
    timers: Vec<VecDeque<Timer>>,
    opened: u64,
    /// Timers whose joins were read ahead and that have not fired yet.
    warmed: usize,
    /// Of one item, used again.
    values: Vec<FeatureValue>,
    /// By the last event.
    labelled: Vec<Labelled>,
    pub counts: Vec<OutcomeCounts>,
}

/// How many waits for memory are made to overlap.
const WARM_TIMERS: usize = 16;

impl Joins {
    pub fn new(outcomes: Vec<OutcomePlan>, examples: &[ExamplePlan]) -> Self {
        let timers = outcomes.iter().map(|_| VecDeque::new()).collect();
        let counts = vec![OutcomeCounts::default(); outcomes.len()];
        let (slots, free, newest, values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (labelled, shapes) = (Vec::new(), vec![shape_of(examples)]);
        let (open, snapshot, changed, closed) = (Bits::default(), None, Bits::default(), Vec::new());
        Self {
            outcomes,
            shapes,
            slots,
            free,
            open,
            snapshot,
            changed,
            closed,
            saved: 0,
            newest,
            timers,
            opened: 0,
            warmed: 0,
            values,
            labelled,
            counts,
        }
    }

    pub fn open_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Opens an impression. `values` fills in what a model is to know of an item, as of now; it is given nothing for
    /// the first item, then what it made of the item before.
    pub fn open(
        &mut self,
        user_slot: u32,
        origin: Origin,
        event: &Event<'_>,
        mut values: impl FnMut(usize, &crate::event::Item<'_>, &mut Vec<FeatureValue>),
    ) {
        if event.item_count == 0 || self.outcomes.is_empty() {
            return;
        }
        self.opened += 1;
        let (slot, shape) = (self.take_slot(), self.shapes.len() - 1);
        let join = &mut self.slots[slot as usize];
        (join.number, join.shape) = (self.opened, shape as u32);
        (join.user, join.user_slot) = (event.head.user, user_slot);
        (join.time, join.origin, join.seq) = (event.head.time, origin, event.head.seq);
        (join.decision, join.fired) = (event.head.decision, 0);
        join.text.push_str(event.placement);
        join.text.push_str(event.platform);
        join.placement_len = event.placement.len() as u32;
        join.platform_len = event.platform.len() as u32;
        for item in event.items() {
            let start = join.text.len() as u32;
            join.text.push_str(item.id);
            let id = start..join.text.len() as u32;
            let (position, propensity) = (item.position, item.propensity);
            join.items.push(OpenItem { id, category: category_of_text(item.id), position, propensity, labels: 0 });
        }
        for model in 0..self.shapes[shape].len() {
            self.values.clear();
            for item in event.items() {
                values(model, &item, &mut self.values);
                self.values.iter().for_each(|value| value.write(&mut join.values));
            }
        }
        self.changed.insert(slot);
        self.link(slot);
        self.start_timers(slot);
    }

    /// Reads what the next events of these users will need. Changes nothing.
    pub fn warm_users(&self, user_slots: impl Iterator<Item = u32> + Clone) {
        let newest = user_slots.filter_map(|user| self.newest.get(user as usize));
        let joins = newest.filter_map(|slot| self.slots.get(*slot as usize));
        std::hint::black_box(joins.fold(0, |sum, join| sum ^ join.items.len() ^ join.fired as usize));
    }

    /// Reads the joins of the next timers of outcome `n`.
    fn warm_timers(&mut self, n: usize) {
        let joins = self.timers[n].iter().take(WARM_TIMERS).map(|timer| &self.slots[timer.slot as usize]);
        let heads = joins.clone().fold(0, |sum, join| sum ^ join.number ^ u64::from(join.fired) ^ join.seq.offset);
        let first = |bytes: &[u8]| bytes.first().copied().unwrap_or_default();
        let items = |join: &OpenJoin| join.items.first().map_or(0, |item| item.labels);
        let lines =
            |join: &OpenJoin| join.values.chunks(64).fold(first(join.text.as_bytes()), |sum, line| sum ^ first(line));
        let bodies = joins.fold(0, |sum, join| sum ^ items(join) ^ u32::from(lines(join)));
        std::hint::black_box((heads, bodies));
        self.warmed = WARM_TIMERS;
    }

    fn take_slot(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        self.slots.push(OpenJoin::default());
        (self.slots.len() - 1) as u32
    }

    fn link(&mut self, slot: u32) {
        self.open.insert(slot);
        let user = self.slots[slot as usize].user_slot as usize;
        if self.newest.len() <= user {
            self.newest.resize(user + 1, NONE);
        }
        let older = std::mem::replace(&mut self.newest[user], slot);
        if older != NONE {
            self.slots[older as usize].newer = slot;
        }
        self.slots[slot as usize].older = older;
        self.slots[slot as usize].newer = NONE;
    }

    fn start_timers(&mut self, slot: u32) {
        let join = &self.slots[slot as usize];
        for (n, outcome) in self.outcomes.iter().enumerate() {
            if join.fired & (1 << n) == 0 {
                let at = join.time.plus(outcome.within_micros);
                self.timers[n].push_back(Timer { at, slot, number: join.number });
            }
        }
    }

    fn close(&mut self, slot: u32) {
        self.keep_image(slot);
        self.open.remove(slot);
        self.changed.remove(slot);
        let join = &mut self.slots[slot as usize];
        if join.number <= self.saved {
            self.closed.push(join.number);
        }
        let (older, newer, user) = (join.older, join.newer, join.user_slot as usize);
        join.number = 0;
        join.text.clear();
        join.items.clear();
        join.values.clear();
        match newer {
            NONE => self.newest[user] = older,
            newer => self.slots[newer as usize].older = older,
        }
        if older != NONE {
            self.slots[older as usize].newer = newer;
        }
        self.free.push(slot);
    }

    /// Closes all open impressions of a user, without examples: consent is gone.
    pub fn forget(&mut self, user_slot: u32) {
        while let Some(slot) = self.newest.get(user_slot as usize).copied().filter(|s| *s != NONE) {
            self.close(slot);
        }
    }

    /// Placements of the impressions that the last event labelled, and how many of their items it was the first for.
    pub fn labelled(&self) -> impl Iterator<Item = (&str, Labelled)> {
        self.labelled.iter().map(|l| (self.slots[l.slot as usize].placement(), *l))
    }

    /// Labels what this event is an outcome of.
    pub fn label(&mut self, user_slot: u32, origin: Origin, event: &Event<'_>) {
        self.labelled.clear();
        for n in 0..self.outcomes.len() {
            if self.outcomes[n].event != event.head.event_type {
                continue;
            }
            let matched = match self.outcomes[n].join {
                spec::Join::User => self.label_latest(user_slot, n, origin, event),
                spec::Join::Decision if event.head.decision != 0 => self.label_decision(user_slot, n, event),
                spec::Join::Decision | spec::Join::Item => self.label_items(user_slot, n, event),
            };
            let whole_event = self.outcomes[n].join == spec::Join::User || event.item_count == 0;
            self.counts[n].events += if whole_event { 1 } else { u64::from(event.item_count) };
            self.counts[n].matched += matched;
        }
    }

    /// The user's open impressions that may still have outcome `n` at `time`, the latest first.
    fn eligible(&self, user_slot: u32, n: usize, time: Time) -> impl Iterator<Item = u32> + '_ {
        let first = self.newest.get(user_slot as usize).copied().unwrap_or(NONE);
        let within = self.outcomes[n].within_micros;
        let walk = std::iter::successors(Some(first), |slot| self.slots.get(*slot as usize).map(|j| j.older));
        walk.take_while(|slot| *slot != NONE).filter(move |slot| {
            let join = &self.slots[*slot as usize];
            join.fired & (1 << n) == 0 && time <= join.time.plus(within)
        })
    }

    fn label_latest(&mut self, user_slot: u32, n: usize, origin: Origin, event: &Event<'_>) -> u64 {
        let own = (origin, event.head.seq.offset);
        let latest = self.eligible(user_slot, n, event.head.time).find(|slot| {
            let join = &self.slots[*slot as usize];
            (join.origin, join.seq.offset) != own
        });
        let Some(slot) = latest else { return 0 };
        self.set_label(slot, n, None);
        1
    }

    fn label_decision(&mut self, user_slot: u32, n: usize, event: &Event<'_>) -> u64 {
        let decision = event.head.decision;
        let latest =
            self.eligible(user_slot, n, event.head.time).find(|slot| self.slots[*slot as usize].decision == decision);
        let Some(slot) = latest else { return 0 };
        if event.item_count == 0 {
            self.set_label(slot, n, None);
            return 1;
        }
        event.items().map(|item| u64::from(self.set_label(slot, n, Some(category_of_text(item.id))))).sum()
    }

    fn label_items(&mut self, user_slot: u32, n: usize, event: &Event<'_>) -> u64 {
        let mut matched = 0;
        for item in event.items() {
            let category = category_of_text(item.id);
            let has_item = |slot: &u32| self.slots[*slot as usize].items.iter().any(|i| i.category == category);
            let latest = self.eligible(user_slot, n, event.head.time).find(has_item);
            if let Some(slot) = latest {
                self.set_label(slot, n, Some(category));
                matched += 1;
            }
        }
        matched
    }

    /// The time of the next timer.
    pub fn due(&self) -> Option<Time> {
        self.timers.iter().filter_map(|queue| queue.front().map(|t| t.at)).min()
    }

    /// Labels the items of that category, or all; false: there is none.
    fn set_label(&mut self, slot: u32, n: usize, category: Option<u64>) -> bool {
        self.keep_image(slot);
        self.changed.insert(slot);
        let (mut found, mut first) = (false, 0);
        for item in self.slots[slot as usize].items.iter_mut().filter(|i| category.is_none_or(|c| i.category == c)) {
            found = true;
            first += u32::from(item.labels & (1 << n) == 0);
            item.labels |= 1 << n;
        }
        if first > 0 {
            self.labelled.push(Labelled { outcome: n, items: first, slot });
        }
        found
    }

    /// Fires the next timer: `emit` gets (model, impression, example, its values as encoded) for each of its examples.
    /// Sequence and what is said of decisions are left to the caller.
    pub fn fire(&mut self, mut emit: impl FnMut(usize, Fired, ExampleHead<'_>, &[u8])) {
        let Some(at) = self.due() else { return };
        let Some(n) = self.timers.iter().position(|queue| queue.front().is_some_and(|t| t.at == at)) else { return };
        if self.warmed == 0 {
            self.warm_timers(n);
        }
        self.warmed -= 1;
        let Some(timer) = self.timers[n].pop_front() else { return };
        if self.slots[timer.slot as usize].number != timer.number {
            return; // closed before its time
        }
        self.keep_image(timer.slot);
        self.changed.insert(timer.slot);
        let join = &mut self.slots[timer.slot as usize];
        join.fired |= 1 << n;
        let of = Fired { user: join.user, decision: join.decision };
        let mut values_at = 0;
        for kept in &self.shapes[join.shape as usize] {
            for item in &join.items {
                let values = &join.values[values_at..values_at + kept.columns * VALUE_BYTES];
                values_at += kept.columns * VALUE_BYTES;
                if let Some((outcome, model)) = kept.wanted
                    && outcome == n
                {
                    emit(model, of, join.example(item, n, at, kept.schema), values);
                }
            }
        }
        if join.fired.count_ones() as usize == self.outcomes.len() {
            self.close(timer.slot);
        }
    }
}

impl Default for OpenJoin {
    fn default() -> Self {
        Self {
            number: 0,
            user: Pseudonym(0),
            user_slot: NONE,
            older: NONE,
            newer: NONE,
            time: Time(0),
            origin: Origin::default(),
            seq: Seq::START,
            decision: 0,
            fired: 0,
            text: String::new(),
            placement_len: 0,
            platform_len: 0,
            items: Vec::new(),
            shape: 0,
            values: Vec::new(),
        }
    }
}

impl OpenJoin {
    fn placement(&self) -> &str {
        &self.text[..self.placement_len as usize]
    }
    fn platform(&self) -> &str {
        &self.text[self.placement_len as usize..(self.placement_len + self.platform_len) as usize]
    }
    fn item_id(&self, item: &OpenItem) -> &str {
        &self.text[item.id.start as usize..item.id.end as usize]
    }
    fn example<'a>(&'a self, item: &OpenItem, outcome: usize, time: Time, schema: u64) -> ExampleHead<'a> {
        ExampleHead {
            seq: Seq::START,
            time,
            impression: self.time,
            label: item.labels & (1 << outcome) != 0,
            position: item.position,
            propensity: item.propensity,
            placement: self.placement(),
            platform: self.platform(),
            item: self.item_id(item),
            schema,
            ..ExampleHead::default()
        }
    }
}

#[cfg(test)]
mod tests;
