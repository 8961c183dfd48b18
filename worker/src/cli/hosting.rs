//! A host with what people and programs see of it, until it is done, told to stop, or fails: of `millrace run` and
//! `millrace work`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_crds::spec;
use millrace_engine::experiment::ExperimentReport;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::CliError;
use crate::{
    host::{
        Finished, Host, HostConfig, POLL, Tasks, Work,
        figures::Figures,
        peers::Peers,
        serving::{Serving, Shown},
        status::{TaskStatus, Totals},
    },
    metrics::{self, Phase},
    overview::{DecisionFigures, Moment, Overview, experiments},
    pipeline::Pipeline,
    progress::Progress,
    serve::{Prepared, PreparedPages, Server},
    source::http::Posted,
};

pub struct Hosting {
    pub tasks: Tasks,
    pub config: HostConfig,
    pub pages: Option<PreparedPages>,
    pub api: Option<Prepared>,
    /// No progress view.
    pub quiet: bool,
    /// Somebody else may say so, too.
    pub stop: Arc<AtomicBool>,
}

/// Set once this process is told to stop: SIGINT, SIGTERM.
pub fn signalled() -> Result<Arc<AtomicBool>, CliError> {
    let failed = |e: std::io::Error| CliError::Other(format!("cannot listen for signals: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    drop(entered);
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        told.store(true, Ordering::Release);
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    Ok(stop)
}

impl Hosting {
    /// Works until the end, a signal or a failure; saves everything. `started` is called before anybody may ask.
    pub fn host(
        self,
        work: Work,
        peers: Peers,
        started: impl FnOnce(&Host) -> Result<(), CliError>,
    ) -> Result<Finished, CliError> {
        let (pipeline, log, generation) = (work.pipeline.clone(), work.log.clone(), work.configuration.generation());
        let shared = metrics::Shared::new(work.fetcher.as_ref().map(|fetcher| fetcher.health().clone()));
        let host = Host::start(work, self.tasks, &self.config)?;
        started(&host)?;
        shared.update(host.statuses(), phase_of(&host));
        let (posted, appender) = Posted::start(&pipeline, log, host.waker(), host.abandoner())?;
        let serving = Arc::new(Serving::new(&pipeline, &host, peers, posted));
        let mut view = View::new(&pipeline, generation, serving.clone(), shared.clone());
        let mut listeners = Vec::new();
        listeners.extend(self.pages.map(|pages| pages.listener(shared.clone())));
        if let Some(api) = self.api {
            tracing::info!(
                "the API and the page: {}://{}/",
                if api.is_tls() { "https" } else { "http" },
                api.address()
            );
            listeners.push(api.listener(serving, shared));
        } else {
            drop(serving);
        }
        let server = (!listeners.is_empty()).then(|| Server::start(listeners)).transpose()?;
        let is_done = |host: &Host| self.config.until_end && host.is_done();
        let has_ended = |host: &Host| self.stop.load(Ordering::Acquire) || is_done(host) || host.is_failing();
        supervise(&host, &mut view, server.is_some(), self.quiet, has_ended);
        // First what was asked is answered, then what was posted kept, then everything saved.
        if let Some(server) = server {
            server.stop();
        }
        drop(view);
        if appender.join().is_err() {
            return Err(CliError::Other("the thread that keeps what is posted has failed".into()));
        }
        Ok(host.stop()?)
    }
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
fn supervise(host: &Host, view: &mut View, has_page: bool, quiet: bool, has_ended: impl Fn(&Host) -> bool) {
    view.progress = Progress::start(Totals::of(&host.statuses()).read);
    let (mut updated, mut sampled, mut phase) = (Instant::now(), None, Phase::Starting);
    while !has_ended(host) {
        thread::sleep(POLL);
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
}
