//! The profile task's state as bytes: a base, then changes.

use std::sync::Arc;

use super::{Profile, decisions::Decisions, erased::Erased, experiments::Experiments};
use crate::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::{Put, Reader},
    dedupe::Dedupe,
    frame::Kind,
    join::Joins,
    order::Merge,
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

impl Profile {
    /// Between drains only. Afterwards, changes are counted from here.
    pub fn checkpoint(&mut self, extent: Extent) -> Vec<u8> {
        let mut w = CheckpointWriter::new(TaskKind::Profile, extent);
        w.section(MERGE, |out| self.merge.write(out));
        w.section(USERS, |out| match extent {
            Extent::Base => self.users.encode_all(out),
            Extent::Changes => self.users.encode_changes(out),
        });
        w.section(JOINS, |out| self.joins.write(out));
        w.section(DEDUPE, |out| self.dedupe.write(extent == Extent::Changes, out));
        w.section(COUNTS, |out| {
            let c = &self.counts;
            let of_version_1 = [c.accepted, c.duplicate, c.unconsented, c.late, self.offset];
            for n in of_version_1.into_iter().chain([c.erased, c.decisions, c.decisions_missing]) {
                out.put_u64(n);
            }
        });
        w.section(CONFIG, |out| self.write_config(out));
        w.section(DECISIONS, |out| self.decisions.write(extent == Extent::Changes, out));
        w.section(EXPERIMENTS, |out| self.experiments.write(out));
        w.section(ERASED, |out| self.erased.write(out));
        if let Some(catalogs) = &mut self.catalogs {
            w.section(CATALOG, |out| catalogs.write(extent == Extent::Changes, out));
            catalogs.mark_saved();
        }
        self.users.mark_clean();
        self.dedupe.mark_saved();
        self.decisions.mark_saved();
        self.wants_base &= extent == Extent::Changes;
        w.finish()
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
                if planted::is(planted::Bug::ErasureNotRestored) {
                    profile.erased = Erased::default();
                }
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
