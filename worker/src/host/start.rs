//! Starting a host: claim every task, restore it, give it a thread.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering, mpsc::channel},
    thread,
    time::Duration,
};

use millrace_engine::{
    control::Configure,
    event::Seq,
    frame::{
        Kind, Origin,
        outbox::{Handle, Outbox},
        stored_checksum,
    },
    ingest::TablePlan,
    model::ModelTask,
    profile::Profile,
};

use super::{
    Host, HostError,
    deal::Dealing,
    desk::{Desk, Request},
    figures::Figures,
    ingest::{IngestTask, Place, ReadPlan, Saved, Shared},
    logs,
    mailbox::Mailbox,
    serving::Asked,
    skew::{Pacer, Watermarks},
    station::{Cadence, Command, NewSeat, Station},
    store_thread,
    task::{Follow, Task},
    thread::{Control, EngineThread},
    writer,
};
use crate::{
    configuration::Configuration,
    log::{Log, LogPartition},
    pipeline::Pipeline,
    source::partitions::{Location, Partition},
    store::{
        Store,
        checkpoint::{self, Claimant, Owner, Restored},
        keys::{TaskId, TaskKind},
    },
};

/// What a run is told besides the pipeline.
#[derive(Clone, Debug)]
pub struct HostConfig {
    pub threads: usize,
    pub frame_bytes: usize,
    pub max_rate: Option<f64>,
    /// Sources end where they end now, instead of being followed.
    pub until_end: bool,
    /// Seeds a random order of reading files, for tests.
    pub read_order: Option<u64>,
}

/// Until a frame is cut, if it is not full before.
const FLUSH_EVERY: Duration = Duration::from_millis(5);

/// A task before it has a thread.
pub(super) struct Claimed {
    pub seat: NewSeat,
    /// Of a model task.
    pub model: Option<usize>,
}

struct Starter<'a> {
    pipeline: &'a Pipeline,
    configuration: &'a Configuration,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    claimant: &'a Claimant,
    partitions: &'a [Vec<Partition>],
}

impl Host {
    /// Claims all tasks of the pipeline and starts them. `partitions`: those of each source.
    pub fn start(
        pipeline: &Pipeline,
        configuration: &Configuration,
        partitions: &[Vec<Partition>],
        log: Arc<dyn Log>,
        store: Arc<dyn Store>,
        claimant: &Claimant,
        config: &HostConfig,
    ) -> Result<Self, HostError> {
        let starter = Starter { pipeline, configuration, log: log.clone(), store: store.clone(), claimant, partitions };
        let mut claimed = starter.sources(config)?;
        for p in 0..pipeline.plan.partitions {
            claimed.push(starter.profile(p)?);
        }
        for m in 0..pipeline.plan.models.len() {
            claimed.push(starter.model(m)?);
        }
        run(pipeline, configuration, log, store, claimed, config)
    }
}

/// Tells every log which origins are there now, all at once and before any record of theirs. Otherwise an origin that
/// ended in the run before, or is new, would hold nothing up until its own first frame, and come late.
fn announce<'a>(stations: impl Iterator<Item = &'a mut Station>, log: &dyn Log) -> Result<(), HostError> {
    let (mut appends, mut done) = (Vec::new(), Vec::new());
    for station in stations {
        station.flush();
        if let Some(Command::Append { ticket, appends: frames }) = station.command() {
            appends.extend(frames);
            done.push((station, ticket));
        }
    }
    if !appends.is_empty() {
        log.append(&appends)?;
    }
    for (station, ticket) in done {
        station.appended(ticket)?;
    }
    Ok(())
}

fn cannot_start(thread: &str) -> HostError {
    HostError::Thread(format!("{thread} (it could not be started)"))
}

