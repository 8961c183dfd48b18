//! Warns of columns that know the label: by day (UTC, of the impression), how well does each alone rank the examples?
//!
//! *Numbers* are ranked by value (in bins of a twelfth or less of their size, a missing one below all), in whichever
//! direction is better. *Categories* are ranked by the rate of the day's other examples of the same category: each
//! example is left out of its own rate, and two of the same category tie, so an id that occurs once says nothing.
//! Categories share 2,048 counters by hash.
//!
//! *When is it significant?* Under the null hypothesis labels are exchangeable. The mean of the k rarer labels' mid-ranks,
//! scaled to 0..1, is then below k uniform variables' mean in convex order (ties and drawing without replacement only
//! narrow it), so by Chernoff's bound at lambda = 1/e it reaches 1 - e with a chance of at most
//! `(e' e (1 - exp(-1/e)))^k`, e' being Euler's number. This holds for few positives too, where the normal approximation
//! and Hanley and McNeil's interval do not. For categories the first positive of each category chooses rather than
//! confirms, so k is reduced by the number of categories that hold positives. A column is warned of if its area is at
//! least .9, and the bound, times 2 directions, is below [`FALSE_ALARM`] / columns * 6 / (pi d)^2 on the d-th day: over all
//! columns and for ever, the chance of a false alarm is below [`FALSE_ALARM`].

use serde::Serialize;

use super::ranking::{self, Auc, Ranking};
use crate::{
    codec::{Corrupt, Put, Reader},
    event::Time,
    example::FeatureValue,
};

/// The chance that a model without a leak is ever warned of.
pub const FALSE_ALARM: f64 = 0.05;
/// Least area that is warned of.
const LEAST_AUC: f64 = 0.9;
/// Of either label, on a day.
const LEAST_EXAMPLES: u64 = 3;
const DAY_MICROS: i64 = 86_400_000_000;
const SLOTS: usize = 2_048;
/// Numbers from 2^-20 to 2^44 of either sign, eight bins a doubling, beside zero, missing, and what is beyond.
const SIDE_BINS: usize = 64 * 8;
const BINS: usize = 2 + 2 * SIDE_BINS;
const ZERO_BIN: usize = 1 + SIDE_BINS;

/// A column that ranked the labels of a day almost perfectly.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeakWarning {
    pub column: String,
    /// Days since 1970-01-01 UTC.
    pub day: i64,
    /// Of the column alone, in its better direction.
    pub auc: f64,
    pub positives: u64,
    pub negatives: u64,
}

impl std::fmt::Display for LeakWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let day = jiff::civil::Date::constant(1970, 1, 1).checked_add(jiff::Span::new().days(self.day));
        let day = day.map_or_else(|_| format!("day {}", self.day), |d| d.to_string());
        write!(
            f,
            "`{}` alone tells the label on {day} (AUC {:.3}, {} positives, {} negatives): it probably holds the outcome; \
             do not train on it",
            self.column, self.auc, self.positives, self.negatives
        )
    }
}

/// A warning as it is kept, with its column's index.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    column: u32,
    day: i64,
    auc: f64,
    positives: u64,
    negatives: u64,
}

/// What a column showed today. Both parts are empty until first used.
#[derive(Clone, Debug, Default)]
struct Column {
    numbers: Option<Ranking>,
    /// [negatives, positives] of each slot.
    categories: Vec<[u32; 2]>,
    /// [negatives, positives] without a value.
    missing: [u32; 2],
}

/// The detector of one model.
#[derive(Clone, Debug)]
pub struct LeakDetector {
    names: Vec<String>,
    columns: Vec<Column>,
    today: Option<i64>,
    /// Days judged so far.
    days: u64,
    /// The last warning of each column that has one, by column.
    found: Vec<Found>,
}

impl LeakDetector {
    /// `names` of the columns, as their values come. Columns of one name are judged on their own.
    pub fn new(names: Vec<String>) -> Self {
        let columns = vec![Column::default(); names.len()];
        Self { names, columns, today: None, days: 0, found: Vec::new() }
    }

