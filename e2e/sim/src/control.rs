//! A minimal control loop: what was heard of members becomes facts, placement plans, and members are told.

use std::collections::{BTreeMap, BTreeSet};

use millrace_lifecycle::{
    keys::TaskId,
    placement::{Capacity, Decision, Facts, Member, MemberFacts, Phase, Placement, Report, Settings, plan},
};

use crate::node::PIPELINE;

pub struct Control {
    /// On record: survives everything.
    pub placement: Placement,
    facts: Facts,
    pub settings: Settings,
    pub moves: u64,
}

/// What a member says of itself.
#[derive(Clone, Debug)]
pub struct Heard {
    pub member: Member,
    pub zone: String,
    pub template: String,
    pub engine_version: u32,
    pub draining: bool,
    pub reports: BTreeMap<TaskId, Report>,
}

/// Longer than this without a word, and a member is gone for good.
const FORGOTTEN_AFTER_TICKS: u64 = 400;

impl Control {
    pub fn new(tasks: BTreeSet<TaskId>, shards: u64) -> Self {
        let settings = Settings {
            min_served_percent: 50,
            level_lag_records: 3,
            promote_lag_records: 1_000,
            lost_after_ms: 80,
            move_within_ms: 600,
            retry_after_ms: 60,
            ..Settings::new("t0", shards)
        };
        let facts = Facts { tasks, members: BTreeMap::new() };
        Self { placement: Placement::new(PIPELINE), facts, settings, moves: 0 }
    }

    /// It forgets what it has heard.
    pub fn restart(&mut self) {
        self.facts.members.clear();
    }

    pub fn hear(&mut self, tick: u64, heard: Heard) {
        let capacity = Capacity { millicores: 10_000, state_bytes: 1 << 40 };
        let reports = heard.reports.into_iter().map(|(task, report)| (task, Report { load_millicores: 500, ..report }));
        let facts = MemberFacts {
            zone: heard.zone,
            template: heard.template,
            engine_version: heard.engine_version,
            capacity,
            ready: true,
            draining: heard.draining,
            heard_at_ms: tick,
            reports: reports.collect(),
        };
        self.facts.members.insert(heard.member, facts);
    }

    pub fn plan(&mut self, tick: u64) -> Vec<Decision> {
        self.facts.members.retain(|_, facts| facts.heard_at_ms + FORGOTTEN_AFTER_TICKS > tick);
        let planned = plan(tick, &self.placement, &self.facts, &self.settings);
        self.placement = planned.placement;
        self.moves +=
            planned.decisions.iter().filter(|decision| matches!(decision, Decision::Move { .. })).count() as u64;
        planned.decisions
    }

    pub fn is_steady(&self) -> bool {
        let steady =
            self.placement.tasks.values().filter(|assignment| matches!(assignment.phase(), Phase::Steady)).count();
        steady == self.facts.tasks.len()
    }
}
