//! Starting a host: threads, and tasks for them: all of the pipeline's, claimed and restored at once, or those of a fleet as
//! they are told of later.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        mpsc::{Sender, SyncSender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_engine::{control::Configure, frame::Origin};
use millrace_lifecycle::placement::Member;

use super::{
    Host, HostError,
    beside::Directory,
    copies::{self, Shipping},
    deal::{Dealing, Dealt},
    desk::{Desk, Request},
    elsewhere::{self, Elsewhere},
    figures::Figures,
    fleet::Fleet,
    hands::{self, Errand, Tools},
    ingest::Shared,
    logs,
    mailbox::Mailbox,
    make::{Maker, outputs_of, tasks_of},
    owners::Owners,
    serving::Asked,
    station::{Cadence, Command, NewSeat, Station},
    thread::{Control, Ended, EngineThread},
    wake::Wake,
    writer::{self, Batch},
};
use crate::{
    configuration::Configuration,
    kafka::Fetcher,
    log::{Log, LogPartition},
    pipeline::Pipeline,
    source::partitions::Partition,
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

/// Written in a moment.
const RELEASE_AT_ONCE_BYTES: u64 = 8 << 20;

/// Until a frame is cut, if it is not full before; and how long a thread sleeps that has nothing to do.
const FLUSH_EVERY: Duration = Duration::from_millis(10);

/// What a host works on, and with.
pub struct Work {
    pub pipeline: Arc<Pipeline>,
    pub configuration: Configuration,
    /// Of each source.
    pub partitions: Vec<Vec<Partition>>,
    pub log: Arc<dyn Log>,
    /// Reads topics of others, if there are any.
    pub fetcher: Option<Arc<Fetcher>>,
    pub store: Arc<dyn Store>,
    /// Of a fleet; likewise the next.
    pub member: Option<Member>,
    pub elsewhere: Option<Elsewhere>,
    pub claimant: Claimant,
}

/// How tasks come to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// It claims all of the pipeline's tasks at the start.
    All,
    /// One of a fleet: those that it is told of ([`Fleet::obey`]).
    AsTold,
}

impl Work {
    fn maker(&self, shared: &Arc<Shared>, config: &HostConfig) -> Maker<'_> {
        Maker {
            pipeline: &self.pipeline,
            configuration: &self.configuration,
            partitions: &self.partitions,
            log: self.log.clone(),
            fetcher: self.fetcher.clone(),
            shared: shared.clone(),
            until_end: config.until_end,
            read_order: config.read_order,
        }
    }

    fn claim(&self, task: &TaskId) -> Result<(Owner, Option<Restored>), HostError> {
        let claimed = checkpoint::claim(self.store.as_ref(), task, &self.claimant);
        let claimed = claimed.map_err(|cause| HostError::Lineage { task: task.to_string(), cause })?;
        for problem in claimed.1.iter().flat_map(|restored| &restored.damaged) {
            tracing::warn!(%task, %problem, "went back to an earlier checkpoint");
        }
        Ok(claimed)
    }

    fn cadence(&self, config: &HostConfig) -> Cadence {
        let checkpoints = &self.pipeline.spec().checkpoints;
        Cadence {
            frame_bytes: config.frame_bytes,
            flush_every: FLUSH_EVERY,
            release_at_once_bytes: RELEASE_AT_ONCE_BYTES,
            checkpoint_every: Duration::from_micros(checkpoints.interval.as_micros().max(0) as u64),
            retain_ms: checkpoints.retain.as_micros() / 1000,
            generation: self.configuration.generation(),
            spec_digest: xxhash_rust::xxh3::xxh3_64(self.pipeline.validated.result_digest_text().as_bytes()),
        }
    }
}

