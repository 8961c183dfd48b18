//! The model task: the examples log of one model in, its weights, statistics and validation as state.
//!
//! A `Configure` acts when its frame has been read: examples that wait by then are learned by the model as it is afterwards.

mod schemas;

use std::sync::Arc;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::{Corrupt, Put, Reader},
    control::{Configure, Control, ControlError},
    event::Time,
    example::Example,
    frame::{Kind, Origin, OriginState},
    learn::{Model, SchemaMismatch, drift::watch::Alarm, serving::ServingDelta, validation::Prediction},
    order::{Merge, OrderError, OwnRecord},
    plan::{ConfigureError, FIRST_GENERATION, Plan},
};
use schemas::Schemas;

/// Why examples cannot be learned from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Schema(#[from] SchemaMismatch),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
}

/// One model, fed by all profile tasks.
pub struct ModelTask {
    name: String,
    /// Name of its outcome.
    outcome: String,
    merge: Merge,
    model: Model,
    schemas: Schemas,
    generation: u32,
    /// The last configuration, if there was another one than that of the start.
    configured: Option<String>,
    /// Since the last base, the model became another one.
    wants_base: bool,
    /// Examples below the merged watermark: of an events partition that was idle.
    late: u64,
    offset: u64,
}

const MERGE: u8 = 1;
const MODEL: u8 = 2;
const COUNTS: u8 = 3;
// Since version 2.
const CONFIG: u8 = 4;

