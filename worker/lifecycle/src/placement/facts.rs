//! What was observed, and only that. Times are of the clock of whoever observes, in ms.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Member;
use crate::keys::TaskId;

/// All that a plan starts from, beside the stored record and the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the pipeline consists of by its specification. Others that the record knows are retired, so this must never
    /// be what could be read in part.
    pub tasks: BTreeSet<TaskId>,
    /// All that exist; a member that is missing is gone. Two incarnations of a shard can be seen at once.
    pub members: BTreeMap<Member, MemberFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    /// The failure domain.
    pub zone: String,
    /// The hash of its pod's template.
    pub template: String,
    pub engine_version: u32,
    pub capacity: Capacity,
    /// It can be given tasks.
    pub ready: bool,
    /// It is to be emptied: its node is drained, or it is to be deleted.
    pub draining: bool,
    /// When it last answered.
    pub heard_at_ms: u64,
    /// What it said then of each task that it was told of.
    pub reports: BTreeMap<TaskId, Report>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub millicores: u64,
    pub state_bytes: u64,
}

/// What a member says of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of the assignment under which it acts: for a follower, the epoch of the owner that it was told to follow.
    pub epoch: u64,
    pub role: Role,
    /// The task's share of the member's cores, smoothed.
    pub load_millicores: u64,
    pub state_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has set the manifest to this epoch and applies records.
    Owns,
    /// Standby or target of a move; it still loads a checkpoint.
    Loads,
    /// Standby or target of a move.
    Follows {
        /// Behind the log's end.
        lag_records: u64,
        /// For how long it has been level without a break.
        level_for_ms: u64,
    },
    /// It owned, and has written that it no longer does; all below `offset` is in the checkpoint.
    Released { offset: u64 },
    /// It cannot own under its epoch, because the manifest has this one already: it restarted, or the record is an old one.
    Outdated { manifest_epoch: u64 },
    /// It cannot do what it was told, now: a damaged checkpoint, another digest than the owner's.
    Failed { why: String },
}

impl Facts {
    /// What a member says of a task under this very epoch: what it said under an earlier one, and what an earlier
    /// incarnation said, never counts.
    pub fn report(&self, member: &Member, task: &TaskId, epoch: u64) -> Option<&Report> {
        self.members.get(member)?.reports.get(task).filter(|report| report.epoch == epoch)
    }
}
