//! What a worker and whoever places tasks say to each other, as JSON: `GET /v1/tasks` and `PUT /v1/orders`. Format version 1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Member, Order, Report, Role};
use crate::keys::{NoTaskId, TaskId};

pub const FORMAT_VERSION: u32 = 1;

/// `PUT /v1/orders`: all that a worker is to have from now on, and what it has to know of the others. What a newer program
/// adds is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orders {
    pub format_version: u32,
    /// Whom they are for: at its address there may be somebody else by now, who refuses them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
    /// Of the placement record: what is older than what was told before came late, or from somebody who has not seen the newer
    /// record, and is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    pub orders: Vec<OrderOfTask>,
    /// Where each task's owner answers (`http://HOST:PORT`), as far as it is known: requests for users of others go there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<String, String>,
    /// Where all workers answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<String>,
    /// Up to which generation of the pipeline profile tasks may be told: every model has read of it. Absent: they are told
    /// of no change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles_generation: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderOfTask {
    /// `KIND/NAME`.
    pub task: String,
    pub r#do: Do,
    /// See [`Order`].
    pub epoch: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Do {
    Own,
    Release,
    Follow,
}

impl OrderOfTask {
    pub fn new(task: &TaskId, order: Order) -> Self {
        let (what, rolled_back) = match order {
            Order::Own { rolled_back, .. } => (Do::Own, rolled_back),
            Order::Release { .. } => (Do::Release, false),
            Order::Follow { .. } => (Do::Follow, false),
        };
        Self { task: task.to_string(), r#do: what, epoch: order.epoch(), rolled_back }
    }

    pub fn order(&self) -> Order {
        let (epoch, rolled_back) = (self.epoch, self.rolled_back);
        match self.r#do {
            Do::Own => Order::Own { epoch, rolled_back },
            Do::Release => Order::Release { epoch },
            Do::Follow => Order::Follow { epoch },
        }
    }
}

