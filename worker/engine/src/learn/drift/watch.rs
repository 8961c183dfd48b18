//! What is done about drift: a model's detectors, the alarms they raised, and the answer that its pipeline declares.
//!
//! Watched are the examples that the model may learn from, as it predicted them before learning. An alarm of a *column* is only
//! told: another input is not yet a worse model. An alarm of *predictions* begins a drift, which is over when the
//! [`Trial`] of a later window says so:
//!
//! - `alert`: it is told.
//! - `forgetFaster`: the evidence of weights and base rate is cut to a quarter, once for each alarm.
//! - `fallBackToDefault`: decisions show default content until the drift is over. Examples go on to come from that.
//! - `fallBackToPrevious`: the weights of before ([`super::snapshot`]) serve, until over a longer window the model's own log
//!   loss is below theirs on the same examples: shortly after a drift it always is, also if that is a passing one. Without a copy, as in a model's first examples, it is only told.
//!
//! Nothing falls back for [`DriftKind::TooFlat`]: then what is ranked high is even better than predicted. A
//! frozen model is watched and told of, and what serves stays as it is.

use std::collections::VecDeque;

use millrace_crds::spec::{self, DriftAnswer};
use serde::Serialize;

use super::{
    Drift, DriftAlarm, DriftKind, DriftSettings, DriftSummary,
    snapshot::{Snapshot, Snapshots},
};
use crate::{
    codec::{Corrupt, Put, Reader},
    event::Time,
    example::FeatureValue,
    learn::{Learner, serving::Standing, validation::Prediction},
};

const VERSION: u16 = 1;
/// Alarms that are remembered.
const ALARMS: usize = 16;
/// The ratio that people are told of is of as many of the last examples as were to have one to two times so many positives.
const RECENT_POSITIVES: f64 = 30.0;

/// What is watched and done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WatchSettings {
    pub detectors: DriftSettings,
    pub answer: DriftAnswer,
    /// Examples between two copies; for a large model the multiple of it that is a quarter of its weights, so that copying
    /// costs a few weights an example.
    pub copy_every: u64,
    /// A copy is made only with less evidence for a drift than this share of what raises an alarm.
    pub calm: f64,
    /// Least examples of a trial, and of one against what serves instead.
    pub trial_examples: u64,
    pub contest_examples: u64,
    /// Least positives of a trial, seen or predicted: 100 tell a rate within 10 %, one standard error.
    pub trial_positives: f64,
}

impl WatchSettings {
    pub fn of(spec: &spec::Drift) -> Self {
        let detectors = DriftSettings {
            tolerance: spec.tolerance,
            run_length_examples: spec.run_length_examples,
            least_psi: spec.psi,
            ..DriftSettings::default()
        };
        Self {
            detectors,
            answer: spec.answer,
            copy_every: 10_000,
            calm: 1e-3,
            trial_examples: 1_000,
            contest_examples: 10_000,
            trial_positives: 100.0,
        }
    }
}

/// What was done when an alarm was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Done {
    Told = 0,
    ForgotFaster = 1,
    FellBackToDefault = 2,
    FellBackToPrevious = 3,
}

/// In words, from the model on.
impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Done::Told => "nothing was changed",
            Done::ForgotFaster => "its evidence was cut to a quarter, so that it learns faster",
            Done::FellBackToDefault => {
                "default content is shown instead of what it ranks, until its predictions hold again"
            }
            Done::FellBackToPrevious => "its weights of before serve, until it predicts better than they do",
        })
    }
}

/// An alarm with what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    #[serde(flatten)]
    pub found: DriftAlarm,
    /// Of the example, in milliseconds since 1970.
    pub time_ms: i64,
    /// Observed positives over predicted ones, of the last examples.
    pub observed_over_predicted: f64,
    pub done: Done,
}

/// What is said of a model that is watched.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftReport {
    pub state: DriftState,
    pub answer: DriftAnswer,
    #[serde(flatten)]
    pub detectors: DriftSummary,
    pub alarms_raised: u64,
    /// The last ones, oldest first.
    pub alarms: Vec<Alarm>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DriftState {
    Stable,
    /// Columns only.
    Columns,
    /// Since an alarm, predictions have not been found to hold again.
    Predictions,
}

/// Observed and predicted positives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    examples: u64,
    positives: u64,
    predicted: f64,
}

impl Sums {
    fn add(&mut self, probability: f64, label: bool) {
        self.examples += 1;
        self.positives += u64::from(label);
        self.predicted += probability;
    }

