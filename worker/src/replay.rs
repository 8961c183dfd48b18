//! Rebuilding state from the log: the proof that what is kept is what the log says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millrace_engine::{
    event::Seq,
    example::Example,
    frame::{
        Frame, Kind, Origin,
        coverage::{Admission, Coverage},
        outbox::{Handle, Outbox},
    },
    learn::validation::{BaseRate, Figures, Validation},
    model::{ModelError, ModelTask},
    order::{Merge, OwnRecord},
    plan::Plan,
    profile::Profile,
};
use serde::Serialize;

use crate::{
    configuration::Configuration,
    host::{
        HostError, logs,
        make::{effects_of, follow_from, initial_origins, model_task, parts, profile_task, rewire},
    },
    log::{Log, LogPartition, ReadError, read_some},
    pipeline::Pipeline,
    source::partitions::Partition,
    store::{
        Store,
        checkpoint::{self, Restored},
        keys::TaskId,
    },
};

/// Log records read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// One task, rebuilt.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuilt {
    pub task: String,
    /// `beginning`, or `checkpoint` where the log's beginning was trimmed.
    pub since: &'static str,
    /// Log offsets [from, to) that were replayed.
    pub from: u64,
    pub to: u64,
    pub kept: String,
    pub replayed: String,
    pub equal: bool,
    /// Profile tasks: examples that were emitted again, and how many of them the log holds alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<ExamplesCompared>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExamplesCompared {
    pub replayed: u64,
    pub in_log: u64,
    pub alike: u64,
}

/// What a replay works with.
pub struct Replay<'a> {
    pub pipeline: &'a Pipeline,
    pub configuration: &'a Configuration,
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub partitions: &'a [Vec<Partition>],
}

/// Reads records [from, to) of a log partition.
pub fn for_each_record(
    log: &dyn Log,
    partition: &LogPartition,
    mut from: u64,
    to: u64,
    mut each: impl FnMut(u64, Arc<[u8]>) -> Result<(), HostError>,
) -> Result<(), HostError> {
    while from < to {
        let records = read_some(log, partition, from, READ_BYTES)?;
        if records.is_empty() {
            return Err(ReadError::BeyondEnd { partition: partition.clone(), from: to, end: from }.into());
        }
        for (offset, bytes) in records {
            if offset >= to {
                return Ok(());
            }
            from = offset + 1;
            each(offset, Arc::from(bytes))?;
        }
    }
    Ok(())
}

