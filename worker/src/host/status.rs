//! What a task tells of itself, for the progress view, the metrics and the summary.

use std::collections::BTreeMap;

use super::station::Written;
use millrace_engine::{
    event::Time, experiment::VariantSums, frame::OriginState, ingest, join::OutcomeCounts, learn::ModelSummary, profile,
};

/// By variant.
pub type SumsOfVariants = BTreeMap<String, VariantSums>;

/// A task at one moment.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    /// As in `checkpoints list`: `ingest/events-0`, `profile/3`, `model/ctr`.
    pub task: String,
    /// Log offset (ingest: record number) up to which everything is applied.
    pub position: u64,
    /// The end of what it reads, if it is known.
    pub end: Option<u64>,
    pub watermark: Time,
    pub state: OriginState,
    /// Records that wait for the watermark, or for other sources.
    pub waiting: usize,
    pub checkpoints: Written,
    pub detail: Detail,
}

#[derive(Clone, Debug)]
pub enum Detail {
    Ingest {
        source: String,
        counts: ingest::Counts,
        unreadable_now: bool,
    },
    Profile {
        /// Of the pipeline as the task knows it by now.
        generation: u32,
        counts: profile::Counts,
        /// By name, as the task knows the pipeline by now; likewise the next.
        outcomes: Vec<(String, OutcomeCounts)>,
        users: usize,
        open_joins: usize,
        experiments: Vec<(String, SumsOfVariants)>,
        /// What would have left the range of a sum, and was not counted.
        out_of_range: u64,
    },
    Model {
        name: String,
        summary: Box<ModelSummary>,
        late: u64,
    },
}

/// Sums over all tasks: what became of the events.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub read: u64,
    pub events: u64,
    pub accepted: u64,
    pub late: u64,
    /// Examples that came below what a model had learned already, and were not learned: there should be none.
    pub late_examples: u64,
    pub future: u64,
    pub duplicate: u64,
    pub unconsented: u64,
    pub erased: u64,
    pub rejected: BTreeMap<&'static str, u64>,
    pub skipped: BTreeMap<&'static str, u64>,
    /// Attributes of a wrong shape, which counted as missing.
    pub ignored_attributes: u64,
    pub users: usize,
    pub open_joins: usize,
    pub outcomes: BTreeMap<String, OutcomeCounts>,
    pub models: BTreeMap<String, ModelSummary>,
    /// What experiments did not count, since it would have left the range of a sum.
    pub out_of_range: u64,
    /// Over all partitions, by experiment.
    pub experiments: BTreeMap<String, SumsOfVariants>,
    /// Lowest watermark of the profile tasks.
    pub watermark: Option<Time>,
    /// Records in logs that are not applied yet.
    pub lag: u64,
}

impl Totals {
    pub fn of(tasks: &[TaskStatus]) -> Self {
        let generation = |task: &TaskStatus| match task.detail {
            Detail::Profile { generation, .. } => Some(generation),
            _ => None,
        };
        // Sums of an experiment as it was before a change do not go with those of afterwards.
        let last = tasks.iter().filter_map(generation).max();
        let mut totals = Self::default();
        for task in tasks {
            totals.add(task);
            if let Detail::Profile { experiments, .. } = &task.detail
                && generation(task) == last
            {
                experiments.iter().for_each(|(name, sums)| totals.add_experiment(name, sums));
            }
        }
        totals
    }

    fn add(&mut self, task: &TaskStatus) {
        match &task.detail {
            Detail::Ingest { counts, .. } => self.add_ingest(counts),
            Detail::Profile { counts, outcomes, users, open_joins, out_of_range, .. } => {
                self.out_of_range += out_of_range;
                self.accepted += counts.accepted;
                self.duplicate += counts.duplicate;
                self.unconsented += counts.unconsented;
                self.erased += counts.erased;
                self.late += counts.late;
                self.users += users;
                self.open_joins += open_joins;
                for (name, c) in outcomes {
                    let sum = self.outcomes.entry(name.clone()).or_default();
                    sum.events += c.events;
                    sum.matched += c.matched;
                }
                let lowest = self.watermark.map_or(task.watermark, |w| w.min(task.watermark));
                self.watermark = Some(lowest);
            }
            Detail::Model { name, summary, late } => {
                self.late_examples += late;
                self.models.insert(name.clone(), (**summary).clone());
            }
        }
        if !matches!(task.detail, Detail::Ingest { .. }) {
            self.lag += task.end.unwrap_or(0).saturating_sub(task.position + 1);
        }
    }

    fn add_experiment(&mut self, name: &str, sums: &SumsOfVariants) {
        let all = self.experiments.entry(name.to_owned()).or_default();
        for (variant, sums) in sums {
            if let Err(error) = all.entry(variant.clone()).or_default().add(sums) {
                tracing::error!(experiment = name, %error, "the sums of all partitions are too large");
            }
        }
    }

    fn add_ingest(&mut self, counts: &ingest::Counts) {
        self.read += counts.read;
        self.events += counts.events;
        self.late += counts.late;
        self.future += counts.future;
        self.unconsented += counts.unconsented;
        self.ignored_attributes += counts.ignored_attributes;
        for (name, n) in [("unknownType", counts.unknown_type), ("dropped", counts.dropped), ("empty", counts.empty)] {
            if n > 0 {
                *self.skipped.entry(name).or_default() += n;
            }
        }
        let reasons = millrace_engine::decode::Reason::ALL.iter().map(|r| r.name()).zip(counts.rejected);
        for (name, n) in reasons.chain([(millrace_engine::dead_letter::UNREADABLE, counts.unreadable)]) {
            if n > 0 {
                *self.rejected.entry(name).or_default() += n;
            }
        }
    }
}