    fn ratio(&self) -> f64 {
        // Log-odds far out leave no probability at all.
        self.positives as f64 / self.predicted.max(1e-9)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.examples);
        out.put_u64(self.positives);
        out.put_f64(self.predicted);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (examples, positives, predicted) = (r.u64("examples")?, r.u64("positives")?, r.f64("predicted positives")?);
        let is_sound = positives <= examples && predicted.is_finite() && predicted >= 0.0;
        if is_sound { Ok(Self { examples, positives, predicted }) } else { Err(r.corrupt("sums of predictions")) }
    }
}

/// A window of examples after an alarm, by which the drift is judged to be over or not; then there is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Trial {
    /// The model was found to tell examples apart less than it says.
    lost_ranks: bool,
    sums: Sums,
    loss: f64,
    /// Of what serves instead.
    previous_loss: f64,
}

impl Trial {
    /// Do predictions hold: observed positives within the tolerance of those predicted and, where ranks had been lost, a log loss
    /// that no constant would have had over these examples, even in hindsight?
    fn holds(&self, tolerance: f64) -> bool {
        let (n, positives) = (self.sums.examples as f64, self.sums.positives as f64);
        let rate = positives / n;
        let part = |count: f64, rate: f64| if count > 0.0 { -count * libm::log(rate) } else { 0.0 };
        let constant_loss = part(positives, rate) + part(n - positives, 1.0 - rate);
        (self.sums.ratio() - 1.0).abs() <= tolerance && !(self.lost_ranks && self.loss > constant_loss)
    }
}

/// An example that was predicted and not learned yet.
pub struct Seen<'a> {
    pub prediction: &'a Prediction,
    pub label: bool,
    pub values: &'a [FeatureValue],
    pub time: Time,
    pub is_frozen: bool,
    /// Weights, or items, that a copy has.
    pub weights: usize,
    /// Log loss of what serves instead of the model, if anything does.
    pub previous_loss: f64,
}

/// What the model has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Cut its evidence.
    pub discount: bool,
    /// Other weights serve than before.
    pub other_weights: bool,
    /// Hand over a copy of itself, to [`Watch::keep`].
    pub copy: bool,
}

/// The watch over one model.
#[derive(Clone, Debug)]
pub struct Watch {
    settings: WatchSettings,
    columns: Vec<String>,
    drift: Drift,
    recent: [Sums; 2],
    alarms: VecDeque<Alarm>,
    raised: u64,
    /// Of the alarms, those that nobody has taken; not part of the state.
    untold: usize,
    standing: Standing,
    /// While predictions drift.
    trial: Option<Trial>,
    snapshots: Snapshots,
}

