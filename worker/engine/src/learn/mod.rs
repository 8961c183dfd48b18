//! The learning part of the model task: what happens to an example once it is its turn.
//!
//! Each example is read (`statistics`, as of its impression), hashed (`hashing`), predicted and scored (`validation`),
//! watched for leaks (`leak`) and for drift (`drift`), and only then learned (`ftrl`, `statistics`). The log-odds of a prediction are those of the
//! running base rate before the example plus the learned weights, so a new model predicts the base rate and never .5.
//! Instead of FTRL each item's clicks may be counted for itself (`beta`). What serving needs of it all goes in
//! deltas to copies (`serving`).
//!
//! An example of a variant that is not in `trainOn` is predicted and scored, and nothing else; a frozen model still
//! counts statistics, which are inputs like the profile's features, but learns no weight and no base rate.
//!
//! Everything is a function of the examples in order: libm for exp and log, a fixed order of sums, nothing fused.

use millrace_crds::{
    names::ALL,
    spec::{self, PipelineSpec},
};
use serde::Serialize;

use crate::{
    example::{Column, Example, ExampleHead, FeatureValue, Schema},
    learn::{
        beta::Beta,
        drift::{
            snapshot::Snapshot,
            watch::{Alarm, DriftReport, Seen, Watch, WatchSettings},
        },
        ftrl::{Entry, Ftrl},
        hashing::{Plan, Term},
        leak::LeakDetector,
        statistics::{Moment, Statistics},
        validation::{BaseRate, Prediction, Validation, ValidationSummary},
    },
};

pub mod beta;
pub mod drift;
pub mod ftrl;
mod hashing;
mod items;
mod leak;
mod migrate;
mod ranking;
pub mod serving;
mod state;
mod statistics;
#[cfg(test)]
mod tests;
pub mod validation;

pub use leak::LeakWarning;
pub use serving::{ServingDelta, ServingModel, Standing};

/// Most and least of [`spec::Ftrl::bits`].
pub const BITS: std::ops::RangeInclusive<u32> = 6..=26;

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
    #[error("learner.betaBernoulli is out of range: priorExamples above 0, halfLifeExamples from 1")]
    BetaSetting,
    #[error("model `{0}`: with betaBernoulli each item is for itself; features must be [item], without crosses")]
    BetaFeatures(String),
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
    pub frozen: bool,
    /// What serves: the model, or what it fell back to.
    pub standing: Standing,
    /// None: it is not watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftReport>,
}

/// A model's whole state, and the plan by which it learns.
#[derive(Clone, Debug)]
pub struct Model {
    /// Columns of the profile task: so many, and their schema's id.
    columns: usize,
    schema: u64,
    served_schema: Schema,
    served: u64,
    learner: Learner,
    /// Of plan and settings that a state must have been made with.
    layout: u64,
    /// Over all examples of the variants that it trains on.
    base: BaseRate,
    /// What predictions start from, where that is not `base`: with `halfLifeExamples`, or once an example was not learned or
    /// evidence was cut.
    intercept: Option<BaseRate>,
    statistics: Statistics,
    validation: Validation,
    leaks: LeakDetector,
    /// Of the contents of all examples, in order.
    contents: u128,
    /// Examples that were learned.
    learned: u64,
    frozen: bool,
    /// Variants whose examples are learned; none: all examples are.
    variants: Option<Vec<String>>,
    /// Examples scored when the last serving delta was made; none: there was none.
    shipped: Option<u64>,
    /// For drift, where the pipeline says what to do about it.
    watch: Option<Box<Watch>>,
    scratch: Scratch,
}

#[derive(Clone, Debug)]
enum Learner {
    Ftrl { plan: Plan, weights: Ftrl },
    Beta(Beta),
}

#[derive(Clone, Debug, Default)]
struct Scratch {
    values: Vec<FeatureValue>,
    moments: Vec<Moment>,
    terms: Vec<Term>,
    entries: Vec<Entry>,
    weights: Vec<f64>,
    bytes: Vec<u8>,
}

