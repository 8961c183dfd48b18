//! The profile task's state as bytes: a base, then changes.

use std::sync::Arc;

use super::{Profile, decisions::Decisions, erased::Erased, experiments::Experiments};
use crate::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::{Put, Reader},
    dedupe::Dedupe,
    frame::Kind,
    join::Joins,
    order::{Merge, MergeImage},
    plan::Plan,
    users::Users,
};

const MERGE: u8 = 1;
const USERS: u8 = 2;
const JOINS: u8 = 3;
const DEDUPE: u8 = 4;
const COUNTS: u8 = 5;
// Since version 2.
const DECISIONS: u8 = 6;
const EXPERIMENTS: u8 = 7;
const ERASED: u8 = 8;
const CONFIG: u8 = 9;
/// Of pipelines with a catalog.
const CATALOG: u8 = 10;

/// A checkpoint under way: what is large is encoded little by little, as it was at the beginning.
pub struct UnderWay {
    writer: CheckpointWriter,
    part: Part,
    merge: MergeImage,
    users_bytes: usize,
    /// All sections that come behind.
    rest: Vec<u8>,
    copied: usize,
}

/// What is being written.
enum Part {
    Merge,
    Users,
    Joins,
    Rest,
}

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    /// It is still under way.
    More,
    Done(Vec<u8>),
    /// It was given up, or never begun. The next one has to be a base.
    Cancelled,
}

/// Of the rest, copied instead of a row.
const ROW_BYTES: usize = 1 << 10;

impl Profile {
    /// A whole checkpoint at once. Between drains only.
    pub fn checkpoint(&mut self, extent: Extent) -> Vec<u8> {
        self.begin_checkpoint(extent);
        loop {
            match self.continue_checkpoint(usize::MAX) {
                Slice::More => {}
                Slice::Done(bytes) => return bytes,
                Slice::Cancelled => return Vec::new(), // never: it was begun
            }
        }
    }

    /// Fixes the state that [`Profile::continue_checkpoint`] encodes. Between drains only. Afterwards, changes are counted
    /// from here.
    pub fn begin_checkpoint(&mut self, extent: Extent) {
        let changes_only = extent == Extent::Changes;
        let mut rest = CheckpointWriter::sections();
        rest.section(DEDUPE, |out| self.dedupe.write(changes_only, out));
        rest.section(COUNTS, |out| {
            let c = &self.counts;
            let of_version_1 = [c.accepted, c.duplicate, c.unconsented, c.late, self.offset];
            for n in of_version_1.into_iter().chain([c.erased, c.decisions, c.decisions_missing]) {
                out.put_u64(n);
            }
        });
        rest.section(CONFIG, |out| self.write_config(out));
        rest.section(DECISIONS, |out| self.decisions.write(changes_only, out));
        rest.section(EXPERIMENTS, |out| self.experiments.write(out));
        rest.section(ERASED, |out| self.erased.write(out));
        if let Some(catalogs) = &mut self.catalogs {
            rest.section(CATALOG, |out| catalogs.write(changes_only, out));
            catalogs.mark_saved();
        }
        self.dedupe.mark_saved();
        self.decisions.mark_saved();
        self.joins.begin();
        self.wants_base &= changes_only;
        let mut writer = CheckpointWriter::new(TaskKind::Profile, extent);
        writer.begin_section(MERGE, 0);
        self.under_way = Some(Box::new(UnderWay {
            writer,
            part: Part::Merge,
            merge: self.merge.image(),
            users_bytes: self.users.begin(extent),
            rest: rest.finish(),
            copied: 0,
        }));
    }

    /// Encodes about `budget` more rows, also between two drains of one record. Once begun, records may be applied all the
    /// while: the checkpoint is of the moment at which it began.
    pub fn continue_checkpoint(&mut self, mut budget: usize) -> Slice {
        let Some(mut under_way) = self.under_way.take() else { return Slice::Cancelled };
        while budget > 0 {
            if under_way.go_on(&mut self.users, &mut self.joins, &mut budget) {
                self.was_cancelled = false;
                return Slice::Done(under_way.writer.finish());
            }
        }
        self.under_way = Some(under_way);
        Slice::More
    }

    /// Gives up a checkpoint that is under way: what changed before it began is in no other, so the next has to be a base.
    pub(super) fn cancel_checkpoint(&mut self) {
        if self.under_way.take().is_some() {
            self.users.cancel();
            self.joins.cancel();
            (self.wants_base, self.was_cancelled) = (true, true);
        }
    }

