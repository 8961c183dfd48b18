//! Are a column's values distributed as they were?
//!
//! The first thousand examples give each column of numbers its ten bins of equal counts; categories share sixteen bins by
//! hash, missing values have one. The next `window_examples` are the reference, every as many after them a window. A
//! window is compared by the population stability index `Σ (q - r) ln (q / r)` over bins, with half a count added to each.
//!
//! As bins do not depend on what is counted in them, without drift the index is about `(1 / n + 1 / m)` times chi-square
//! with one degree less than there are bins: Yurdakul, Naranjo, "Statistical properties of the population stability index",
//! Journal of Risk Model Validation 2020. n and m are the windows' examples, divided by how many say as much as one
//! independent one. A column has drifted if its index is at least `least_psi`, and would be as high by chance in one
//! window in `run length / window` at most, over all columns together (Bonferroni).
//!
//! The reference stays what it was at the model's beginning: who wants a day's tides in it makes the window a day long.

use super::{ColumnDrift, DriftAlarm, DriftKind, DriftSettings};
use crate::{
    codec::{Corrupt, Put, Reader},
    distributions::chi_square_upper,
    example::FeatureValue,
};

/// Examples from which bins are learned.
const CUT_EXAMPLES: u32 = 1_000;
const NUMBER_BINS: usize = 10;
const CATEGORY_BINS: usize = 16;
/// Missing, numbers, categories.
const BINS: usize = 1 + NUMBER_BINS + CATEGORY_BINS;

type Counts = [u32; BINS];

/// What is done with examples now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Cuts = 0,
    Reference = 1,
    Windows = 2,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Column {
    /// Numbers of the first examples; empty later.
    sample: Vec<f64>,
    /// Ascending; a number's bin is how many of them are below it.
    cuts: Vec<f64>,
    reference: Counts,
    window: Counts,
    /// NaN before the first whole window.
    psi: f64,
    drifted: bool,
    alarms: u64,
}

#[derive(Clone, Debug)]
pub struct Columns {
    names: Vec<String>,
    columns: Vec<Column>,
    phase: Phase,
    /// Examples in this phase or window.
    seen: u32,
    window_examples: u32,
    least_psi: f64,
    /// Chance of a false alarm of one column in one window.
    chance: f64,
    per_independent: f64,
}

impl Columns {
    pub fn new(settings: &DriftSettings, names: Vec<String>) -> Self {
        let windows = settings.run_length_examples / f64::from(settings.window_examples.max(1));
        Self {
            columns: vec![Column { psi: f64::NAN, ..Column::default() }; names.len()],
            phase: Phase::Cuts,
            seen: 0,
            window_examples: settings.window_examples.max(1),
            least_psi: settings.least_psi,
            chance: 1.0 / (windows * names.len().max(1) as f64),
            per_independent: settings.examples_per_independent,
            names,
        }
    }

    /// Of what a state cannot be read without.
    pub fn layout(&self) -> u64 {
        let mut bytes = Vec::new();
        self.names.iter().for_each(|name| bytes.put_str(name));
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    pub fn learn(&mut self, values: &[FeatureValue], example: u64, alarms: &mut Vec<DriftAlarm>) {
        for (column, value) in self.columns.iter_mut().zip(values) {
            match (self.phase, value) {
                (Phase::Cuts, FeatureValue::Number(x)) if x.is_finite() => column.sample.push(*x),
                (Phase::Cuts, _) => {}
                (Phase::Reference | Phase::Windows, value) => {
                    let count = &mut column.window[bin(&column.cuts, value)];
                    *count = count.saturating_add(1);
                }
            }
        }
        self.seen = self.seen.saturating_add(1);
        let length = if self.phase == Phase::Cuts { CUT_EXAMPLES } else { self.window_examples };
        if self.seen >= length {
            self.close(example, alarms);
        }
    }

    /// A phase or a window is over.
    fn close(&mut self, example: u64, alarms: &mut Vec<DriftAlarm>) {
        let seen = std::mem::take(&mut self.seen);
        match self.phase {
            Phase::Cuts => {
                self.columns.iter_mut().for_each(Column::cut);
                self.phase = Phase::Reference;
            }
            Phase::Reference => {
                self.columns.iter_mut().for_each(|c| c.reference = std::mem::take(&mut c.window));
                self.phase = Phase::Windows;
            }
            Phase::Windows => {
                for n in 0..self.columns.len() {
                    let window = std::mem::take(&mut self.columns[n].window);
                    let (psi, bins) = stability(&self.columns[n].reference, &window);
                    let drifted = self.is_drift(psi, bins, &self.columns[n].reference, seen);
                    let column = &mut self.columns[n];
                    if drifted && !column.drifted {
                        column.alarms = column.alarms.saturating_add(1);
                        let (kind, name) = (DriftKind::Column, self.names[n].clone());
                        alarms.push(DriftAlarm { kind, column: Some(name), psi: Some(psi), example });
                    }
                    (column.psi, column.drifted) = (psi, drifted);
                }
            }
        }
    }

    fn is_drift(&self, psi: f64, bins: usize, reference: &Counts, seen: u32) -> bool {
        let referred: f64 = reference.iter().map(|c| f64::from(*c)).sum();
        let noise = self.per_independent * (1.0 / referred + 1.0 / f64::from(seen));
        bins > 1 && psi >= self.least_psi && chi_square_upper(psi / noise, bins as f64 - 1.0) < self.chance
    }

    pub fn has_drifted(&self) -> bool {
        self.columns.iter().any(|column| column.drifted)
    }

    pub fn summary(&self) -> Vec<ColumnDrift> {
        let summary = |(name, column): (&String, &Column)| ColumnDrift {
            column: name.clone(),
            psi: (!column.psi.is_nan()).then_some(column.psi),
            drifted: column.drifted,
            alarms: column.alarms,
        };
        self.names.iter().zip(&self.columns).map(summary).collect()
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.phase as u8);
        out.put_u32(self.seen);
        for column in &self.columns {
            for numbers in [&column.sample, &column.cuts] {
                out.put_u32(numbers.len() as u32);
                numbers.iter().for_each(|x| out.put_f64(*x));
            }
            column.reference.iter().chain(&column.window).for_each(|count| out.put_u32(*count));
            out.put_f64(column.psi);
            out.put_u8(u8::from(column.drifted));
            out.put_u64(column.alarms);
        }
    }

