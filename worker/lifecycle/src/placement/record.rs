//! The stored record of who owns what, format version 1. Whoever controls writes it by compare-and-set *before* it tells
//! any worker, so that two who control cannot give the same epoch to two owners.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::keys::TaskId;
use crate::sealed::{self, Unsealed};

pub const FORMAT_VERSION: u32 = 1;

/// One life of a shard: a pod that comes back under the same name is another member, and inherits nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub shard: String,
    /// The pod's UID.
    pub incarnation: String,
}

impl Member {
    pub fn new(shard: impl Into<String>, incarnation: impl Into<String>) -> Self {
        Self { shard: shard.into(), incarnation: incarnation.into() }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shard)
    }
}

/// Where every task of a pipeline runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    pub format_version: u32,
    /// The pipeline's identity: a record of another one is refused.
    pub pipeline: String,
    /// Rises whenever the record is replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    #[serde(with = "by_task")]
    pub tasks: BTreeMap<TaskId, Assignment>,
    /// Tasks that are no more: their epochs go on from here, should they come back.
    #[serde(with = "by_task")]
    pub retired: BTreeMap<TaskId, Retired>,
}

/// Who owns a task. Changes only by the steps of [`Assignment`]'s methods, each of which says from which phases it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    pub(super) owner: Member,
    /// The owner's. Unless the task was released, only this engine version may take it over.
    pub(super) engine_version: u32,
    /// Rises with every assignment, also to the same member.
    pub(super) epoch: u64,
    /// The owner may acquire what a newer engine version has not released: the rollout was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) rolled_back: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) standby: Option<Member>,
    pub(super) phase: Phase,
    /// Members on which the task failed, not tried again for a while: without them a move that fails would begin again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) avoided: Vec<Avoided>,
}

/// What goes on with a task. `since_ms` is when it was told; a move keeps it from beginning to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "name")]
pub enum Phase {
    /// The owner is to acquire; `from` handed over to it, in order.
    Acquiring {
        since_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Member>,
    },
    /// The owner owns.
    Steady,
    /// The owner goes on, the target loads and follows the log until level.
    Preparing { to: Member, since_ms: u64 },
    /// The owner is to release at an offset of its choice; the target was level.
    Releasing { to: Member, since_ms: u64 },
    /// The pipeline has this task no more; the owner is to release it for good.
    Retiring,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Avoided {
    pub member: Member,
    pub until_ms: u64,
}

/// What is left of a task that was retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retired {
    pub epoch: u64,
    /// Its last owner's, if that went without releasing: only this engine version may take it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreleased_engine_version: Option<u32>,
}

/// To whom a task is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heir {
    pub member: Member,
    pub engine_version: u32,
    pub rolled_back: bool,
    /// Who released it to this heir, if it was moved.
    pub from: Option<Member>,
}

/// Each step is taken only where it is legal; whether it was taken is the answer.
impl Assignment {
    pub fn new(heir: Heir, epoch: u64, now_ms: u64) -> Self {
        let Heir { member, engine_version, rolled_back, from } = heir;
        let phase = Phase::Acquiring { since_ms: now_ms, from };
        Self { owner: member, engine_version, epoch, rolled_back, standby: None, phase, avoided: Vec::new() }
    }

    pub fn owner(&self) -> &Member {
        &self.owner
    }

