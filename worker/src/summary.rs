//! What a run did, as one JSON object and as text. The object's shape has a version; fields are only ever added.

use std::{collections::BTreeMap, fmt};

use millrace_engine::learn::ModelSummary;
use serde::Serialize;

use crate::{
    host::{
        Finished,
        status::{TaskStatus, Totals},
        task::Task,
    },
    pipeline::Pipeline,
    progress,
};

pub const FORMAT_VERSION: u32 = 1;

/// Counts are since the data folder's beginning, over all restarts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub format_version: u32,
    pub pipeline: String,
    pub events: Events,
    pub outcomes: BTreeMap<String, OutcomeSummary>,
    pub models: BTreeMap<String, ModelSummary>,
    pub digests: Digests,
    /// Users with a profile.
    pub users: usize,
    /// Why everybody was taken to have agreed, if nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consent_assumed: Option<String>,
    pub warnings: Vec<String>,
}

/// What became of the source records and of the events in them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// Records of the sources.
    pub read: u64,
    /// Events that they yielded: each is accepted, late, future, duplicate, erased with its
    /// user or, for want of a consent event, unconsented.
    pub found: u64,
    pub accepted: u64,
    pub late: u64,
    pub future: u64,
    pub duplicate: u64,
    /// Records of users who are not logged in or refused, and events before any consent event.
    pub unconsented: u64,
    /// Of users who were erased, from before that.
    pub erased: u64,
    /// By reason. As `skipped`, in records or, with `each`, in elements.
    pub rejected: BTreeMap<&'static str, u64>,
    pub skipped: BTreeMap<&'static str, u64>,
    /// Attributes of a wrong shape in what was accepted: they counted as missing.
    pub ignored_attributes: u64,
}

#[derive(Serialize)]
pub struct OutcomeSummary {
    /// Events of the outcome's type, by item where they have items.
    pub events: u64,
    /// Those that labelled an impression.
    pub matched: u64,
}

/// Equal state has equal digests, on any machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Digests {
    pub profiles: String,
    pub models: String,
}

impl Digests {
    /// Of tasks in their order: all profiles, all models.
    pub fn of(tasks: &mut [Task]) -> Self {
        let (mut profiles, mut models) = (Vec::new(), Vec::new());
        for task in tasks {
            match task {
                Task::Ingest(..) => {}
                Task::Profile(profile, ..) => profiles.push(profile.digest()),
                Task::Model(model, ..) => models.push(model.digest()),
            }
        }
        Self { profiles: combine(&profiles), models: combine(&models) }
    }
}

/// A digest of digests, in order.
pub fn combine(digests: &[u128]) -> String {
    let bytes: Vec<u8> = digests.iter().flat_map(|d| d.to_le_bytes()).collect();
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes))
}

impl Summary {
    pub fn of(pipeline: &Pipeline, mut finished: Finished) -> Self {
        let totals = Totals::of(&finished.statuses);
        let outcomes = totals.outcomes.iter();
        let outcomes =
            outcomes.map(|(name, c)| (name.clone(), OutcomeSummary { events: c.events, matched: c.matched }));
        Self {
            format_version: FORMAT_VERSION,
            pipeline: pipeline.validated.name().to_owned(),
            outcomes: outcomes.collect(),
            digests: Digests::of(&mut finished.tasks),
            users: totals.users,
            consent_assumed: pipeline.spec().privacy.consent.assumed.clone(),
            warnings: warnings(&totals, &finished.statuses),
            models: totals.models,
            events: Events {
                read: totals.read,
                found: totals.events,
                accepted: totals.accepted,
                late: totals.late,
                future: totals.future,
                duplicate: totals.duplicate,
                unconsented: totals.unconsented,
                erased: totals.erased,
                rejected: totals.rejected,
                skipped: totals.skipped,
                ignored_attributes: totals.ignored_attributes,
            },
        }
    }
}

/// What a person should look at.
fn warnings(totals: &Totals, tasks: &[TaskStatus]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, model) in &totals.models {
        for leak in &model.leaks {
            warnings.push(format!("model {name}: {leak}"));
        }
        warnings.extend(progress::drift(name, model));
    }
    for task in tasks {
        if let crate::host::status::Detail::Ingest { source, unreadable_now: true, .. } = &task.detail {
            warnings.push(format!("source {source}, {}: a file broke off; see `millrace dead-letters`", task.task));
        }
    }
    warnings
}

fn counts(map: &BTreeMap<&'static str, u64>) -> String {
    map.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.events;
        writeln!(f, "Pipeline {}", self.pipeline)?;
        writeln!(f, "  records read   {:>12}   events found {}, users {}", e.read, e.found, self.users)?;
        writeln!(f, "  accepted       {:>12}", e.accepted)?;
        writeln!(
            f,
            "  not accepted   {:>12}   late {}, future {}, duplicate {}, unconsented {}, erased {}",
            e.late + e.future + e.duplicate + e.unconsented + e.erased,
            e.late,
            e.future,
            e.duplicate,
            e.unconsented,
            e.erased
        )?;
        if !e.rejected.is_empty() {
            writeln!(f, "  rejected       {:>12}   {}", e.rejected.values().sum::<u64>(), counts(&e.rejected))?;
        }
        if !e.skipped.is_empty() {
            writeln!(f, "  skipped        {:>12}   {}", e.skipped.values().sum::<u64>(), counts(&e.skipped))?;
        }
        if e.ignored_attributes > 0 {
            writeln!(f, "  attributes of a wrong shape, taken as missing: {}", e.ignored_attributes)?;
        }
        if let Some(reason) = &self.consent_assumed {
            writeln!(f, "  consent was assumed: {reason}")?;
        }
        for (name, o) in &self.outcomes {
            writeln!(f, "Outcome {name}: {} events, {} matched an impression", o.events, o.matched)?;
        }
        for (name, m) in &self.models {
            writeln!(f, "{}", progress::model(name, &m.validation.total))?;
        }
        for warning in &self.warnings {
            writeln!(f, "Warning: {warning}")?;
        }
        write!(f, "Digests: profiles {}, models {}", self.digests.profiles, self.digests.models)
    }
}
