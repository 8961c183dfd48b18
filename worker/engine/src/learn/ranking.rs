//! Areas under ROC curves from counts in ordered bins.

use crate::codec::{Corrupt, Put, Reader};

/// Positives and negatives in bins of ascending score.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// [negatives, positives] of each bin.
    bins: Vec<[u64; 2]>,
}

/// The area under a ROC curve: the chance that a positive is ranked above a negative, ties counting half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auc {
    pub value: f64,
    /// Pairs in the same bin count half, and are at worst all right or all wrong: half their share.
    pub bin_error: f64,
    pub positives: u64,
    pub negatives: u64,
}

impl Auc {
    /// Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982.
    pub fn standard_error(&self) -> f64 {
        let (a, p, n) = (self.value, self.positives as f64, self.negatives as f64);
        let (q1, q2) = (a / (2.0 - a), 2.0 * a * a / (1.0 + a));
        let variance = (a * (1.0 - a) + (p - 1.0) * (q1 - a * a) + (n - 1.0) * (q2 - a * a)) / (p * n);
        variance.max(0.0).sqrt()
    }
}

impl Ranking {
    pub fn new(bins: usize) -> Self {
        Self { bins: vec![[0; 2]; bins] }
    }

    /// The bin must be below their number.
    #[inline]
    pub fn add(&mut self, bin: usize, label: bool) {
        self.bins[bin][usize::from(label)] += 1;
    }

    /// None without a positive or without a negative.
    pub fn auc(&self) -> Option<Auc> {
        auc(self.groups())
    }

    /// (negatives, positives) of each bin.
    pub fn groups(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bins.iter().map(|[negatives, positives]| (*negatives, *positives))
    }

    pub fn clear(&mut self) {
        self.bins.fill([0; 2]);
    }

    pub fn is_empty(&self) -> bool {
        self.bins.iter().all(|counts| *counts == [0; 2])
    }

    /// The bins that are not empty: count (u32), then of each, as variable-length numbers, how many bins lie between it
    /// and the one before, its negatives and its positives.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let filled = || self.bins.iter().enumerate().filter(|(_, counts)| **counts != [0; 2]);
        out.put_u32(filled().count() as u32);
        let mut next = 0;
        for (number, [negatives, positives]) in filled() {
            put_variable(out, (number - next) as u64);
            put_variable(out, *negatives);
            put_variable(out, *positives);
            next = number + 1;
        }
    }

    pub fn read(r: &mut Reader<'_>, bins: usize) -> Result<Self, Corrupt> {
        let mut ranking = Self::new(bins);
        let mut next = 0usize;
        for _ in 0..r.count(3, "bins")? {
            let gap = read_variable(r, "bin")?;
            let at = r.corrupt("bin");
            let number = usize::try_from(gap).ok().and_then(|gap| next.checked_add(gap)).ok_or(at.clone())?;
            let counts = ranking.bins.get_mut(number).ok_or(at.clone())?;
            *counts = [read_variable(r, "negatives")?, read_variable(r, "positives")?];
            if *counts == [0; 2] {
                return Err(at);
            }
            next = number + 1;
        }
        Ok(ranking)
    }
}

/// Seven bits a byte, lowest first; the highest bit says that more follow (LEB128).
fn put_variable(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn read_variable(r: &mut Reader<'_>, what: &'static str) -> Result<u64, Corrupt> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = r.u8(what)?;
        let bits = u64::from(byte & 0x7F);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(r.corrupt(what));
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(r.corrupt(what))
}

/// From (negatives, positives) of each tied group, in ascending score.
pub fn auc(groups: impl Iterator<Item = (u64, u64)>) -> Option<Auc> {
    let (mut positives, mut negatives) = (0u64, 0u64);
    let (mut right, mut tied) = (0.0, 0.0);
    for (n, p) in groups {
        right += p as f64 * negatives as f64;
        tied += p as f64 * n as f64;
        positives = positives.saturating_add(p);
        negatives = negatives.saturating_add(n);
    }
    let pairs = positives as f64 * negatives as f64;
    let value = (right + 0.5 * tied) / pairs;
    (pairs > 0.0).then(|| Auc { value, bin_error: 0.5 * tied / pairs, positives, negatives })
}
