//! What `/metrics`, `/healthz` and `/readyz` answer.

use std::sync::{
    Arc, RwLock,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use axum::{http::StatusCode, response::IntoResponse};
use millrace_engine::learn::Standing;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::{
    host::status::{TaskStatus, Totals},
    kafka::health::{Health, Trouble},
    serve::traffic::Traffic,
};

/// What the host last told: updated by the run, read by the pages.
pub struct Shared {
    statuses: RwLock<Vec<TaskStatus>>,
    phase: AtomicU8,
    /// Of a pipeline with brokers.
    brokers: Option<Health>,
    /// Counted by the server itself.
    pub traffic: Traffic,
}

/// Does it take requests?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not yet: what was in the logs is still to be read.
    Starting,
    Ready,
    /// No more.
    Stopping,
}

impl Shared {
    pub fn new(brokers: Option<Health>) -> Arc<Self> {
        let phase = AtomicU8::new(Phase::Starting as u8);
        Arc::new(Self { statuses: RwLock::default(), phase, brokers, traffic: Traffic::default() })
    }
    pub fn update(&self, statuses: Vec<TaskStatus>, phase: Phase) {
        if let Ok(mut current) = self.statuses.write() {
            *current = statuses;
        }
        self.phase.store(phase as u8, Ordering::Release);
    }
    fn statuses(&self) -> Vec<TaskStatus> {
        self.statuses.read().map(|s| s.clone()).unwrap_or_default()
    }
    fn trouble(&self) -> Option<Trouble> {
        self.brokers.as_ref().and_then(Health::trouble)
    }
    fn phase(&self) -> Phase {
        let told = self.phase.load(Ordering::Acquire);
        [Phase::Starting, Phase::Ready].into_iter().find(|phase| *phase as u8 == told).unwrap_or(Phase::Stopping)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabel {
    task: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DetectorLabel {
    model: String,
    detector: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ColumnLabel {
    model: String,
    column: String,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// `/healthz`: the process runs.
pub fn health() -> &'static str {
    "ok\n"
}

/// `/readyz`: it takes requests. Without brokers it goes on deciding, and says so.
pub fn readiness(shared: &Shared) -> impl IntoResponse + use<> {
    let told = |status, text: &str| (status, text.to_owned());
    match (shared.phase(), shared.trouble()) {
        (Phase::Starting, None) => {
            told(StatusCode::SERVICE_UNAVAILABLE, "starting: what is in the logs is still being read\n")
        }
        (Phase::Starting, Some(trouble)) => (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {trouble}\n")),
        (Phase::Ready, None) => told(StatusCode::OK, "ready\n"),
        (Phase::Ready, Some(trouble)) => (StatusCode::OK, format!("ready, from the state of before: {trouble}\n")),
        (Phase::Stopping, _) => told(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics`, in the OpenMetrics text format.
pub fn page(shared: &Shared) -> impl IntoResponse + use<> {
    let mut text = String::new();
    match encode(&mut text, &registry(shared)) {
        Ok(()) => (StatusCode::OK, [("content-type", CONTENT_TYPE)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [("content-type", "text/plain")], error.to_string()),
    }
}

fn registry(shared: &Shared) -> Registry {
    let tasks = &shared.statuses();
    let totals = Totals::of(tasks);
    let mut registry = Registry::with_prefix("millrace");
    events(&mut registry, &totals);
    positions(&mut registry, tasks);
    models(&mut registry, &totals);
    drifts(&mut registry, &totals);
    brokers(&mut registry, shared);
    shared.traffic.register(&mut registry);
    registry
}

/// Of a pipeline that has some.
fn brokers(registry: &mut Registry, shared: &Shared) {
    if shared.brokers.is_none() {
        return;
    }
    let silent: FloatGauge = Gauge::default();
    silent.set(shared.trouble().map_or(0.0, |trouble| trouble.lasts().as_secs_f64()));
    let help = "How long the Kafka brokers have not answered; 0 while they do";
    registry.register_with_unit("brokers_silent", help, Unit::Seconds, silent);
}

fn events(registry: &mut Registry, totals: &Totals) {
    let mut count = |name: &str, help: &str, n: u64| {
        let counter: Counter = Counter::default();
        counter.inc_by(n);
        registry.register(name, help, counter);
    };
    count("source_records", "Records read of the sources", totals.read);
    count("events_found", "Events found in source records", totals.events);
    count("events_accepted", "Events applied to profiles", totals.accepted);
    let family = Family::<ReasonLabel, Counter>::default();
    let unused = [
        ("late", totals.late),
        ("future", totals.future),
        ("duplicate", totals.duplicate),
        ("unconsented", totals.unconsented),
        ("erased", totals.erased),
    ];
    let skipped = totals.skipped.iter().chain(&totals.rejected).map(|(reason, n)| (*reason, *n));
    for (reason, n) in unused.into_iter().chain(skipped) {
        family.get_or_create(&ReasonLabel { reason: reason.into() }).inc_by(n);
    }
    registry.register("events_not_applied", "Events and records that were not applied, by reason", family);
    let mut gauge = |name: &str, help: &str, n: usize| {
        let gauge: Gauge = Gauge::default();
        gauge.set(n as i64);
        registry.register(name, help, gauge);
    };
    gauge("users", "Users with a profile", totals.users);
    gauge("open_joins", "Impressions that wait for their outcomes", totals.open_joins);
}

fn positions(registry: &mut Registry, tasks: &[TaskStatus]) {
    let (lag, waiting) = (Family::<TaskLabel, Gauge>::default(), Family::<TaskLabel, Gauge>::default());
    let watermark = Family::<TaskLabel, FloatGauge>::default();
    let written = Family::<TaskLabel, Counter>::default();
    for task in tasks {
        let label = TaskLabel { task: task.task.clone() };
        // Files have no known end.
        if let Some(end) = task.end {
            let behind = end.saturating_sub(task.position + 1);
            lag.get_or_create(&label).set(i64::try_from(behind).unwrap_or(i64::MAX));
        }
        waiting.get_or_create(&label).set(task.waiting as i64);
        if task.watermark != millrace_engine::event::Time::MIN {
            watermark.get_or_create(&label).set(task.watermark.0 as f64 / 1e6);
        }
        written.get_or_create(&label).inc_by(task.checkpoints.count);
    }
    registry.register(
        "task_lag_records",
        "Records of a task's log, or of a source's topic, that are not applied yet",
        lag,
    );
    registry.register("task_waiting_records", "Records that wait for the watermark", waiting);
    registry.register_with_unit("task_watermark", "Event time reached, since 1970", Unit::Seconds, watermark);
    registry.register("checkpoints_written", "Checkpoints written since the start", written);
}

fn models(registry: &mut Registry, totals: &Totals) {
    let (examples, positives) = (Family::<ModelLabel, Counter>::default(), Family::<ModelLabel, Counter>::default());
    let (loss, base) = (Family::<ModelLabel, FloatGauge>::default(), Family::<ModelLabel, FloatGauge>::default());
    let (auc, calibration) = (Family::<ModelLabel, FloatGauge>::default(), Family::<ModelLabel, FloatGauge>::default());
    for (name, m) in &totals.models {
        let label = ModelLabel { model: name.clone() };
        let m = &m.validation.total;
        let tell = |family: &Family<ModelLabel, FloatGauge>, figure: Option<f64>| {
            if let Some(figure) = figure {
                family.get_or_create(&label).set(figure);
            }
        };
        examples.get_or_create(&label).inc_by(m.examples);
        positives.get_or_create(&label).inc_by(m.positives);
        tell(&loss, m.log_loss);
        tell(&base, m.base_log_loss);
        tell(&auc, m.auc);
        tell(&calibration, m.calibration);
    }
    registry.register("model_examples", "Examples learned", examples);
    registry.register("model_positives", "Positive examples learned", positives);
    registry.register("model_log_loss", "Progressive log loss", loss);
    registry.register("model_base_log_loss", "Progressive log loss of the running base rate alone", base);
    registry.register("model_auc", "Progressive area under the ROC curve", auc);
    registry.register("model_calibration", "Sum of predictions over sum of labels", calibration);
}

/// Of the models that are watched.
fn drifts(registry: &mut Registry, totals: &Totals) {
    let (alarms, fallen) = (Family::<ModelLabel, Counter>::default(), Family::<ModelLabel, Gauge>::default());
    let evidence = Family::<DetectorLabel, FloatGauge>::default();
    let psi = Family::<ColumnLabel, FloatGauge>::default();
    for (name, m) in &totals.models {
        let Some(drift) = &m.drift else { continue };
        let label = ModelLabel { model: name.clone() };
        alarms.get_or_create(&label).inc_by(drift.alarms_raised);
        fallen.get_or_create(&label).set(i64::from(m.standing != Standing::Trusted));
        for detector in &drift.detectors.predictions {
            let label = DetectorLabel { model: name.clone(), detector: detector.kind.name().to_owned() };
            evidence.get_or_create(&label).set(detector.evidence);
        }
        for column in &drift.detectors.columns {
            if let Some(index) = column.psi {
                let label = ColumnLabel { model: name.clone(), column: column.column.clone() };
                psi.get_or_create(&label).set(index);
            }
        }
    }
    registry.register("model_drift_alarms", "Alarms of drift, of predictions and of columns", alarms);
    registry.register("model_drift_evidence", "Evidence that predictions drift; 1 raises an alarm", evidence);
    registry.register("model_column_psi", "Population stability index of a column's last window", psi);
    registry.register("model_fallen_back", "1 while something else serves than the model itself", fallen);
}
