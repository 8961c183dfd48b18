//! What a model keeps of items and of all of them together, over its own examples: counts and ratios, windowed or not.
//!
//! Examples are counted in buckets of *example* time (impression + `within`). A reader sees only the buckets closed at
//! its *impression* time (bucket end <= impression), so nothing that was known later, and no label of an example whose
//! outcome was still open, gets in. A window is the last `buckets` closed ones. What is not windowed is counted in
//! buckets of an eighth of `within`, and all closed ones count.
//!
//! A ratio is `(part + smoothing * prior) / (whole + smoothing)`; the prior is the ratio of all items, in the same window,
//! and for `per: global` that of all closed time. Without `bucket` it enters the model as ln(ratio / prior), within ±4:
//! the number itself, a CTR of .004 say, would drown beside categories of value 1. Without any evidence it is missing.

use millrace_crds::spec::{self, Bucket, Names, Per, PipelineSpec};

use super::{
    CompileError,
    items::{Items, Rows, Series, Tally},
};
use crate::{
    codec::{Corrupt, Put, Reader},
    event::Time,
    example::{ExampleHead, FeatureValue},
    names::IMPRESSION,
};

const DEFAULT_BUCKETS: u32 = 8;
const MAX_LIFT: f64 = 4.0;
const SECOND_MICROS: i64 = 1_000_000;

/// How time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub bucket_micros: i64,
    /// None: all time.
    pub buckets: Option<i64>,
    pub tumbling: bool,
}

impl Window {
    pub fn bucket(&self, time: Time) -> i64 {
        time.0.div_euclid(self.bucket_micros)
    }

    /// The first bucket that a reader with this impression time sees; it sees those below [`Window::bucket`].
    pub fn first(&self, impression: Time) -> i64 {
        let open = self.bucket(impression);
        match self.buckets {
            None => i64::MIN,
            Some(buckets) if self.tumbling => open.div_euclid(buckets) * buckets,
            Some(buckets) => open - buckets,
        }
    }

    /// What a series must still tell apart for readers of this impression time or later.
    pub fn keep_from(&self, impression: Time) -> i64 {
        if self.buckets.is_some() { self.first(impression) } else { self.bucket(impression) }
    }
}

/// All items together and, where a feature asks for it, each, in one kind of window.
#[derive(Clone, Debug)]
struct Kept {
    window: Window,
    global: Series,
    items: Option<Items<Series>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Impressions,
    Outcomes,
}

#[derive(Clone, Debug)]
enum Measure {
    Count(Vec<Count>),
    Ratio { part: Count, whole: Count, smoothing: f64 },
}

#[derive(Clone, Debug)]
struct Statistic {
    kept: usize,
    per_item: bool,
    measure: Measure,
    bucket: Option<Bucket>,
}

/// The closed buckets that one statistic reads at a time, and what all items have in them.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    first: i64,
    open: i64,
    global: Tally,
    prior: Tally,
}

/// The statistics of one model.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    kept: Vec<Kept>,
    statistics: Vec<Statistic>,
}

impl Tally {
    fn of(&self, count: Count) -> f64 {
        match count {
            Count::Impressions => self.impressions as f64,
            Count::Outcomes => self.outcomes as f64,
        }
    }
}

impl Statistics {
    /// `names`: of features with `per: item` or `per: global`, in the order in which their values are to come.
    pub fn compile(spec: &PipelineSpec, names: &[&str], outcome: &spec::Outcome) -> Result<Self, CompileError> {
        let mut compiled = Self::default();
        for name in names {
            let unsupported = || CompileError::Statistic { feature: (*name).to_owned(), event: outcome.event.clone() };
            let feature = spec.features.get(*name).ok_or_else(unsupported)?;
            let count = |event: &str| match event {
                IMPRESSION => Some(Count::Impressions),
                event if event == outcome.event => Some(Count::Outcomes),
                _ => None,
            };
            let measure = match (&feature.count, &feature.ratio) {
                (Some(Names::One(event)), None) => count(event).map(|c| Measure::Count(vec![c])),
                (Some(Names::Many(events)), None) => {
                    events.iter().map(|e| count(e)).collect::<Option<Vec<_>>>().map(Measure::Count)
                }
                (None, Some([part, whole])) => count(part).zip(count(whole)).map(|(part, whole)| Measure::Ratio {
                    part,
                    whole,
                    smoothing: feature.smoothing.unwrap_or(0.0).max(0.0),
                }),
                _ => None,
            };
            let (measure, per_item) = (measure.ok_or_else(unsupported)?, feature.per == Per::Item);
            let kept = compiled.keep(window(feature, outcome), per_item);
            compiled.statistics.push(Statistic { kept, per_item, measure, bucket: feature.bucket.clone() });
        }
        Ok(compiled)
    }

