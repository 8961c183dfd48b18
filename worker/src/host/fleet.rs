//! A host's end of a fleet: what it is told to have of its tasks, and what it says of each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millrace_engine::{event::Time, frame::OriginState};
use millrace_lifecycle::{
    keys::TaskId,
    lineage::Claimant,
    placement::{Order, Report, Role},
};
use serde_json::{Value, json};

use super::{
    beside::{Board, Directory, Shown},
    deal::thread_of,
    desk::Request,
    error::HostError,
    mailbox::Mailbox,
    start::Tasks,
};

/// Shared by all who look at a host or tell it something.
pub struct Fleet {
    pub tasks: Tasks,
    pub directory: Arc<Directory>,
    pub claimant: Claimant,
    /// Of the engine threads, in their order; likewise the next.
    pub boards: Vec<Arc<Board>>,
    pub mailboxes: Vec<Arc<Mailbox<Request>>>,
    /// Tasks that the host was told of and does not know.
    pub unknown: Mutex<BTreeMap<TaskId, Order>>,
}

/// It works on all tasks of its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakesNoOrders;

impl Fleet {
    /// All that this host is to have from now on: whatever is not among it is dropped. Told again, it goes on with what it is
    /// doing.
    pub fn obey(&self, orders: &BTreeMap<TaskId, Order>) -> Result<(), TakesNoOrders> {
        if self.tasks == Tasks::All {
            return Err(TakesNoOrders);
        }
        let mut of_threads = vec![BTreeMap::new(); self.mailboxes.len()];
        let mut unknown = BTreeMap::new();
        for (task, order) in orders {
            let of = match self.directory.number(task) {
                Some(number) => &mut of_threads[thread_of(number, self.mailboxes.len())],
                None => &mut unknown,
            };
            of.insert(task.clone(), *order);
        }
        *self.unknown() = unknown;
        for (mailbox, orders) in self.mailboxes.iter().zip(of_threads) {
            mailbox.tell(Request::Obey { orders, claimant: self.claimant.clone() });
        }
        Ok(())
    }

    fn unknown(&self) -> MutexGuard<'_, BTreeMap<TaskId, Order>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the orders.
    pub fn reports(&self) -> BTreeMap<TaskId, Report> {
        let failed = |(task, order): (&TaskId, &Order)| {
            let why = HostError::NoTask { task: task.to_string() }.to_string();
            (
                task.clone(),
                Report { epoch: order.epoch(), role: Role::Failed { why }, load_millicores: 0, state_bytes: 0 },
            )
        };
        let unknown: Vec<_> = self.unknown().iter().map(failed).collect();
        self.boards.iter().flat_map(|board| board.lock().reports.clone()).chain(unknown).collect()
    }

    /// What is here, in the order of the pipeline's tasks.
    pub fn shown(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.boards.iter().flat_map(|board| board.lock().tasks.clone()).collect();
        shown.sort_by_key(|shown| shown.number);
        shown
    }

    /// Of each task that is here, or was told of: `GET /v1/tasks`.
    pub fn to_json(&self) -> Value {
        let shown: BTreeMap<String, Shown> =
            self.shown().into_iter().map(|shown| (shown.status.task.clone(), shown)).collect();
        let task = |(task, report): (TaskId, Report)| {
            let mut json = report_json(&report);
            json["task"] = json!(task.to_string());
            if let Some(shown) = shown.get(&task.to_string()) {
                add_status(&mut json, shown);
            }
            json
        };
        let tasks: Vec<Value> = self.reports().into_iter().map(task).collect();
        json!({"formatVersion": 1, "owner": self.claimant.owner, "engineVersion": self.claimant.engine_version,
            "takesOrders": self.tasks == Tasks::AsTold, "tasks": tasks})
    }
}

fn report_json(report: &Report) -> Value {
    let mut json =
        json!({"epoch": report.epoch, "loadMillicores": report.load_millicores, "stateBytes": report.state_bytes});
    let (role, more) = match &report.role {
        Role::Owns => ("owns", None),
        Role::Loads => ("loads", None),
        Role::Follows { .. } => ("follows", None),
        Role::Released { offset } => ("released", Some(("releasedOffset", json!(offset)))),
        Role::Outdated { manifest_epoch } => ("outdated", Some(("manifestEpoch", json!(manifest_epoch)))),
        Role::Failed { why } => ("failed", Some(("why", json!(why)))),
    };
    json["role"] = json!(role);
    if let Some((name, value)) = more {
        json[name] = value;
    }
    json
}

fn add_status(json: &mut Value, Shown { status, records_per_second, .. }: &Shown) {
    let state = match status.state {
        OriginState::Active => "active",
        OriginState::Idle => "idle",
        OriginState::Ended => "ended",
    };
    json["state"] = json!(state);
    json["position"] = json!(status.position);
    json["end"] = json!(status.end);
    json["lagRecords"] = json!(status.end.map(|end| end.saturating_sub(status.position + 1)));
    json["watermarkMs"] = json!((status.watermark != Time::MIN).then_some(status.watermark.0 / 1000));
    json["recordsPerSecond"] = json!(records_per_second);
    let written = status.checkpoints;
    json["checkpoint"] = match written.count {
        0 => Value::Null,
        count => json!({"count": count, "atMs": written.at_unix_ms, "bytes": written.bytes,
            "kind": if written.is_base { "base" } else { "changes" }}),
    };
}
