//! Has the world changed? Detectors on a model's predictions and on its columns, with stated rates of false alarms.
//!
//! `predictions` bets against calibration and slope of what the model predicts; `columns` compares the distributions of
//! its columns with those of its beginnings. Both see each example once, in order, after it was predicted. What is done
//! about an alarm is in `watch`.

use serde::Serialize;

use super::validation::Prediction;
use crate::{
    codec::{Corrupt, Put, Reader},
    example::FeatureValue,
};

mod columns;
mod predictions;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod watch;

use columns::Columns;
use predictions::Predictions;

const VERSION: u16 = 1;

/// How sensitive the detectors are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DriftSettings {
    /// Examples before predictions are judged: a new model's are not yet calibrated.
    pub warm_up_examples: u64,
    /// No drift as long as outcomes are this near to what was predicted, relatively.
    pub tolerance: f64,
    /// No drift as long as the slope of outcomes on log-odds is this near to 1.
    pub slope_tolerance: f64,
    /// Mean number of examples between false alarms: at least this, for predictions and for columns each.
    pub run_length_examples: f64,
    /// Examples of the reference, and of each window that is compared with it.
    pub window_examples: u32,
    /// Least population stability index that is a drift: .1 is usually called moderate, .2 (here) large.
    pub least_psi: f64,
    /// Examples that say as much as one independent one: those of a slate share their user, and users come back.
    pub examples_per_independent: f64,
}

impl Default for DriftSettings {
    fn default() -> Self {
        Self {
            warm_up_examples: 10_000,
            tolerance: 0.1,
            slope_tolerance: 0.3,
            run_length_examples: 1e7,
            window_examples: 10_000,
            least_psi: 0.2,
            examples_per_independent: 10.0,
        }
    }
}

/// What can drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum DriftKind {
    /// More happens than is predicted.
    PredictsTooLow = 0,
    /// Less happens than is predicted.
    PredictsTooHigh = 1,
    /// What the model ranks high is not as much above the rest as predicted: it tells them apart less than it did.
    TooSteep = 2,
    /// What the model ranks high is even more above the rest than predicted.
    TooFlat = 3,
    /// A column's values are distributed otherwise.
    Column = 4,
}

impl DriftKind {
    /// As it is serialised.
    pub fn name(self) -> &'static str {
        match self {
            Self::PredictsTooLow => "predictsTooLow",
            Self::PredictsTooHigh => "predictsTooHigh",
            Self::TooSteep => "tooSteep",
            Self::TooFlat => "tooFlat",
            Self::Column => "column",
        }
    }

    fn of(number: u8) -> Option<Self> {
        let all = [Self::PredictsTooLow, Self::PredictsTooHigh, Self::TooSteep, Self::TooFlat, Self::Column];
        all.get(usize::from(number)).copied()
    }
}

/// A drift that was just found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftAlarm {
    pub kind: DriftKind,
    /// Of [`DriftKind::Column`].
    pub column: Option<String>,
    /// Of [`DriftKind::Column`]: population stability index.
    pub psi: Option<f64>,
    /// The number of the example at which it was found, from 1.
    pub example: u64,
}

/// A detector on predictions as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PredictionDrift {
    pub kind: DriftKind,
    /// Evidence as a share of what raises an alarm.
    pub evidence: f64,
    pub alarms: u64,
    /// Number of the example of the last alarm.
    pub last_alarm: Option<u64>,
}

/// A column as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnDrift {
    pub column: String,
    /// Population stability index of the last whole window against the reference.
    pub psi: Option<f64>,
    /// Was the last whole window found to have drifted?
    pub drifted: bool,
    pub alarms: u64,
}

/// All detectors of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftSummary {
    pub examples: u64,
    pub predictions: Vec<PredictionDrift>,
    pub columns: Vec<ColumnDrift>,
}

/// The detectors of one model.
#[derive(Clone, Debug)]
pub struct Drift {
    settings: DriftSettings,
    examples: u64,
    predictions: Predictions,
    columns: Columns,
}

impl Drift {
    /// `columns`: names in the order of the values that [`Drift::learn`] is given.
    pub fn new(settings: DriftSettings, columns: Vec<String>) -> Self {
        let (predictions, columns) = (Predictions::new(&settings), Columns::new(&settings, columns));
        Self { settings, examples: 0, predictions, columns }
    }

    /// One example: what was predicted, what happened, what it was predicted from. Returns the alarms that it raised; a
    /// detector on predictions then begins anew, a column is quiet until it has been back to normal.
    pub fn learn(&mut self, prediction: &Prediction, label: bool, values: &[FeatureValue]) -> Vec<DriftAlarm> {
        self.examples = self.examples.saturating_add(1);
        let mut alarms = Vec::new();
        let judged = self.examples > self.settings.warm_up_examples;
        self.predictions.learn(prediction, label, judged, self.examples, &mut alarms);
        self.columns.learn(values, self.examples, &mut alarms);
        alarms
    }

    /// Examples that were seen.
    pub fn examples(&self) -> u64 {
        self.examples
    }

    /// That predictions have drifted: the most of any detector, as a share of what raises an alarm.
    pub fn evidence(&self) -> f64 {
        self.predictions.evidence()
    }

    /// Has a column's last whole window drifted?
    pub fn has_drifted_columns(&self) -> bool {
        self.columns.has_drifted()
    }

    pub fn summary(&self) -> DriftSummary {
        let (predictions, columns) = (self.predictions.summary(), self.columns.summary());
        DriftSummary { examples: self.examples, predictions, columns }
    }

    /// Appends the state. Version 1: version (u16), hash of the columns' names (u64), examples (u64), predictions, columns.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(VERSION);
        out.put_u64(self.columns.layout());
        out.put_u64(self.examples);
        self.predictions.encode(out);
        self.columns.encode(out);
    }

    /// Takes over a state of the same columns. After an error the detectors are to be made anew. Other settings are taken
    /// up from there on; a window under way keeps its beginning.
    pub fn load(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let at = r.at();
        if r.u16("version of drift detectors")? != VERSION {
            return Err(Corrupt { what: "version of drift detectors (this engine reads version 1)", at });
        }
        if r.u64("columns of drift detectors")? != self.columns.layout() {
            return Err(Corrupt { what: "columns: the drift detectors are of a model with other columns", at });
        }
        self.examples = r.u64("examples of drift detectors")?;
        self.predictions.load(r)?;
        self.columns.load(r)
    }
}
