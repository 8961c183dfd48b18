//! The learning part of the model task: what happens to an example once it is its turn.
//!
//! Each example is read (`statistics`, as of its impression), hashed (`hashing`), predicted and scored (`validation`),
//! watched for leaks (`leak`), and only then learned (`ftrl`, `statistics`). The log-odds of a prediction are those of the
//! running base rate before the example plus the learned weights, so a new model predicts the base rate and never .5.
//!
//! Everything is a function of the examples in order: libm for exp and log, a fixed order of sums, nothing fused.

use millrace_crds::spec::{self, PipelineSpec};
use serde::Serialize;

use crate::{
    example::{Example, ExampleHead, FeatureValue, Schema},
    learn::{
        ftrl::{Entry, Ftrl},
        hashing::Plan,
        leak::LeakDetector,
        statistics::Statistics,
        validation::{BaseRate, Prediction, Validation, ValidationSummary},
    },
};

pub mod drift;
pub mod ftrl;
mod hashing;
mod items;
mod leak;
mod ranking;
mod state;
mod statistics;
#[cfg(test)]
mod tests;
pub mod validation;

pub use leak::LeakWarning;

/// Most and least of [`spec::Ftrl::bits`].
pub const BITS: std::ops::RangeInclusive<u32> = 6..=28;

/// Why a model's spec cannot be learned. Validation of the spec says the same earlier and with paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("outcome `{0}` is not declared")]
    Outcome(String),
    #[error("`{0}` is neither a column of the model's examples nor a feature per item or global")]
    Column(String),
    #[error("a cross is of two or three, not `{0}`")]
    Cross(String),
    #[error("`{feature}`: the model task counts only `impression` and its outcome's event `{event}` (count, ratio)")]
    Statistic { feature: String, event: String },
    #[error(
        "learner.ftrl.{0} is out of range: bits 6 to 28, alpha above 0, beta, l1 and l2 from 0, halfLifeExamples from 1"
    )]
    Setting(&'static str),
}

/// The example was written for other columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an example of schema {found:016x} with {values} values for a model of schema {expected:016x} with {columns}")]
pub struct SchemaMismatch {
    pub expected: u64,
    pub found: u64,
    pub columns: usize,
    pub values: usize,
}

/// What a model has learned from and how well it predicts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSummary {
    #[serde(flatten)]
    pub validation: ValidationSummary,
    pub leaks: Vec<LeakWarning>,
    /// Items whose statistics are kept.
    pub items: usize,
}

/// A model's whole state, and the plan by which it learns.
#[derive(Clone, Debug)]
pub struct Model {
    schema: u64,
    columns: usize,
    plan: Plan,
    /// Of plan and settings that a state must have been made with.
    layout: u64,
    weights: Ftrl,
    /// Over all examples.
    base: BaseRate,
    /// With `halfLifeExamples`: what the predictions start from.
    recent_base: Option<BaseRate>,
    statistics: Statistics,
    validation: Validation,
    leaks: LeakDetector,
    /// Of the contents of all examples, in order.
    contents: u128,
    scratch: Scratch,
}

#[derive(Clone, Debug, Default)]
struct Scratch {
    values: Vec<FeatureValue>,
    entries: Vec<Entry>,
    weights: Vec<f64>,
    bytes: Vec<u8>,
}

impl Model {
    /// A model that has seen nothing.
    pub fn compile(spec: &PipelineSpec, model: &spec::Model, schema: &Schema) -> Result<Self, CompileError> {
        let outcome = spec.outcomes.get(&model.outcome).ok_or_else(|| CompileError::Outcome(model.outcome.clone()))?;
        let settings = &model.learner.ftrl;
        check(settings)?;
        let own = hashing::own_statistics(spec, model);
        let statistics = Statistics::compile(spec, &own, outcome)?;
        let plan = Plan::compile(spec, model, schema, &own)?;
        let names = schema.columns.iter().map(|c| c.name.clone()).chain(own.iter().map(|&name| name.to_owned()));
        Ok(Self {
            schema: schema.id(),
            columns: schema.columns.len(),
            layout: state::layout(schema, settings, &statistics),
            weights: Ftrl::new(settings),
            base: BaseRate::new(None),
            recent_base: settings.half_life_examples.map(|half_life| BaseRate::new(Some(half_life))),
            statistics,
            validation: Validation::default(),
            leaks: LeakDetector::new(names.collect()),
            contents: 0,
            scratch: Scratch::default(),
            plan,
        })
    }

    /// Predicts, scores, then learns. Returns the probability that was predicted. Examples must come in their order.
    pub fn learn(&mut self, example: &Example<'_>) -> Result<f64, SchemaMismatch> {
        let head = &example.head;
        let values = example.values().len();
        if head.schema != self.schema || values != self.columns {
            let (expected, columns) = (self.schema, self.columns);
            return Err(SchemaMismatch { expected, found: head.schema, columns, values });
        }
        let item = item_key(head);
        let prediction = self.score(example, item, head.position);
        let base_loss = self.base.loss(head.label);
        self.validation.score(&prediction, base_loss, head.label, head.placement, head.position);
        self.leaks.learn(head.impression, &self.scratch.values, head.label);
        let derivative = prediction.probability - f64::from(u8::from(head.label));
        self.weights.learn(&self.scratch.entries, &self.scratch.weights, derivative);
        self.base.learn(head.label);
        if let Some(recent) = &mut self.recent_base {
            recent.learn(head.label);
        }
        self.statistics.learn(head, item);
        self.contents = state::chain(self.contents, example, &mut self.scratch.bytes);
        Ok(prediction.probability)
    }

    /// The prediction as serving would make it at `example.head.impression`: statistics as of then, position
    /// absent. Changes only scratch space. Values that are missing at the end of the example count as missing.
    pub fn predict(&mut self, example: &Example<'_>) -> Prediction {
        self.score(example, item_key(&example.head), -1)
    }

    fn score(&mut self, example: &Example<'_>, item: u64, position: i32) -> Prediction {
        let scratch = &mut self.scratch;
        scratch.values.clear();
        scratch.values.extend(example.values());
        scratch.values.resize(self.columns, FeatureValue::Missing);
        self.statistics.read(&example.head, item, &mut scratch.values);
        self.plan.features(&scratch.values, position, &mut scratch.entries);
        let learned = self.weights.margin(&scratch.entries, &mut scratch.weights);
        Prediction::of(self.recent_base.as_ref().unwrap_or(&self.base).margin(), learned)
    }

    pub fn summary(&self) -> ModelSummary {
        ModelSummary {
            validation: self.validation.summary(),
            leaks: self.leaks.warnings(),
            items: self.statistics.items(),
        }
    }
}

fn item_key(head: &ExampleHead<'_>) -> u64 {
    xxhash_rust::xxh3::xxh3_64(head.item.as_bytes())
}

fn check(settings: &spec::Ftrl) -> Result<(), CompileError> {
    let from_zero = |x: f64| x.is_finite() && x >= 0.0;
    let checks = [
        ("bits", BITS.contains(&settings.bits)),
        ("alpha", settings.alpha.is_finite() && settings.alpha > 0.0),
        // Without either, a coordinate without evidence would have no curvature to divide by.
        ("beta", from_zero(settings.beta) && settings.beta + settings.l2 > 0.0),
        ("l1", from_zero(settings.l1)),
        ("l2", from_zero(settings.l2)),
        ("halfLifeExamples", settings.half_life_examples.is_none_or(|h| h.is_finite() && h >= 1.0)),
    ];
    checks.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(name, _)| Err(CompileError::Setting(name)))
}