impl Host {
    /// # Errors
    /// A task cannot be claimed or restored, a log not be written, or a thread not be started.
    pub fn start(mut work: Work, tasks: Tasks, config: &HostConfig) -> Result<Self, HostError> {
        let elsewhere = work.elsewhere.take();
        let shared = Shared::new(&work.partitions, config.max_rate);
        let maker = work.maker(&shared, config);
        let all = tasks_of(&work.pipeline, &work.partitions);
        let claim = |id: &TaskId| {
            let (owner, restored) = work.claim(id)?;
            Ok(NewSeat { made: maker.make(id, restored.as_ref())?, owner })
        };
        let claimed = match tasks {
            Tasks::All => all.iter().map(claim).collect::<Result<Vec<_>, HostError>>()?,
            Tasks::AsTold => Vec::new(),
        };
        drop(maker);
        let control = Arc::new(Control::default());
        let directory = Arc::new(Directory::new(&all, &work.pipeline.plan));
        let owners = Arc::new(Owners::new(work.pipeline.plan.partitions));
        let threads = config.threads.clamp(1, all.len().max(1));
        let (outputs, kinds) = outputs_of(&work.pipeline.plan, claimed.iter().flat_map(|seat| &seat.made.outputs));
        let cadence = work.cadence(config);
        let stations = (0..threads).map(|_| Station::new(outputs.clone(), &kinds, work.log.clone(), cadence)).collect();
        let (log, catch_up) = (work.log.as_ref(), control.catch_up.as_ref());
        let dealing = Dealing { log, directory: &directory, owners: &owners, catch_up };
        let mut dealt = dealing.deal(claimed, stations);
        let configure =
            Configure { generation: work.configuration.generation(), spec: work.configuration.spec.clone() };
        for dealt in &mut dealt {
            dealt.station.configure(TaskKind::Model, configure.clone());
            // In a fleet, those of others have to be told before.
            if tasks == Tasks::All {
                dealt.station.configure(TaskKind::Profile, configure.clone());
            }
        }
        let posted = Arc::new(if tasks == Tasks::AsTold { posted_in(&work) } else { Vec::new() });
        announce(dealt.iter_mut().map(|dealt| &mut dealt.station), log)?;
        Starting { work: Arc::new(work), tasks, config, shared, control, directory, owners, configure, posted }
            .run(dealt, elsewhere)
    }
}

/// Topics of what is posted, and the origins that they are read as. Tables hold no withdrawals.
fn posted_in(work: &Work) -> Vec<(Origin, LogPartition)> {
    let sources = work.pipeline.spec().sources.iter().zip(&work.partitions).enumerate();
    let posted = sources.filter(|(_, (source, _))| source.http.is_some() && !source.table);
    let topics = posted.flat_map(|(n, (source, partitions))| {
        partitions.iter().map(move |of| (of.origin(n), logs::http(&source.name, of.number)))
    });
    topics.collect()
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

/// A host whose threads do not run yet.
struct Starting<'a> {
    work: Arc<Work>,
    tasks: Tasks,
    config: &'a HostConfig,
    shared: Arc<Shared>,
    control: Arc<Control>,
    directory: Arc<Directory>,
    owners: Arc<Owners>,
    configure: Configure,
    posted: Arc<Vec<(Origin, LogPartition)>>,
}

/// The threads beside the engine threads, as those see them.
struct Helpers {
    writer: SyncSender<Batch>,
    hands: Sender<Errand>,
    mailboxes: Vec<Arc<Mailbox<Request>>>,
    shipping: Option<Arc<Shipping>>,
}