    pub fn engine_version(&self) -> u32 {
        self.engine_version
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn rolled_back(&self) -> bool {
        self.rolled_back
    }

    pub fn standby(&self) -> Option<&Member> {
        self.standby.as_ref()
    }

    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// To whom it moves.
    pub fn target(&self) -> Option<&Member> {
        match &self.phase {
            Phase::Preparing { to, .. } | Phase::Releasing { to, .. } => Some(to),
            Phase::Acquiring { .. } | Phase::Steady | Phase::Retiring => None,
        }
    }

    /// Who owns it once all that was begun is done.
    pub fn owner_to_be(&self) -> &Member {
        self.target().unwrap_or(&self.owner)
    }

    /// From the first preparation until the target has acquired.
    pub fn is_moving(&self) -> bool {
        self.target().is_some() || matches!(self.phase, Phase::Acquiring { from: Some(_), .. })
    }

    pub fn avoids(&self, member: &Member, now_ms: u64) -> bool {
        self.avoided.iter().any(|a| a.member == *member && a.until_ms > now_ms)
    }

    /// Acquiring: the owner has acquired.
    pub fn acquired(&mut self) -> bool {
        let legal = matches!(self.phase, Phase::Acquiring { .. });
        self.enter(legal, Phase::Steady)
    }

    /// Steady: a move begins.
    pub fn prepare(&mut self, to: Member, now_ms: u64) -> bool {
        let legal = self.phase == Phase::Steady && to != self.owner;
        self.enter(legal, Phase::Preparing { to, since_ms: now_ms })
    }

    /// Preparing: the target is level.
    pub fn release(&mut self) -> bool {
        let Phase::Preparing { to, since_ms } = self.phase.clone() else { return false };
        self.enter(true, Phase::Releasing { to, since_ms })
    }

    /// Preparing, releasing, retiring: the owner keeps it after all. It may have released already; then it will say so.
    pub fn stay(&mut self) -> bool {
        let legal = self.target().is_some() || self.phase == Phase::Retiring;
        self.enter(legal, Phase::Steady)
    }

    /// Steady, preparing, releasing: the task is to end. What was not acquired cannot be released.
    pub fn retire(&mut self) -> bool {
        let legal = !matches!(self.phase, Phase::Retiring | Phase::Acquiring { .. });
        self.enter(legal, Phase::Retiring)
    }

    /// Any phase but retiring: another epoch begins, with another owner or the same. `standby` of the member that becomes
    /// the owner is free again.
    pub fn assign(&mut self, heir: Heir, epoch: u64, now_ms: u64) -> bool {
        if self.phase == Phase::Retiring || epoch <= self.epoch {
            return false;
        }
        let standby = self.standby.take().filter(|standby| *standby != heir.member);
        let mut avoided = std::mem::take(&mut self.avoided);
        avoided.retain(|a| a.until_ms > now_ms);
        *self = Self { standby, avoided, ..Self::new(heir, epoch, now_ms) };
        true
    }

    /// The owner cannot be its own standby.
    pub fn set_standby(&mut self, standby: Option<Member>) -> bool {
        let legal = standby.as_ref() != Some(&self.owner);
        if legal {
            self.standby = standby;
        }
        legal
    }

    pub fn avoid(&mut self, member: Member, now_ms: u64, until_ms: u64) {
        self.avoided.retain(|a| a.until_ms > now_ms && a.member != member);
        self.avoided.push(Avoided { member, until_ms });
        self.avoided.sort_by(|a, b| a.member.cmp(&b.member));
    }

    fn enter(&mut self, legal: bool, phase: Phase) -> bool {
        if legal {
            self.phase = phase;
        }
        legal
    }
}

impl Placement {
    /// Of a pipeline that never ran.
    pub fn new(pipeline: impl Into<String>) -> Self {
        let (tasks, retired) = (BTreeMap::new(), BTreeMap::new());
        Self { format_version: FORMAT_VERSION, pipeline: pipeline.into(), revision: 0, tasks, retired }
    }

    pub fn encode(&self) -> Result<Vec<u8>, String> {
        sealed::seal(self).map_err(|error| error.to_string())
    }

    /// Refuses a record of another pipeline, and one that no plan would have written.
    pub fn decode(bytes: &[u8], pipeline: &str) -> Result<Self, Unsealed> {
        let placement: Self = sealed::unseal(bytes, FORMAT_VERSION)?;
        if placement.pipeline != pipeline {
            return Err(Unsealed::Damaged(format!("it is of pipeline {}, not {pipeline}", placement.pipeline)));
        }
        placement.check_shape().map_err(Unsealed::Damaged)?;
        Ok(placement)
    }

