//! The profile task's state as bytes: a base, then changes.

use std::sync::Arc;

use super::{Counts, Profile};
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
            for n in [self.counts.accepted, self.counts.duplicate, self.counts.unconsented, self.counts.late] {
                out.put_u64(n);
            }
            out.put_u64(self.offset);
        });
        self.users.mark_clean();
        self.dedupe.mark_saved();
        w.finish()
    }

    /// Restores from a base and the changes after it, in order.
    pub fn restore(plan: Arc<Plan>, parts: &[&[u8]]) -> Result<Self, CheckpointError> {
        let mut profile = Self::new(plan, &[]);
        for part in parts {
            let part = Checkpoint::read(part, TaskKind::Profile)?;
            let users = part.section(USERS)?;
            match part.extent {
                Extent::Base => profile.users = Users::load_all(&profile.plan.features, users)?,
                Extent::Changes => profile.users.apply_changes(users)?,
            }
            if part.extent == Extent::Base {
                profile.dedupe = Dedupe::new(profile.plan.dedupe_micros);
            }
            profile.dedupe.read(&mut Reader::new(part.section(DEDUPE)?))?;
            let r = &mut Reader::new(part.section(COUNTS)?);
            let counts = &mut profile.counts;
            *counts = Counts {
                accepted: r.u64("accepted")?,
                duplicate: r.u64("duplicate")?,
                unconsented: r.u64("unconsented")?,
                late: r.u64("late")?,
            };
            profile.offset = r.u64("log offset")?;
        }
        if let Some(last) = parts.last() {
            let last = Checkpoint::read(last, TaskKind::Profile)?;
            profile.merge = Merge::read(Kind::Events, &mut Reader::new(last.section(MERGE)?))?;
            let (users, plan) = (&profile.users, &profile.plan);
            let slot_of = |user| users.find(user).map(|slot| slot.0);
            let r = &mut Reader::new(last.section(JOINS)?);
            profile.joins = Joins::read(plan.outcomes.clone(), plan.example_plans(), r, slot_of)?;
        }
        profile.users.mark_clean();
        Ok(profile)
    }
}