    pub fn learn(&mut self, impression: Time, values: &[FeatureValue], label: bool) {
        let day = impression.0.div_euclid(DAY_MICROS);
        if self.today.is_none_or(|today| today < day) {
            self.judge();
            self.today = Some(day);
        }
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.learn(value, label);
        }
    }

    /// The last warning of each column, today's included as far as it is known.
    pub fn warnings(&self) -> Vec<LeakWarning> {
        let mut found = self.found.clone();
        self.judge_today(&mut found);
        let warning = |f: &Found| LeakWarning {
            column: self.names[f.column as usize].clone(),
            day: f.day,
            auc: f.auc,
            positives: f.positives,
            negatives: f.negatives,
        };
        found.iter().map(warning).collect()
    }

    fn judge(&mut self) {
        let mut found = std::mem::take(&mut self.found);
        self.judge_today(&mut found);
        self.found = found;
        self.days += u64::from(self.today.is_some());
        self.columns.iter_mut().for_each(Column::clear);
    }

    fn judge_today(&self, found: &mut Vec<Found>) {
        let Some(day) = self.today else { return };
        let nth = (self.days + 1) as f64;
        let share = 6.0 / (std::f64::consts::PI * std::f64::consts::PI * nth * nth);
        let least = libm::log(FALSE_ALARM * share / (2.0 * self.names.len() as f64));
        for (number, column) in self.columns.iter().enumerate() {
            if let Some(auc) = column.leak(least) {
                let column = number as u32;
                found.retain(|f| f.column != column);
                let (positives, negatives) = (auc.positives, auc.negatives);
                found.push(Found { column, day, auc: auc.value, positives, negatives });
            }
        }
        found.sort_by_key(|f| f.column);
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_i64(self.today.unwrap_or(i64::MIN));
        out.put_u64(self.days);
        out.put_u32(self.found.len() as u32);
        for f in &self.found {
            out.put_u32(f.column);
            out.put_i64(f.day);
            out.put_f64(f.auc);
            out.put_u64(f.positives);
            out.put_u64(f.negatives);
        }
        self.columns.iter().for_each(|column| column.encode(out));
    }

    pub fn apply(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.today = Some(r.i64("day")?).filter(|day| *day != i64::MIN);
        self.days = r.u64("days")?;
        self.found.clear();
        for _ in 0..r.count(36, "leaks")? {
            let (column, day, auc) = (r.u32("leak column")?, r.i64("leak day")?, r.f64("leak area")?);
            let found = Found { column, day, auc, positives: r.u64("positives")?, negatives: r.u64("negatives")? };
            if column as usize >= self.names.len() || !auc.is_finite() {
                return Err(r.corrupt("leak"));
            }
            self.found.push(found);
        }
        for column in &mut self.columns {
            *column = Column::read(r)?;
        }
        Ok(())
    }
}

/// The bin of a number; monotone.
fn bin(x: f64) -> usize {
    // Sign, exponent and the first three bits of the mantissa order as the number does.
    let size = (x.abs().to_bits() >> 49) as usize;
    let least = (1023 - 20) << 3;
    let side = if x == 0.0 { 0 } else { size.saturating_sub(least).clamp(1, SIDE_BINS) };
    if x < 0.0 { ZERO_BIN - side } else { ZERO_BIN + side }
}

/// The logarithm of the bound on the chance of ranks this good or better, see the head of this file.
fn log_chance(auc: &Auc, chosen: u64) -> f64 {
    let (rarer, other) = (auc.positives.min(auc.negatives), auc.positives.max(auc.negatives));
    let confirming = rarer.saturating_sub(chosen) as f64;
    let (rarer, other) = (rarer as f64, other as f64);
    let miss = ((1.0 - auc.value) * other + rarer / 2.0) / (rarer + other);
    confirming * (1.0 + libm::log(miss * (1.0 - libm::exp(-1.0 / miss)))).min(0.0)
}

impl Column {
    #[inline]
    fn learn(&mut self, value: &FeatureValue, label: bool) {
        match *value {
            FeatureValue::Number(x) if !x.is_nan() => {
                self.numbers.get_or_insert_with(|| Ranking::new(BINS)).add(bin(x), label);
            }
            FeatureValue::Category(category) => {
                if self.categories.is_empty() {
                    self.categories.resize(SLOTS, [0; 2]);
                }
                // Numbers of buckets are small and texts' hashes are even: the low bits tell both apart.
                let count = &mut self.categories[category as usize % SLOTS][usize::from(label)];
                *count = count.saturating_add(1);
            }
            _ => {
                let count = &mut self.missing[usize::from(label)];
                *count = count.saturating_add(1);
            }
        }
    }

