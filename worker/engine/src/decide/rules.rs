//! What a pipeline says of its placements, compiled.

use millrace_crds::{
    names::REQUEST_ORDER,
    spec::{self, Mode, PipelineSpec},
};

use super::policy::{self, Policy, Rank};
use crate::{
    feature::Features,
    plan::{ExperimentPlan, ModelPlan, PlacementPlan},
};

/// A policy or placement that cannot be: the spec was not validated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("policy `{policy}`: {what}")]
    Policy { policy: String, what: String },
    #[error("placement `{placement}`: {what}")]
    Placement { placement: String, what: String },
}

/// Where a placement's candidates come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// All items that are available.
    Catalog,
    /// So many items that the request names, at most.
    Request(usize),
}

/// A placement, with its policies as indices among [`Rules::policies`].
#[derive(Clone, Debug)]
pub struct PlacementRules {
    pub name: String,
    pub source: Source,
    pub slots: usize,
    pub default: usize,
    /// Where no experiment says another.
    pub policy: usize,
    pub is_default_only: bool,
    /// What was bought within so many microseconds is not shown: of this ring of the row.
    pub bought: Option<(usize, i64)>,
    /// The experiment, by its index in the plan, and the policy of each of its variants.
    pub experiment: Option<(usize, Vec<usize>)>,
}

/// All policies and placements of a pipeline; placements in its order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub policies: Vec<Policy>,
    pub placements: Vec<PlacementRules>,
}

/// What is compiled already.
pub struct Compiled<'a> {
    pub features: &'a Features,
    pub models: &'a [ModelPlan],
    pub placements: &'a [PlacementPlan],
    pub experiments: &'a [ExperimentPlan],
}

impl Rules {
    /// # Errors
    /// Only for a spec that validation would have refused.
    pub fn compile(spec: &PipelineSpec, compiled: &Compiled<'_>) -> Result<Self, CompileError> {
        let policies = policy::compile(spec, compiled.models)?;
        let placement = |p: (&spec::Placement, &PlacementPlan)| placement(spec, compiled, &policies, p.0, p.1);
        let placements = spec.placements.iter().zip(compiled.placements).map(placement).collect::<Result<_, _>>()?;
        Ok(Self { placements, policies })
    }
}

fn placement(
    spec: &PipelineSpec,
    compiled: &Compiled<'_>,
    policies: &[Policy],
    placement: &spec::Placement,
    plan: &PlacementPlan,
) -> Result<PlacementRules, CompileError> {
    let refuse = |what: String| CompileError::Placement { placement: placement.name.clone(), what };
    let named = |name: &str| {
        let found = policies.iter().position(|policy| policy.name == name);
        found.ok_or_else(|| refuse(format!("policy `{name}` is not declared")))
    };
    let source = match (&placement.candidates.catalog, placement.candidates.from_request) {
        (Some(_), None) => Source::Catalog,
        (None, Some(most)) => Source::Request(most as usize),
        _ => return Err(refuse("candidates are either of the `catalog` or `fromRequest`".into())),
    };
    let default = named(&placement.default)?;
    if matches!(policies[default].rank, Rank::Score(_)) {
        return Err(refuse(format!(
            "its default `{}` ranks by models; use `rankBy` or {REQUEST_ORDER}",
            placement.default
        )));
    }
    let within = placement.exclude.bought_within.map(|span| span.as_micros());
    let ring = plan.bought.and_then(|event| compiled.features.bought_ring(event));
    let at_this = |(n, plan): (usize, &ExperimentPlan)| plan.is_at(&placement.name).then_some(n);
    let experiment = match compiled.experiments.iter().enumerate().find_map(at_this) {
        None => None,
        Some(n) => {
            let of_variants = spec.experiments[n].variants.values().map(|variant| named(&variant.policy));
            Some((n, of_variants.collect::<Result<Vec<_>, _>>()?))
        }
    };
    Ok(PlacementRules {
        name: placement.name.clone(),
        source,
        slots: placement.slots as usize,
        default,
        policy: placement.policy.as_deref().map(named).transpose()?.unwrap_or(default),
        is_default_only: placement.mode == Mode::Default,
        bought: ring.zip(within),
        experiment,
    })
}
