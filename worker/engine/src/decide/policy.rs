//! Policies, compiled: what candidates are ranked by, and how slots are filled by it.

use std::collections::BTreeMap;

use millrace_crds::{
    names::{REQUEST, REQUEST_ORDER},
    spec::{self, PipelineSpec},
};

use super::{
    CompileError,
    slate::{Explore, Rule},
};
use crate::plan::ModelPlan;

/// What candidates are ranked by, highest first.
#[derive(Clone, Debug, PartialEq)]
pub enum Rank {
    /// The order in which the caller names the items; those not named come after all, as the candidates stand.
    Request,
    /// An item statistic of a model: its count or ratio; [`NO_EVIDENCE`] where there is none.
    Statistic { model: usize, statistic: usize },
    /// Models with their weights: the sum of weight times predicted probability.
    Score(Vec<(usize, f64)>),
}

/// Below every count and ratio.
pub const NO_EVIDENCE: f64 = -1.0;

/// One way to rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: String,
    pub rank: Rank,
    pub rule: Rule,
}

/// All policies of a pipeline, by name; the order of the request is among them.
pub fn compile(spec: &PipelineSpec, models: &[ModelPlan]) -> Result<Vec<Policy>, CompileError> {
    let mut policies = Vec::with_capacity(spec.policies.len() + 1);
    for (name, policy) in &spec.policies {
        let refuse = |what: String| CompileError::Policy { policy: name.clone(), what };
        let rank = rank(policy, models).map_err(refuse)?;
        let explore = explore(policy.explore.as_ref(), &rank, spec, models).map_err(refuse)?;
        let min_propensity = policy.min_propensity.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&min_propensity) {
            return Err(refuse("minPropensity is not within 0 and 1".into()));
        }
        policies.push(Policy { name: name.clone(), rank, rule: Rule { explore, min_propensity } });
    }
    policies.push(Policy { name: REQUEST_ORDER.into(), rank: Rank::Request, rule: Rule::BEST });
    Ok(policies)
}

fn rank(policy: &spec::Policy, models: &[ModelPlan]) -> Result<Rank, String> {
    match (policy.rank_by.as_deref(), policy.score.is_empty()) {
        (Some(REQUEST), true) => Ok(Rank::Request),
        (Some(feature), true) => {
            // Of several models that keep it the first.
            let of_model = |(model, plan): (usize, &ModelPlan)| Some((model, plan.fresh.item_statistic(feature)?));
            let found = models.iter().enumerate().find_map(of_model);
            let (model, statistic) = found.ok_or(format!("no model keeps a feature `{feature}` per item"))?;
            Ok(Rank::Statistic { model, statistic })
        }
        (None, false) => Ok(Rank::Score(score(&policy.score, models)?)),
        _ => Err("exactly one of `rankBy` and `score` is needed".into()),
    }
}

fn score(weights: &BTreeMap<String, f64>, models: &[ModelPlan]) -> Result<Vec<(usize, f64)>, String> {
    let one = |(name, weight): (&String, &f64)| {
        let model = models.iter().position(|model| model.name == *name);
        let model = model.ok_or(format!("model `{name}` is not declared"))?;
        if weight.is_finite() { Ok((model, *weight)) } else { Err(format!("the weight of `{name}` is no number")) }
    };
    weights.iter().map(one).collect()
}

fn explore(
    explore: Option<&spec::Explore>,
    rank: &Rank,
    spec: &PipelineSpec,
    models: &[ModelPlan],
) -> Result<Explore, String> {
    let Some(explore) = explore else { return Ok(Explore::Greedy) };
    match (&explore.epsilon_greedy, &explore.softmax, &explore.thompson) {
        (Some(spec::EpsilonGreedy { epsilon, slots }), None, None) if (0.0..=1.0).contains(epsilon) => {
            Ok(Explore::Epsilon { epsilon: *epsilon, last_slot_only: *slots == spec::ExploredSlots::Last })
        }
        (None, Some(spec::Softmax { temperature }), None) if temperature.is_finite() && *temperature > 0.0 => {
            Ok(Explore::Softmax { temperature: *temperature })
        }
        (None, None, Some(spec::Thompson { samples })) => {
            let has_beliefs = |name: &str| {
                spec.models.iter().any(|model| model.name == name && model.learner.beta_bernoulli.is_some())
            };
            match rank {
                Rank::Score(weights) if weights.iter().all(|(model, _)| has_beliefs(&models[*model].name)) => {
                    Ok(Explore::Thompson { samples: *samples as usize })
                }
                _ => Err("`thompson` needs a `score` of betaBernoulli models only".into()),
            }
        }
        _ => Err(
            "`explore` needs exactly one of epsilonGreedy (epsilon 0 to 1), softmax (temperature above 0), thompson"
                .into(),
        ),
    }
}
