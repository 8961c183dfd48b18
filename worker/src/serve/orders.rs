//! What a worker is told by whoever places tasks: `PUT /v1/orders`.

use std::collections::BTreeMap;

use millrace_lifecycle::{
    keys::TaskId,
    placement::{
        Member, Order,
        wire::{FORMAT_VERSION, Orders},
    },
};

use super::{
    client, json,
    problem::{INVALID, Problem},
};

/// What was read of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// All tasks that the worker is to have.
    pub orders: BTreeMap<TaskId, Order>,
    /// Whom they are for, if that is said.
    pub member: Option<Member>,
    pub revision: Option<u64>,
    /// Where the owners of others answer, and all workers.
    pub owners: BTreeMap<TaskId, String>,
    pub workers: Vec<String>,
    pub profiles_generation: Option<u32>,
}

pub fn read(body: &[u8]) -> Result<Told, Problem> {
    let invalid = |field: String, what: &str| Problem::new(INVALID, format!("`{field}`: {what}")).with("field", field);
    let body: Orders = json::typed(body, None)?;
    if body.format_version != FORMAT_VERSION {
        let what = format!("this worker reads {FORMAT_VERSION}; use programs of the same release");
        return Err(invalid("formatVersion".into(), &what));
    }
    let task_of = |field: String, task: &str| {
        task.parse::<TaskId>()
            .map_err(|_| invalid(field, "expected ingest/SOURCE-PARTITION, profile/PARTITION or model/NAME"))
    };
    let Orders { member, revision, profiles_generation, .. } = body;
    let mut told = Told { member, revision, profiles_generation, ..Told::default() };
    for (n, of_task) in body.orders.iter().enumerate() {
        let task = task_of(format!("orders[{n}].task"), &of_task.task)?;
        if of_task.epoch == 0 {
            return Err(invalid(format!("orders[{n}].epoch"), "epochs begin at 1"));
        }
        if told.orders.insert(task, of_task.order()).is_some() {
            return Err(invalid(format!("orders[{n}].task"), "it is named twice"));
        }
    }
    for (task, address) in &body.owners {
        let field = format!("owners.{task}");
        if !client::is_address(address) {
            return Err(invalid(field, "expected http://HOST:PORT"));
        }
        told.owners.insert(task_of(field, task)?, address.clone());
    }
    if let Some(n) = body.workers.iter().position(|address| !client::is_address(address)) {
        return Err(invalid(format!("workers[{n}]"), "expected http://HOST:PORT"));
    }
    told.workers = body.workers;
    Ok(told)
}