impl Model {
    /// A model that has seen nothing.
    pub fn compile(spec: &PipelineSpec, model: &spec::Model, schema: &Schema) -> Result<Self, CompileError> {
        let outcome = spec.outcomes.get(&model.outcome).ok_or_else(|| CompileError::Outcome(model.outcome.clone()))?;
        let own = hashing::own_statistics(spec, model);
        let statistics = Statistics::compile(spec, &own, outcome)?;
        let learner = Learner::compile(spec, model, schema, &own)?;
        let own = own.iter().map(|name| Column { name: (*name).to_owned() });
        let served_schema = Schema { columns: schema.columns.iter().cloned().chain(own).collect() };
        let half_life = match &learner {
            Learner::Ftrl { .. } => model.learner.ftrl.half_life_examples,
            Learner::Beta(_) => None,
        };
        let names = || served_schema.columns.iter().map(|column| column.name.clone()).collect();
        Ok(Self {
            columns: schema.columns.len(),
            schema: schema.id(),
            served: served_schema.id(),
            layout: state::layout(schema, &model.learner, &statistics),
            base: BaseRate::new(None),
            intercept: half_life.map(|half_life| BaseRate::new(Some(half_life))),
            validation: Validation::default(),
            leaks: LeakDetector::new(names()),
            watch: model.drift.as_ref().map(|drift| Box::new(Watch::new(WatchSettings::of(drift), names()))),
            contents: 0,
            learned: 0,
            frozen: model.frozen,
            variants: variants(model),
            shipped: None,
            scratch: Scratch::default(),
            served_schema,
            learner,
            statistics,
        })
    }

    /// The columns of the profile task, then the model's own statistics.
    pub fn served_schema(&self) -> &Schema {
        &self.served_schema
    }

    /// The place of a statistic per item among the model's own, if it has one of this name.
    pub fn item_statistic(&self, name: &str) -> Option<usize> {
        let mut own = self.served_schema.columns[self.columns..].iter().zip(self.statistics.per_item());
        own.position(|(column, per_item)| per_item && column.name == name)
    }

    /// Watched otherwise than its pipeline says.
    #[cfg(test)]
    fn watch_with(&mut self, settings: WatchSettings) {
        let columns = self.served_schema.columns.iter().map(|column| column.name.clone()).collect();
        self.watch = Some(Box::new(Watch::new(settings, columns)));
    }

    /// Examples that were scored.
    pub fn scored(&self) -> u64 {
        self.validation.examples()
    }

    /// Is the example of a variant that the model trains on? What others show is chosen by what the model does not know,
    /// so their examples neither teach it nor tell how good it is.
    pub fn trains_on(&self, head: &ExampleHead<'_>) -> bool {
        self.variants.as_ref().is_none_or(|variants| is_of(head.variant, variants))
    }

    /// Predicts and, if the model trains on the example's variant, scores and, unless it is frozen, learns. Returns the
    /// probability that was predicted. Examples must come in their order; their values are the profile's columns or those of
    /// [`Model::served_schema`], in which the model's own statistics are as of their decision.
    pub fn learn(&mut self, example: &Example<'_>) -> Result<f64, SchemaMismatch> {
        let head = &example.head;
        let values = example.values().len();
        let is_served = head.schema == self.served && values == self.served_schema.columns.len();
        if !is_served && (head.schema != self.schema || values != self.columns) {
            let (expected, columns) = (self.schema, self.columns);
            return Err(SchemaMismatch { expected, found: head.schema, columns, values });
        }
        let item = item_key(head.item);
        let prediction = self.score(example, item, head.position);
        if self.trains_on(head) {
            let base_loss = self.base.loss(head.label);
            self.validation.score(&prediction, base_loss, head.label, head.placement, head.position);
            self.leaks.learn(head.impression, &self.scratch.values, head.label);
            self.watch(head, item, &prediction);
            if !self.frozen {
                self.learn_from(head, item, prediction.probability);
            } else if self.intercept.is_none() {
                self.intercept = Some(self.base.clone());
            }
            self.base.learn(head.label);
            self.statistics.learn(head, item);
        }
        self.contents = state::chain(self.contents, example, &mut self.scratch.bytes);
        Ok(prediction.probability)
    }

    /// Watches for drift, and does what is to be done about it.
    fn watch(&mut self, head: &ExampleHead<'_>, item: u64, prediction: &Prediction) {
        let Some(mut watch) = self.watch.take() else { return };
        let previous = watch.previous().map(|previous| previous.predict(&self.scratch.entries, item));
        let orders = watch.see(&Seen {
            prediction,
            label: head.label,
            values: &self.scratch.values,
            time: head.time,
            is_frozen: self.frozen,
            weights: match &self.learner {
                Learner::Ftrl { weights, .. } => weights.len(),
                Learner::Beta(beta) => beta.items.len(),
            },
            previous_loss: previous.map_or(0.0, |previous| previous.loss(head.label)),
        });
        if orders.discount {
            self.discount();
        }
        if orders.other_weights {
            self.shipped = None;
        }
        if orders.copy {
            watch.keep(Snapshot::of(&self.learner, self.intercept().margin(), self.learned));
        }
        self.watch = Some(watch);
    }

    /// Cuts what was learned to a quarter of its evidence, so that what comes counts more.
    fn discount(&mut self) {
        match &mut self.learner {
            Learner::Ftrl { weights, .. } => weights.discount(),
            Learner::Beta(beta) => beta.discount(),
        }
        self.intercept.get_or_insert_with(|| self.base.clone()).discount();
    }