impl Starter<'_> {
    fn claim(&self, task: &TaskId) -> Result<(Owner, Option<Restored>), HostError> {
        let claimed = checkpoint::claim(self.store.as_ref(), task, self.claimant);
        let claimed = claimed.map_err(|cause| HostError::Lineage { task: task.to_string(), cause })?;
        for problem in claimed.1.iter().flat_map(|restored| &restored.damaged) {
            tracing::warn!(%task, %problem, "went back to an earlier checkpoint");
        }
        Ok(claimed)
    }

    fn sources(&self, config: &HostConfig) -> Result<Vec<Claimed>, HostError> {
        let origins = self.partitions.iter().map(Vec::len).sum();
        let pacer = Pacer::new(config.max_rate);
        let shared = Arc::new(Shared { watermarks: Watermarks::new(origins), pacer });
        let mut claimed = Vec::new();
        for (source, partitions) in self.partitions.iter().enumerate() {
            for partition in partitions {
                claimed.push(self.source(source, partition, claimed.len(), &shared, config)?);
            }
        }
        Ok(claimed)
    }

    fn source(
        &self,
        source: usize,
        partition: &Partition,
        number: usize,
        shared: &Arc<Shared>,
        config: &HostConfig,
    ) -> Result<Claimed, HostError> {
        let spec = &self.pipeline.spec().sources[source];
        let id = ingest_task(&spec.name, partition.number);
        let name = id.to_string();
        let (place, reads) = match &partition.location {
            Location::File(path) => (Place::File(path.clone()), None),
            Location::Topic { .. } => {
                let topic = logs::http(&spec.name, partition.number);
                (Place::Topic(self.log.clone(), topic.clone()), Some(topic))
            }
        };
        let (owner, restored) = self.claim(&id)?;
        let at = restored.as_ref().map(|r| Saved::restore(r.deltas.last().unwrap_or(&r.base))).transpose();
        let at = at.map_err(|cause| HostError::Restore { task: name.clone(), cause })?;
        let max_skew = self.pipeline.validated.max_skew();
        let (mut plan, decoder) =
            self.pipeline.plan.ingest(self.pipeline.spec(), source, max_skew, &self.pipeline.keys)?;
        plan.table = plan.table.map(|_| TablePlan { snapshot_bytes: partition.snapshot_bytes });
        let origin = Origin::of_source(source, partition.number);
        let read_plan = ReadPlan {
            number,
            source_name: spec.name.clone(),
            place,
            origin,
            finite: config.until_end,
            read_order: config.read_order,
            idle_after: Duration::from_micros(spec.idle_after.map_or(30_000_000, |s| s.as_micros()) as u64),
        };
        let position = at.map_or(0, |at| at.position.offset);
        let ingest = IngestTask::open(read_plan, plan, decoder, at, shared.clone())?;
        let events = (0..self.pipeline.plan.partitions).map(logs::events);
        let seat = NewSeat {
            task: Task::Ingest(Box::new(ingest), name.clone()),
            id,
            owner,
            origin: Some(origin),
            from: Seq::end_of(position),
            outputs: events.chain([logs::dead_letters()]).collect(),
            reads,
            saved_position: at.map(|_| position + 1),
        };
        Ok(Claimed { seat, model: None })
    }

    fn profile(&self, partition: u32) -> Result<Claimed, HostError> {
        let plan = self.configuration.first();
        let id = profile_task(partition);
        let name = id.to_string();
        let reads = logs::events(partition);
        let (owner, restored) = self.claim(&id)?;
        let restored = restored.as_ref();
        let (next, checksum) = self.follow(&reads, restored)?;
        let profile = match restored {
            None => Profile::new(plan.clone(), &initial_origins(self.partitions)),
            Some(r) => Profile::restore(plan.clone(), &parts(r))
                .map_err(|cause| HostError::Restore { task: name.clone(), cause })?,
        };
        let follow = Follow::from(reads.clone(), next, checksum);
        let outputs = effects_of(&profile);
        let seat = NewSeat {
            task: Task::Profile(Box::new(profile), follow, name.clone()),
            id,
            owner,
            origin: Some(Origin::of_profile(partition)),
            from: Seq::end_of(next - 1),
            outputs,
            reads: Some(reads),
            saved_position: restored.map(|_| next),
        };
        Ok(Claimed { seat, model: None })
    }

    fn model(&self, model: usize) -> Result<Claimed, HostError> {
        let model_name = &self.pipeline.plan.models[model].name;
        let id = model_task(model_name);
        let name = id.to_string();
        let reads = logs::examples(model_name);
        let (owner, restored) = self.claim(&id)?;
        let restored = restored.as_ref();
        let (next, checksum) = self.follow(&reads, restored)?;
        let (plan, at) = self.configuration.beginning_of(model_name).unwrap_or((&self.pipeline.plan, model));
        let task = match restored {
            None => ModelTask::new(plan, at),
            Some(r) => ModelTask::restore(plan, at, &parts(r))
                .map_err(|cause| HostError::Restore { task: name.clone(), cause })?,
        };
        let follow = Follow::from(reads.clone(), next, checksum);
        let seat = NewSeat {
            task: Task::Model(Box::new(task), follow, name.clone()),
            id,
            owner,
            origin: None,
            from: Seq::START,
            // Only what this host tells it.
            outputs: Vec::new(),
            reads: Some(reads),
            saved_position: restored.map(|_| next),
        };
        Ok(Claimed { seat, model: Some(model) })
    }

    /// Where to go on in a log. It must be the one that the checkpoint was taken of.
    fn follow(&self, partition: &LogPartition, restored: Option<&Restored>) -> Result<(u64, u64), HostError> {
        follow_from(self.log.as_ref(), partition, restored)
    }
}

