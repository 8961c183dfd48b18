//! `millrace run`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use millrace_crds::spec;
use millrace_engine::experiment::ExperimentReport;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use super::{CliError, Output, parse_source, print, sources};
use crate::{
    data::Data,
    host::{
        Host, HostConfig, POLL, Tasks, Work,
        figures::Figures,
        serving::{Serving, Shown},
        status::{TaskStatus, Totals},
    },
    metrics::{self, Phase},
    overview::{DecisionFigures, Moment, Overview, experiments},
    pipeline::Pipeline,
    progress::Progress,
    serve::{Prepared, PreparedPages, Server, Timeouts},
    source::http::Posted,
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
    /// Answer the API and serve the page there. Default, for a pipeline with placements or http sources: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
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

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl RunArgs {
    /// The port of the API, for a pipeline that has one.
    fn api(&self, pipeline: &Pipeline) -> Result<Option<Prepared>, CliError> {
        let spec = pipeline.spec();
        let serves = !spec.placements.is_empty() || spec.sources.iter().any(|source| source.http.is_some());
        // A run to the end of files has nobody to wait for.
        let Some(address) = self.listen.or((serves && !self.until_end).then_some(LISTEN)) else { return Ok(None) };
        let beside = self.pipeline.parent().unwrap_or(Path::new("."));
        Ok(Some(Prepared::new(&spec.serving, beside, address, Timeouts::default())?))
    }

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
    let pipeline = Arc::new(Pipeline::load(&args.pipeline, &sources(&args.source))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Other(format!("cannot start: {e}")))?;
    // The ports first: nothing is to be claimed by a run that cannot start.
    let pages = args.metrics_address.map(PreparedPages::new).transpose()?;
    let api = args.api(&pipeline)?;
    let data = Data::open(&args.data, &args.pipeline, &pipeline)?;
    let partitions = data.partitions(&pipeline)?;
    let work = Work {
        pipeline: pipeline.clone(),
        configuration: data.configuration().clone(),
        partitions,
        log: data.log(),
        fetcher: data.fetcher(),
        store: data.store(),
        claimant: data.claimant().clone(),
    };
    let host = Host::start(work, Tasks::All, &args.host_config())?;
    let shared = metrics::Shared::new(data.fetcher().map(|fetcher| fetcher.health().clone()));
    shared.update(host.statuses(), phase_of(&host));
    let (posted, appender) = Posted::start(&pipeline, data.log(), host.waker(), host.abandoner())?;
    let serving = Arc::new(Serving::new(&pipeline, &host, posted));
    let mut view = View::new(&pipeline, data.configuration().generation(), serving.clone(), shared.clone());
    let mut listeners = Vec::new();
    listeners.extend(pages.map(|pages| pages.listener(shared.clone())));
    if let Some(api) = api {
        data.tell_address(api.address())?;
        tracing::info!("the API and the page: {}://{}/", if api.is_tls() { "https" } else { "http" }, api.address());
        listeners.push(api.listener(serving, shared));
    } else {
        drop(serving);
    }
    let server = (!listeners.is_empty()).then(|| Server::start(listeners)).transpose()?;
    runtime.block_on(supervise(&host, &mut view, server.is_some(), args.quiet))?;
    // First what was asked is answered, then what was posted kept, then everything saved.
    if let Some(server) = server {
        server.stop();
    }
    drop(view);
    if appender.join().is_err() {
        return Err(CliError::Other("the thread that keeps what is posted has failed".into()));
    }
    let finished = host.stop()?;
    let summary = Summary::of(&pipeline, finished);
    match output {
        Output::Text => print(summary.to_string()),
        Output::Json => print(serde_json::to_string(&summary).map_err(|e| CliError::Other(e.to_string()))?),
    }
    Ok(())
}

/// What people and programs see of a run while it goes on.
struct View {
    pipeline: String,
    overview: Overview,
    experiments: Vec<spec::Experiment>,
    serving: Arc<Serving>,
    shared: Arc<metrics::Shared>,
    progress: Progress,
}

const METRICS_EVERY: Duration = Duration::from_millis(500);
const OVERVIEW_EVERY: Duration = Duration::from_secs(1);

impl View {
    fn new(pipeline: &Pipeline, generation: u32, serving: Arc<Serving>, shared: Arc<metrics::Shared>) -> Self {
        let mut view = Self {
            pipeline: pipeline.validated.name().to_owned(),
            overview: Overview::new(pipeline.validated.name(), pipeline.validated.note(), generation),
            experiments: pipeline.spec().experiments.clone(),
            serving,
            shared,
            progress: Progress::start(0),
        };
        view.sample(&[]);
        view
    }

    fn judge(&self, totals: &Totals) -> BTreeMap<String, ExperimentReport> {
        let judge = |experiment: &spec::Experiment| {
            let sums = totals.experiments.get(&experiment.name)?;
            Some((experiment.name.clone(), experiments::judge(experiment, sums)))
        };
        self.experiments.iter().filter_map(judge).collect()
    }

    fn draw(&mut self, tasks: &[TaskStatus]) {
        let totals = Totals::of(tasks);
        let mut lines = Vec::new();
        let decisions = Figures::of_all(&self.serving.asked().figures);
        if decisions.count > 0 {
            let DecisionFigures { count, p50_micros, p99_micros } = decisions;
            lines.push(format!("decisions {count}, half within {p50_micros:.0} us, 99 % within {p99_micros:.0} us"));
        }
        let reports = self.judge(&totals);
        lines.extend(reports.iter().flat_map(|(name, report)| experiments::lines(name, report)));
        self.progress.draw(&totals, &lines);
    }

    /// Once a second: what the page shows.
    fn sample(&mut self, tasks: &[TaskStatus]) {
        let reports = self.judge(&Totals::of(tasks));
        let full = reports.iter().map(|(name, report)| experiments::full_json(name, report)).collect::<Vec<_>>();
        let judged = json!({"formatVersion": 1, "pipeline": self.pipeline, "experiments": full});
        let of_page = |(name, report): (&String, &ExperimentReport)| (name.clone(), experiments::to_json(name, report));
        let experiments: BTreeMap<String, Value> = reports.iter().map(of_page).collect();
        let decisions = Figures::of_all(&self.serving.asked().figures);
        let moment = Moment { tasks, decisions, experiments, serving: self.serving.copies() };
        let status = self.overview.sample(&moment);
        self.serving.show(Shown { status, experiments: judged });
    }
}

fn phase_of(host: &Host) -> Phase {
    if host.has_caught_up() { Phase::Ready } else { Phase::Starting }
}

/// Waits for the end, a signal or a failure, and shows how it goes meanwhile.
async fn supervise(host: &Host, view: &mut View, has_page: bool, quiet: bool) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::Other(format!("cannot listen for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    view.progress = Progress::start(Totals::of(&host.statuses()).read);
    let mut ticks = interval(POLL);
    let (mut updated, mut sampled, mut phase) = (Instant::now(), None, Phase::Starting);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
        if host.is_done() || host.is_failing() {
            break;
        }
        if updated.elapsed() >= METRICS_EVERY || phase != phase_of(host) {
            (updated, phase) = (Instant::now(), phase_of(host));
            view.shared.update(host.statuses(), phase);
        }
        if has_page && sampled.is_none_or(|sampled: Instant| sampled.elapsed() >= OVERVIEW_EVERY) {
            sampled = Some(Instant::now());
            view.sample(&host.statuses());
        }
        if !quiet && view.progress.is_due() {
            view.draw(&host.statuses());
        }
    }
    view.shared.update(host.statuses(), Phase::Stopping);
    if !quiet {
        view.draw(&host.statuses());
    }
    Ok(())
}
