//! Making tasks from their state, whoever owns them.

use std::{collections::VecDeque, ops::RangeInclusive, sync::Arc, time::Duration};

use millrace_crds::spec::Source;
use millrace_engine::{
    event::Seq,
    frame::{
        Kind, Origin,
        outbox::{Handle, Outbox},
        stored_checksum,
    },
    ingest::TablePlan,
    model::ModelTask,
    plan::Plan,
    profile::Profile,
};

use super::{
    HostError,
    ingest::{IngestTask, Place, ReadPlan, Reading, Saved, Shared},
    logs,
    station::Made,
    task::{Follow, Task},
};
use crate::{
    configuration::{Configuration, SourceOf},
    kafka::{Fetcher, TopicPartition},
    log::{Log, LogPartition, read_some},
    pipeline::Pipeline,
    source::partitions::{Location, Partition},
    store::{
        checkpoint::Restored,
        keys::{TaskId, TaskKind},
    },
};

/// What is needed to make any task of a pipeline.
pub struct Maker<'a> {
    pub pipeline: &'a Pipeline,
    pub configuration: &'a Configuration,
    /// Of each source.
    pub partitions: &'a [Vec<Partition>],
    pub log: Arc<dyn Log>,
    /// Reads topics of others, if there are any.
    pub fetcher: Option<Arc<Fetcher>>,
    pub shared: Arc<Shared>,
    /// Sources end where they end now, instead of being followed.
    pub until_end: bool,
    /// Seeds a random order of reading files, for tests.
    pub read_order: Option<u64>,
}