    fn check_shape(&self) -> Result<(), String> {
        for (task, assignment) in &self.tasks {
            let Assignment { owner, standby, epoch, .. } = assignment;
            if *epoch == 0 {
                return Err(format!("{task} has epoch 0; the first is 1"));
            }
            if standby.as_ref() == Some(owner) || assignment.target() == Some(owner) {
                return Err(format!("{task} has {owner} as owner and as standby or target"));
            }
            if self.retired.contains_key(task) {
                return Err(format!("{task} is assigned and retired"));
            }
        }
        Ok(())
    }

    /// Whether `next` may replace this record: to be checked before each compare-and-set. The error says what it breaks.
    pub fn check_successor(&self, next: &Self) -> Result<(), String> {
        next.check_shape()?;
        if (&next.pipeline, next.format_version) != (&self.pipeline, self.format_version) {
            return Err("the pipeline or the format version changes".to_owned());
        }
        for (task, before) in &self.tasks {
            match (next.tasks.get(task), next.retired.get(task)) {
                (Some(after), _) => before.check_successor(after).map_err(|what| format!("{task}: {what}"))?,
                (None, Some(retired)) if retired.epoch >= before.epoch => {}
                (None, _) => return Err(format!("{task} vanishes, and with it epoch {}", before.epoch)),
            }
        }
        for (task, before) in &self.retired {
            let kept = next.retired.get(task) == Some(before);
            if !kept && next.tasks.get(task).is_none_or(|after| after.epoch <= before.epoch) {
                return Err(format!("{task} was retired at epoch {} and does not go on above", before.epoch));
            }
        }
        Ok(())
    }
}

impl Assignment {
    fn check_successor(&self, next: &Self) -> Result<(), String> {
        let acquires = matches!(next.phase, Phase::Acquiring { .. });
        match next.epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => Err(format!("epoch {} falls to {}", self.epoch, next.epoch)),
            std::cmp::Ordering::Greater if acquires => Ok(()),
            std::cmp::Ordering::Greater => Err(format!("epoch {} begins without acquiring", next.epoch)),
            std::cmp::Ordering::Equal => {
                let given = |a: &Self| (a.owner.clone(), a.engine_version, a.rolled_back);
                if given(self) != given(next) {
                    return Err(format!("epoch {} has two owners, {} and {}", self.epoch, self.owner, next.owner));
                }
                if acquires && self.phase != next.phase {
                    return Err(format!("epoch {} acquires twice", self.epoch));
                }
                Ok(())
            }
        }
    }
}

fn is_zero(revision: &u64) -> bool {
    *revision == 0
}

/// Maps by task as lists in order: JSON has no such keys.
mod by_task {
    use serde::de::{DeserializeOwned, Error};
    use serde::{Deserializer, Serializer};

    use super::{BTreeMap, Deserialize, Serialize, TaskId};

    #[derive(Serialize)]
    struct EntryRef<'a, T> {
        task: &'a TaskId,
        #[serde(flatten)]
        value: &'a T,
    }

    #[derive(Deserialize)]
    struct Entry<T> {
        task: TaskId,
        #[serde(flatten)]
        value: T,
    }

    pub fn serialize<T: Serialize, S: Serializer>(map: &BTreeMap<TaskId, T>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter().map(|(task, value)| EntryRef { task, value }))
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<TaskId, T>, D::Error> {
        let mut map = BTreeMap::new();
        for Entry { task, value } in Vec::<Entry<T>>::deserialize(deserializer)? {
            if map.last_key_value().is_some_and(|(last, _)| *last >= task) {
                return Err(D::Error::custom(format!("{task} is named twice or out of order")));
            }
            map.insert(task, value);
        }
        Ok(map)
    }
}
