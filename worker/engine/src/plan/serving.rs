//! What of placements and experiments concerns the profile task.

use millrace_crds::spec::{self, Impressions, Metric, PipelineSpec};

use super::PlanError;
use crate::{
    event::{EventType, Pseudonym},
    experiment::variant_of,
    feature::hidden::{bought_event, identity, salt},
    join::OutcomePlan,
    names::Names,
};

/// How long after a decision its impression may come where the placement does not say.
pub const EXPOSE_WITHIN_MICROS: i64 = 600_000_000;
const CLICK: &str = "click";
const ORDER: &str = "order";

/// A place where content is shown.
#[derive(Clone, Debug)]
pub struct PlacementPlan {
    pub name: String,
    /// How long after a decision its impression may come.
    pub expose_within_micros: i64,
    /// The decision itself is the impression.
    pub decision_is_impression: bool,
    /// The event whose items are not to be shown again.
    pub bought: Option<EventType>,
}

/// Variants compared on users, at some placements.
#[derive(Clone, Debug)]
pub struct ExperimentPlan {
    pub name: String,
    /// Names, in the order of the weights.
    pub variants: Vec<String>,
    /// Another one where sums kept so far would be of something else.
    pub(crate) identity: u64,
    salt: String,
    weights: Vec<u32>,
    placements: Vec<String>,
    /// Index of the outcome that counts as a click.
    pub click: Option<usize>,
    /// The event whose value is revenue.
    pub order: Option<EventType>,
}

impl ExperimentPlan {
    /// Index of the user's variant.
    pub fn variant_of(&self, user: Pseudonym) -> usize {
        variant_of(&self.salt, user, &self.weights)
    }
    pub fn is_at(&self, placement: &str) -> bool {
        self.placements.iter().any(|p| p == placement)
    }
}

fn event(names: &Names, name: &str) -> Result<EventType, PlanError> {
    names.event(name).ok_or_else(|| PlanError::Unknown { what: "event", name: name.to_owned() })
}

pub(super) fn placements(spec: &PipelineSpec, names: &Names) -> Result<Vec<PlacementPlan>, PlanError> {
    let placement = |p: &spec::Placement| {
        Ok(PlacementPlan {
            name: p.name.clone(),
            expose_within_micros: p.expose_within.map_or(EXPOSE_WITHIN_MICROS, |span| span.as_micros()),
            decision_is_impression: p.impressions == Impressions::Decision,
            bought: bought_event(p).map(|name| event(names, name)).transpose()?,
        })
    };
    spec.placements.iter().map(placement).collect()
}

/// Clicks and orders must be known where a metric needs them.
pub(super) fn experiments(
    spec: &PipelineSpec,
    names: &Names,
    outcomes: &[OutcomePlan],
) -> Result<Vec<ExperimentPlan>, PlanError> {
    let experiment = |e: &spec::Experiment| {
        let (click, order) = (e.click.as_deref().unwrap_or(CLICK), e.order.as_deref().unwrap_or(ORDER));
        let of_click = outcomes.iter().position(|o| o.name == click);
        if of_click.is_none() && e.metrics.contains(&Metric::Ctr) {
            return Err(PlanError::Unknown { what: "outcome", name: click.to_owned() });
        }
        let needs_order = e.metrics.iter().any(|m| *m != Metric::Ctr);
        Ok(ExperimentPlan {
            name: e.name.clone(),
            variants: e.variants.keys().cloned().collect(),
            weights: e.variants.values().map(|v| v.weight).collect(),
            identity: identity(e),
            salt: salt(e).to_owned(),
            placements: e.placements.clone(),
            click: of_click,
            order: if needs_order { Some(event(names, order)?) } else { names.event(order) },
        })
    };
    spec.experiments.iter().map(experiment).collect()
}