impl Replay<'_> {
    fn plan(&self) -> &Arc<Plan> {
        &self.pipeline.plan
    }

    /// The plan that a model began with, and its number there.
    fn beginning_of(&self, model: usize) -> (&Plan, usize) {
        self.configuration.beginning_of(&self.plan().models[model].name).unwrap_or((self.plan(), model))
    }

    /// All profile tasks, then all models. `told` hears of each task as it begins.
    pub fn rebuild(&self, mut told: impl FnMut(&str)) -> Result<Vec<Rebuilt>, HostError> {
        let mut rebuilt = Vec::new();
        for partition in 0..self.plan().partitions {
            told(&format!("profile/{partition}"));
            rebuilt.extend(self.profile(partition)?);
        }
        for model in 0..self.plan().models.len() {
            told(&format!("model/{}", self.plan().models[model].name));
            rebuilt.extend(self.model(model)?);
        }
        Ok(rebuilt)
    }

    /// The newest checkpoint, and where to start so as to reach it: the log's beginning or the oldest checkpoint.
    fn ends(&self, task: &TaskId, log: &LogPartition) -> Result<Option<(Restored, Option<Restored>)>, HostError> {
        let failed = |cause| HostError::Lineage { task: task.to_string(), cause };
        let Some(newest) = checkpoint::newest(self.store.as_ref(), task).map_err(failed)? else { return Ok(None) };
        let trimmed = self.log.start(log)? > 1;
        let oldest = if trimmed { checkpoint::oldest(self.store.as_ref(), task).map_err(failed)? } else { None };
        Ok(Some((newest, oldest)))
    }

    fn profile(&self, partition: u32) -> Result<Option<Rebuilt>, HostError> {
        let (id, reads) = (profile_task(partition), logs::events(partition));
        let Some((kept, since)) = self.ends(&id, &reads)? else { return Ok(None) };
        let failed = |cause| HostError::Restore { task: id.to_string(), cause };
        let first = self.configuration.first();
        let restore = |r: &Restored| Profile::restore(first.clone(), &parts(r)).map_err(failed);
        let origins: Vec<Origin> = initial_origins(self.partitions);
        let mut profile = match &since {
            Some(since) => restore(since)?,
            None => Profile::new(first.clone(), &origins),
        };
        let (from, _) = follow_from(self.log.as_ref(), &reads, since.as_ref())?;
        let mut emitted = Emitted::new(&profile, partition, from);
        for_each_record(self.log.as_ref(), &reads, from, kept.checkpoint.position.log_offset, |offset, bytes| {
            let failed = |cause| HostError::order(&reads, offset, cause);
            let before = profile.generation();
            profile.accept(offset, &bytes, &mut emitted.outbox, &emitted.handle).map_err(failed)?;
            if profile.generation() != before {
                emitted.rewire(&profile);
            }
            loop {
                let drained = profile.drain(4096, &mut emitted.outbox, &emitted.handle).map_err(failed)?;
                emitted.gather();
                if drained {
                    return Ok(());
                }
            }
        })?;
        let mut kept_state = restore(&kept)?;
        let (kept_digest, replayed) = (hex(kept_state.digest()), hex(profile.digest()));
        let examples = if since.is_none() { Some(self.compare(partition, &emitted)?) } else { None };
        let alike = examples.as_ref().is_none_or(|e| e.alike == e.replayed.min(e.in_log));
        Ok(Some(Rebuilt {
            task: id.to_string(),
            since: if since.is_some() { "checkpoint" } else { "beginning" },
            from,
            to: kept.checkpoint.position.log_offset,
            equal: kept_digest == replayed && alike,
            kept: kept_digest,
            replayed,
            examples,
        }))
    }

    /// Are the examples of a profile task in the logs those that a replay emits, in the same order?
    fn compare(&self, partition: u32, emitted: &Emitted) -> Result<ExamplesCompared, HostError> {
        let mut compared = ExamplesCompared::default();
        for (reads, hashes) in emitted.outputs.iter().zip(&emitted.hashes) {
            if *reads == logs::dead_letters() || self.log.start(reads)? > 1 {
                continue;
            }
            let (mut coverage, mut n) = (Coverage::default(), 0usize);
            compared.replayed += hashes.len() as u64;
            for_each_record(self.log.as_ref(), reads, 1, self.log.end(reads)?, |_, bytes| {
                hash_records_of(&bytes, Origin::of_profile(partition), &mut coverage, |hash| {
                    compared.alike += u64::from(hashes.get(n) == Some(&hash));
                    n += 1;
                });
                Ok(())
            })?;
            compared.in_log += n as u64;
        }
        Ok(compared)
    }

    fn model(&self, model: usize) -> Result<Option<Rebuilt>, HostError> {
        let name = &self.plan().models[model].name;
        let (id, reads) = (model_task(name), logs::examples(name));
        let Some((kept, since)) = self.ends(&id, &reads)? else { return Ok(None) };
        let failed = |cause| HostError::Restore { task: id.to_string(), cause };
        let (plan, at) = self.beginning_of(model);
        let restore = |r: &Restored| ModelTask::restore(plan, at, &parts(r)).map_err(failed);
        let mut task = match &since {
            Some(since) => restore(since)?,
            None => ModelTask::new(plan, at),
        };
        let (from, _) = follow_from(self.log.as_ref(), &reads, since.as_ref())?;
        for_each_record(self.log.as_ref(), &reads, from, kept.checkpoint.position.log_offset, |offset, bytes| {
            let failed = |cause| HostError::model(&reads, offset, cause);
            task.accept(offset, &bytes).map_err(failed)?;
            while !task.drain(4096, |_, _| {}).map_err(failed)? {}
            Ok(())
        })?;
        let (kept_digest, replayed) = (hex(restore(&kept)?.digest()), hex(task.digest()));
        Ok(Some(Rebuilt {
            task: id.to_string(),
            since: if since.is_some() { "checkpoint" } else { "beginning" },
            from,
            to: kept.checkpoint.position.log_offset,
            equal: kept_digest == replayed,
            kept: kept_digest,
            replayed,
            examples: None,
        }))
    }

    /// The figures that serving would have had: each example is predicted by the model as it stood at the
    /// impression's time, that is, without the examples that were still open then, and without its position.
    pub fn as_served(&self) -> Result<BTreeMap<String, Figures>, HostError> {
        let model = |(n, plan): (usize, &millrace_engine::plan::ModelPlan)| Ok((plan.name.clone(), self.served(n)?));
        self.plan().models.iter().enumerate().map(model).collect()
    }

    fn served(&self, model: usize) -> Result<Figures, HostError> {
        let plan = &self.plan().models[model];
        let reads = logs::examples(&plan.name);
        let origins: Vec<Origin> = (0..self.plan().partitions).map(Origin::of_profile).collect();
        let start = self.log.start(&reads)?;
        if start > 1 {
            let why = format!("it begins at offset {start}, and what serving knew lies before");
            return Err(HostError::ForeignLog { partition: reads, why });
        }
        let (then, at) = self.beginning_of(model);
        let (mut merge, mut served) = (Merge::new(Kind::Examples, &origins), Served::new(ModelTask::new(then, at)));
        for_each_record(self.log.as_ref(), &reads, self.log.start(&reads)?, self.log.end(&reads)?, |offset, bytes| {
            let failed = |cause| HostError::order(&reads, offset, cause);
            let accepted = merge.accept(&bytes).map_err(failed)?;
            served.control(&accepted.control).map_err(|e| HostError::model(&reads, offset, e))?;
            while let Some(released) = merge.release() {
                served.next(released.bytes).map_err(|e| HostError::model(&reads, offset, e))?;
            }
            Ok(())
        })?;
        Ok(served.validation.summary().total)
    }
}

