//! What a run tells of itself as one JSON document, with a short history: what the page draws and `/v1/status` answers.

pub mod experiments;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use millrace_engine::{ENGINE_VERSION, event::Time, learn::Standing};
use serde_json::{Value, json};

use crate::host::{
    clock::unix_ms,
    status::{Detail, TaskStatus, Totals},
};

/// Samples of the history. Once there are as many, every other one goes, and the next ones come half as often.
const HISTORY: usize = 480;

/// Records and rates along the data path.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    ingest: u64,
    profile: u64,
    model: u64,
    decide: u64,
}

impl Steps {
    fn of(totals: &Totals, decisions: u64) -> Self {
        let model = totals.models.values().map(|m| m.validation.total.examples).sum();
        Self { ingest: totals.read, profile: totals.accepted, model, decide: decisions }
    }

    /// Each step's records a second since `before`.
    fn rates(&self, before: &Steps, seconds: f64) -> [(&'static str, f64); 4] {
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds.max(1e-3);
        [
            ("ingest", rate(self.ingest, before.ingest)),
            ("profile", rate(self.profile, before.profile)),
            ("model", rate(self.model, before.model)),
            ("decide", rate(self.decide, before.decide)),
        ]
    }
}

/// A list of samples that covers all the time there was, in ever wider steps.
#[derive(Clone, Debug)]
struct History {
    samples: VecDeque<Value>,
    /// Every so many seconds one is kept.
    stride: u32,
    skipped: u32,
}

impl Default for History {
    fn default() -> Self {
        Self { samples: VecDeque::new(), stride: 1, skipped: 0 }
    }
}

impl History {
    fn push(&mut self, sample: Value) {
        self.skipped += 1;
        if self.skipped < self.stride {
            return;
        }
        self.skipped = 0;
        self.samples.push_back(sample);
        if self.samples.len() >= HISTORY {
            self.samples = self.samples.drain(..).step_by(2).collect();
            self.stride *= 2;
        }
    }
}

/// Gathers samples, a second apart.
pub struct Overview {
    pipeline: String,
    note: Option<String>,
    generation: u32,
    started_ms: i64,
    sampled_ms: i64,
    steps: Steps,
    rates: [(&'static str, f64); 4],
    history: History,
    models: BTreeMap<String, History>,
    experiments: BTreeMap<String, History>,
}

/// What the host says at one moment.
pub struct Moment<'a> {
    pub tasks: &'a [TaskStatus],
    pub decisions: DecisionFigures,
    /// As the page wants them, without their history; by name.
    pub experiments: BTreeMap<String, Value>,
    /// By model: what its serving copy is like.
    pub serving: BTreeMap<String, Value>,
}

/// How many decisions were made and how long they took on the engine threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecisionFigures {
    pub count: u64,
    pub p50_micros: f64,
    pub p99_micros: f64,
}

/// What decisions are made with.
#[derive(Clone, Copy, Debug)]
pub struct ServingCopy {
    /// Examples that it had learned.
    pub version: u64,
    pub standing: Standing,
    pub updated: Instant,
}

impl ServingCopy {
    pub fn to_json(self) -> Value {
        let fall_back = match self.standing {
            Standing::Trusted => "none",
            Standing::FellBackToDefault => "default",
            Standing::FellBackToPrevious => "previous",
        };
        json!({"version": self.version, "ageSeconds": self.updated.elapsed().as_secs_f64(), "fallBack": fall_back})
    }
}

impl Overview {
    pub fn new(pipeline: &str, note: Option<&str>, generation: u32) -> Self {
        let now = unix_ms();
        Self {
            pipeline: pipeline.to_owned(),
            generation,
            note: note.map(str::to_owned),
            started_ms: now,
            sampled_ms: now,
            steps: Steps::default(),
            rates: Steps::default().rates(&Steps::default(), 1.0),
            history: History::default(),
            models: BTreeMap::new(),
            experiments: BTreeMap::new(),
        }
    }