impl Starting<'_> {
    fn run(self, dealt: Vec<Dealt>, elsewhere: Option<Elsewhere>) -> Result<Host, HostError> {
        let wake = Arc::<Wake>::default();
        let (writer, writer_thread) = writer::start(self.work.log.clone(), wake.clone(), self.failed())
            .map_err(|_| cannot_start("log-writer"))?;
        let (hands, mut hand_threads) = hands::start(self.tools(wake.clone())).map_err(|_| cannot_start("hand"))?;
        let mailboxes: Vec<Arc<Mailbox<Request>>> = dealt.iter().map(|_| Arc::default()).collect();
        let shipping = self.models(&mailboxes, &mut hand_threads).map_err(|_| cannot_start("models-log"))?;
        if let Some(elsewhere) = elsewhere {
            let hearing = elsewhere::hear(elsewhere, self.origins(), self.shared.clone(), self.control.clone());
            hand_threads.push(hearing.map_err(|_| cannot_start("elsewhere"))?);
        }
        let helpers = Helpers { writer, hands, mailboxes, shipping };
        let figures: Vec<Arc<Figures>> = dealt.iter().map(|_| Arc::default()).collect();
        let (mut engines, mut boards) = (Vec::new(), Vec::new());
        for (number, dealt) in dealt.into_iter().enumerate() {
            let engine = self.engine(number, dealt, &helpers, figures[number].clone());
            boards.push(engine.board.clone());
            let awaits = engine.awaits.clone();
            let spawned = spawn(engine)?;
            helpers.mailboxes[number].belongs_to(spawned.thread().clone());
            wake.add(spawned.thread().clone(), awaits);
            engines.push(spawned);
        }
        Ok(Host {
            control: self.control,
            engines,
            writer: writer_thread,
            hands: hand_threads,
            fleet: Arc::new(Fleet {
                tasks: self.tasks,
                directory: self.directory,
                member: self.work.member.clone(),
                claimant: self.work.claimant.clone(),
                configure: self.configure,
                boards,
                mailboxes: helpers.mailboxes.clone(),
                unknown: Mutex::default(),
                revision: Mutex::default(),
            }),
            asked: Asked { mailboxes: helpers.mailboxes, owners: self.owners, figures },
            wake,
        })
    }

    /// Numbers of all origins, in their order.
    fn origins(&self) -> BTreeMap<Origin, usize> {
        let partitions = self.work.partitions.iter().enumerate();
        let origins = partitions.flat_map(|(source, of)| of.iter().map(move |partition| partition.origin(source)));
        origins.zip(0..).collect()
    }

    /// In a fleet: what carries what models have learned to the others, and here.
    fn models(
        &self,
        mailboxes: &[Arc<Mailbox<Request>>],
        threads: &mut Vec<JoinHandle<()>>,
    ) -> std::io::Result<Option<Arc<Shipping>>> {
        let plan = &self.work.pipeline.plan;
        if self.tasks == Tasks::All || !plan.serves() {
            return Ok(None);
        }
        let models: Vec<String> = plan.models.iter().map(|model| model.name.clone()).collect();
        let (shipping, appending) = Shipping::start(self.work.log.clone(), &models)?;
        threads.push(appending);
        let (log, control) = (self.work.log.clone(), self.control.clone());
        threads.push(copies::follow(log, &models, shipping.clone(), mailboxes.to_vec(), control)?);
        Ok(Some(shipping))
    }

    fn tools(&self, wake: Arc<Wake>) -> Tools {
        let (work, shared, config) = (self.work.clone(), self.shared.clone(), self.config.clone());
        Tools {
            store: self.work.store.clone(),
            log: self.work.log.clone(),
            make: Box::new(move |task, restored| work.maker(&shared, &config).make(task, restored)),
            wake,
            failed: Box::new(self.failed()),
        }
    }

    fn failed(&self) -> impl Fn() + Send + Sync + 'static {
        let control = self.control.clone();
        move || control.abandon()
    }

    fn engine(&self, number: usize, dealt: Dealt, helpers: &Helpers, figures: Arc<Figures>) -> EngineThread {
        let Helpers { writer, hands, mailboxes, shipping } = helpers;
        let (tell, news) = channel();
        EngineThread {
            number,
            is_of_a_fleet: self.tasks == Tasks::AsTold,
            station: dealt.station,
            beside: dealt.beside,
            directory: self.directory.clone(),
            posted: self.posted.clone(),
            owners: self.owners.clone(),
            board: Arc::new(dealt.board),
            log: self.work.log.clone(),
            writer: writer.clone(),
            hands: hands.clone(),
            awaits: Arc::default(),
            news,
            tell,
            // What was announced is durable.
            acknowledged: Arc::default(),
            backlog: VecDeque::new(),
            control: self.control.clone(),
            desk: Desk::new(
                mailboxes[number].clone(),
                mailboxes.clone(),
                figures,
                self.work.pipeline.plan.clone(),
                self.work.configuration.generation(),
                self.control.catch_up.clone(),
                shipping.clone(),
            ),
        }
    }
}

fn spawn(engine: EngineThread) -> Result<JoinHandle<Ended>, HostError> {
    let named = thread::Builder::new().name(format!("engine-{}", engine.number));
    named.spawn(move || engine.run()).map_err(|_| cannot_start("engine"))
}
