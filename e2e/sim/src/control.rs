//! A minimal control loop: what was heard of members becomes facts, placement plans, and members are told.

use std::collections::{BTreeMap, BTreeSet};

use millrace_engine::plan::FIRST_GENERATION;
use millrace_lifecycle::{
    keys::{TaskId, TaskKind},
    placement::{Capacity, Decision, Facts, Member, MemberFacts, Phase, Placement, Report, Settings, plan},
};

use crate::node::PIPELINE;

pub struct Control {
    /// The record as it was read last, and which writing of it that was.
    pub placement: Placement,
    version: u64,
    facts: Facts,
    pub settings: Settings,
    pub moves: u64,
    /// The generation that each model has read of, as far as it was heard.
    models: BTreeMap<TaskId, u32>,
}

/// The stored record, replaced by compare-and-set.
#[derive(Clone, Debug)]
pub struct Record {
    pub placement: Placement,
    pub version: u64,
    /// Of the pipeline.
    pub generation: u32,
    /// Up to which profile tasks are told, since every model has read of it.
    pub profiles: u32,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            placement: Placement::new(PIPELINE),
            version: 0,
            generation: FIRST_GENERATION,
            profiles: FIRST_GENERATION,
        }
    }
}

impl Record {
    /// Replaces what was read as `version`; false: somebody else was faster.
    fn swap(&mut self, version: u64, placement: &Placement) -> bool {
        let is_same = self.version == version;
        if is_same {
            (self.placement, self.version) = (placement.clone(), version + 1);
        }
        is_same
    }
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
    /// Of models: the generation that they have read of.
    pub models: BTreeMap<TaskId, u32>,
}

/// How a write of the record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// Done, and nobody is told.
    DoneUnknown,
    /// Not done, and nobody is told.
    LostUnknown,
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
        Self { placement: Placement::new(PIPELINE), version: 0, facts, settings, moves: 0, models: BTreeMap::new() }
    }

    /// Has every model read of this generation? It is in its log then, for whoever comes after.
    pub fn models_know(&self, generation: u32) -> bool {
        let mut models = self.facts.tasks.iter().filter(|task| task.kind == TaskKind::Model);
        models.all(|task| self.models.get(task).is_some_and(|known| *known >= generation))
    }

    /// What the pipeline consists of by now.
    pub fn know(&mut self, tasks: BTreeSet<TaskId>) {
        self.facts.tasks = tasks;
    }

    /// It forgets what it has heard.
    pub fn restart(&mut self) {
        self.facts.members.clear();
        self.models.clear();
    }

    pub fn hear(&mut self, tick: u64, heard: Heard) {
        for (task, generation) in heard.models {
            let known = self.models.entry(task).or_default();
            *known = generation.max(*known);
        }
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

    /// Plans, and writes the record before anybody is told. Nobody is told if that fails, or if its end is not known: then
    /// the record is read again.
    pub fn plan(&mut self, tick: u64, record: &mut Record, fate: Written) -> Vec<Decision> {
        self.facts.members.retain(|_, facts| facts.heard_at_ms + FORGOTTEN_AFTER_TICKS > tick);
        let planned = plan(tick, &self.placement, &self.facts, &self.settings);
        if planned.placement == self.placement {
            // The other one may have changed it.
            (self.placement, self.version) = (record.placement.clone(), record.version);
            return planned.decisions;
        }
        let is_written = fate != Written::LostUnknown && record.swap(self.version, &planned.placement);
        (self.placement, self.version) = (record.placement.clone(), record.version);
        if !is_written || fate != Written::Done {
            return Vec::new();
        }
        let is_move = |decision: &&Decision| matches!(decision, Decision::Move { .. });
        self.moves += planned.decisions.iter().filter(is_move).count() as u64;
        planned.decisions
    }

    pub fn is_steady(&self) -> bool {
        let steady =
            self.placement.tasks.values().filter(|assignment| matches!(assignment.phase(), Phase::Steady)).count();
        steady == self.facts.tasks.len()
    }
}
