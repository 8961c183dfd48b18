//! What decisions need of a model: a copy that scores, and deltas that keep it up to date.
//!
//! A copy holds what predictions are made of: weights in single precision (see [`Served`] for the error), the log-odds that
//! they start from, and the model's own statistics with their buckets, so that it reads those that are closed when a
//! decision is made. [`Model::serving_delta`] gives absolute values of all that changed in (from, to], counted in
//! examples scored; a copy that has seen L takes it whole if from <= L < to, and leaves it if it is older. The first is full.
//!
//! Encoded, version 1: version u16, kind u8 (0 full, 1 changes), standing u8, layout u64, from u64, to u64, examples
//! learned u64, log-odds of the base rate f64, then the weights ([`Served::apply`]) or the items' counts, the statistics
//! ([`Statistics::apply`]), and xxh3 u64 of all before.

use serde::Serialize;

use super::{
    Learner, Model,
    beta::{self, Beta},
    ftrl::{Entry, Served},
    hashing::{Part, Plan, Term},
    items::Rows,
    statistics::{Moment, Statistics},
    validation::Prediction,
};
use crate::{
    codec::{Corrupt, Put, Reader},
    event::Time,
    example::FeatureValue,
};

const VERSION: u16 = 1;
const FULL: u8 = 0;
const CHANGES: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// What decisions are to make of a model, as its drift says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Standing {
    #[default]
    Trusted = 0,
    /// The default content is shown instead of what it would rank.
    FellBackToDefault = 1,
    /// The weights that it serves are those of before the drift.
    FellBackToPrevious = 2,
}

impl Standing {
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        match r.u8("standing")? {
            0 => Ok(Standing::Trusted),
            1 => Ok(Standing::FellBackToDefault),
            2 => Ok(Standing::FellBackToPrevious),
            _ => Err(r.corrupt("standing")),
        }
    }
}

/// Why a delta is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServingError {
    #[error("a serving delta of a model with other columns or settings: {found:016x} instead of {expected:016x}")]
    Layout { expected: u64, found: u64 },
    #[error("a serving delta from example {from}, but the copy has only seen {seen}; it needs a full one")]
    Gap { from: u64, seen: u64 },
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    is_full: bool,
    standing: Standing,
    layout: u64,
    from: u64,
    to: u64,
    learned: u64,
    base_margin: f64,
}

const HEAD_BYTES: usize = 2 + 1 + 1 + 5 * 8;

/// What changed in a model, for its serving copies.
#[derive(Clone, Debug, PartialEq)]
pub struct ServingDelta {
    head: Head,
    bytes: Vec<u8>,
}