    pub fn load(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.phase = match r.u8("phase of the columns")? {
            0 => Phase::Cuts,
            1 => Phase::Reference,
            2 => Phase::Windows,
            _ => return Err(r.corrupt("phase of the columns")),
        };
        self.seen = r.u32("examples of the window")?;
        for column in &mut self.columns {
            column.load(r)?;
        }
        Ok(())
    }
}

impl Column {
    /// Learns the bins.
    fn cut(&mut self) {
        let mut sample = std::mem::take(&mut self.sample);
        sample.sort_by(f64::total_cmp);
        let at = |n: usize| sample.get(n * sample.len() / NUMBER_BINS).copied();
        self.cuts = (1..NUMBER_BINS).filter_map(at).collect();
        self.cuts.dedup();
    }

    fn load(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        for (numbers, most) in [(&mut self.sample, CUT_EXAMPLES as usize), (&mut self.cuts, NUMBER_BINS - 1)] {
            let count = r.count(8, "numbers of a column")?;
            if count > most {
                return Err(r.corrupt("numbers of a column"));
            }
            *numbers = (0..count).map(|_| r.f64("number of a column")).collect::<Result<_, _>>()?;
            if numbers.iter().any(|x| !x.is_finite()) {
                return Err(r.corrupt("number of a column"));
            }
        }
        if !self.cuts.is_sorted() {
            return Err(r.corrupt("bins of a column"));
        }
        for count in self.reference.iter_mut().chain(&mut self.window) {
            *count = r.u32("count of a column")?;
        }
        self.psi = r.f64("index of a column")?;
        self.drifted = match r.u8("drift of a column")? {
            0 => false,
            1 => true,
            _ => return Err(r.corrupt("drift of a column")),
        };
        self.alarms = r.u64("alarms of a column")?;
        Ok(())
    }
}

#[inline]
fn bin(cuts: &[f64], value: &FeatureValue) -> usize {
    match value {
        FeatureValue::Number(x) if !x.is_nan() => 1 + cuts.partition_point(|cut| cut < x),
        // Numbers of buckets are small and texts' hashes are even: the low bits tell both apart.
        FeatureValue::Category(category) => 1 + NUMBER_BINS + *category as usize % CATEGORY_BINS,
        _ => 0,
    }
}

/// The population stability index, and how many bins hold anything.
fn stability(reference: &Counts, window: &Counts) -> (f64, usize) {
    let filled = || reference.iter().zip(window).filter(|(r, w)| **r > 0 || **w > 0);
    let bins = filled().count();
    let total = |counts: &Counts| counts.iter().map(|c| f64::from(*c)).sum::<f64>() + 0.5 * bins as f64;
    let (n, m) = (total(reference), total(window));
    let part = |(r, w): (&u32, &u32)| {
        let (r, w) = ((f64::from(*r) + 0.5) / n, (f64::from(*w) + 0.5) / m);
        (w - r) * libm::log(w / r)
    };
    (filled().map(part).sum(), bins)
}