    /// Takes a sample, and gives the document.
    pub fn sample(&mut self, moment: &Moment<'_>) -> Value {
        let (now, totals) = (unix_ms(), Totals::of(moment.tasks));
        let steps = Steps::of(&totals, moment.decisions.count);
        // The first sample counts what was there before: no rate can be told from it.
        if self.history.samples.is_empty() {
            self.steps = steps;
        }
        self.rates = steps.rates(&self.steps, (now - self.sampled_ms) as f64 / 1e3);
        (self.steps, self.sampled_ms) = (steps, now);
        let lag = totals.watermark.and_then(|w| watermark_lag_seconds(w, now));
        let mut sample = json!({"timeMs": now, "watermarkLagSeconds": lag});
        for (step, rate) in self.rates {
            sample[step] = json!(rate);
        }
        self.history.push(sample);
        for (name, model) in &totals.models {
            let t = &model.validation.total;
            let window = &model.validation.window;
            self.models.entry(name.clone()).or_default().push(json!({"timeMs": now, "examples": t.examples,
                "logLoss": window.log_loss, "baseLogLoss": window.base_log_loss, "auc": window.auc,
                "calibration": window.calibration}));
        }
        for (name, experiment) in &moment.experiments {
            let variants = experiment["variants"].as_array().into_iter().flatten();
            let metrics = variants.map(|v| (v["name"].as_str().unwrap_or_default().to_owned(), plotted(&v["metrics"])));
            let metrics: BTreeMap<String, Value> = metrics.collect();
            self.experiments.entry(name.clone()).or_default().push(json!({"timeMs": now, "variants": metrics}));
        }
        self.document(moment, &totals, now, lag)
    }

    fn document(&self, moment: &Moment<'_>, totals: &Totals, now: i64, lag: Option<f64>) -> Value {
        json!({
            "formatVersion": 1,
            "pipeline": self.pipeline,
            "note": self.note,
            "timeMs": now,
            "startedMs": self.started_ms,
            "generation": self.generation,
            "engineVersion": ENGINE_VERSION,
            "steps": self.steps_json(moment, totals),
            "watermark": {"timeMs": totals.watermark.filter(|w| *w != Time::MIN).map(|w| w.0 / 1000), "lagSeconds": lag},
            "counts": {"read": totals.read, "found": totals.events, "accepted": totals.accepted, "late": totals.late, "lateExamples": totals.late_examples, "outOfRange": totals.out_of_range,
                "future": totals.future, "duplicate": totals.duplicate, "unconsented": totals.unconsented,
                "rejected": totals.rejected.values().sum::<u64>()},
            "deadLetters": dead_letters(totals),
            "experiments": with_history(&moment.experiments, &self.experiments),
            "models": self.models_json(moment, totals),
            "checkpoints": moment.tasks.iter().filter(|t| t.checkpoints.count > 0).map(|t| json!({
                "task": t.task, "count": t.checkpoints.count, "bytes": t.checkpoints.bytes,
                "ageSeconds": (now - t.checkpoints.at_unix_ms) as f64 / 1e3,
                "kind": if t.checkpoints.is_base { "base" } else { "changes" }})).collect::<Vec<_>>(),
            "history": self.history.samples,
        })
    }