    /// Restores from a base and the changes after it, in order. Where they were made under a later configuration than
    /// `plan`, that is what counts, see [`Profile::plan`].
    pub fn restore(plan: Arc<Plan>, parts: &[&[u8]]) -> Result<Self, CheckpointError> {
        let mut profile = Self::configured_by(parts, plan)?;
        for part in parts {
            let part = Checkpoint::read(part, TaskKind::Profile)?;
            let users = part.section(USERS)?;
            match part.extent {
                Extent::Base => profile.users = Users::load_all(&profile.plan.features, users)?,
                Extent::Changes => profile.users.apply_changes(users)?,
            }
            if part.extent == Extent::Base {
                profile.dedupe = Dedupe::new(profile.plan.dedupe_micros);
                profile.decisions = Decisions::default();
            }
            profile.dedupe.read(&mut Reader::new(part.section(DEDUPE)?))?;
            profile.read_counts(&part)?;
            if part.version > 1 {
                profile.decisions.read(&mut Reader::new(part.section(DECISIONS)?))?;
            }
            if let (Some(catalogs), Ok(section)) = (&mut profile.catalogs, part.section(CATALOG)) {
                catalogs.restore(&mut Reader::new(section))?;
            }
        }
        if let Some(last) = parts.last() {
            let last = Checkpoint::read(last, TaskKind::Profile)?;
            profile.merge = Merge::read(Kind::Events, &mut Reader::new(last.section(MERGE)?))?;
            let (users, plan) = (&profile.users, &profile.plan);
            if plan.serves() {
                profile.merge.index_users();
            }
            if last.version > 1 {
                let r = &mut Reader::new(last.section(EXPERIMENTS)?);
                profile.experiments = Experiments::read(&plan.experiments, r)?;
                profile.erased = Erased::read(&mut Reader::new(last.section(ERASED)?))?;
            }
            let slot_of = |user| users.find(user).map(|slot| slot.0);
            let r = &mut Reader::new(last.section(JOINS)?);
            profile.joins = Joins::read(plan.outcomes.clone(), &plan.example_plans(), last.version, r, slot_of)?;
        }
        profile.users.mark_clean();
        Ok(profile)
    }

    fn write_config(&self, out: &mut Vec<u8>) {
        out.put_u32(self.generation);
        out.put_str(self.configured.as_deref().unwrap_or_default());
        out.put_u32(self.served.len() as u32);
        for (schema, columns) in &self.served {
            out.put_u64(*schema);
            out.put_u32(*columns as u32);
        }
    }

    /// Without anything, under the configuration of the base; changes never have another one.
    fn configured_by(parts: &[&[u8]], plan: Arc<Plan>) -> Result<Self, CheckpointError> {
        let Some(base) = parts.first() else { return Ok(Self::new(plan, &[])) };
        let base = Checkpoint::read(base, TaskKind::Profile)?;
        if base.version == 1 {
            return Ok(Self::new(plan, &[]));
        }
        let r = &mut Reader::new(base.section(CONFIG)?);
        let (generation, spec) = (r.u32("generation")?, r.str("configuration")?);
        let corrupt = r.corrupt("configuration");
        let mut profile = match spec {
            "" => Self::new(plan, &[]),
            spec => Self::new(Arc::new(Plan::of_configuration(generation, spec).map_err(|_| corrupt)?), &[]),
        };
        profile.generation = generation;
        profile.configured = (!spec.is_empty()).then(|| spec.to_owned());
        for _ in 0..r.count(12, "served schemas")? {
            profile.served.insert(r.u64("served schema")?, r.u32("served columns")? as usize);
        }
        Ok(profile)
    }

    fn read_counts(&mut self, part: &Checkpoint<'_>) -> Result<(), CheckpointError> {
        let r = &mut Reader::new(part.section(COUNTS)?);
        let c = &mut self.counts;
        for n in [&mut c.accepted, &mut c.duplicate, &mut c.unconsented, &mut c.late, &mut self.offset] {
            *n = r.u64("counts")?;
        }
        if part.version > 1 {
            for n in [&mut c.erased, &mut c.decisions, &mut c.decisions_missing] {
                *n = r.u64("counts")?;
            }
        }
        Ok(())
    }
}

impl UnderWay {
    /// Goes on with one part. True at the end.
    fn go_on(&mut self, users: &mut Users, joins: &mut Joins, budget: &mut usize) -> bool {
        let Self { writer, part, merge, rest, copied, .. } = self;
        let next = match part {
            Part::Merge => writer.write(|out| merge.write(budget, out)).then_some((Part::Users, USERS, self.users_bytes)),
            Part::Users => writer.write(|out| users.go_on(budget, out)).then_some((Part::Joins, JOINS, 0)),
            Part::Joins => {
                if writer.write(|out| joins.go_on(budget, out)) {
                    writer.end_section();
                    *part = Part::Rest;
                }
                None
            }
            Part::Rest => {
                let to = rest.len().min(copied.saturating_add(budget.saturating_mul(ROW_BYTES)));
                writer.write(|out| out.extend_from_slice(&rest[*copied..to]));
                *budget = budget.saturating_sub((to - *copied).div_ceil(ROW_BYTES));
                *copied = to;
                return to == rest.len();
            }
        };
        if let Some((next, tag, bytes)) = next {
            writer.end_section();
            writer.begin_section(tag, bytes);
            *part = next;
        }
        false
    }
}