impl ServingDelta {
    /// Checks the version, the checksum and the head.
    pub fn read(bytes: Vec<u8>) -> Result<Self, Corrupt> {
        let mut r = Reader::new(&bytes);
        if r.u16("version")? != VERSION {
            return Err(Corrupt { what: "version of the serving delta (this engine reads version 1)", at: 0 });
        }
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).and_then(|at| bytes.split_at_checked(at));
        let (body, sum) = split.ok_or(r.corrupt("serving delta"))?;
        if xxhash_rust::xxh3::xxh3_64(body).to_le_bytes() != *sum {
            return Err(Corrupt { what: "checksum of the serving delta", at: body.len() });
        }
        let is_full = match r.u8("kind")? {
            FULL => true,
            CHANGES => false,
            _ => return Err(r.corrupt("kind")),
        };
        let standing = Standing::read(&mut r)?;
        let (layout, from, to) = (r.u64("layout")?, r.u64("from")?, r.u64("to")?);
        let (learned, base_margin) = (r.u64("examples learned")?, r.f64("base rate")?);
        if from > to || learned > to || !base_margin.is_finite() {
            return Err(r.corrupt("head of the serving delta"));
        }
        Ok(Self { head: Head { is_full, standing, layout, from, to, learned, base_margin }, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// Examples that the model had scored.
    pub fn to(&self) -> u64 {
        self.head.to
    }
    pub fn is_full(&self) -> bool {
        self.head.is_full
    }
}

impl Model {
    /// Absolute values of all that changed since the last delta; the first one, also after loading a state or when other
    /// weights are to serve than before, is full.
    pub fn serving_delta(&mut self) -> ServingDelta {
        self.serving_delta_as(self.standing())
    }

    /// Somebody has missed one, or is new: the next one is full.
    pub fn ship_in_full(&mut self) {
        self.shipped = None;
    }

    /// As what the model fell back to, if it did: `standing` says so to decisions.
    pub(crate) fn serving_delta_as(&mut self, standing: Standing) -> ServingDelta {
        let is_full = self.shipped.is_none();
        let to = self.validation.examples();
        let previous = self.watch.as_ref().and_then(|watch| watch.previous());
        let base_margin = previous.map_or(self.intercept().margin(), |p| p.base_margin);
        let learned = previous.map_or(self.learned, |p| p.learned);
        let (layout, from) = (self.layout, self.shipped.unwrap_or(0));
        let head = Head { is_full, standing, layout, from, to, learned, base_margin };
        let mut bytes = Vec::new();
        bytes.put_u16(VERSION);
        bytes.put_u8(if is_full { FULL } else { CHANGES });
        bytes.put_u8(standing as u8);
        for number in [layout, from, to, learned] {
            bytes.put_u64(number);
        }
        bytes.put_f64(base_margin);
        let rows = if is_full { Rows::All } else { Rows::Unshipped };
        match (previous, &mut self.learner) {
            (Some(previous), _) => previous.ship(&mut bytes, is_full),
            (None, Learner::Ftrl { weights, .. }) => {
                weights.ship(&mut bytes, is_full);
                weights.mark_shipped();
            }
            (None, Learner::Beta(beta)) => {
                beta.items.encode(&mut bytes, rows);
                beta.items.mark_shipped();
            }
        }
        self.statistics.encode(&mut bytes, rows);
        self.statistics.mark_shipped();
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.put_u64(sum);
        self.shipped = Some(to);
        ServingDelta { head, bytes }
    }

    /// A copy that has seen nothing. `item_columns`: those of the profile's columns that may differ between the candidates
    /// of a decision.
    pub fn serving(&self, item_columns: impl IntoIterator<Item = usize>) -> ServingModel {
        let mut statistics = self.statistics.clone();
        statistics.clear();
        let mut of_item = vec![false; self.columns];
        for column in item_columns {
            of_item[column] = true;
        }
        of_item.extend(statistics.per_item());
        let (mut shared, mut own) = (Columns::default(), Columns::default());
        for (column, of_item) in of_item.iter().enumerate() {
            let columns = if *of_item { &mut own } else { &mut shared };
            match column.checked_sub(self.columns) {
                None => columns.of_profile.push(column),
                Some(statistic) => columns.statistics.push(statistic),
            }
        }
        let learner = match &self.learner {
            Learner::Ftrl { plan, weights } => {
                let (shared, own) = plan.split(&of_item);
                Scorer::Ftrl { plan: plan.clone(), shared, own, weights: weights.serving() }
            }
            Learner::Beta(beta) => Scorer::Beta(beta.without_items()),
        };
        ServingModel {
            layout: self.layout,
            columns: self.columns,
            schema: self.served,
            shared,
            of_item: own,
            learner,
            statistics,
            base_margin: 0.0,
            learned: 0,
            seen: None,
            standing: Standing::Trusted,
        }
    }
}

#[derive(Clone, Debug)]
enum Scorer {
    Ftrl { plan: Plan, shared: Part, own: Part, weights: Served },
    Beta(Beta),
}

/// Some of the columns: the profile's, and the own statistics by their own numbers.
#[derive(Clone, Debug, Default)]
struct Columns {
    of_profile: Vec<usize>,
    statistics: Vec<usize>,
}

/// A model's serving copy.
#[derive(Clone, Debug)]
pub struct ServingModel {
    layout: u64,
    /// Of the profile; the own statistics follow.
    columns: usize,
    schema: u64,
    shared: Columns,
    /// What may differ between the candidates of a decision.
    of_item: Columns,
    learner: Scorer,
    statistics: Statistics,
    base_margin: f64,
    learned: u64,
    /// None: it needs a full delta.
    seen: Option<u64>,
    standing: Standing,
}

/// What a model believes of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Belief {
    Beta(beta::Belief),
    LogOdds(f64),
}

impl Belief {
    /// The predicted probability, as the model itself would predict it.
    #[inline]
    pub fn probability(&self) -> f64 {
        match self {
            Belief::Beta(belief) => belief.mean(),
            Belief::LogOdds(margin) => Prediction::of(0.0, *margin).probability,
        }
    }
}

/// Scratch space of one decision with one model: what all its candidates share.
#[derive(Clone, Debug, Default)]
pub struct Scoring {
    moments: Vec<Moment>,
    terms: Vec<Term>,
    entries: Vec<Entry>,
    shared_margin: f64,
}

impl ServingModel {
    /// Examples learned when the copy was last brought up to date.
    pub fn version(&self) -> u64 {
        self.learned
    }
    /// Examples scored until then; none while the copy needs a full delta.
    pub fn seen(&self) -> Option<u64> {
        self.seen
    }
    pub fn standing(&self) -> Standing {
        self.standing
    }
    /// Id of [`Model::served_schema`].
    pub fn schema(&self) -> u64 {
        self.schema
    }
    /// Columns of [`Model::served_schema`].
    pub fn width(&self) -> usize {
        self.columns + self.statistics.per_item().count()
    }

