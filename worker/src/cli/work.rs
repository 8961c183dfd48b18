//! `millrace work`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use millrace_lifecycle::placement::Member;

use super::{
    CliError, Output,
    hosting::{Hosting, signalled},
    print,
};
use crate::{
    fleet::{
        member::{Common, drawn},
        registration::Change,
    },
    host::{
        Host, HostConfig, Tasks,
        peers::{Credentials, Peers},
    },
    pipeline::Pipeline,
    serve::{Prepared, PreparedPages, Timeouts, orders},
};

#[derive(Args)]
pub struct WorkArgs {
    /// The pipeline's YAML file, with spec.kafka and spec.checkpoints.s3.
    pipeline: PathBuf,
    /// Which worker of the fleet this is. It keeps the name when it starts again.
    #[arg(long, env = "MILLRACE_SHARD", value_name = "NAME")]
    shard: String,
    /// Differs whenever the worker is another one under the same name (in a cluster: the pod's UID). Default: drawn.
    #[arg(long, env = "MILLRACE_INCARNATION", value_name = "ID")]
    incarnation: Option<String>,
    /// Answer the API, orders among it, and serve the page there.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Serve /metrics, /healthz and /readyz there as well, open to all.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,
    /// Orders to begin with, as `PUT /v1/orders` takes them. For fleets whose tasks are placed by hand.
    #[arg(long, value_name = "FILE")]
    orders: Option<PathBuf>,
    /// Certificates by which other workers are trusted, in PEM, where their addresses are https.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Engine threads. Default: one for each core. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Save everything and end once standard input is closed: whoever started this worker has ended.
    #[arg(long, hide = true)]
    leave_with_input: bool,
    /// Read at most so many records a second.
    #[arg(long, value_name = "N", hide = true, value_parser = super::run::parse_rate)]
    max_rate: Option<f64>,
}

/// As the log's frames are cut unless `millrace run` is told otherwise.
const FRAME_BYTES: usize = 65_536;

pub fn work(args: &WorkArgs, output: Output) -> Result<(), CliError> {
    let pipeline = Arc::new(Pipeline::load(&args.pipeline, &Default::default())?);
    let beside = args.pipeline.parent().unwrap_or(Path::new("."));
    let serving = &pipeline.spec().serving;
    let api = Prepared::new(serving, beside, args.listen, Timeouts::default())?;
    let pages = args.metrics_address.map(PreparedPages::new).transpose()?;
    let told = args.orders.as_deref().map(read_orders).transpose()?;
    let token = serving.tokens.admin.as_ref().and_then(|token| token.file.as_ref()).map(|file| beside.join(file));
    let peers = Peers::new(Credentials { token, authority: args.ca_file.clone() });
    let incarnation = args.incarnation.clone().unwrap_or_else(|| format!("{:016x}", drawn()));
    let common = Common::open(&pipeline, Change::Refuse)?;
    let work = common.work(pipeline, Member::new(&args.shard, incarnation))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = HostConfig {
        threads: args.threads.map_or(cores, usize::from),
        frame_bytes: FRAME_BYTES,
        max_rate: args.max_rate,
        until_end: false,
        read_order: None,
    };
    if let Some(told) = &told {
        peers.learn(&told.owners, &told.workers)?;
    }
    let obey = |host: &Host| match &told {
        Some(told) => host.fleet().hear(told).map_err(|why| CliError::Other(format!("--orders: {why}"))),
        None => Ok(()),
    };
    let stop = signalled()?;
    if args.leave_with_input {
        leave_with_input(stop.clone())?;
    }
    let hosting = Hosting { tasks: Tasks::AsTold, config, pages, api: Some(api), quiet: true, stop };
    let finished = hosting.host(work, peers, obey)?;
    let saved: Vec<&str> = finished.statuses.iter().map(|status| status.task.as_str()).collect();
    match output {
        Output::Text => tracing::info!(tasks = saved.join(", "), "all tasks are saved"),
        Output::Json => print(serde_json::json!({"formatVersion": 1, "saved": saved}).to_string()),
    }
    Ok(())
}

fn leave_with_input(stop: Arc<AtomicBool>) -> Result<(), CliError> {
    let wait = move || {
        // An input that cannot be read is closed.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.store(true, Ordering::Release);
    };
    let started = std::thread::Builder::new().name("input".into()).spawn(wait);
    started.map(drop).map_err(|error| CliError::Other(format!("cannot start: {error}")))
}

fn read_orders(path: &Path) -> Result<orders::Told, CliError> {
    let failed = |what: String| CliError::Other(format!("{}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    orders::read(&bytes).map_err(|problem| failed(problem.text()))
}
