//! `millrace fleet`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use millrace_lifecycle::{
    keys::TaskId,
    placement::{Decision, Settings},
};
use serde_json::json;

use super::{CliError, Output, hosting::signalled, print};
use crate::{
    fleet::{
        LOOK_EVERY,
        control::{Control, WorkerAt},
        local::{Change, LocalWorker, Recipe},
        member::Common,
        registration,
    },
    host::{make::tasks_of, peers::Credentials},
    pipeline::Pipeline,
    progress,
};

#[derive(Args)]
pub struct FleetArgs {
    /// The pipeline's YAML file, with spec.kafka and spec.checkpoints.s3.
    pipeline: PathBuf,
    /// Workers, each a process.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Where the first worker answers the API; the others, at the ports after it. Default: ports that are free.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Engine threads of each worker.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// A worker that is silent for so long has lost its tasks to others.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    lost_after: u64,
    /// No standbys: a task of a worker that is lost is loaded elsewhere from its checkpoint.
    #[arg(long)]
    no_standbys: bool,
    /// Read at most so many records a second and worker.
    #[arg(long, value_name = "N", hide = true)]
    max_rate: Option<f64>,
}

/// Workers that start together are given tasks together.
const ALL_HEARD_WITHIN: Duration = Duration::from_secs(10);
const LONG_HELD: Duration = Duration::from_secs(5);

/// What goes on is told as it happens: text lines, or JSON lines.
struct Teller(Output);

impl Teller {
    fn tell(&self, kind: &str, text: &str) {
        let now = progress::time(crate::host::clock::now());
        match self.0 {
            Output::Text => print(format!("{now}  {text}")),
            Output::Json => print(json!({"formatVersion": 1, "time": now, "kind": kind, "text": text}).to_string()),
        }
    }
}

pub fn fleet(args: &FleetArgs, output: Output) -> Result<(), CliError> {
    let pipeline = Pipeline::load(&args.pipeline, &Default::default())?;
    let beside = args.pipeline.parent().unwrap_or(Path::new("."));
    let admin = pipeline.spec().serving.tokens.admin.as_ref();
    let token = admin.and_then(|token| token.file.as_ref()).map(|file| beside.join(file));
    if pipeline.spec().serving.tls.is_some() {
        let text = "spec.serving.tls: the workers of a local fleet talk to each other without TLS; leave it out here";
        return Err(CliError::Other(text.into()));
    }
    let common = Common::open(&pipeline, registration::Change::Register)?;
    let tasks: BTreeSet<TaskId> = tasks_of(&pipeline, &common.partitions).into_iter().collect();
    let settings = Settings {
        standbys: !args.no_standbys && args.workers > 1,
        lost_after_ms: args.lost_after * 1000,
        retry_after_ms: 10_000,
        ..Settings::new("local", u64::from(args.workers))
    };
    let identity = common.registration.identity.identity.clone();
    let generation = common.configuration.generation();
    let credentials = Credentials { token, authority: None };
    let mut control = Control::open(common.store.clone(), &identity, (tasks, generation), settings, credentials)?;
    // Whoever places tasks needs no connection to brokers.
    drop(common);
    let mut workers = start(args)?;
    let recipe = recipe(args)?;
    let stop = signalled()?;
    let teller = Teller(output);
    let (mut held, begun) = (BTreeMap::new(), Instant::now());
    while !stop.load(Ordering::Acquire) {
        let looked = Instant::now();
        workers.iter_mut().for_each(|worker| look(worker, &recipe, &teller));
        let at: Vec<WorkerAt> = workers.iter().filter_map(LocalWorker::at).collect();
        control.hear(&at)?;
        // The first to answer would get everything.
        if control.heard().len() == workers.len() || begun.elapsed() > ALL_HEARD_WITHIN {
            match control.place(&at) {
                Ok(decisions) => show(&decisions, &mut held, &teller),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "nothing is placed now; it is tried again")
                }
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(LOOK_EVERY.saturating_sub(looked.elapsed()));
    }
    end(workers, &teller)
}

fn start(args: &FleetArgs) -> Result<Vec<LocalWorker>, CliError> {
    let failed = |error: std::io::Error| CliError::Other(format!("no port of 127.0.0.1 is free: {error}"));
    let listen =
        |number: u16| args.listen.map(|first| SocketAddr::new(first.ip(), first.port().saturating_add(number)));
    (0..args.workers).map(|number| LocalWorker::new(usize::from(number), listen(number)).map_err(failed)).collect()
}

fn recipe(args: &FleetArgs) -> Result<Recipe, CliError> {
    let failed = |error: std::io::Error| CliError::Other(format!("this program's own file is not found: {error}"));
    let mut arguments = vec!["--threads".to_owned(), args.threads.to_string()];
    arguments.extend(args.max_rate.iter().flat_map(|rate| ["--max-rate".to_owned(), rate.to_string()]));
    Ok(Recipe { program: std::env::current_exe().map_err(failed)?, pipeline: args.pipeline.clone(), arguments })
}

fn look(worker: &mut LocalWorker, recipe: &Recipe, teller: &Teller) {
    let (shard, address) = (worker.shard.clone(), worker.address());
    match worker.look(recipe) {
        None => {}
        Some(Change::Started { pid }) => {
            teller.tell("started", &format!("{shard} starts as process {pid}: http://{address}/"));
        }
        Some(Change::Ended { status, again_in }) => {
            let text = format!("{shard} has ended ({status}); it starts again in {} s", again_in.as_secs_f64());
            teller.tell("ended", &text);
        }
        Some(Change::NotStarted { cause, again_in }) => {
            teller.tell("ended", &format!("{shard} cannot be started: {cause}; again in {} s", again_in.as_secs_f64()));
        }
    }
}

/// Since when something is held back, and whether that has been told.
type Held = BTreeMap<String, (Instant, bool)>;

/// What is held back is told once, if it is for longer than usual.
fn show(decisions: &[Decision], held: &mut Held, teller: &Teller) {
    let mut holds = Held::new();
    for decision in decisions {
        let text = decision.to_string();
        if !matches!(decision, Decision::Hold(_)) {
            teller.tell("decided", &text);
            continue;
        }
        let (since, is_told) = held.get(&held_for(&text)).copied().unwrap_or((Instant::now(), false));
        let is_long = since.elapsed() > LONG_HELD;
        if is_long && !is_told {
            teller.tell("held", &text);
        }
        holds.insert(held_for(&text), (since, is_told || is_long));
    }
    *held = holds;
}

/// Without its numbers, which change all the time.
fn held_for(text: &str) -> String {
    text.split(' ').filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

/// Until workers must have saved everything.
const LEAVE_WITHIN: Duration = Duration::from_secs(120);

fn end(mut workers: Vec<LocalWorker>, teller: &Teller) -> Result<(), CliError> {
    teller.tell("stopping", "the workers save everything and end");
    workers.iter_mut().for_each(LocalWorker::leave);
    let began = Instant::now();
    while workers.iter_mut().filter_map(|worker| (!worker.has_left()).then_some(())).count() > 0 {
        if began.elapsed() > LEAVE_WITHIN {
            return Err(CliError::Other(
                "some workers do not end; they go on until they have saved their tasks".into(),
            ));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