impl ModelTask {
    pub fn new(plan: &Plan, model: usize) -> Self {
        let origins: Vec<Origin> = (0..plan.partitions).map(Origin::of_profile).collect();
        let merge = Merge::new(Kind::Examples, &origins);
        let of = &plan.models[model];
        let mut schemas = Schemas::default();
        schemas.add(of);
        Self {
            name: of.name.clone(),
            outcome: plan.outcomes[of.outcome].name.clone(),
            merge,
            model: of.fresh.clone(),
            schemas,
            generation: FIRST_GENERATION,
            configured: None,
            wants_base: false,
            late: 0,
            offset: 0,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
    /// Of the pipeline as it is by now.
    pub fn generation(&self) -> u32 {
        self.generation
    }
    /// The next checkpoint must be a base: changes would be of another model.
    pub fn wants_base(&self) -> bool {
        self.wants_base
    }

    pub fn model(&self) -> &Model {
        &self.model
    }
    /// What serving copies do not know of the model yet.
    pub fn serving_delta(&mut self) -> ServingDelta {
        self.model.serving_delta()
    }
    /// The next serving delta is to be full.
    pub fn ship_in_full(&mut self) {
        self.model.ship_in_full();
    }
    /// The alarms of drift since the last call.
    pub fn take_alarms(&mut self) -> Vec<Alarm> {
        self.model.take_alarms()
    }
    pub fn late(&self) -> u64 {
        self.late
    }
    pub fn watermark(&self) -> Time {
        self.merge.watermark()
    }
    pub fn waiting(&self) -> usize {
        self.merge.waiting()
    }
    pub fn state(&self) -> OriginState {
        self.merge.state()
    }
    /// Offset of the last log record that was applied.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes in the log record at `offset`; `drain` must have returned true before the next one.
    pub fn accept(&mut self, offset: u64, frame: &Arc<[u8]>) -> Result<(), ModelError> {
        self.offset = offset;
        let accepted = self.merge.accept(frame)?;
        self.late += accepted.late.len() as u64;
        self.control(&accepted.control)
    }

    /// What control records of the examples log say to the model.
    pub fn control(&mut self, records: &[OwnRecord]) -> Result<(), ModelError> {
        for record in records {
            if let (_, Control::Configure(configure)) = Control::read(&record.bytes)? {
                self.configure(configure)?;
            }
        }
        Ok(())
    }

    /// Learns one example, of this or an earlier generation.
    pub fn learn(&mut self, example: &Example<'_>) -> Result<f64, ModelError> {
        learn(&mut self.schemas, &mut self.model, example)
    }

    /// As serving would, without the position.
    pub fn predict(&mut self, example: &Example<'_>) -> Result<Prediction, ModelError> {
        let mapped = self.schemas.map(example)?;
        Ok(self.model.predict(mapped.as_ref().unwrap_or(example)))
    }

    /// Goes on with what was learned where it still means the same, see [`Model::take_over`]. A pipeline without this model
    /// changes nothing here, and an older generation neither.
    fn configure(&mut self, configure: Configure) -> Result<(), ConfigureError> {
        let Configure { generation, spec } = configure;
        if generation <= self.generation {
            return Ok(());
        }
        let plan = Plan::of_configuration(generation, &spec)?;
        let Some(of) = plan.models.iter().find(|m| m.name == self.name) else { return Ok(()) };
        let old = std::mem::replace(&mut self.model, of.fresh.clone());
        let outcome = &plan.outcomes[of.outcome].name;
        if *outcome == self.outcome {
            self.model.take_over(old);
        }
        self.outcome.clone_from(outcome);
        self.schemas.add(of);
        (self.generation, self.configured, self.wants_base) = (generation, Some(spec), true);
        Ok(())
    }

    /// Learns up to `budget` examples, each handed to `learned` with its prediction. True when none is ready.
    pub fn drain(&mut self, budget: usize, mut learned: impl FnMut(&Example<'_>, f64)) -> Result<bool, ModelError> {
        for _ in 0..budget {
            let Some(released) = self.merge.release() else { return Ok(true) };
            let example = Example::read(released.bytes)?;
            let prediction = learn(&mut self.schemas, &mut self.model, &example)?;
            learned(&example, prediction);
        }
        Ok(false)
    }

    pub fn digest(&mut self) -> u128 {
        self.model.digest()
    }

    /// Between drains only. Afterwards, changes are counted from here.
    pub fn checkpoint(&mut self, extent: Extent) -> Vec<u8> {
        let mut w = CheckpointWriter::new(TaskKind::Model, extent);
        w.section(MERGE, |out| self.merge.write(out));
        w.section(MODEL, |out| match extent {
            Extent::Base => self.model.encode_all(out),
            Extent::Changes => self.model.encode_changes(out),
        });
        w.section(COUNTS, |out| {
            out.put_u64(self.late);
            out.put_u64(self.offset);
        });
        w.section(CONFIG, |out| {
            out.put_u32(self.generation);
            out.put_str(self.configured.as_deref().unwrap_or_default());
            self.schemas.write(out);
        });
        self.model.mark_clean();
        self.wants_base &= extent == Extent::Changes;
        w.finish()
    }

    /// Restores from a base and the changes after it, in order.
    pub fn restore(plan: &Plan, model: usize, parts: &[&[u8]]) -> Result<Self, CheckpointError> {
        let mut task = Self::configured_by(parts, plan, model)?;
        for part in parts {
            let part = Checkpoint::read(part, TaskKind::Model)?;
            let body = part.section(MODEL)?;
            match part.extent {
                Extent::Base => task.model.load_all(body)?,
                Extent::Changes => task.model.apply_changes(body)?,
            }
            let r = &mut Reader::new(part.section(COUNTS)?);
            (task.late, task.offset) = (r.u64("late")?, r.u64("log offset")?);
            task.merge = Merge::read(Kind::Examples, &mut Reader::new(part.section(MERGE)?))?;
        }
        task.model.mark_clean();
        Ok(task)
    }

    /// Without anything, under the configuration of the base; changes never have another one.
    fn configured_by(parts: &[&[u8]], plan: &Plan, model: usize) -> Result<Self, CheckpointError> {
        let fresh = Self::new(plan, model);
        let Some(base) = parts.first() else { return Ok(fresh) };
        let base = Checkpoint::read(base, TaskKind::Model)?;
        if base.version == 1 {
            return Ok(fresh);
        }
        let r = &mut Reader::new(base.section(CONFIG)?);
        let (generation, spec) = (r.u32("generation")?, r.str("configuration")?);
        let corrupt = r.corrupt("configuration");
        let schemas = Schemas::read(r)?;
        if spec.is_empty() {
            return Ok(Self { generation, ..fresh });
        }
        let plan = Plan::of_configuration(generation, spec).map_err(|_| corrupt.clone())?;
        let model = plan.models.iter().position(|m| m.name == fresh.name).ok_or(corrupt)?;
        let mut task = Self { generation, configured: Some(spec.to_owned()), schemas, ..Self::new(&plan, model) };
        task.schemas.add(&plan.models[model]);
        Ok(task)
    }
}

fn learn(schemas: &mut Schemas, model: &mut Model, example: &Example<'_>) -> Result<f64, ModelError> {
    let mapped = schemas.map(example)?;
    Ok(model.learn(mapped.as_ref().unwrap_or(example))?)
}

#[cfg(test)]
mod tests;