/// Origins that every merge waits for from the start.
pub fn initial_origins(partitions: &[Vec<Partition>]) -> Vec<Origin> {
    let of = |(source, files): (usize, &Vec<Partition>)| {
        files.iter().filter(|f| f.initial).map(move |f| Origin::of_source(source, f.number)).collect::<Vec<_>>()
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
        let before = log.read(partition, next - 1, 1)?;
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
fn outputs_of(pipeline: &Pipeline, claimed: &[Claimed]) -> (Vec<LogPartition>, Vec<Kind>) {
    let mut outputs: Vec<LogPartition> = (0..pipeline.plan.partitions).map(logs::events).collect();
    let mut kinds = vec![Kind::Events; outputs.len()];
    outputs.push(logs::dead_letters());
    kinds.push(Kind::DeadLetters);
    let examples = pipeline.plan.models.iter().map(|model| logs::examples(&model.name));
    for partition in examples.chain(claimed.iter().flat_map(|c| c.seat.outputs.iter().cloned())) {
        if !outputs.contains(&partition) {
            outputs.push(partition);
            kinds.push(Kind::Examples);
        }
    }
    (outputs, kinds)
}

fn run(
    pipeline: &Pipeline,
    configuration: &Configuration,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    claimed: Vec<Claimed>,
    config: &HostConfig,
) -> Result<Host, HostError> {
    let (outputs, kinds) = outputs_of(pipeline, &claimed);
    let control = Arc::new(Control::default());
    let threads = config.threads.clamp(1, claimed.len().max(1));
    let cadence = cadence(pipeline, configuration, config);
    let stations = (0..threads).map(|_| Station::new(outputs.clone(), &kinds, log.clone(), cadence)).collect();
    let dealing = Dealing { log: log.as_ref(), serves: pipeline.plan.serves(), catch_up: &control.catch_up };
    let mut dealt = dealing.deal(claimed, stations);
    let configure = Configure { generation: configuration.generation(), spec: configuration.spec.clone() };
    dealt.stations.iter_mut().for_each(|(station, _)| station.configure(&configure));
    announce(dealt.stations.iter_mut().map(|(station, _)| station), log.as_ref())?;

    let thread_list: Arc<Mutex<Vec<thread::Thread>>> = Arc::default();
    let wake: Arc<dyn Fn() + Send + Sync> = {
        let threads = thread_list.clone();
        Arc::new(move || {
            if let Ok(threads) = threads.lock() {
                threads.iter().for_each(thread::Thread::unpark);
            }
        })
    };
    let failed = {
        let control = control.clone();
        move || {
            control.abandoned.store(true, Ordering::Release);
            control.stop.store(true, Ordering::Release);
        }
    };
    let (writer, writer_thread) =
        writer::start(log.clone(), wake.clone(), failed).map_err(|_| cannot_start("log-writer"))?;
    let (errands, store_thread) =
        store_thread::start(store, log.clone(), wake.clone()).map_err(|_| cannot_start("store"))?;
    let mailboxes: Vec<Arc<Mailbox<Request>>> = (0..threads).map(|_| Arc::default()).collect();
    let figures: Vec<Arc<Figures>> = (0..threads).map(|_| Arc::default()).collect();
    let mut engines = Vec::new();
    for (number, (station, beside)) in dealt.stations.into_iter().enumerate() {
        let (reply, answers) = channel();
        let engine = EngineThread {
            station,
            beside,
            log: log.clone(),
            writer: writer.clone(),
            store: errands.clone(),
            answers,
            reply,
            // What was announced is durable.
            acknowledged: Arc::default(),
            backlog: VecDeque::new(),
            control: control.clone(),
            desk: Desk::new(
                mailboxes[number].clone(),
                mailboxes.clone(),
                figures[number].clone(),
                pipeline.plan.clone(),
                configure.generation,
                control.catch_up.clone(),
            ),
        };
        let spawned = thread::Builder::new().name(format!("engine-{number}")).spawn(move || engine.run());
        let spawned = spawned.map_err(|_| cannot_start("engine"))?;
        mailboxes[number].belongs_to(spawned.thread().clone());
        if let Ok(mut list) = thread_list.lock() {
            list.push(spawned.thread().clone());
        }
        engines.push(spawned);
    }
    Ok(Host {
        control,
        engines,
        writer: writer_thread,
        store: store_thread,
        statuses: dealt.statuses,
        done: dealt.done,
        asked: Asked { mailboxes, owners: dealt.owners, figures },
        wake,
    })
}

fn cadence(pipeline: &Pipeline, configuration: &Configuration, config: &HostConfig) -> Cadence {
    let checkpoints = &pipeline.spec().checkpoints;
    Cadence {
        frame_bytes: config.frame_bytes,
        flush_every: FLUSH_EVERY,
        checkpoint_every: Duration::from_micros(checkpoints.interval.as_micros().max(0) as u64),
        retain_ms: checkpoints.retain.as_micros() / 1000,
        generation: configuration.generation(),
        spec_digest: xxhash_rust::xxh3::xxh3_64(pipeline.validated.result_digest_text().as_bytes()),
    }
}