impl Maker<'_> {
    /// A task as it begins, or as its checkpoint left it.
    ///
    /// # Errors
    /// The state is not of this pipeline or log, or what the task reads is not there.
    pub fn make(&self, id: &TaskId, restored: Option<&Restored>) -> Result<Made, HostError> {
        let made = match id.kind {
            TaskKind::Ingest => {
                let of = |(_, (s, p)): &(usize, (usize, &Partition))| self.source_task(*s, p) == *id;
                let found = self.sources().enumerate().find(of);
                found.map(|(number, (source, partition))| self.source(id, number, source, partition, restored))
            }
            TaskKind::Profile => {
                let partition = (0..self.pipeline.plan.partitions).find(|p| profile_task(*p) == *id);
                partition.map(|partition| self.profile(id, partition, restored))
            }
            TaskKind::Model => {
                let model = self.pipeline.plan.models.iter().position(|model| model.name == id.name);
                model.map(|model| self.model(id, model, restored))
            }
        };
        made.unwrap_or_else(|| Err(HostError::NoTask { task: id.to_string() }))
    }

    /// Partitions of all sources, in the order of their origins on this host.
    fn sources(&self) -> impl Iterator<Item = (usize, &Partition)> {
        self.partitions.iter().enumerate().flat_map(|(source, partitions)| partitions.iter().map(move |p| (source, p)))
    }

    fn source_task(&self, source: usize, partition: &Partition) -> TaskId {
        ingest_task(&self.pipeline.spec().sources[source].name, partition.number)
    }

    fn source(
        &self,
        id: &TaskId,
        number: usize,
        source: usize,
        partition: &Partition,
        restored: Option<&Restored>,
    ) -> Result<Made, HostError> {
        let spec = &self.pipeline.spec().sources[source];
        let name = id.to_string();
        let (place, reads) = match &partition.location {
            Location::File(path) => (Place::File(path.clone()), None),
            Location::Topic { .. } => {
                let topic = logs::http(&spec.name, partition.number);
                (Place::Topic(self.log.clone(), topic.clone()), Some(topic))
            }
            Location::OfTopic { topic, partition, .. } => match &self.fetcher {
                Some(fetcher) => (Place::Kafka(fetcher.clone(), TopicPartition::new(topic, *partition)), None),
                None => return Err(HostError::NoCluster { source_name: spec.name.clone() }),
            },
            Location::Topics(_) => return Err(HostError::NoTask { task: name }),
        };
        let restore = |r: &Restored| {
            Saved::restore(r.deltas.last().unwrap_or(&r.base), r.checkpoint.position.generation)
                .map_err(|cause| HostError::Restore { task: name.clone(), cause })
        };
        let at = restored.map_or_else(|| Ok(Saved::beginning(partition.since)), restore)?;
        // A generation that its checkpoint names has to be known here.
        let until = self.configuration.generation().max(at.newest_generation());
        let mut readings = self.readings(&spec.name, partition, at.generation(&place)..=until)?;
        let Some(first) = readings.pop_front() else {
            return Err(HostError::NoTask { task: name });
        };
        let origin = partition.origin(source);
        let read_plan = ReadPlan {
            number,
            source_name: spec.name.clone(),
            place,
            origin,
            finite: self.until_end,
            read_order: self.read_order,
            idle_after: Duration::from_micros(spec.idle_after.map_or(30_000_000, |s| s.as_micros()) as u64),
        };
        let position = at.position.offset;
        let ingest = IngestTask::open(read_plan, first, readings, at, self.shared.clone())?;
        let events = (0..self.pipeline.plan.partitions).map(logs::events);
        Ok(Made {
            id: id.clone(),
            task: Task::Ingest(Box::new(ingest), name),
            origin: Some(origin),
            from: Seq::end_of(position),
            outputs: events.chain([logs::dead_letters()]).collect(),
            reads,
            saved_position: restored.map(|_| position + 1),
        })
    }

    /// How a partition of a source is read under each of these generations that has the source.
    fn readings(
        &self,
        source_name: &str,
        partition: &Partition,
        generations: RangeInclusive<u32>,
    ) -> Result<VecDeque<Reading>, HostError> {
        let max_skew = self.pipeline.validated.max_skew();
        let mut readings = VecDeque::new();
        for generation in generations {
            let Some(SourceOf { plan, mut spec, source }) = self.configuration.source(generation, source_name)? else {
                continue;
            };
            if let Location::OfTopic { topic, .. } = &partition.location {
                spec.sources[source] = spec.sources[source].of_topic(topic);
            }
            let (mut plan, decoder) = plan.ingest(&spec, source, max_skew, &self.pipeline.keys)?;
            plan.table = plan.table.map(|_| TablePlan { snapshot_bytes: partition.snapshot_bytes });
            readings.push_back(Reading { generation, plan, decoder });
        }
        Ok(readings)
    }

    /// Tells a living ingest task how its records are read under generations that it does not know yet. Only the simulator
    /// does so far: a run learns of a changed pipeline when it starts.
    ///
    /// # Errors
    /// A generation cannot be compiled, or the source has no header that will do.
    pub fn teach(&self, id: &TaskId, task: &mut Task) -> Result<(), HostError> {
        let found = self.sources().find(|(source, partition)| self.source_task(*source, partition) == *id);
        let (Task::Ingest(ingest, _), Some((source, partition))) = (task, found) else { return Ok(()) };
        let name = &self.pipeline.spec().sources[source].name;
        let unknown = ingest.knows_until() + 1..=self.configuration.generation();
        ingest.learn(self.readings(name, partition, unknown)?)
    }

    fn profile(&self, id: &TaskId, partition: u32, restored: Option<&Restored>) -> Result<Made, HostError> {
        let plan = self.configuration.first();
        let name = id.to_string();
        let reads = logs::events(partition);
        let (next, checksum) = follow_from(self.log.as_ref(), &reads, restored)?;
        let profile = match restored {
            None => Profile::new(plan.clone(), &initial_origins(self.partitions)),
            Some(r) => Profile::restore(plan.clone(), &parts(r))
                .map_err(|cause| HostError::Restore { task: name.clone(), cause })?,
        };
        let outputs = effects_of(&profile);
        Ok(Made {
            id: id.clone(),
            task: Task::Profile(Box::new(profile), Follow::from(reads.clone(), next, checksum), name),
            origin: Some(Origin::of_profile(partition)),
            from: Seq::end_of(next - 1),
            outputs,
            reads: Some(reads),
            saved_position: restored.map(|_| next),
        })
    }

    fn model(&self, id: &TaskId, model: usize, restored: Option<&Restored>) -> Result<Made, HostError> {
        let model_name = &self.pipeline.plan.models[model].name;
        let name = id.to_string();
        let reads = logs::examples(model_name);
        let (next, checksum) = follow_from(self.log.as_ref(), &reads, restored)?;
        let (plan, at) = self.configuration.beginning_of(model_name).unwrap_or((&self.pipeline.plan, model));
        let task = match restored {
            None => ModelTask::new(plan, at),
            Some(r) => ModelTask::restore(plan, at, &parts(r))
                .map_err(|cause| HostError::Restore { task: name.clone(), cause })?,
        };
        Ok(Made {
            id: id.clone(),
            task: Task::Model(Box::new(task), Follow::from(reads.clone(), next, checksum), name),
            origin: None,
            from: Seq::START,
            // Only what this host tells it.
            outputs: Vec::new(),
            reads: Some(reads),
            saved_position: restored.map(|_| next),
        })
    }
}

