//! Open impressions as bytes: all of them, or what became of them since.

use std::{collections::BTreeMap, mem};

use super::{
    ExamplePlan, Joins, NONE, OpenItem, OpenJoin, OutcomeCounts, OutcomePlan,
    shape::{Kept, Shape},
};
use crate::{
    checkpoint::Extent,
    codec::{Corrupt, Put, Reader},
    event::{Pseudonym, Time, category_of_text},
    example::{FeatureValue, VALUE_BYTES},
    frame::{put_origin, put_seq, read_origin, read_seq},
    snapshot::{Rows, Snapshot, UnderWay},
};

impl Rows for Joins {
    fn key(&self, slot: u32) -> u128 {
        self.slots[slot as usize].number.into()
    }

    fn encode(&mut self, slot: u32, out: &mut Vec<u8>) {
        let join = &self.slots[slot as usize];
        out.put_u64(join.number);
        out.put_u32(join.shape);
        join.write_content(out);
    }

    fn under_way(&mut self) -> &mut UnderWay {
        &mut self.snapshot
    }
}

impl Joins {
    /// Order-independent digest of all open impressions, without their slots and numbers.
    pub fn digest(&self) -> u128 {
        let mut bytes = Vec::new();
        let open = self.slots.iter().filter(|j| j.number != 0);
        open.fold(0u128, |sum, join| {
            bytes.clear();
            join.write_content(&mut bytes);
            sum.wrapping_add(xxhash_rust::xxh3::xxh3_128(&bytes))
        })
    }

    /// Fixes what [`Joins::go_on`] is to encode, as it is now. Afterwards, changes are counted from here.
    pub fn begin(&mut self, extent: Extent) {
        let mut head = Vec::new();
        head.put_u64(self.opened);
        head.put_u32(self.counts.len() as u32);
        for c in &self.counts {
            head.put_u64(c.events);
            head.put_u64(c.matched);
        }
        head.put_u32(self.shapes.len() as u32);
        for shape in &self.shapes {
            head.put_u32(shape.len() as u32);
            for kept in shape {
                head.put_str(&kept.model);
                head.put_u32(kept.wanted.map_or(NONE, |(outcome, _)| outcome as u32));
                head.put_u64(kept.schema);
                head.put_u32(kept.columns as u32);
            }
        }
        let (changed, closed) = (mem::take(&mut self.changed), mem::take(&mut self.closed));
        let mut tail = Vec::new();
        let of = match extent {
            Extent::Base => self.open.clone(),
            Extent::Changes => {
                tail.put_u32(closed.len() as u32);
                closed.iter().for_each(|number| tail.put_u64(*number));
                changed
            }
        };
        self.saved = self.opened;
        head.put_u32(of.count() as u32);
        // An open impression has a timer, and timers are in the order of numbers.
        let lowest = self.timers.iter().filter_map(|queue| queue.front()).map(|timer| timer.number).min();
        let numbers = (lowest.unwrap_or_default().into(), self.opened.into());
        self.snapshot = Some(Box::new(Snapshot::begin(of, numbers, head, tail)));
    }

    fn read_shapes(&mut self, examples: &[ExamplePlan], r: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.shapes.clear();
        for _ in 0..r.count(4, "shapes of joins")? {
            let mut shape = Shape::new();
            for _ in 0..r.count(20, "models of joins")? {
                let model = r.str("model of joins")?.to_owned();
                let outcome = r.u32("outcome of joins")? as usize;
                let schema = r.u64("schema of joins")?;
                let columns = r.u32("columns of joins")? as usize;
                let now = examples.iter().position(|e| e.model == model && e.outcome == outcome);
                shape.push(Kept { model, schema, columns, wanted: now.map(|now| (outcome, now)) });
            }
            self.shapes.push(shape);
        }
        let same = |(kept, now): (&Kept, &ExamplePlan)| {
            (&kept.model, kept.schema, kept.columns) == (&now.model, now.schema, now.columns) && kept.wanted.is_some()
        };
        let last = self.shapes.last().ok_or(r.corrupt("shapes of joins"))?;
        let is_now = last.len() == examples.len() && last.iter().zip(examples).all(same);
        if is_now { Ok(()) } else { Err(r.corrupt("models of joins")) }
    }
}

/// Open impressions as a base and the changes after it tell of them, which were made under the same plans.
pub struct Restoring<'a> {
    joins: Joins,
    examples: &'a [ExamplePlan],
    /// By number.
    open: BTreeMap<u64, OpenJoin>,
}