    fn keep(&mut self, window: Window, per_item: bool) -> usize {
        let found = self.kept.iter().position(|k| k.window == window);
        let at = found.unwrap_or_else(|| {
            self.kept.push(Kept { window, global: Series::default(), items: None });
            self.kept.len() - 1
        });
        if per_item {
            self.kept[at].items.get_or_insert_default();
        }
        at
    }

    /// Goes on with what was counted in the same buckets.
    pub fn take_over(&mut self, old: Statistics) {
        for old in old.kept {
            if let Some(kept) = self.kept.iter_mut().find(|kept| kept.window == old.window) {
                kept.global = old.global;
                if let (Some(items), Some(counted)) = (&mut kept.items, old.items) {
                    *items = counted;
                }
            }
        }
    }

    /// What all items have in common at a time of impressions or decisions, for [`Statistics::value`].
    pub fn moments(&self, at: Time, out: &mut Vec<Moment>) {
        out.clear();
        out.extend(self.statistics.iter().map(|statistic| {
            let kept = &self.kept[statistic.kept];
            let (first, open) = (kept.window.first(at), kept.window.bucket(at));
            let global = kept.global.between(first, open);
            let prior = if statistic.per_item { global } else { kept.global.between(i64::MIN, open) };
            Moment { first, open, global, prior }
        }));
    }

    /// The value of the `n`th statistic for an item.
    pub fn value(&self, n: usize, moment: &Moment, item: u64) -> FeatureValue {
        self.statistics[n].value(&self.tally(n, moment, item), &moment.prior)
    }

    /// Its count or ratio itself; none where there is no evidence at all.
    pub fn number(&self, n: usize, moment: &Moment, item: u64) -> Option<f64> {
        self.statistics[n].number(&self.tally(n, moment, item), &moment.prior)
    }

    fn tally(&self, n: usize, moment: &Moment, item: u64) -> Tally {
        let statistic = &self.statistics[n];
        if !statistic.per_item {
            return moment.global;
        }
        let series = self.kept[statistic.kept].items.as_ref().and_then(|items| items.get(item));
        series.map(|series| series.between(moment.first, moment.open)).unwrap_or_default()
    }

