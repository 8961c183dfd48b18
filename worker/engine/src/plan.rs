//! A validated pipeline, compiled: every name resolved, every reader prepared. What the tasks share.

mod serving;

use millrace_crds::{
    scalar::Span,
    spec::{self, LatePolicy, PipelineSpec},
};

use crate::{
    decide,
    decode::{self, Decoder},
    event::{Event, EventType},
    example::Schema,
    feature::{self, Features, Projection},
    frame::Origin,
    ingest::{IngestPlan, TablePlan},
    join::{ExamplePlan, OutcomePlan},
    learn::{self, Model, ServingModel},
    names::{IMPRESSION, Names},
    privacy::Pseudonymizer,
};

pub use serving::{EXPOSE_WITHIN_MICROS, ExperimentPlan, PlacementPlan};

/// A name that does not resolve, or a definition that cannot be compiled: validation let it through.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{what} `{name}` is not known; run `millrace validate`")]
    Unknown { what: &'static str, name: String },
    #[error("at most {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error(transparent)]
    Feature(#[from] feature::CompileError),
    #[error(transparent)]
    Decoder(#[from] decode::CompileError),
    #[error(transparent)]
    Model(#[from] learn::CompileError),
    #[error(transparent)]
    Decide(#[from] decide::CompileError),
}

/// Of a pipeline as it was started first.
pub const FIRST_GENERATION: u32 = 1;

/// A configuration that living state cannot go over to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("generation {generation} of the pipeline cannot be taken over: {cause}")]
pub struct ConfigureError {
    pub generation: u32,
    pub cause: String,
}

/// One model's part.
pub struct ModelPlan {
    pub name: String,
    pub outcome: usize,
    pub schema: Schema,
    /// Of what serving fills in: the columns of `schema`, then the model's own statistics.
    pub served: Schema,
    pub projection: Projection,
    /// Without any example.
    pub fresh: Model,
}

/// Everything that tasks share. Compiled once; never changes.
pub struct Plan {
    pub names: Names,
    pub partitions: u32,
    pub features: Features,
    pub impression: Option<EventType>,
    pub consent_by_event: bool,
    pub outcomes: Vec<OutcomePlan>,
    pub models: Vec<ModelPlan>,
    /// The longest `dedupWithin` of the sources.
    pub dedupe_micros: i64,
    pub placements: Vec<PlacementPlan>,
    pub experiments: Vec<ExperimentPlan>,
    /// How decisions are made.
    pub rules: decide::Rules,
    /// The source that is the catalog.
    catalog: Option<usize>,
    late: Vec<LatePolicy>,
}

/// Outcomes are bits of a label.
const MAX_OUTCOMES: usize = 32;

impl Plan {
    /// # Errors
    /// Only for a spec that validation would have refused.
    pub fn compile(spec: &PipelineSpec) -> Result<Self, PlanError> {
        let names = Names::of(spec);
        let features = Features::compile(spec, &names)?;
        if spec.outcomes.len() > MAX_OUTCOMES {
            return Err(PlanError::TooMany { what: "outcomes", limit: MAX_OUTCOMES });
        }
        let outcome = |(name, o): (&String, &spec::Outcome)| {
            let event = names.event(&o.event);
            let event = event.ok_or(PlanError::Unknown { what: "event", name: o.event.clone() })?;
            Ok(OutcomePlan { name: name.clone(), event, join: o.join, within_micros: o.within.as_micros() })
        };
        let outcomes = spec.outcomes.iter().map(outcome).collect::<Result<Vec<_>, PlanError>>()?;
        let model = |m: &spec::Model| {
            let position = outcomes.iter().position(|o| o.name == m.outcome);
            let outcome = position.ok_or(PlanError::Unknown { what: "outcome", name: m.outcome.clone() })?;
            let (schema, projection) = (features.schema(spec, m), features.projection(spec, m, &names)?);
            let fresh = Model::compile(spec, m, &schema)?;
            let served = fresh.served_schema().clone();
            Ok(ModelPlan { name: m.name.clone(), outcome, schema, served, projection, fresh })
        };
        let models = spec.models.iter().map(model).collect::<Result<Vec<_>, PlanError>>()?;
        let windows = spec.sources.iter().filter_map(|s| s.event_id.as_ref()).map(|id| id.dedup_within.as_micros());
        let placements = serving::placements(spec, &names)?;
        let experiments = serving::experiments(spec, &names, &outcomes)?;
        let compiled = decide::Compiled {
            features: &features,
            models: &models,
            placements: &placements,
            experiments: &experiments,
        };
        let rules = decide::Rules::compile(spec, &compiled)?;
        Ok(Self {
            partitions: spec.partitions,
            impression: names.event(IMPRESSION),
            consent_by_event: spec.privacy.consent.event.is_some(),
            dedupe_micros: windows.max().unwrap_or(0),
            late: spec.sources.iter().map(|s| s.event_time.late).collect(),
            placements,
            experiments,
            rules,
            catalog: spec.catalog.as_ref().and_then(|c| spec.sources.iter().position(|s| s.name == c.source)),
            outcomes,
            models,
            features,
            names,
        })
    }

    /// The plan of a configuration, as a `Configure` or a checkpoint holds it.
    pub fn of_configuration(generation: u32, spec: &str) -> Result<Self, ConfigureError> {
        let failed = |cause: String| ConfigureError { generation, cause };
        let spec = millrace_crds::spec_of_result_digest_text(spec).map_err(|e| failed(e.to_string()))?;
        Self::compile(&spec).map_err(|e| failed(e.to_string()))
    }

    pub fn example_plans(&self) -> Vec<ExamplePlan> {
        let plan = |m: &ModelPlan| ExamplePlan {
            model: m.name.clone(),
            outcome: m.outcome,
            schema: m.schema.id(),
            columns: m.schema.columns.len(),
        };
        self.models.iter().map(plan).collect()
    }

    /// A serving copy of each model, which has seen nothing yet.
    pub fn serving_models(&self) -> Vec<ServingModel> {
        self.models.iter().map(|m| m.fresh.serving(m.projection.item_columns())).collect()
    }

    /// Are decisions asked for?
    pub fn serves(&self) -> bool {
        !self.placements.is_empty()
    }

    pub fn placement(&self, name: &str) -> Option<&PlacementPlan> {
        self.placements.iter().find(|p| p.name == name)
    }

    /// Does this impression show its items? Where decisions are the impressions, no other is.
    pub fn exposes(&self, origin: Origin, event: &Event<'_>) -> bool {
        let by_decision = self.placement(event.placement).is_some_and(|p| p.decision_is_impression);
        by_decision == origin.is_control()
    }

    pub fn has_catalog(&self) -> bool {
        self.catalog.is_some()
    }

    /// Are the records of this origin items of the catalog?
    pub fn is_catalog(&self, origin: Origin) -> bool {
        !origin.is_control() && self.catalog == Some(usize::from(origin.source))
    }

    /// The longest that an impression waits for an outcome.
    pub fn longest_within_micros(&self) -> i64 {
        self.outcomes.iter().map(|o| o.within_micros).max().unwrap_or(0)
    }

    /// Ids of what the models are served, with the number of columns.
    pub fn served_columns(&self) -> impl Iterator<Item = (u64, usize)> {
        self.models.iter().map(|m| (m.served.id(), m.served.columns.len()))
    }

    pub fn late_to_dead_letters(&self, origin: Origin) -> bool {
        self.late.get(usize::from(origin.source)).is_some_and(|late| *late == LatePolicy::DeadLetter)
    }

    /// How the partitions of a source are read.
    pub fn ingest(
        &self,
        spec: &PipelineSpec,
        source: usize,
        max_skew: Span,
        keys: &Pseudonymizer,
    ) -> Result<(IngestPlan, Decoder), PlanError> {
        let source = &spec.sources[source];
        let plan = IngestPlan {
            max_out_of_orderness_micros: source.event_time.max_out_of_orderness.as_micros(),
            max_skew_micros: max_skew.as_micros(),
            max_ahead_micros: source.max_ahead().map(Span::as_micros),
            late_to_dead_letters: source.event_time.late == LatePolicy::DeadLetter,
            partitions: self.partitions,
            table: source.table.then(TablePlan::default),
        };
        Ok((plan, Decoder::compile(spec, source, &self.names, keys.clone())?))
    }
}