impl<'a> Restoring<'a> {
    pub fn new(outcomes: Vec<OutcomePlan>, examples: &'a [ExamplePlan]) -> Self {
        Self { joins: Joins::new(outcomes, examples), examples, open: BTreeMap::new() }
    }

    /// Reads what `go_on` wrote next. `version`: of the checkpoint; 1 knew but one shape, and up to 2 all open impressions were
    /// written each time.
    pub fn read(&mut self, version: u8, extent: Extent, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let joins = &mut self.joins;
        joins.opened = r.u64("joins opened")?;
        if r.count(16, "outcome counts")? != joins.counts.len() {
            return Err(r.corrupt("outcome counts"));
        }
        for c in &mut joins.counts {
            *c = OutcomeCounts { events: r.u64("outcome events")?, matched: r.u64("outcomes matched")? };
        }
        if version > 1 {
            joins.read_shapes(self.examples, r)?;
        }
        let changes_only = extent == Extent::Changes && version > 2;
        if !changes_only {
            self.open.clear();
        }
        for _ in 0..r.count(80, "open joins")? {
            let number = r.u64("join number")?;
            let shape = if version > 1 { r.u32("shape of a join")? } else { 0 };
            let mut join = OpenJoin { number, shape, ..OpenJoin::default() };
            join.read_content(r)?;
            self.open.insert(number, join);
        }
        if changes_only {
            for _ in 0..r.count(8, "closed joins")? {
                let number = r.u64("closed join")?;
                self.open.remove(&number).ok_or(r.corrupt("closed join"))?;
            }
        }
        Ok(())
    }

    /// `slot_of` finds a user's slot.
    pub fn finish(self, slot_of: impl Fn(Pseudonym) -> Option<u32>) -> Result<Joins, Corrupt> {
        let Self { mut joins, open, .. } = self;
        joins.saved = joins.opened;
        let corrupt = |what| Reader::new(&[]).corrupt(what);
        for (_, mut join) in open {
            join.user_slot = slot_of(join.user).ok_or(corrupt("user of a join"))?;
            let shape = joins.shapes.get(join.shape as usize).ok_or(corrupt("shape of a join"))?;
            let columns: usize = shape.iter().map(|kept| kept.columns).sum();
            if join.values.len() != columns * join.items.len() * VALUE_BYTES {
                return Err(corrupt("values of a join"));
            }
            let slot = joins.slots.len() as u32;
            joins.slots.push(join);
            joins.link(slot);
            joins.start_timers(slot);
        }
        Ok(joins)
    }
}

impl OpenJoin {
    fn write_content(&self, out: &mut Vec<u8>) {
        out.put_u128(self.user.0);
        out.put_i64(self.time.0);
        put_origin(out, &self.origin);
        put_seq(out, self.seq);
        out.put_u64(self.decision);
        out.put_u32(self.fired);
        out.put_str(self.placement());
        out.put_str(self.platform());
        out.put_u32(self.items.len() as u32);
        for item in &self.items {
            out.put_str(self.item_id(item));
            out.put_u32(item.position as u32);
            out.put_f64(item.propensity);
            out.put_u32(item.labels);
        }
        out.put_u32((self.values.len() / VALUE_BYTES) as u32);
        out.put(&self.values);
    }

    fn read_content(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.user = Pseudonym(r.u128("join user")?);
        self.time = Time(r.i64("join time")?);
        self.origin = read_origin(r)?;
        self.seq = read_seq(r)?;
        self.decision = r.u64("join decision")?;
        self.fired = r.u32("join fired")?;
        for len in [&mut self.placement_len, &mut self.platform_len] {
            let text = r.str("join text")?;
            *len = text.len() as u32;
            self.text.push_str(text);
        }
        for _ in 0..r.count(20, "join items")? {
            let id = r.str("join item")?;
            let start = self.text.len() as u32;
            self.text.push_str(id);
            let range = start..self.text.len() as u32;
            let (position, propensity) = (r.u32("join position")? as i32, r.f64("join propensity")?);
            let labels = r.u32("join labels")?;
            self.items.push(OpenItem { id: range, category: category_of_text(id), position, propensity, labels });
        }
        for _ in 0..r.count(VALUE_BYTES, "join values")? {
            FeatureValue::read(r)?.write(&mut self.values);
        }
        Ok(())
    }
}