/// `GET /v1/tasks`: what a worker has of its pipeline's tasks. Others may be added to what is told of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tasks {
    pub format_version: u32,
    /// One life of a shard; absent of a worker that is in no fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
    /// What it calls itself in manifests.
    pub owner: String,
    pub engine_version: u32,
    pub takes_orders: bool,
    /// Of the placement record, as it was told last.
    #[serde(default)]
    pub revision: u64,
    pub tasks: Vec<TaskSaid>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskSaid {
    /// `KIND/NAME`.
    pub task: String,
    /// See [`Report`].
    pub epoch: u64,
    pub load_millicores: u64,
    pub state_bytes: u64,
    #[serde(flatten)]
    pub role: RoleSaid,
    /// Absent of a task that is not worked on.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// See [`Role`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum RoleSaid {
    Owns,
    Loads,
    Follows {
        /// Behind the log's end; absent while that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        behind_records: Option<u64>,
        #[serde(default)]
        level_for_ms: u64,
    },
    Released {
        released_offset: u64,
    },
    Outdated {
        manifest_epoch: u64,
    },
    Failed {
        why: String,
    },
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// `active`, `idle` or `ended`.
    pub state: String,
    /// Offset of the last record that was applied.
    pub position: u64,
    /// Offset of the next record of what it reads.
    pub end: Option<u64>,
    pub lag_records: Option<u64>,
    /// Ms since 1970.
    pub watermark_ms: Option<i64>,
    pub records_per_second: f64,
    /// Of the pipeline, as the task has read of it.
    #[serde(default)]
    pub generation: u32,
    /// The newest of this worker.
    pub checkpoint: Option<CheckpointSaid>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointSaid {
    pub count: u64,
    pub at_ms: i64,
    pub bytes: u64,
    /// `base` or `changes`.
    pub kind: String,
}

impl TaskSaid {
    pub fn new(task: &TaskId, report: &Report, progress: Option<Progress>) -> Self {
        let role = match &report.role {
            Role::Owns => RoleSaid::Owns,
            Role::Loads => RoleSaid::Loads,
            Role::Follows { lag_records, level_for_ms } => {
                RoleSaid::Follows { behind_records: Some(*lag_records), level_for_ms: *level_for_ms }
            }
            Role::Released { offset } => RoleSaid::Released { released_offset: *offset },
            Role::Outdated { manifest_epoch } => RoleSaid::Outdated { manifest_epoch: *manifest_epoch },
            Role::Failed { why } => RoleSaid::Failed { why: why.clone() },
        };
        let Report { epoch, load_millicores, state_bytes, .. } = *report;
        Self { task: task.to_string(), epoch, load_millicores, state_bytes, role, progress }
    }

    /// # Errors
    /// It names no task.
    pub fn report(&self) -> Result<(TaskId, Report), NoTaskId> {
        let role = match &self.role {
            RoleSaid::Owns => Role::Owns,
            RoleSaid::Loads | RoleSaid::Follows { behind_records: None, .. } => Role::Loads,
            RoleSaid::Follows { behind_records: Some(lag_records), level_for_ms } => {
                Role::Follows { lag_records: *lag_records, level_for_ms: *level_for_ms }
            }
            RoleSaid::Released { released_offset } => Role::Released { offset: *released_offset },
            RoleSaid::Outdated { manifest_epoch } => Role::Outdated { manifest_epoch: *manifest_epoch },
            RoleSaid::Failed { why } => Role::Failed { why: why.clone() },
        };
        let Self { epoch, load_millicores, state_bytes, .. } = *self;
        Ok((self.task.parse()?, Report { epoch, role, load_millicores, state_bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::TaskKind;

    #[test]
    fn golden_orders_version_1() {
        let task = TaskId::new(TaskKind::Profile, "3");
        let orders = Orders {
            format_version: 1,
            member: Some(Member::new("a", "7f")),
            revision: Some(5),
            orders: vec![
                OrderOfTask::new(&task, Order::Own { epoch: 7, rolled_back: true }),
                OrderOfTask::new(&TaskId::new(TaskKind::Model, "ctr"), Order::Follow { epoch: 2 }),
            ],
            owners: BTreeMap::from([("profile/3".to_owned(), "http://127.0.0.1:1".to_owned())]),
            workers: vec!["http://127.0.0.1:1".to_owned()],
            profiles_generation: Some(2),
        };
        let text = r#"{"formatVersion":1,"member":{"shard":"a","incarnation":"7f"},"revision":5,"orders":[{"task":"profile/3","do":"own","epoch":7,"rolledBack":true},{"task":"model/ctr","do":"follow","epoch":2}],"owners":{"profile/3":"http://127.0.0.1:1"},"workers":["http://127.0.0.1:1"],"profilesGeneration":2}"#;
        assert_eq!(serde_json::to_string(&orders).unwrap(), text);
        assert_eq!(serde_json::from_str::<Orders>(text).unwrap(), orders);
        assert_eq!(orders.orders[0].order(), Order::Own { epoch: 7, rolled_back: true });
        let least: Orders = serde_json::from_str(r#"{"formatVersion":1,"orders":[]}"#).unwrap();
        assert_eq!(least, Orders { format_version: 1, ..Orders::default() });
    }

    #[test]
    fn what_is_said_of_a_task_comes_back() {
        let task = TaskId::new(TaskKind::Ingest, "web-0");
        for role in [
            Role::Owns,
            Role::Loads,
            Role::Follows { lag_records: 4, level_for_ms: 9 },
            Role::Released { offset: 5 },
            Role::Outdated { manifest_epoch: 6 },
            Role::Failed { why: "damaged".into() },
        ] {
            let report = Report { epoch: 3, role, load_millicores: 250, state_bytes: 1 << 40 };
            let progress = Progress {
                state: "active".into(),
                position: 9,
                end: Some(12),
                lag_records: Some(2),
                watermark_ms: None,
                records_per_second: 2.5,
                generation: 1,
                checkpoint: None,
            };
            for progress in [None, Some(progress)] {
                let said = TaskSaid::new(&task, &report, progress);
                let text = serde_json::to_string(&said).unwrap();
                let read: TaskSaid = serde_json::from_str(&text).unwrap();
                assert_eq!(read, said, "{text}");
                assert_eq!(read.report().unwrap(), (task.clone(), report.clone()), "{text}");
            }
        }
    }
}