    fn clear(&mut self) {
        if let Some(numbers) = &mut self.numbers {
            numbers.clear();
        }
        self.categories.fill([0; 2]);
        self.missing = [0; 2];
    }

    /// Today's area, if it is to be warned of.
    fn leak(&self, least: f64) -> Option<Auc> {
        let numbers = self.numbers.as_ref().filter(|n| !n.is_empty()).and_then(|n| self.numbers_auc(n));
        let categories = self.categories_auc();
        let judged = |(auc, chosen): (Auc, u64)| {
            let enough = auc.positives.min(auc.negatives) >= LEAST_EXAMPLES;
            (enough && auc.value >= LEAST_AUC && log_chance(&auc, chosen) < least).then_some(auc)
        };
        numbers.map(|auc| (auc, 0)).and_then(judged).or_else(|| categories.and_then(judged))
    }

    fn numbers_auc(&self, numbers: &Ranking) -> Option<Auc> {
        let missing = (u64::from(self.missing[0]), u64::from(self.missing[1]));
        let auc = ranking::auc(std::iter::once(missing).chain(numbers.groups()))?;
        Some(Auc { value: auc.value.max(1.0 - auc.value), ..auc })
    }

    /// The area of ranking by the other examples' rate, and the number of categories that hold the rarer label.
    fn categories_auc(&self) -> Option<(Auc, u64)> {
        let filled = || self.categories.iter().chain([&self.missing]).filter(|c| **c != [0; 2]);
        let (negatives, positives) =
            filled().fold((0u64, 0u64), |(n, p), c| (n + u64::from(c[0]), p + u64::from(c[1])));
        if filled().count() < 2 || positives == 0 || negatives == 0 {
            return None;
        }
        let base = positives as f64 / (positives + negatives) as f64;
        let rate =
            |others: [u32; 2]| (f64::from(others[1]) + base) / (f64::from(others[0]) + f64::from(others[1]) + 1.0);
        let mut groups: Vec<(f64, u64, u64)> = Vec::new();
        let mut within = 0.0;
        for &[n, p] in filled() {
            if n > 0 {
                groups.push((rate([n - 1, p]), u64::from(n), 0));
            }
            if p > 0 {
                groups.push((rate([n, p - 1]), 0, u64::from(p)));
            }
            // A positive left out of its rate ranks below its category's negatives, always: they tie instead.
            if n > 0 && p > 0 {
                within += 0.5 * f64::from(n) * f64::from(p);
            }
        }
        groups.sort_by(|a, b| a.0.total_cmp(&b.0));
        let tied = groups.chunk_by(|a, b| a.0 == b.0);
        let auc = ranking::auc(tied.map(|g| g.iter().fold((0, 0), |(n, p), (_, gn, gp)| (n + gn, p + gp))))?;
        let value = (auc.value + within / (positives as f64 * negatives as f64)).min(1.0);
        let rarer = usize::from(positives <= negatives);
        let chosen = filled().filter(|c| c[rarer] > 0).count() as u64;
        Some((Auc { value, ..auc }, chosen))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match &self.numbers {
            Some(numbers) => {
                out.put_u8(1);
                numbers.encode(out);
            }
            None => out.put_u8(0),
        }
        let filled = || self.categories.iter().enumerate().filter(|(_, c)| **c != [0; 2]);
        out.put_u32(filled().count() as u32);
        for (slot, counts) in filled() {
            out.put_u16(slot as u16);
            out.put_u32(counts[0]);
            out.put_u32(counts[1]);
        }
        out.put_u32(self.missing[0]);
        out.put_u32(self.missing[1]);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let numbers = match r.u8("numbers")? {
            0 => None,
            1 => Some(Ranking::read(r, BINS)?),
            _ => return Err(r.corrupt("numbers")),
        };
        let mut column = Self { numbers, ..Self::default() };
        let count = r.count(10, "categories")?;
        if count > 0 {
            column.categories.resize(SLOTS, [0; 2]);
        }
        for _ in 0..count {
            let slot = r.u16("category")? as usize;
            let at = r.corrupt("category");
            *column.categories.get_mut(slot).ok_or(at)? = [r.u32("negatives")?, r.u32("positives")?];
        }
        column.missing = [r.u32("missing")?, r.u32("missing")?];
        Ok(column)
    }
}