/// Predicts at the impression, learns at the example's time.
struct Served {
    task: ModelTask,
    base: BaseRate,
    validation: Validation,
    unlearned: VecDeque<Vec<u8>>,
}

impl Served {
    fn new(task: ModelTask) -> Self {
        Self { task, base: BaseRate::new(None), validation: Validation::default(), unlearned: VecDeque::new() }
    }

    /// What another configuration finds is learned under the one before.
    fn control(&mut self, records: &[OwnRecord]) -> Result<(), ModelError> {
        if !records.is_empty() {
            while let Some(first) = self.unlearned.pop_front() {
                self.learn(&first)?;
            }
        }
        self.task.control(records)
    }

    fn learn(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let example = Example::read(bytes)?;
        self.task.learn(&example)?;
        self.base.learn(example.head.label);
        Ok(())
    }

    /// Examples come in the order of their times which, since `within` is constant, is that of their impressions.
    fn next(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let example = Example::read(bytes)?;
        while let Some(first) = self.unlearned.front() {
            if Example::read(first)?.head.time > example.head.impression {
                break;
            }
            if let Some(first) = self.unlearned.pop_front() {
                self.learn(&first)?;
            }
        }
        let head = &example.head;
        if !self.task.model().trains_on(head) {
            return Ok(());
        }
        let prediction = self.task.predict(&example)?;
        self.validation.score(&prediction, self.base.loss(head.label), head.label, head.placement, head.position);
        self.unlearned.push_back(bytes.to_vec());
        Ok(())
    }
}

/// The effects of a profile task that is replayed, as hashes.
struct Emitted {
    outbox: Outbox,
    handle: Handle,
    origin: Origin,
    outputs: Vec<LogPartition>,
    /// By output.
    hashes: Vec<Vec<u64>>,
}

impl Emitted {
    fn new(profile: &Profile, partition: u32, from: u64) -> Self {
        let outputs = effects_of(profile);
        let mut outbox = Outbox::new(1, &vec![Kind::Examples; outputs.len()]);
        let origin = Origin::of_profile(partition);
        let all: Vec<usize> = (0..outputs.len()).collect();
        let handle = outbox.register(origin, 1, Seq::end_of(from - 1), &all);
        Self { outbox, handle, origin, hashes: vec![Vec::new(); outputs.len()], outputs }
    }

    /// The task has gone over to a pipeline that may have other models.
    fn rewire(&mut self, profile: &Profile) {
        self.handle = rewire(profile, &self.handle, (self.origin, 1), &mut self.outputs, &mut self.outbox);
        self.hashes.resize(self.outputs.len(), Vec::new());
    }

    fn gather(&mut self) {
        for (output, hashes) in self.hashes.iter_mut().enumerate() {
            if let Some(frame) = self.outbox.cut(output) {
                hash_records(&frame, |_, hash| hashes.push(hash));
            }
        }
    }
}

fn hex(digest: u128) -> String {
    format!("{digest:032x}")
}

fn hash_records(frame: &[u8], mut each: impl FnMut(Origin, u64)) {
    let Ok(frame) = Frame::read(frame, Kind::Examples) else { return };
    for section in frame.sections().flatten() {
        for record in section.records().flatten() {
            each(section.head.origin, xxhash_rust::xxh3::xxh3_64(record.bytes));
        }
    }
}

/// Records of one origin that its reader would apply.
fn hash_records_of(frame: &[u8], origin: Origin, coverage: &mut Coverage, mut each: impl FnMut(u64)) {
    let Ok(frame) = Frame::read(frame, Kind::Examples) else { return };
    for section in frame.sections().flatten().filter(|s| s.head.origin == origin) {
        let Ok(Admission::Above(applied)) = coverage.admit(&section.head) else { continue };
        for record in section.records().flatten().filter(|r| r.seq > applied) {
            each(xxhash_rust::xxh3::xxh3_64(record.bytes));
        }
    }
}