/// All tasks of a pipeline with these partitions of its sources: ingest, then profile, then model tasks.
pub fn tasks_of(pipeline: &Pipeline, partitions: &[Vec<Partition>]) -> Vec<TaskId> {
    let of = |(source, partitions): (&Source, &Vec<Partition>)| {
        partitions.iter().map(|partition| ingest_task(&source.name, partition.number)).collect::<Vec<_>>()
    };
    let sources = pipeline.spec().sources.iter().zip(partitions).flat_map(of);
    let profiles = (0..pipeline.plan.partitions).map(profile_task);
    let models = pipeline.plan.models.iter().map(|model| model_task(&model.name));
    sources.chain(profiles).chain(models).collect()
}

/// Origins that every merge waits for from the start.
pub fn initial_origins(partitions: &[Vec<Partition>]) -> Vec<Origin> {
    let of = |(source, files): (usize, &Vec<Partition>)| {
        files.iter().filter(|f| f.initial).map(move |f| f.origin(source)).collect::<Vec<_>>()
    };
    partitions.iter().enumerate().flat_map(of).collect()
}

pub fn ingest_task(source: &str, partition: u32) -> TaskId {
    TaskId::new(TaskKind::Ingest, format!("{source}-{partition}"))
}
pub fn profile_task(partition: u32) -> TaskId {
    TaskId::new(TaskKind::Profile, partition.to_string())
}
pub fn model_task(name: &str) -> TaskId {
    TaskId::new(TaskKind::Model, name)
}

/// A checkpoint's base and the changes after it.
pub fn parts(restored: &Restored) -> Vec<&[u8]> {
    std::iter::once(&restored.base).chain(&restored.deltas).map(Vec::as_slice).collect()
}

/// (offset of the next record, checksum of the one before it)
pub fn follow_from(
    log: &dyn Log,
    partition: &LogPartition,
    restored: Option<&Restored>,
) -> Result<(u64, u64), HostError> {
    let (start, end) = (log.start(partition)?, log.end(partition)?);
    let foreign = |why: String| HostError::ForeignLog { partition: partition.clone(), why };
    let Some(restored) = restored else {
        return if start > 1 {
            Err(foreign(format!("it begins at offset {start}, and there is no checkpoint up to there")))
        } else {
            Ok((1, 0))
        };
    };
    let position = &restored.checkpoint.position;
    let next = position.log_offset;
    if next > end {
        return Err(foreign(format!("it ends at offset {end}, the checkpoint stands at {next}")));
    }
    if next < start {
        return Err(foreign(format!("it begins at offset {start}, the checkpoint stands at {next}")));
    }
    if next > start {
        let before = read_some(log, partition, next - 1, 1)?;
        let found = before.first().map_or(0, |(_, bytes)| stored_checksum(bytes));
        if found != position.frame_checksum {
            return Err(foreign(format!("the record at offset {} is another one", next - 1)));
        }
    }
    Ok((next, position.frame_checksum))
}

/// What a profile task writes to, in the order in which it counts them.
pub fn effects_of(profile: &Profile) -> Vec<LogPartition> {
    let examples = profile.plan().models.iter().map(|model| logs::examples(&model.name));
    examples.chain([logs::dead_letters()]).collect()
}

/// The outputs of a profile task that has gone over to a pipeline with other models, perhaps. Logs that are new are added.
pub fn rewire(
    profile: &Profile,
    handle: &Handle,
    (origin, epoch): (Origin, u64),
    outputs: &mut Vec<LogPartition>,
    outbox: &mut Outbox,
) -> Handle {
    let output_of = |partition: LogPartition| {
        outputs.iter().position(|output| *output == partition).unwrap_or_else(|| {
            outputs.push(partition);
            outbox.add_output(Kind::Examples)
        })
    };
    let effects: Vec<usize> = effects_of(profile).into_iter().map(output_of).collect();
    outbox.rewire(handle, origin, epoch, &effects)
}

/// The log partitions that tasks write to, with what they hold. Models of an earlier generation are among them while some
/// profile task has not read up to the change.
pub fn outputs_of<'a>(plan: &Plan, of_tasks: impl Iterator<Item = &'a LogPartition>) -> (Vec<LogPartition>, Vec<Kind>) {
    let mut outputs: Vec<LogPartition> = (0..plan.partitions).map(logs::events).collect();
    let mut kinds = vec![Kind::Events; outputs.len()];
    outputs.push(logs::dead_letters());
    kinds.push(Kind::DeadLetters);
    let examples = plan.models.iter().map(|model| logs::examples(&model.name));
    for partition in examples.chain(of_tasks.cloned()) {
        if !outputs.contains(&partition) {
            outputs.push(partition);
            kinds.push(Kind::Examples);
        }
    }
    (outputs, kinds)
}
