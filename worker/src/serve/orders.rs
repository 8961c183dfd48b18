//! What a worker is told by whoever places tasks: `PUT /v1/orders`.

use std::collections::BTreeMap;

use millrace_lifecycle::{keys::TaskId, placement::Order};
use serde::Deserialize;

use super::{
    json,
    problem::{INVALID, Problem},
};

pub const FORMAT_VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    format_version: u32,
    orders: Vec<OrderOfTask>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OrderOfTask {
    /// As `GET /v1/tasks` names it: `profile/3`.
    task: String,
    r#do: Do,
    epoch: u64,
    #[serde(default)]
    rolled_back: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Do {
    Own,
    Release,
    Follow,
}

/// All tasks that the worker is to have.
pub fn read(body: &[u8]) -> Result<BTreeMap<TaskId, Order>, Problem> {
    let invalid = |field: String, what: &str| Problem::new(INVALID, format!("`{field}`: {what}")).with("field", field);
    let body: Body = json::typed(body, None)?;
    if body.format_version != FORMAT_VERSION {
        let what = format!("this worker reads {FORMAT_VERSION}; use programs of the same release");
        return Err(invalid("formatVersion".into(), &what));
    }
    let mut orders = BTreeMap::new();
    for (n, told) in body.orders.into_iter().enumerate() {
        let task: TaskId = told.task.parse().map_err(|_| {
            invalid(format!("orders[{n}].task"), "expected ingest/SOURCE-PARTITION, profile/PARTITION or model/NAME")
        })?;
        if told.epoch == 0 {
            return Err(invalid(format!("orders[{n}].epoch"), "epochs begin at 1"));
        }
        let order = match told.r#do {
            Do::Own => Order::Own { epoch: told.epoch, rolled_back: told.rolled_back },
            Do::Release => Order::Release { epoch: told.epoch },
            Do::Follow => Order::Follow { epoch: told.epoch },
        };
        if orders.insert(task, order).is_some() {
            return Err(invalid(format!("orders[{n}].task"), "it is named twice"));
        }
    }
    Ok(orders)
}
