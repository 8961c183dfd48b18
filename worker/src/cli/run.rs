//! `millrace run`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use super::{CliError, Output, parse_source, print, sources};
use crate::{
    data::Data,
    host::{Finished, Host, HostConfig, POLL, status::Totals},
    metrics,
    pipeline::Pipeline,
    progress::Progress,
    serve::{PreparedPages, Server},
    summary::Summary,
};

#[derive(Args)]
pub struct RunArgs {
    /// The pipeline's YAML file.
    pipeline: PathBuf,
    /// Read the sources to their ends, close what is open, save, print a summary and exit.
    #[arg(long)]
    until_end: bool,
    /// Read at most so many records a second, over all sources.
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    max_rate: Option<f64>,
    /// Read a source from another place than the pipeline says: a file, a folder or a pattern (in quotes).
    #[arg(long, value_name = "NAME=PATH", value_parser = parse_source)]
    source: Vec<(String, PathBuf)>,
    /// Folder of the log and the checkpoints.
    #[arg(long, default_value = "millrace-data", env = "MILLRACE_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Serve /metrics, /healthz and /readyz there: an IP address and a port, such as 127.0.0.1:9090.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,
    /// Engine threads. Default: one for each core. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Size at which a frame of the log is cut. Results do not depend on it.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    frame_bytes: u32,
    /// Read the sources' files in another order, which this seeds. Results do not depend on it: for tests.
    #[arg(long, value_name = "SEED", hide = true)]
    read_order: Option<u64>,
    /// No progress view.
    #[arg(long)]
    quiet: bool,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("must be above 0".into()) }
}

impl RunArgs {
    fn host_config(&self) -> HostConfig {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        HostConfig {
            threads: self.threads.map_or(cores, usize::from),
            frame_bytes: self.frame_bytes as usize,
            max_rate: self.max_rate,
            until_end: self.until_end,
            read_order: self.read_order,
        }
    }
}

pub fn run(args: &RunArgs, output: Output) -> Result<(), CliError> {
    let pipeline = Pipeline::load(&args.pipeline, &sources(&args.source))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Other(format!("cannot start: {e}")))?;
    // The port first: nothing is to be claimed by a run that cannot start.
    let pages = args.metrics_address.map(PreparedPages::new).transpose()?;
    let data = Data::open(&args.data, &args.pipeline, &pipeline)?;
    let partitions = data.partitions(&pipeline)?;
    let host = Host::start(&pipeline, &partitions, data.log(), data.store(), data.claimant(), &args.host_config())?;
    let finished = runtime.block_on(supervise(host, pages, args.quiet))?;
    let summary = Summary::of(&pipeline, finished);
    match output {
        Output::Text => print(summary.to_string()),
        Output::Json => print(serde_json::to_string(&summary).map_err(|e| CliError::Other(e.to_string()))?),
    }
    Ok(())
}

const METRICS_EVERY: Duration = Duration::from_millis(500);

/// Waits for the end, a signal or a failure, and shows how it goes meanwhile.
async fn supervise(host: Host, pages: Option<PreparedPages>, quiet: bool) -> Result<Finished, CliError> {
    let shared = metrics::Shared::new();
    shared.update(host.statuses(), true);
    let pages = pages.map(|pages| pages.listener(Arc::clone(&shared)));
    let server = pages.map(|pages| Server::start(vec![pages])).transpose()?;
    let failed = |e: std::io::Error| CliError::Other(format!("cannot listen for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut progress = Progress::start(Totals::of(&host.statuses()).read);
    let mut ticks = interval(POLL);
    let mut updated = std::time::Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
        if host.is_done() || host.is_failing() {
            break;
        }
        if updated.elapsed() >= METRICS_EVERY {
            updated = std::time::Instant::now();
            shared.update(host.statuses(), true);
        }
        if !quiet && progress.is_due() {
            progress.draw(&Totals::of(&host.statuses()));
        }
    }
    shared.update(host.statuses(), false);
    if !quiet {
        progress.draw(&Totals::of(&host.statuses()));
    }
    // Blocks until what was asked is answered, then until everything is saved.
    if let Some(server) = server {
        server.stop();
    }
    Ok(host.stop()?)
}