    fn steps_json(&self, moment: &Moment<'_>, totals: &Totals) -> Value {
        let mut steps = [
            json!({"name": "ingest", "records": self.steps.ingest}),
            json!({"name": "profile", "records": self.steps.profile, "users": totals.users, "openJoins": totals.open_joins}),
            json!({"name": "model", "records": self.steps.model}),
            json!({"name": "decide", "records": self.steps.decide,
                "p50Micros": moment.decisions.p50_micros, "p99Micros": moment.decisions.p99_micros}),
        ];
        for (step, (_, rate)) in steps.iter_mut().zip(self.rates) {
            step["ratePerSecond"] = json!(rate);
        }
        let stage = |task: &TaskStatus| match task.detail {
            Detail::Ingest { .. } => 0,
            Detail::Profile { .. } => 1,
            Detail::Model { .. } => 2,
        };
        for (n, step) in steps.iter_mut().take(3).enumerate() {
            let of_step: Vec<&TaskStatus> = moment.tasks.iter().filter(|task| stage(task) == n).collect();
            let lag = |t: &&TaskStatus| t.end.unwrap_or(0).saturating_sub(t.position + 1);
            step["tasks"] = json!(of_step.len());
            step["lagRecords"] = json!(of_step.iter().map(lag).sum::<u64>());
            step["waiting"] = json!(of_step.iter().map(|t| t.waiting).sum::<usize>());
        }
        steps[3]["tasks"] = steps[1]["tasks"].clone();
        json!(steps)
    }

    fn models_json(&self, moment: &Moment<'_>, totals: &Totals) -> Value {
        let model = |(name, m): (&String, &millrace_engine::learn::ModelSummary)| {
            let mut json = serde_json::to_value(m).unwrap_or_default();
            json["name"] = json!(name);
            json["serving"] = moment.serving.get(name).cloned().unwrap_or(Value::Null);
            json["history"] = json!(self.models.get(name).map(|h| &h.samples));
            json
        };
        totals.models.iter().map(model).collect()
    }
}

/// What a plot over time needs of a variant's metrics.
fn plotted(metrics: &Value) -> Value {
    let of_metric = |(name, metric): (&String, &Value)| {
        let kept = ["value", "lift", "low", "high"].iter().filter(|key| !metric[**key].is_null());
        (name.clone(), kept.map(|key| ((*key).to_owned(), metric[*key].clone())).collect::<Value>())
    };
    metrics.as_object().into_iter().flatten().map(of_metric).collect()
}

/// How far event time is behind the clock. None before the first event.
fn watermark_lag_seconds(watermark: Time, now_ms: i64) -> Option<f64> {
    (watermark != Time::MIN).then(|| (now_ms as f64) / 1e3 - watermark.0 as f64 / 1e6)
}

/// What was put aside, by reason.
fn dead_letters(totals: &Totals) -> Value {
    let mut reasons: BTreeMap<&str, u64> = totals.rejected.clone();
    for (reason, n) in [("late", totals.late), ("future", totals.future)] {
        if n > 0 {
            reasons.insert(reason, n);
        }
    }
    json!(reasons)
}

fn with_history(experiments: &BTreeMap<String, Value>, histories: &BTreeMap<String, History>) -> Value {
    let with = |(name, experiment): (&String, &Value)| {
        let mut experiment = experiment.clone();
        experiment["history"] = json!(histories.get(name).map(|h| &h.samples));
        experiment
    };
    experiments.iter().map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_gets_coarser_and_keeps_its_beginning() {
        let mut history = History::default();
        (0..5_000).for_each(|n| history.push(json!(n)));
        assert!(history.samples.len() < HISTORY && history.samples.len() >= HISTORY / 2);
        assert_eq!(history.samples[0], json!(0));
        let steps: Vec<i64> = history.samples.iter().filter_map(Value::as_i64).collect();
        assert!(steps.windows(2).all(|w| w[1] > w[0]) && *steps.last().unwrap() >= 4_900);
    }

    #[test]
    fn an_empty_run_has_a_document() {
        let moment = Moment {
            tasks: &[],
            decisions: DecisionFigures::default(),
            experiments: BTreeMap::new(),
            serving: BTreeMap::new(),
        };
        let document = Overview::new("shop", Some("a note"), 1).sample(&moment);
        assert_eq!(document["note"], "a note");
        assert_eq!(document["steps"].as_array().map(Vec::len), Some(4));
        assert!(document["watermark"]["lagSeconds"].is_null());
    }
}