    /// Takes a delta in; false if it is not newer than the copy. After an error in its bytes a full one is needed.
    pub fn apply(&mut self, delta: &ServingDelta) -> Result<bool, ServingError> {
        let head = &delta.head;
        if head.layout != self.layout {
            return Err(ServingError::Layout { expected: self.layout, found: head.layout });
        }
        if self.seen.is_some_and(|seen| head.to <= seen) {
            return Ok(false);
        }
        if !head.is_full && self.seen.is_none_or(|seen| seen < head.from) {
            return Err(ServingError::Gap { from: head.from, seen: self.seen.unwrap_or(0) });
        }
        self.seen = None;
        if head.is_full {
            self.clear();
        }
        let mut r = Reader::new(&delta.bytes[HEAD_BYTES..delta.bytes.len() - CHECKSUM_BYTES]);
        match &mut self.learner {
            Scorer::Ftrl { weights, .. } => weights.apply(&mut r)?,
            Scorer::Beta(beta) => beta.items.apply(&mut r, false)?,
        }
        self.statistics.apply(&mut r)?;
        if !r.is_empty() {
            return Err(r.corrupt("end of the serving delta").into());
        }
        (self.base_margin, self.learned, self.standing) = (head.base_margin, head.learned, head.standing);
        self.seen = Some(head.to);
        Ok(true)
    }

    fn clear(&mut self) {
        match &mut self.learner {
            Scorer::Ftrl { weights, .. } => weights.clear(),
            Scorer::Beta(beta) => *beta = beta.without_items(),
        }
        self.statistics.clear();
    }

    /// Begins a decision. `values`: the profile's columns for any of its candidates.
    pub fn open(&self, values: &[FeatureValue], time: Time, s: &mut Scoring) {
        self.statistics.moments(time, &mut s.moments);
        let Scorer::Ftrl { plan, shared, weights, .. } = &self.learner else { return };
        s.terms.clear();
        s.terms.resize(self.width(), None);
        self.terms(plan, &self.shared, values, 0, s);
        plan.part(shared, &s.terms, &mut s.entries);
        s.shared_margin = self.base_margin + weights.margin(&s.entries);
    }

    /// What is believed of a candidate with these columns of the profile; `item`: [`super::item_key`].
    #[inline]
    pub fn believe(&self, values: &[FeatureValue], item: u64, s: &mut Scoring) -> Belief {
        let (plan, own, weights) = match &self.learner {
            Scorer::Ftrl { plan, own, weights, .. } => (plan, own, weights),
            Scorer::Beta(beta) => {
                return Belief::Beta(beta.belief(item, Prediction::of(self.base_margin, 0.0).probability));
            }
        };
        self.terms(plan, &self.of_item, values, item, s);
        plan.part(own, &s.terms, &mut s.entries);
        Belief::LogOdds(s.shared_margin + weights.margin(&s.entries))
    }

    #[inline]
    fn terms(&self, plan: &Plan, columns: &Columns, values: &[FeatureValue], item: u64, s: &mut Scoring) {
        for column in &columns.of_profile {
            s.terms[*column] = plan.term(*column, &values[*column]);
        }
        for n in &columns.statistics {
            let value = self.statistics.value(*n, &s.moments[*n], item);
            s.terms[self.columns + n] = plan.term(self.columns + n, &value);
        }
    }

    /// The predicted probability of a candidate of which `values` holds the profile's columns; the model's own
    /// statistics, as of `time`, are appended, so that they are those of [`Model::served_schema`].
    pub fn score(&self, values: &mut Vec<FeatureValue>, item: u64, time: Time, s: &mut Scoring) -> f64 {
        self.open(values, time, s);
        let belief = self.believe(values, item, s);
        values.extend(s.moments.iter().enumerate().map(|(n, moment)| self.statistics.value(n, moment, item)));
        belief.probability()
    }

    /// The `n`th own statistic itself, see [`Model::item_statistic`], a count or a ratio, of each item as of `time`; none without evidence.
    pub fn numbers(&self, n: usize, time: Time) -> impl Fn(u64) -> Option<f64> {
        let mut moments = Vec::new();
        self.statistics.moments(time, &mut moments);
        move |item| self.statistics.number(n, &moments[n], item)
    }
}