    /// What decisions are to make of it.
    pub fn standing(&self) -> Standing {
        self.watch.as_ref().map_or(Standing::Trusted, |watch| watch.standing())
    }

    /// The alarms of drift since the last call, or since the state was loaded.
    pub fn take_alarms(&mut self) -> Vec<Alarm> {
        self.watch.as_mut().map_or_else(Vec::new, |watch| watch.take_alarms())
    }

    fn learn_from(&mut self, head: &ExampleHead<'_>, item: u64, probability: f64) {
        self.learned += 1;
        match &mut self.learner {
            Learner::Ftrl { weights, .. } => {
                let derivative = probability - f64::from(u8::from(head.label));
                weights.learn(&self.scratch.entries, &self.scratch.weights, derivative);
            }
            Learner::Beta(beta) => beta.learn(item, head.label),
        }
        if let Some(intercept) = &mut self.intercept {
            intercept.learn(head.label);
        }
    }

    /// The prediction as serving would make it at `example.head.impression`: statistics as of then (or as the example
    /// brings them), position absent. Changes only scratch space. Values that are missing at the end of the example
    /// count as missing.
    pub fn predict(&mut self, example: &Example<'_>) -> Prediction {
        self.score(example, item_key(example.head.item), -1)
    }

    fn score(&mut self, example: &Example<'_>, item: u64, position: i32) -> Prediction {
        let base = self.intercept().margin();
        let Scratch { values, moments, terms, entries, weights: used, .. } = &mut self.scratch;
        values.clear();
        values.extend(example.values());
        if example.head.schema != self.served {
            values.resize(self.columns, FeatureValue::Missing);
            self.statistics.moments(example.head.impression, moments);
            let own = moments.iter().enumerate().map(|(n, moment)| self.statistics.value(n, moment, item));
            values.extend(own);
        }
        values.resize(self.served_schema.columns.len(), FeatureValue::Missing);
        let learned = match &self.learner {
            Learner::Ftrl { plan, weights } => {
                plan.features(values, position, terms, entries);
                weights.margin(entries, used)
            }
            Learner::Beta(beta) => beta.belief(item, Prediction::of(base, 0.0).probability).margin() - base,
        };
        Prediction::of(base, learned)
    }

    fn intercept(&self) -> &BaseRate {
        self.intercept.as_ref().unwrap_or(&self.base)
    }

    pub fn summary(&self) -> ModelSummary {
        ModelSummary {
            validation: self.validation.summary(),
            leaks: self.leaks.warnings(),
            frozen: self.frozen,
            standing: self.standing(),
            drift: self.watch.as_ref().map(|watch| watch.report()),
            items: self.statistics.items()
                + match &self.learner {
                    Learner::Ftrl { .. } => 0,
                    Learner::Beta(beta) => beta.items.len(),
                },
        }
    }
}

impl Learner {
    fn compile(spec: &PipelineSpec, model: &spec::Model, schema: &Schema, own: &[&str]) -> Result<Self, CompileError> {
        let Some(beta) = &model.learner.beta_bernoulli else {
            check(&model.learner.ftrl)?;
            let plan = Plan::compile(spec, model, schema, own)?;
            return Ok(Learner::Ftrl { plan, weights: Ftrl::new(&model.learner.ftrl) });
        };
        // Without a prior an item's first miss would make its probability 0, and the loss of its first click infinite.
        let above_zero = beta.prior_examples.is_finite() && beta.prior_examples > 0.0;
        if !above_zero || !beta.half_life_examples.is_none_or(|h| h.is_finite() && h >= 1.0) {
            return Err(CompileError::BetaSetting);
        }
        if model.features != ["item"] || !model.crosses.is_empty() {
            return Err(CompileError::BetaFeatures(model.name.clone()));
        }
        Ok(Learner::Beta(Beta::new(beta)))
    }
}

/// `All` alone: the examples of all variants, and those of none.
fn variants(model: &spec::Model) -> Option<Vec<String>> {
    let variants = match &model.train_on.as_ref()?.variants {
        spec::Names::One(name) => vec![name.clone()],
        spec::Names::Many(names) => names.clone(),
    };
    (variants != [ALL]).then_some(variants)
}

/// Is `experiment/variant` one of these variants? What was in no experiment is of none.
fn is_of(variant: &str, variants: &[String]) -> bool {
    variant.rsplit_once('/').is_some_and(|(_, name)| variants.iter().any(|v| v == name))
}

/// By which what is kept of an item is found.
pub fn item_key(item: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(item.as_bytes())
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
