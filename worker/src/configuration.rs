//! A pipeline's generations: what its state began under, and what it is to go on under.

use std::sync::Arc;

use millrace_engine::plan::{ConfigureError, FIRST_GENERATION, Plan};

use crate::pipeline::Pipeline;

/// The pipeline as the state knows it: what it began with, and what it is to become.
#[derive(Clone)]
pub struct Configuration {
    /// Canonical text of the last one.
    pub spec: String,
    /// By generation; none is missing.
    plans: Vec<Arc<Plan>>,
}

impl Configuration {
    /// `earlier`: canonical texts, the first generation's first; `last`: compiled from `spec`.
    ///
    /// # Errors
    /// This engine cannot compile an earlier one.
    pub fn new(spec: &str, earlier: &[String], last: &Arc<Plan>) -> Result<Self, ConfigureError> {
        let compile =
            |(n, spec): (usize, &String)| Plan::of_configuration(FIRST_GENERATION + n as u32, spec).map(Arc::new);
        let mut plans = earlier.iter().enumerate().map(compile).collect::<Result<Vec<_>, _>>()?;
        plans.push(last.clone());
        Ok(Self { spec: spec.to_owned(), plans })
    }

    /// Of a pipeline that has no state yet.
    pub fn first_of(pipeline: &Pipeline) -> Self {
        Self { spec: pipeline.validated.result_digest_text().to_owned(), plans: vec![pipeline.plan.clone()] }
    }

    pub fn generation(&self) -> u32 {
        FIRST_GENERATION + self.plans.len() as u32 - 1
    }

    /// What logs and checkpoints that name no configuration are of.
    pub fn first(&self) -> &Arc<Plan> {
        &self.plans[0]
    }

    pub fn plan(&self, generation: u32) -> Option<&Arc<Plan>> {
        self.plans.get(generation.checked_sub(FIRST_GENERATION)? as usize)
    }

    /// The plan that a model began with, and its number there.
    pub fn beginning_of(&self, model: &str) -> Option<(&Plan, usize)> {
        self.plans.iter().find_map(|plan| Some((plan.as_ref(), plan.models.iter().position(|m| m.name == model)?)))
    }
}
