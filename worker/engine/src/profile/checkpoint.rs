//! The profile task's state as bytes: a base, then changes.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::{Profile, decisions::Decisions, erased::Erased, experiments::Experiments};
use crate::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::{Put, Reader},
    dedupe::Dedupe,
    frame::Kind,
    join::Restoring,
    order::{Merge, MergeImage},
    plan::Plan,
    snapshot::Rows,
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
    merge: MergeImage,
    /// Still to be written, the next one last, and how far that is.
    parts: Vec<Part>,
    copied: usize,
    is_begun: bool,
    /// Of all that is written, up to `digested`.
    digest: Xxh3,
    digested: usize,
}

enum Part {
    /// A section, of about so many bytes.
    Section(u8, usize),
    /// Sections that were small enough to be encoded at the beginning.
    Encoded(Vec<u8>),
}

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    /// It is still under way.
    More,
    Done {
        bytes: Vec<u8>,
        /// xxh3-64 of the bytes.
        digest: u64,
    },
    /// It was given up, or never begun. The next one has to be a base.
    Cancelled,
}

/// Of what is encoded copied, and of everything hashed, instead of a row.
const COPIED_BYTES: usize = 1 << 10;
const HASHED_BYTES: usize = 4 << 10;

impl Profile {
    /// A whole checkpoint at once. Between drains only.
    pub fn checkpoint(&mut self, extent: Extent) -> Vec<u8> {
        self.begin_checkpoint(extent);
        loop {
            match self.continue_checkpoint(usize::MAX) {
                Slice::More => {}
                Slice::Done { bytes, .. } => return bytes,
                Slice::Cancelled => return Vec::new(), // never: it was begun
            }
        }
    }

    /// Fixes the state that [`Profile::continue_checkpoint`] encodes. Between drains only. Afterwards, changes are counted
    /// from here. A checkpoint that is under way is given up.
    pub fn begin_checkpoint(&mut self, extent: Extent) {
        self.cancel_checkpoint();
        let changes_only = extent == Extent::Changes;
        let users_bytes = self.users.begin(extent);
        self.joins.begin(extent);
        self.dedupe.begin(changes_only);
        self.decisions.begin(changes_only);
        let (mut before, mut behind) = (CheckpointWriter::sections(), CheckpointWriter::sections());
        before.section(COUNTS, |out| {
            let c = &self.counts;
            let of_version_1 = [c.accepted, c.duplicate, c.unconsented, c.late, self.offset];
            for n in of_version_1.into_iter().chain([c.erased, c.decisions, c.decisions_missing]) {
                out.put_u64(n);
            }
        });
        before.section(CONFIG, |out| self.write_config(out));
        behind.section(EXPERIMENTS, |out| self.experiments.write(out));
        behind.section(ERASED, |out| self.erased.write(out));
        if let Some(catalogs) = &mut self.catalogs {
            behind.section(CATALOG, |out| catalogs.write(changes_only, out));
            catalogs.mark_saved();
        }
        self.wants_base &= changes_only;
        let mut parts = vec![
            Part::Section(MERGE, 0),
            Part::Section(USERS, users_bytes),
            Part::Section(JOINS, 0),
            Part::Section(DEDUPE, 0),
            Part::Encoded(before.finish()),
            Part::Section(DECISIONS, 0),
            Part::Encoded(behind.finish()),
        ];
        parts.reverse();
        self.under_way = Some(Box::new(UnderWay {
            writer: CheckpointWriter::new(TaskKind::Profile, extent),
            merge: self.merge.image(),
            parts,
            copied: 0,
            is_begun: false,
            digest: Xxh3::new(),
            digested: 0,
        }));
    }

