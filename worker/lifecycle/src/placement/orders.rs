//! What a member is told: nothing but the record, seen from that member.

use std::collections::BTreeMap;

use super::record::{Member, Phase, Placement};
use crate::keys::TaskId;

/// What a member is to do with a task. Whatever it is not told of, it drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Acquire, unless done; take back a release that was not yet written.
    Own { epoch: u64, rolled_back: bool },
    /// Write a checkpoint that says released, and stop; unless done.
    Release { epoch: u64 },
    /// Load and follow the log, effects held back, as standby or target. The epoch is its owner's, for the reports.
    Follow { epoch: u64 },
}

impl Order {
    /// Of the owner.
    pub fn epoch(self) -> u64 {
        match self {
            Order::Own { epoch, .. } | Order::Release { epoch } | Order::Follow { epoch } => epoch,
        }
    }
}

impl Placement {
    pub fn orders(&self, member: &Member) -> BTreeMap<TaskId, Order> {
        let mut orders = BTreeMap::new();
        for (task, assignment) in &self.tasks {
            let epoch = assignment.epoch();
            let order = if assignment.owner() == member {
                match assignment.phase() {
                    Phase::Releasing { .. } | Phase::Retiring => Order::Release { epoch },
                    Phase::Acquiring { .. } | Phase::Steady | Phase::Preparing { .. } => {
                        Order::Own { epoch, rolled_back: assignment.rolled_back() }
                    }
                }
            } else if assignment.target() == Some(member) || assignment.standby() == Some(member) {
                Order::Follow { epoch }
            } else {
                continue;
            };
            orders.insert(task.clone(), order);
        }
        orders
    }
}
