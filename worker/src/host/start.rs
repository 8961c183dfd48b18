//! Starting a host: claim every task, restore it, give it a thread.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering, mpsc::channel},
    thread,
    time::Duration,
};

use millrace_engine::control::Configure;

use super::{
    Host, HostError,
    deal::Dealing,
    desk::{Desk, Request},
    figures::Figures,
    ingest::Shared,
    mailbox::Mailbox,
    make::{Maker, outputs_of},
    serving::Asked,
    station::{Cadence, Command, NewSeat, Station},
    store_thread,
    thread::{Control, EngineThread},
    writer,
};
use crate::{
    configuration::Configuration,
    log::Log,
    pipeline::Pipeline,
    source::partitions::Partition,
    store::{
        Store,
        checkpoint::{self, Claimant, Owner, Restored},
        keys::TaskId,
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
        let shared = Shared::new(partitions, config.max_rate);
        let (until_end, read_order) = (config.until_end, config.read_order);
        let maker = Maker { pipeline, configuration, partitions, log: log.clone(), shared, until_end, read_order };
        let claim = |id: TaskId| {
            let (owner, restored) = claim(store.as_ref(), &id, claimant)?;
            Ok(NewSeat { made: maker.make(&id, restored.as_ref())?, owner })
        };
        let claimed = maker.tasks().into_iter().map(claim).collect::<Result<_, HostError>>()?;
        run(pipeline, configuration, log, store, claimed, config)
    }
}

fn claim(store: &dyn Store, task: &TaskId, claimant: &Claimant) -> Result<(Owner, Option<Restored>), HostError> {
    let claimed = checkpoint::claim(store, task, claimant);
    let claimed = claimed.map_err(|cause| HostError::Lineage { task: task.to_string(), cause })?;
    for problem in claimed.1.iter().flat_map(|restored| &restored.damaged) {
        tracing::warn!(%task, %problem, "went back to an earlier checkpoint");
    }
    Ok(claimed)
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

fn run(
    pipeline: &Pipeline,
    configuration: &Configuration,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    claimed: Vec<NewSeat>,
    config: &HostConfig,
) -> Result<Host, HostError> {
    let (outputs, kinds) = outputs_of(&pipeline.plan, claimed.iter().flat_map(|seat| &seat.made.outputs));
    let control = Arc::new(Control::default());
    let threads = config.threads.clamp(1, claimed.len().max(1));
    let cadence = cadence(pipeline, configuration, config);
    let stations = (0..threads).map(|_| Station::new(outputs.clone(), &kinds, log.clone(), cadence)).collect();
    let serving = pipeline.plan.serves().then_some(pipeline.plan.models.as_slice());
    let dealing = Dealing { log: log.as_ref(), serving, catch_up: &control.catch_up };
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