    /// Of each statistic, whether it differs between items.
    pub fn per_item(&self) -> impl Iterator<Item = bool> + '_ {
        self.statistics.iter().map(|statistic| statistic.per_item)
    }

    /// Counts an example. Must follow in order of example time.
    pub fn learn(&mut self, head: &ExampleHead<'_>, item: u64) {
        for kept in &mut self.kept {
            let (bucket, keep_from) = (kept.window.bucket(head.time), kept.window.keep_from(head.impression));
            kept.global.add(bucket, head.label, keep_from);
            if let Some(items) = &mut kept.items {
                let expires_before = if kept.window.buckets.is_some() { keep_from } else { i64::MIN };
                items.update(item, expires_before, |series| series.add(bucket, head.label, keep_from));
            }
        }
    }

    /// Number of items that are kept, over all windows.
    pub fn items(&self) -> usize {
        self.kept.iter().filter_map(|k| k.items.as_ref()).map(Items::len).sum()
    }

    /// Of what the statistics are, for telling states of different models apart.
    pub fn layout(&self, out: &mut Vec<u8>) {
        for kept in &self.kept {
            out.put_i64(kept.window.bucket_micros);
            out.put_i64(kept.window.buckets.unwrap_or(0));
            out.put_u8(u8::from(kept.window.tumbling) | u8::from(kept.items.is_some()) << 1);
        }
    }

    pub fn digest(&mut self, out: &mut Vec<u8>) {
        for kept in &mut self.kept {
            kept.global.encode(out);
            if let Some(items) = &mut kept.items {
                out.put_u128(items.digest());
            }
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>, rows: Rows) {
        for kept in &self.kept {
            kept.global.encode(out);
            if let Some(items) = &kept.items {
                items.encode(out, rows);
            }
        }
    }

    pub fn mark_clean(&mut self) {
        self.kept.iter_mut().filter_map(|k| k.items.as_mut()).for_each(Items::mark_clean);
    }

    pub fn mark_shipped(&mut self) {
        self.kept.iter_mut().filter_map(|k| k.items.as_mut()).for_each(Items::mark_shipped);
    }

    /// Without any example.
    pub fn clear(&mut self) {
        for kept in &mut self.kept {
            kept.global = Series::default();
            kept.items = kept.items.is_some().then(Items::default);
        }
    }

    /// Takes over what [`Statistics::encode`] wrote: all of it, or what changed.
    pub fn apply(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        for kept in &mut self.kept {
            kept.global = Series::read(r)?;
            if let Some(items) = &mut kept.items {
                items.apply(r, kept.window.buckets.is_some())?;
            }
        }
        Ok(())
    }
}

fn window(feature: &spec::Feature, outcome: &spec::Outcome) -> Window {
    match feature.window {
        Some(window) => {
            let buckets = i64::from(feature.buckets.unwrap_or(DEFAULT_BUCKETS).max(1));
            let bucket_micros = (window.as_micros() / buckets).max(1);
            Window { bucket_micros, buckets: Some(buckets), tumbling: feature.tumbling == Some(true) }
        }
        None => {
            let bucket_micros = (outcome.within.as_micros() / 8).clamp(SECOND_MICROS, 3600 * SECOND_MICROS);
            Window { bucket_micros, buckets: None, tumbling: false }
        }
    }
}

impl Statistic {
    fn number(&self, tally: &Tally, prior: &Tally) -> Option<f64> {
        match &self.measure {
            Measure::Count(counts) => Some(counts.iter().fold(0.0, |sum, count| sum + tally.of(*count))),
            Measure::Ratio { part, whole, smoothing } => {
                let prior = prior.of(*part) / prior.of(*whole);
                let ratio = (tally.of(*part) + smoothing * prior) / (tally.of(*whole) + smoothing);
                (prior > 0.0 && prior.is_finite() && ratio.is_finite()).then_some(ratio)
            }
        }
    }

    fn value(&self, tally: &Tally, prior: &Tally) -> FeatureValue {
        let Some(number) = self.number(tally, prior) else { return FeatureValue::Missing };
        match (&self.bucket, &self.measure) {
            (Some(bucket), _) => FeatureValue::Category(bucket_of(bucket, number)),
            (None, Measure::Count(_)) => FeatureValue::Number(number),
            (None, Measure::Ratio { part, whole, .. }) => {
                let prior = prior.of(*part) / prior.of(*whole);
                FeatureValue::Number(libm::log((number / prior).max(1e-9)).clamp(-MAX_LIFT, MAX_LIFT))
            }
        }
    }
}

/// The number of the bucket of x, as [`Bucket`] says.
pub fn bucket_of(bucket: &Bucket, x: f64) -> u64 {
    let number = if !bucket.bounds.is_empty() {
        bucket.bounds.iter().filter(|bound| **bound <= x).count() as f64
    } else if let Some(log2) = bucket.log2 {
        if x < 1.0 { 0.0 } else { libm::floor(log2 * libm::log2(x)) }
    } else {
        libm::floor(x)
    };
    number.max(0.0).min(bucket.max.map_or(f64::MAX, f64::from)) as u64
}
