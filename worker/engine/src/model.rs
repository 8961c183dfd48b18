//! The model task: the examples log of one model in, its weights, statistics and validation as state.

use std::sync::Arc;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::{Corrupt, Put, Reader},
    event::Time,
    example::Example,
    frame::{Kind, Origin, OriginState},
    learn::{
        Model, SchemaMismatch,
        serving::{ServingDelta, Standing},
    },
    order::{Merge, OrderError},
    plan::Plan,
};

/// Why examples cannot be learned from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Schema(#[from] SchemaMismatch),
}

/// One model, fed by all profile tasks.
pub struct ModelTask {
    merge: Merge,
    model: Model,
    /// Examples below the merged watermark: of an events partition that was idle.
    late: u64,
    offset: u64,
}

const MERGE: u8 = 1;
const MODEL: u8 = 2;
const COUNTS: u8 = 3;

impl ModelTask {
    pub fn new(plan: &Plan, model: usize) -> Self {
        let origins: Vec<Origin> = (0..plan.partitions).map(Origin::of_profile).collect();
        let merge = Merge::new(Kind::Examples, &origins);
        Self { merge, model: plan.models[model].fresh.clone(), late: 0, offset: 0 }
    }

    pub fn model(&self) -> &Model {
        &self.model
    }
    /// What serving copies do not know of the model yet.
    pub fn serving_delta(&mut self) -> ServingDelta {
        self.model.serving_delta(Standing::Trusted)
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
        self.late += self.merge.accept(frame)?.late.len() as u64;
        Ok(())
    }

    /// Learns up to `budget` examples, each handed to `learned` with its prediction. True when none is ready.
    pub fn drain(&mut self, budget: usize, mut learned: impl FnMut(&Example<'_>, f64)) -> Result<bool, ModelError> {
        for _ in 0..budget {
            let Some(released) = self.merge.release() else { return Ok(true) };
            let example = Example::read(released.bytes)?;
            let prediction = self.model.learn(&example)?;
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
        self.model.mark_clean();
        w.finish()
    }

    /// Restores from a base and the changes after it, in order.
    pub fn restore(plan: &Plan, model: usize, parts: &[&[u8]]) -> Result<Self, CheckpointError> {
        let mut task = Self::new(plan, model);
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
}