impl Watch {
    /// `columns`: names of the values of each example.
    pub fn new(settings: WatchSettings, columns: Vec<String>) -> Self {
        Self {
            settings,
            drift: Drift::new(settings.detectors, columns.clone()),
            columns,
            recent: Default::default(),
            alarms: VecDeque::new(),
            raised: 0,
            untold: 0,
            standing: Standing::Trusted,
            trial: None,
            snapshots: Snapshots::default(),
        }
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// What serves instead of the model's own weights, if anything does.
    pub fn previous(&self) -> Option<&Snapshot> {
        self.snapshots.chosen().filter(|_| self.standing == Standing::FellBackToPrevious)
    }

    pub fn keep(&mut self, snapshot: Snapshot) {
        self.snapshots.add(snapshot);
    }

    /// One example. The caller does what is ordered before it learns.
    #[inline]
    pub fn see(&mut self, seen: &Seen<'_>) -> Orders {
        let mut orders = Orders::default();
        if self.recent[0].predicted >= RECENT_POSITIVES {
            self.recent = [Sums::default(), self.recent[0]];
        }
        self.recent[0].add(seen.prediction.probability, seen.label);
        self.judge(seen, &mut orders);
        for found in self.drift.learn(seen.prediction, seen.label, seen.values) {
            self.answer(found, seen, &mut orders);
        }
        orders.copy |= self.is_copy_due(seen.weights);
        orders
    }

    #[inline]
    fn is_copy_due(&self, weights: usize) -> bool {
        let every = self.settings.copy_every;
        let multiple = every * (weights as u64).div_ceil(4 * every).max(1);
        self.settings.answer == DriftAnswer::FallBackToPrevious
            && self.drift.examples().is_multiple_of(multiple)
            && self.trial.is_none()
            && self.standing == Standing::Trusted
            && self.drift.evidence() < self.settings.calm
    }

    /// Is the drift over?
    #[inline]
    fn judge(&mut self, seen: &Seen<'_>, orders: &mut Orders) {
        let Some(trial) = &mut self.trial else { return };
        if seen.is_frozen && self.standing != Standing::Trusted {
            return;
        }
        trial.sums.add(seen.prediction.probability, seen.label);
        trial.loss += seen.prediction.loss(seen.label);
        trial.previous_loss += seen.previous_loss;
        let positives = trial.sums.predicted.max(trial.sums.positives as f64);
        let fell_to_previous = self.standing == Standing::FellBackToPrevious;
        let WatchSettings { trial_examples, contest_examples, .. } = self.settings;
        let least = if fell_to_previous { contest_examples } else { trial_examples };
        if trial.sums.examples < least || positives < self.settings.trial_positives {
            return;
        }
        let is_over = match fell_to_previous {
            true => trial.loss < trial.previous_loss,
            false => trial.holds(self.settings.detectors.tolerance),
        };
        if !is_over {
            *trial = Trial { lost_ranks: trial.lost_ranks, ..Trial::default() };
            return;
        }
        (self.trial, self.standing) = (None, Standing::Trusted);
        if fell_to_previous {
            (orders.other_weights, orders.copy) = (true, true);
        }
    }

    #[cold]
    fn answer(&mut self, found: DriftAlarm, seen: &Seen<'_>, orders: &mut Orders) {
        let is_of_predictions = found.kind != DriftKind::Column;
        let stood = self.standing;
        let done = if is_of_predictions && !seen.is_frozen { self.act(found.kind, orders) } else { Done::Told };
        // Whether the model has become better than its copy does not depend on further alarms.
        if is_of_predictions && stood != Standing::FellBackToPrevious {
            let lost_ranks = self.trial.is_some_and(|trial| trial.lost_ranks) || found.kind == DriftKind::TooSteep;
            self.trial = Some(Trial { lost_ranks, ..Trial::default() });
        }
        let of_both = Sums {
            examples: 0,
            positives: self.recent[0].positives + self.recent[1].positives,
            predicted: self.recent[0].predicted + self.recent[1].predicted,
        };
        let (time_ms, observed_over_predicted) = (seen.time.0.div_euclid(1_000), of_both.ratio());
        if self.alarms.len() == ALARMS {
            self.alarms.pop_front();
        }
        self.alarms.push_back(Alarm { found, time_ms, observed_over_predicted, done });
        self.raised = self.raised.saturating_add(1);
        self.untold = (self.untold + 1).min(ALARMS);
    }

    fn act(&mut self, kind: DriftKind, orders: &mut Orders) -> Done {
        let may_fall_back = self.standing == Standing::Trusted && kind != DriftKind::TooFlat;
        match self.settings.answer {
            DriftAnswer::ForgetFaster => {
                orders.discount = true;
                Done::ForgotFaster
            }
            DriftAnswer::FallBackToDefault if may_fall_back => {
                self.standing = Standing::FellBackToDefault;
                Done::FellBackToDefault
            }
            DriftAnswer::FallBackToPrevious if may_fall_back && self.snapshots.choose() => {
                self.standing = Standing::FellBackToPrevious;
                orders.other_weights = true;
                Done::FellBackToPrevious
            }
            _ => Done::Told,
        }
    }

    /// The alarms since the last call, oldest first; of many only the last.
    pub fn take_alarms(&mut self) -> Vec<Alarm> {
        let untold = std::mem::take(&mut self.untold);
        self.alarms.iter().skip(self.alarms.len() - untold).cloned().collect()
    }

    pub fn report(&self) -> DriftReport {
        DriftReport {
            state: match &self.trial {
                Some(_) => DriftState::Predictions,
                None if self.drift.has_drifted_columns() => DriftState::Columns,
                None => DriftState::Stable,
            },
            answer: self.settings.answer,
            detectors: self.drift.summary(),
            alarms_raised: self.raised,
            alarms: self.alarms.iter().cloned().collect(),
        }
    }

    /// Goes on from the watch over an older state of the model, whose weights are kept.
    pub(in crate::learn) fn take_over(&mut self, old: Watch, learner: &Learner) {
        let mut bytes = Vec::new();
        old.drift.encode(&mut bytes);
        let mut drift = Drift::new(self.settings.detectors, self.columns.clone());
        // Of other columns, detectors begin anew.
        if drift.load(&mut Reader::new(&bytes)).is_ok() {
            self.drift = drift;
        }
        (self.recent, self.alarms, self.raised, self.trial) = (old.recent, old.alarms, old.raised, old.trial);
        self.untold = old.untold;
        if self.settings.answer == old.settings.answer {
            self.snapshots.take_over(old.snapshots, learner);
            let has_lost_its_copy = old.standing == Standing::FellBackToPrevious && self.snapshots.chosen().is_none();
            self.standing = if has_lost_its_copy { Standing::Trusted } else { old.standing };
        }
    }

    pub fn mark_clean(&mut self) {
        self.snapshots.mark_clean();
    }

    /// Appends the state, of copies only what changed if `changes_only`. Version 1: version u16, detectors, two sums (of
    /// examples u64, positives u64, predicted positives f64), alarms raised u64, the last alarms (count u32, of each kind u8, column
    /// str, index f64, example u64, milliseconds i64, ratio f64, done u8), standing u8, trial (u8: 0 none, 1 follows: lost
    /// ranks u8, sums, two losses f64), copies.
    pub fn encode(&self, out: &mut Vec<u8>, changes_only: bool) {
        out.put_u16(VERSION);
        self.drift.encode(out);
        self.recent.iter().for_each(|sums| sums.encode(out));
        out.put_u64(self.raised);
        out.put_u32(self.alarms.len() as u32);
        self.alarms.iter().for_each(|alarm| alarm.encode(out));
        out.put_u8(self.standing as u8);
        out.put_u8(u8::from(self.trial.is_some()));
        if let Some(trial) = &self.trial {
            out.put_u8(u8::from(trial.lost_ranks));
            trial.sums.encode(out);
            out.put_f64(trial.loss);
            out.put_f64(trial.previous_loss);
        }
        self.snapshots.encode(out, changes_only);
    }

    /// Takes over what was written of the watch over a model that learns so. After an error it is to be made anew.
    pub(in crate::learn) fn apply(&mut self, r: &mut Reader<'_>, learner: &Learner) -> Result<(), Corrupt> {
        let at = r.at();
        if r.u16("version of the watch for drift")? != VERSION {
            return Err(Corrupt { what: "version of the watch for drift (this engine reads version 1)", at });
        }
        self.drift.load(r)?;
        self.recent = [Sums::read(r)?, Sums::read(r)?];
        self.raised = r.u64("alarms raised")?;
        let count = r.count(38, "alarms")?;
        if count > ALARMS {
            return Err(r.corrupt("alarms"));
        }
        self.alarms = (0..count).map(|_| Alarm::read(r)).collect::<Result<_, _>>()?;
        self.untold = 0;
        self.standing = Standing::read(r)?;
        self.trial = match r.u8("trial")? {
            0 => None,
            1 => Some(Trial::read(r)?),
            _ => return Err(r.corrupt("trial")),
        };
        self.snapshots.apply(r, learner)?;
        if self.standing == Standing::FellBackToPrevious && self.snapshots.chosen().is_none() {
            return Err(r.corrupt("copy that serves"));
        }
        Ok(())
    }
}

impl Trial {
    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let lost_ranks = match r.u8("lost ranks")? {
            0 => false,
            1 => true,
            _ => return Err(r.corrupt("lost ranks")),
        };
        let (sums, loss, previous_loss) = (Sums::read(r)?, r.f64("loss")?, r.f64("loss of before")?);
        let is_sound = loss.is_finite() && previous_loss.is_finite();
        if is_sound { Ok(Self { lost_ranks, sums, loss, previous_loss }) } else { Err(r.corrupt("losses of a trial")) }
    }
}

