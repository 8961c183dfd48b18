//! A pipeline's generations: what its state began under, and what it is to go on under.

use std::sync::Arc;

use millrace_crds::spec::PipelineSpec;
use millrace_engine::{
    example::Schema,
    join::OutcomePlan,
    plan::{ConfigureError, FIRST_GENERATION, ModelPlan, Plan},
};

use crate::pipeline::Pipeline;

/// The pipeline as the state knows it: what it began with, and what it is to become.
#[derive(Clone)]
pub struct Configuration {
    /// Canonical text of the last one.
    pub spec: String,
    /// Of the others.
    earlier: Vec<String>,
    /// By generation; none is missing.
    plans: Vec<Arc<Plan>>,
}

/// How a source is read under a generation.
pub struct SourceOf {
    pub plan: Arc<Plan>,
    pub spec: PipelineSpec,
    /// Its place among the spec's sources.
    pub source: usize,
}

impl Configuration {
    /// `earlier`: canonical texts, the first generation's first; `last`: compiled from `spec`.
    ///
    /// # Errors
    /// This engine cannot compile an earlier one.
    pub fn new(spec: &str, earlier: &[&str], last: &Arc<Plan>) -> Result<Self, ConfigureError> {
        let compile =
            |(n, spec): (usize, &&str)| Plan::of_configuration(FIRST_GENERATION + n as u32, spec).map(Arc::new);
        let mut plans = earlier.iter().enumerate().map(compile).collect::<Result<Vec<_>, _>>()?;
        plans.push(last.clone());
        Ok(Self { spec: spec.to_owned(), earlier: earlier.iter().map(|&spec| spec.to_owned()).collect(), plans })
    }

    /// Of a pipeline that has no state yet.
    pub fn first_of(pipeline: &Pipeline) -> Self {
        let spec = pipeline.validated.result_digest_text().to_owned();
        Self { spec, earlier: Vec::new(), plans: vec![pipeline.plan.clone()] }
    }

    pub fn generation(&self) -> u32 {
        FIRST_GENERATION + self.plans.len() as u32 - 1
    }

    /// A source as a generation knows it; `None` if that does not have it.
    ///
    /// # Errors
    /// The generation is not known here, or this engine cannot read it.
    pub fn source(&self, generation: u32, name: &str) -> Result<Option<SourceOf>, ConfigureError> {
        let failed = |cause: String| ConfigureError { generation, cause };
        let n = generation.checked_sub(FIRST_GENERATION).map_or(usize::MAX, |n| n as usize);
        let Some(plan) = self.plans.get(n) else { return Err(failed("it is not known here yet".to_owned())) };
        let text = self.earlier.get(n).unwrap_or(&self.spec);
        let spec = millrace_crds::spec_of_result_digest_text(text).map_err(|error| failed(error.to_string()))?;
        let source = spec.sources.iter().position(|source| source.name == name);
        Ok(source.map(|source| SourceOf { plan: plan.clone(), spec, source }))
    }

    /// What logs and checkpoints that name no configuration are of.
    pub fn first(&self) -> &Arc<Plan> {
        &self.plans[0]
    }

    /// The columns of a model's examples with this schema id: as the profile task or as serving filled them in.
    pub fn schema(&self, model: &str, id: u64) -> Option<&Schema> {
        let models = self.plans.iter().rev().flat_map(|plan| &plan.models).filter(|m| m.name == model);
        models.flat_map(|m| [&m.served, &m.schema]).find(|schema| schema.id() == id)
    }

    /// What the last plan calls by a name that an earlier one used for something else. Labels of open impressions, weights
    /// and sums are kept by these names, so that would mix what does not belong together.
    pub fn other_meanings(&self) -> Vec<String> {
        let Some((last, earlier)) = self.plans.split_last() else { return Vec::new() };
        let is_other = |new: &OutcomePlan| {
            let same_name = earlier.iter().flat_map(|plan| &plan.outcomes).filter(|old| old.name == new.name);
            same_name.into_iter().any(|old| old != new)
        };
        let outcomes = last.outcomes.iter().filter(|new| is_other(new));
        let outcome_of = |plan: &Plan, model: &ModelPlan| plan.outcomes[model.outcome].name.clone();
        let is_of_another = |new: &&ModelPlan| {
            let old = |plan: &Arc<Plan>| plan.models.iter().find(|m| m.name == new.name).map(|m| outcome_of(plan, m));
            earlier.iter().filter_map(old).any(|old| old != outcome_of(last, new))
        };
        let models = last.models.iter().filter(is_of_another);
        let outcomes = outcomes.map(|outcome| format!("the meaning of outcome `{}`", outcome.name));
        outcomes.chain(models.map(|model| format!("the outcome of model `{}`", model.name))).collect()
    }

    /// The plan that a model began with, and its number there.
    pub fn beginning_of(&self, model: &str) -> Option<(&Plan, usize)> {
        self.plans.iter().find_map(|plan| Some((plan.as_ref(), plan.models.iter().position(|m| m.name == model)?)))
    }
}
