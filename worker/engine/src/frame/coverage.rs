//! How far a reader has applied an origin: what makes appends idempotent without transactions.

use super::{Origin, SectionHead};
use crate::{
    codec::{Corrupt, Put, Reader},
    event::Seq,
};

/// Of one origin, in one log partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Highest epoch seen of its writers.
    pub epoch: u64,
    /// Everything up to here has been applied.
    pub applied: Seq,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { epoch: 0, applied: Seq::START }
    }
}

/// A frame that does not join on to what was applied: something between is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "records are missing from origin {origin:?}: applied up to {applied:?}, the next frame begins after {from:?}; \
     the log was damaged or trimmed too far: restore it, or start from an earlier checkpoint"
)]
pub struct Gap {
    pub origin: Origin,
    pub applied: Seq,
    pub from: Seq,
}

/// What is to be done with a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Apply its records above this sequence.
    Above(Seq),
    /// A writer that was replaced sent it: drop it.
    Stale,
}

impl Coverage {
    /// Checks a section and moves on to its end. Numbers of control records may have holes: who accepts them counts anew
    /// with each epoch.
    pub fn admit(&mut self, section: &SectionHead) -> Result<Admission, Gap> {
        if section.epoch < self.epoch && !planted::is(planted::Bug::LowerEpochApplied) {
            return Ok(Admission::Stale);
        }
        if section.from > self.applied && !section.origin.is_control() && !planted::is(planted::Bug::GapsIgnored) {
            return Err(Gap { origin: section.origin, applied: self.applied, from: section.from });
        }
        self.epoch = section.epoch;
        let above = self.applied;
        self.applied = self.applied.max(section.to);
        Ok(Admission::Above(above))
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.epoch);
        super::put_seq(out, self.applied);
    }
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { epoch: r.u64("epoch")?, applied: super::read_seq(r)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Progress;

    fn section(epoch: u64, from: u64, to: u64) -> SectionHead {
        let seq = |offset| Seq { offset, index: u32::MAX };
        SectionHead { origin: Origin::default(), epoch, from: seq(from), to: seq(to), progress: Progress::default() }
    }

    #[test]
    fn repeated_overlapping_stale_and_missing() {
        let mut c = Coverage { epoch: 1, applied: Seq::end_of(0) };
        assert_eq!(c.admit(&section(1, 0, 5)), Ok(Admission::Above(Seq::end_of(0))));
        assert_eq!(c.admit(&section(2, 2, 8)), Ok(Admission::Above(Seq::end_of(5))), "a restart overlaps");
        assert_eq!(c.applied, Seq::end_of(8));
        assert_eq!(c.admit(&section(1, 8, 9)), Ok(Admission::Stale), "the replaced writer still sends");
        assert_eq!(c.applied, Seq::end_of(8));
        assert_eq!(c.admit(&section(2, 9, 12)).unwrap_err().applied, Seq::end_of(8), "9 is missing");
        assert_eq!(c.admit(&section(2, 2, 4)), Ok(Admission::Above(Seq::end_of(8))));
        assert_eq!(c.applied, Seq::end_of(8), "never backwards");
        let control = SectionHead { origin: Origin::control(0), ..section(3, 9, 12) };
        assert_eq!(c.admit(&control), Ok(Admission::Above(Seq::end_of(8))), "control records may have holes");
    }
}