impl Alarm {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.found.kind as u8);
        out.put_str(self.found.column.as_deref().unwrap_or_default());
        out.put_f64(self.found.psi.unwrap_or(f64::NAN));
        out.put_u64(self.found.example);
        out.put_i64(self.time_ms);
        out.put_f64(self.observed_over_predicted);
        out.put_u8(self.done as u8);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let kind = DriftKind::of(r.u8("kind of an alarm")?).ok_or(r.corrupt("kind of an alarm"))?;
        let column = r.str("column of an alarm")?.to_owned();
        let psi = Some(r.f64("index of an alarm")?).filter(|psi| !psi.is_nan());
        let found = DriftAlarm {
            kind,
            column: (kind == DriftKind::Column).then_some(column),
            psi,
            example: r.u64("example of an alarm")?,
        };
        let (time_ms, observed_over_predicted) = (r.i64("time of an alarm")?, r.f64("ratio of an alarm")?);
        let done = match r.u8("answer to an alarm")? {
            0 => Done::Told,
            1 => Done::ForgotFaster,
            2 => Done::FellBackToDefault,
            3 => Done::FellBackToPrevious,
            _ => return Err(r.corrupt("answer to an alarm")),
        };
        Ok(Self { found, time_ms, observed_over_predicted, done })
    }
}

/// What was seen, in words.
impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ratio = self.observed_over_predicted;
        match self.found.kind {
            DriftKind::PredictsTooLow | DriftKind::PredictsTooHigh => {
                write!(f, "outcomes come {ratio:.2} times as often as predicted")
            }
            DriftKind::TooSteep => {
                write!(f, "what it ranks high comes less often than it says, or what it ranks low more")
            }
            DriftKind::TooFlat => {
                write!(f, "what it ranks high comes even more often than it says, or what it ranks low less")
            }
            DriftKind::Column => {
                let (column, psi) = (self.found.column.as_deref().unwrap_or_default(), self.found.psi.unwrap_or(0.0));
                write!(f, "`{column}` is distributed otherwise than at the model's beginning (PSI {psi:.2})")
            }
        }
    }
}