    /// Encodes about `budget` more rows, also between two drains of one record. Once begun, records may be applied all the
    /// while: the checkpoint is of the moment at which it began.
    pub fn continue_checkpoint(&mut self, mut budget: usize) -> Slice {
        let Some(mut under_way) = self.under_way.take() else { return Slice::Cancelled };
        while budget > 0 {
            let is_written = match under_way.parts.last() {
                Some(Part::Section(tag, bytes)) => {
                    let (tag, bytes) = (*tag, *bytes);
                    self.write_section(&mut under_way, tag, bytes, &mut budget)
                }
                Some(Part::Encoded(_)) => under_way.copy(&mut budget),
                None => {
                    if under_way.hash(&mut budget) {
                        self.was_cancelled = false;
                        return Slice::Done { digest: under_way.digest.digest(), bytes: under_way.writer.finish() };
                    }
                    false
                }
            };
            if is_written {
                under_way.parts.pop();
            }
        }
        self.under_way = Some(under_way);
        Slice::More
    }

    /// Goes on with a section. True at its end.
    fn write_section(&mut self, under_way: &mut UnderWay, tag: u8, bytes: usize, budget: &mut usize) -> bool {
        let UnderWay { writer, merge, is_begun, .. } = under_way;
        if !*is_begun {
            writer.begin_section(tag, bytes);
        }
        let is_written = writer.write(|out| match tag {
            MERGE => merge.write(budget, out),
            USERS => self.users.go_on(budget, out),
            JOINS => self.joins.go_on(budget, out),
            DEDUPE => self.dedupe.go_on(budget, out),
            _ => self.decisions.go_on(budget, out),
        });
        if is_written {
            writer.end_section();
        }
        *is_begun = !is_written;
        is_written
    }

    /// Gives up a checkpoint that is under way: what changed before it began is in no other, so the next has to be a base.
    pub(super) fn cancel_checkpoint(&mut self) {
        if self.under_way.take().is_some() {
            self.users.cancel();
            self.joins.cancel();
            self.dedupe.cancel();
            self.decisions.cancel();
            (self.wants_base, self.was_cancelled) = (true, true);
        }
    }

    /// Restores from a base and the changes after it, in order. Where they were made under a later configuration than
    /// `plan`, that is what counts, see [`Profile::plan`].
    pub fn restore(plan: Arc<Plan>, parts: &[&[u8]]) -> Result<Self, CheckpointError> {
        let mut profile = Self::configured_by(parts, plan)?;
        let examples = profile.plan.example_plans();
        let mut joins = Restoring::new(profile.plan.outcomes.clone(), &examples);
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
            joins.read(part.version, part.extent, &mut Reader::new(part.section(JOINS)?))?;
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
                if planted::is(planted::Bug::ErasureNotRestored) {
                    profile.erased = Erased::default();
                }
            }
            let slot_of = |user| users.find(user).map(|slot| slot.0);
            profile.joins = joins.finish(slot_of)?;
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

/// The bytes from `at` on that the budget allows for, so many for each row; both are moved on.
fn slice_of<'b>(bytes: &'b [u8], at: &mut usize, budget: &mut usize, for_a_row: usize) -> &'b [u8] {
    let to = bytes.len().min(at.saturating_add(budget.saturating_mul(for_a_row)));
    let slice = &bytes[*at..to];
    *budget = budget.saturating_sub(slice.len().div_ceil(for_a_row));
    *at = to;
    slice
}

impl UnderWay {
    /// Goes on copying what is encoded. True at its end.
    fn copy(&mut self, budget: &mut usize) -> bool {
        let Some(Part::Encoded(bytes)) = self.parts.last() else { return true };
        let slice = slice_of(bytes, &mut self.copied, budget, COPIED_BYTES);
        self.writer.write(|out| out.extend_from_slice(slice));
        let is_written = self.copied == bytes.len();
        if is_written {
            self.copied = 0;
        }
        is_written
    }

    /// Goes on hashing all that is written. True at its end.
    fn hash(&mut self, budget: &mut usize) -> bool {
        self.digest.update(slice_of(self.writer.written(), &mut self.digested, budget, HASHED_BYTES));
        self.digested == self.writer.written().len()
    }
}
