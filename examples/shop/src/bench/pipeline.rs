//! The real pipeline in virtual time: everything that a worker does with events and requests, in one thread, without
//! a clock, a disk or a network.
//!
//! decode -> ingest -> frames -> profile tasks -> examples -> model tasks -> serving copies -> decide -> the log again.

use std::sync::Arc;

use millrace_crds::{Problems, Validated};
use millrace_engine::{
    control::{self, Control},
    decide::{Answer, DecideError, Decider, Request, World},
    event::{Seq, Time, Value},
    example::Example,
    experiment::{ExperimentReport, Metric, Settings, VariantSums},
    frame::{
        Kind, Origin, Progress,
        outbox::{Handle, Outbox},
    },
    ingest::partition_of,
    learn::{ServingModel, serving::ServingError},
    model::{ModelError, ModelTask},
    order::OrderError,
    plan::{Plan, PlanError},
    privacy::{Key, Pseudonymizer},
    profile::{Profile, View},
};

use super::source::Source;
use crate::world::{Ask, catalog::sku};

/// The pipeline of the demo.
pub const PIPELINE: &str = include_str!("../../pipeline.yaml");

/// What should not happen in the shop.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("the shop's pipeline is wrong: {0}")]
    Spec(#[from] Problems),
    #[error("the shop's pipeline has no source `{0}` over HTTP")]
    Source(&'static str),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Serving(#[from] ServingError),
    #[error(transparent)]
    Decide(#[from] DecideError),
}

/// How long events lie before the profile tasks see them: about what a worker needs.
const READ_EVERY_MICROS: i64 = 10_000;
/// How often serving copies are brought up to date.
const PUBLISH_EVERY_MICROS: i64 = 500_000;
pub const EPOCH: u64 = 1;
const DRAIN: usize = 1 << 20;

/// One partition of the events log, and who appends to it besides ingest.
struct Partition {
    profile: Profile,
    examples: Handle,
    control: Handle,
    controls: u64,
    offset: u64,
}

pub struct Pipeline {
    spec: Validated,
    plan: Arc<Plan>,
    keys: Pseudonymizer,
    of_shop: Source,
    of_products: Source,
    /// Outputs: the events partitions, then dead letters.
    events: Outbox,
    partitions: Vec<Partition>,
    /// Outputs: the models' logs, then dead letters.
    examples: Outbox,
    models: Vec<ModelTask>,
    learned: Vec<u64>,
    serving: Vec<ServingModel>,
    decider: Decider,
    read_due: Time,
    publish_due: Time,
    decisions: u64,
}

impl Pipeline {
    /// `text`: of the pipeline. `salt`: tells runs apart by who is in which variant.
    pub fn new(text: &str, salt: u64) -> Result<Self, PipelineError> {
        let spec = millrace_crds::load(text)?;
        let plan = Arc::new(Plan::compile(spec.spec())?);
        let keys = Pseudonymizer::new(&Key::new("bench", (u128::from(salt) << 64 | 0x0d15_ea5e).to_le_bytes()));
        let count = plan.partitions as usize;
        let mut kinds = vec![Kind::Events; count];
        kinds.push(Kind::DeadLetters);
        let mut events = Outbox::new(1, &kinds);
        let mut open = |name| Source::open(name, &spec, &plan, &keys, &mut events);
        let (of_shop, of_products) = (open("events")?, open("products")?);
        let origins: Vec<Origin> = of_shop.origins().chain(of_products.origins()).collect();
        let mut kinds = vec![Kind::Examples; plan.models.len()];
        kinds.push(Kind::DeadLetters);
        let mut examples = Outbox::new(1, &kinds);
        let outputs: Vec<usize> = (0..=plan.models.len()).collect();
        let partition = |n: usize| Partition {
            profile: Profile::new(plan.clone(), &origins),
            examples: examples.register(Origin::of_profile(n as u32), EPOCH, Seq::START, &outputs),
            control: events.register(Origin::control(n as u32), EPOCH, Seq::START, &[n]),
            controls: 0,
            offset: 0,
        };
        Ok(Self {
            partitions: (0..count).map(partition).collect(),
            models: (0..plan.models.len()).map(|model| ModelTask::new(&plan, model)).collect(),
            learned: vec![0; plan.models.len()],
            serving: plan.serving_models(),
            decider: Decider::new(&plan),
            read_due: Time::MIN,
            publish_due: Time::MIN,
            decisions: 0,
            spec,
            plan,
            keys,
            of_shop,
            of_products,
            events,
            examples,
        })
    }

    /// A record of the events source, as it was received.
    pub fn event(&mut self, record: &str, now: Time) -> Result<(), PipelineError> {
        self.of_shop.receive(record, now, &mut self.events);
        self.pass(now)
    }

    /// A record of the products table, as it was received.
    pub fn product(&mut self, record: &str, now: Time) -> Result<(), PipelineError> {
        self.of_products.receive(record, now, &mut self.events);
        self.pass(now)
    }

    /// Time has passed: whoever is due takes in what is new.
    fn pass(&mut self, now: Time) -> Result<(), PipelineError> {
        if now >= self.read_due {
            self.read_due = now.plus(READ_EVERY_MICROS);
            self.read(|_, _, _| {})?;
        }
        if now >= self.publish_due {
            self.publish_due = now.plus(PUBLISH_EVERY_MICROS);
            for (model, serving) in self.models.iter_mut().zip(&mut self.serving) {
                serving.apply(&model.serving_delta())?;
            }
        }
        Ok(())
    }

    /// Everything that was appended goes its way to the models. `learned` gets the model's number, each example and what
    /// was predicted of it.
    pub fn read(&mut self, mut learned: impl FnMut(usize, &Example<'_>, f64)) -> Result<(), PipelineError> {
        for (n, partition) in self.partitions.iter_mut().enumerate() {
            let Some(frame) = self.events.cut(n) else { continue };
            partition.offset += 1;
            let out = &partition.examples;
            partition.profile.accept(partition.offset, &Arc::from(frame), &mut self.examples, out)?;
            while !partition.profile.drain(DRAIN, &mut self.examples, out)? {}
        }
        self.events.cut(self.partitions.len());
        for (n, model) in self.models.iter_mut().enumerate() {
            let Some(frame) = self.examples.cut(n) else { continue };
            self.learned[n] += 1;
            model.accept(self.learned[n], &Arc::from(frame))?;
            while !model.drain(DRAIN, |example, prediction| learned(n, example, prediction))? {}
        }
        self.examples.cut(self.models.len());
        Ok(())
    }

    /// Decides, and files the decision. The id is the caller's for impressions and clicks.
    pub fn decide(&mut self, ask: &Ask, now: Time, seed: u64) -> Result<(String, Answer), PipelineError> {
        self.pass(now)?;
        self.decisions += 1;
        let id = format!("d{:x}", self.decisions);
        let user = ask.customer.as_ref().map(|customer| self.keys.user_of(customer));
        let at = user.map_or(0, |user| partition_of(user, self.plan.partitions));
        let locale = self.plan.names.attribute("locale").map(|name| (name, Value::Text(ask.locale)));
        let ranking: Vec<String> = ask.ranking.iter().map(|id| sku(*id)).collect();
        let ranking: Vec<&str> = ranking.iter().map(String::as_str).collect();
        let request = Request {
            user,
            placement: 0,
            platform: ask.platform,
            session: self.keys.session_of(&ask.session),
            attributes: locale.as_slice(),
            candidates: &[],
            ranking: &ranking,
            slots: None,
            time: now,
            seed,
            decision: self.keys.decision_of(&id),
        };
        let partition = &mut self.partitions[at];
        let (view, catalog) = match user {
            Some(user) => partition.profile.view_and_catalog(user),
            None => (View::CLOSED, partition.profile.catalog()),
        };
        let world = World { plan: &self.plan, catalog, models: &self.serving };
        let mut answer = self.decider.decide(&world, &request, &view)?;
        if let Some(decision) = answer.record.take() {
            partition.controls += 1;
            let seq = control::seq(EPOCH, partition.controls);
            let control = Control::Decision(decision);
            self.events.record(&partition.control, 0, |records| control.write(records, seq));
            self.events.advance(&partition.control, seq, Progress::default());
        }
        Ok((id, answer))
    }

    /// The experiment as it stands.
    pub fn experiment(&self) -> Option<ExperimentReport> {
        let experiment = self.spec.spec().experiments.first()?;
        let mut sums = vec![VariantSums::default(); experiment.variants.len()];
        for partition in &self.partitions {
            let (_, of_partition) = partition.profile.experiments().next()?;
            for (sum, part) in sums.iter_mut().zip(of_partition) {
                sum.add(part).ok()?;
            }
        }
        let named = experiment.variants.iter().zip(sums);
        let arms: Vec<(&str, u32, VariantSums)> =
            named.map(|((name, variant), sums)| (name.as_str(), variant.weight, sums)).collect();
        let control = arms.iter().position(|(name, ..)| *name == experiment.control)?;
        Some(ExperimentReport::running(&Settings::default(), &arms, control, &[Metric::Ctr]))
    }

    pub fn models(&self) -> &[ModelTask] {
        &self.models
    }
}

#[cfg(test)]
mod tests;
