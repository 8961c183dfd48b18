//! FTRL-proximal logistic regression with per-coordinate rates over hashed features.
//!
//! McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1. A coordinate keeps
//! `z` and `s = sqrt(n)`, in which n is the sum of its squared gradients, and its weight is
//! `-(z - sign(z) l1) / ((beta + s) / alpha + l2)`, or 0 where `|z| <= l1`. Keeping the root instead of n saves one
//! of two square roots an update. Both are f64: an f32 sum of squares stops growing at some ten million.
//!
//! Forgetting (`halfLifeExamples` H): after every example `n` is to be multiplied by `2^(-1/H)`, and `z` and `s` thus by
//! `2^(-1/2H)`: evidence of H examples ago counts half in n, rates rise again, and a weight whose feature is seen
//! no more goes to 0 as beta, l1 and l2 outweigh its evidence. Instead of every coordinate, the unit is changed: with
//! `scale = 2^(t/2H)` cells hold `z scale` and `s scale`, which is the algorithm above with the gradient, beta, l1 and l2
//! times `scale`. At 2^32 all cells are multiplied by 2^-32, which is exact.

use millrace_crds::spec;

use crate::codec::{Corrupt, Put, Reader};

/// One hashed feature of an example. The index is taken modulo the number of weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    pub index: u32,
    pub value: f64,
}

/// `z` and `sqrt(n)` of one coordinate, both times `Ftrl::scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cell {
    z: f64,
    root: f64,
}

/// Coordinates that are written, and digested, together.
const BLOCK: usize = 64;
const CHANGED: u8 = 1;
const DIGEST_STALE: u8 = 2;
const MAX_SCALE: f64 = 4_294_967_296.0;

/// What serving needs of the weights and accumulators: `z` and `sqrt(n)` in single precision.
///
/// Each is thus off by 2^-24 of itself at most, a weight w of curvature c by 2^-23 (|w| + l1 / c), and a margin by the sum
/// of those times the values of its entries: some 1e-6 in practice.
#[derive(Clone, Debug)]
pub struct Served {
    inverse_alpha: f64,
    least_curvature: f64,
    l1: f64,
    scale: f64,
    cells: Vec<[f32; 2]>,
}

impl Served {
    /// The sum of value times weight.
    #[inline]
    pub fn margin(&self, entries: &[Entry]) -> f64 {
        let (cells, mask) = (self.cells.as_slice(), self.cells.len() - 1);
        let (least_curvature, l1) = (self.least_curvature * self.scale, self.l1 * self.scale);
        let weight = |entry: &Entry| {
            let [z, root] = cells[entry.index as usize & mask].map(f64::from);
            let z = (z.abs() - l1).max(0.0).copysign(z);
            -z / (least_curvature + root * self.inverse_alpha)
        };
        entries.iter().fold(0.0, |margin, entry| margin + entry.value * weight(entry))
    }

    pub fn clear(&mut self) {
        self.scale = 1.0;
        self.cells.fill([0.0; 2]);
    }

    /// The same weights by the settings of another model, if there are as many.
    pub fn take_over(&mut self, of: &Ftrl) -> bool {
        (self.inverse_alpha, self.least_curvature, self.l1) = (of.inverse_alpha, of.least_curvature, of.l1);
        self.cells.len() == of.cells.len()
    }

    /// All coordinates that are not zero, as [`Served::apply`] reads them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_f64(self.scale);
        let count_at = begin_count(out);
        let mut count = 0;
        for (number, cells) in self.cells.chunks(BLOCK).enumerate() {
            let is_present = |cell: &[f32; 2]| *cell != [0.0; 2];
            let present = cells.iter().enumerate().fold(0, |bits, (i, cell)| bits | u64::from(is_present(cell)) << i);
            if present != 0 {
                out.put_u32(number as u32);
                out.put_u64(present);
                for [z, root] in cells.iter().filter(|cell| is_present(cell)) {
                    out.put_f32(*z);
                    out.put_f32(*root);
                }
                count += 1;
            }
        }
        end_count(out, count_at, count);
    }

    /// That nothing changed, as [`Served::apply`] reads it.
    pub fn encode_nothing(&self, out: &mut Vec<u8>) {
        out.put_f64(self.scale);
        out.put_u32(0);
    }

    /// Takes over what [`Ftrl::ship`] wrote.
    pub fn apply(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.scale = read_scale(r)?;
        for _ in 0..r.count(12, "weight blocks")? {
            let (number, wanted) = (r.u32("weight block")? as usize, r.u64("coordinates")?);
            let at = r.corrupt("weight block");
            let cells = self.cells.chunks_mut(BLOCK).nth(number).ok_or(at)?;
            for i in (0..BLOCK).filter(|i| wanted >> i & 1 == 1) {
                let (z, root) = (r.f32("z")?, r.f32("root")?);
                let at = r.corrupt("accumulator");
                if !z.is_finite() || !root.is_finite() || root < 0.0 {
                    return Err(at);
                }
                *cells.get_mut(i).ok_or(at)? = [z, root];
            }
        }
        Ok(())
    }
}

fn begin_count(out: &mut Vec<u8>) -> usize {
    out.put_u32(0);
    out.len() - 4
}

fn end_count(out: &mut [u8], at: usize, count: u32) {
    out[at..at + 4].copy_from_slice(&count.to_le_bytes());
}

fn read_scale(r: &mut Reader<'_>) -> Result<f64, Corrupt> {
    let scale = r.f64("scale")?;
    if (1.0..MAX_SCALE).contains(&scale) { Ok(scale) } else { Err(r.corrupt("scale")) }
}

/// The weights and accumulators of a model.
#[derive(Clone, Debug)]
pub struct Ftrl {
    inverse_alpha: f64,
    /// beta / alpha + l2: what the curvature of a coordinate without evidence is.
    least_curvature: f64,
    l1: f64,
    /// Of `scale`, an example.
    growth: f64,
    scale: f64,
    cells: Vec<Cell>,
    /// Of each block.
    flags: Vec<u8>,
    /// A bit of each coordinate, by block: changed since [`Ftrl::mark_shipped`].
    unshipped: Vec<u64>,
    /// Of each block; 0: all zero.
    hashes: Vec<u128>,
}

impl Ftrl {
    /// The settings must be in range, see [`super::CompileError`].
    pub fn new(settings: &spec::Ftrl) -> Self {
        let cells = 1usize << settings.bits;
        let blocks = cells.div_ceil(BLOCK);
        Self {
            inverse_alpha: 1.0 / settings.alpha,
            least_curvature: settings.beta / settings.alpha + settings.l2,
            l1: settings.l1,
            growth: settings.half_life_examples.map_or(1.0, |h| libm::exp2(0.5 / h)),
            scale: 1.0,
            cells: vec![Cell::default(); cells],
            flags: vec![0; blocks],
            unshipped: vec![0; blocks],
            hashes: vec![0; blocks],
        }
    }

    /// Number of coordinates.
    #[allow(clippy::len_without_is_empty, reason = "there are always some")]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Goes on with the coordinates of another model; not if there are more or fewer.
    pub fn take_over(&mut self, old: Ftrl) -> bool {
        if old.cells.len() != self.cells.len() {
            return false;
        }
        let Ftrl { inverse_alpha, least_curvature, l1, growth, .. } = *self;
        *self = Ftrl { inverse_alpha, least_curvature, l1, growth, ..old };
        true
    }

    /// The sum of value times weight. `weights` receives the weight of each entry, for [`Ftrl::learn`].
    #[inline]
    pub fn margin(&self, entries: &[Entry], weights: &mut Vec<f64>) -> f64 {
        let cells = self.cells.as_slice();
        let mask = cells.len() - 1;
        let (least_curvature, l1) = (self.least_curvature * self.scale, self.l1 * self.scale);
        let mut margin = 0.0;
        weights.clear();
        weights.extend(entries.iter().map(|entry| {
            let cell = cells[entry.index as usize & mask];
            let z = (cell.z.abs() - l1).max(0.0).copysign(cell.z);
            let weight = -z / (least_curvature + cell.root * self.inverse_alpha);
            margin += entry.value * weight;
            weight
        }));
        margin
    }

    /// Learns from the loss's derivative with respect to the margin (probability - label), with the weights that
    /// [`Ftrl::margin`] gave. A coordinate that is listed twice is updated twice, in order.
    #[inline]
    pub fn learn(&mut self, entries: &[Entry], weights: &[f64], derivative: f64) {
        let derivative = derivative * self.scale;
        let cells = self.cells.as_mut_slice();
        let mask = cells.len() - 1;
        for (entry, weight) in entries.iter().zip(weights) {
            let at = entry.index as usize & mask;
            let gradient = derivative * entry.value;
            let cell = &mut cells[at];
            let root = (cell.root * cell.root + gradient * gradient).sqrt();
            cell.z += gradient - (root - cell.root) * self.inverse_alpha * weight;
            cell.root = root;
            self.flags[at / BLOCK] = CHANGED | DIGEST_STALE;
            self.unshipped[at / BLOCK] |= 1 << (at % BLOCK);
        }
        if self.growth > 1.0 {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.scale *= self.growth;
        if self.scale < MAX_SCALE {
            return;
        }
        self.scale /= MAX_SCALE;
        self.change_all(|cell| Cell { z: cell.z / MAX_SCALE, root: cell.root / MAX_SCALE });
    }

    /// Cuts the evidence of every coordinate to a quarter (`n`, and `sqrt(n)` thus to half) and leaves the weights as they are:
    /// with the curvature c, `|z|` becomes `l1 + (|z| - l1) c' / c`. So rates double, and what comes counts four times
    /// as much beside what was. A coordinate whose weight is 0 keeps half of its `z`.
    pub fn discount(&mut self) {
        let (least_curvature, l1) = (self.least_curvature * self.scale, self.l1 * self.scale);
        let inverse_alpha = self.inverse_alpha;
        let discounted = |cell: &Cell| {
            let (root, beyond) = (0.5 * cell.root, cell.z.abs() - l1);
            let curvature = |root: f64| least_curvature + root * inverse_alpha;
            let z = match beyond > 0.0 {
                true => (l1 + beyond * (curvature(root) / curvature(cell.root))).copysign(cell.z),
                false => 0.5 * cell.z,
            };
            // Without evidence there is nothing to keep.
            if root > 0.0 { Cell { z, root } } else { Cell::default() }
        };
        self.change_all(discounted);
    }

    /// Changes every coordinate that has evidence.
    fn change_all(&mut self, changed: impl Fn(&Cell) -> Cell) {
        let blocks = self.cells.chunks_mut(BLOCK).zip(&mut self.flags).zip(&mut self.unshipped);
        for ((cells, flags), unshipped) in blocks {
            for (i, cell) in cells.iter_mut().enumerate() {
                if cell.root != 0.0 {
                    *cell = changed(cell);
                    *flags = CHANGED | DIGEST_STALE;
                    *unshipped |= 1 << i;
                }
            }
        }
    }

    /// Over all weights; what has not changed since the last call costs nothing but its hash.
    pub fn digest(&mut self) -> u128 {
        let mut block = Vec::with_capacity(BLOCK * 16);
        for ((cells, flags), hash) in self.cells.chunks(BLOCK).zip(&mut self.flags).zip(&mut self.hashes) {
            if *flags & DIGEST_STALE != 0 {
                block.clear();
                write_cells(&mut block, cells);
                *hash = if block.len() == 8 { 0 } else { xxhash_rust::xxh3::xxh3_128(&block) };
                *flags &= !DIGEST_STALE;
            }
        }
        let mut all = Vec::with_capacity(self.hashes.len() * 16 + 8);
        all.put_f64(self.scale);
        for hash in &self.hashes {
            all.put_u128(*hash);
        }
        xxhash_rust::xxh3::xxh3_128(&all)
    }

    /// All blocks with a weight, or those changed since [`Ftrl::mark_clean`]: scale, count, then of each block its
    /// number (u32), which of its coordinates are not zero (u64, lowest bit first), and their z and root.
    pub fn encode(&self, out: &mut Vec<u8>, changes_only: bool) {
        out.put_f64(self.scale);
        let count_at = begin_count(out);
        let mut count = 0;
        for (number, (cells, flags)) in self.cells.chunks(BLOCK).zip(&self.flags).enumerate() {
            let wanted = if changes_only { flags & CHANGED != 0 } else { cells.iter().any(|c| c.root != 0.0) };
            if wanted {
                out.put_u32(number as u32);
                write_cells(out, cells);
                count += 1;
            }
        }
        end_count(out, count_at, count);
    }

    pub fn mark_clean(&mut self) {
        for flags in &mut self.flags {
            *flags &= !CHANGED;
        }
    }

    /// For serving copies: the scale, then the coordinates changed since [`Ftrl::mark_shipped`], or all that are not
    /// zero, as [`Served::apply`] reads them.
    pub fn ship(&self, out: &mut Vec<u8>, all: bool) {
        out.put_f64(self.scale);
        let count_at = begin_count(out);
        let mut count = 0;
        for (number, (cells, unshipped)) in self.cells.chunks(BLOCK).zip(&self.unshipped).enumerate() {
            let wanted = if all { present(cells) } else { *unshipped };
            if wanted != 0 {
                out.put_u32(number as u32);
                out.put_u64(wanted);
                for cell in cells.iter().enumerate().filter(|(i, _)| wanted >> i & 1 == 1).map(|(_, cell)| cell) {
                    out.put_f32(single(cell.z));
                    out.put_f32(single(cell.root));
                }
                count += 1;
            }
        }
        end_count(out, count_at, count);
    }

    pub fn mark_shipped(&mut self) {
        self.unshipped.fill(0);
    }

    /// A serving copy of the weights as they are.
    pub fn served(&self) -> Served {
        let single = |cell: &Cell| [single(cell.z), single(cell.root)];
        self.serving_of(self.cells.iter().map(single).collect(), self.scale)
    }

    /// A serving copy without any weight.
    pub fn serving(&self) -> Served {
        self.serving_of(vec![[0.0; 2]; self.cells.len()], 1.0)
    }

    fn serving_of(&self, cells: Vec<[f32; 2]>, scale: f64) -> Served {
        let Ftrl { inverse_alpha, least_curvature, l1, .. } = *self;
        Served { inverse_alpha, least_curvature, l1, scale, cells }
    }

    /// Replaces the blocks that [`Ftrl::encode`] wrote.
    pub fn apply(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        self.scale = read_scale(r)?;
        for _ in 0..r.count(12, "weight blocks")? {
            let number = r.u32("weight block")? as usize;
            let at = r.corrupt("weight block");
            let cells = self.cells.chunks_mut(BLOCK).nth(number).ok_or(at)?;
            read_cells(r, cells)?;
            self.flags[number] = DIGEST_STALE;
        }
        Ok(())
    }
}

fn present(cells: &[Cell]) -> u64 {
    cells.iter().enumerate().fold(0, |bits, (i, cell)| bits | u64::from(cell.root != 0.0) << i)
}

fn single(x: f64) -> f32 {
    (x as f32).clamp(f32::MIN, f32::MAX)
}

fn write_cells(out: &mut Vec<u8>, cells: &[Cell]) {
    out.put_u64(present(cells));
    for cell in cells.iter().filter(|c| c.root != 0.0) {
        out.put_f64(cell.z);
        out.put_f64(cell.root);
    }
}

fn read_cells(r: &mut Reader<'_>, cells: &mut [Cell]) -> Result<(), Corrupt> {
    let present = r.u64("coordinates")?;
    for (i, cell) in cells.iter_mut().enumerate() {
        *cell = Cell::default();
        if present >> i & 1 == 1 {
            *cell = Cell { z: r.f64("z")?, root: r.f64("root")? };
            if !cell.z.is_finite() || !cell.root.is_finite() || cell.root <= 0.0 {
                return Err(r.corrupt("accumulator"));
            }
        }
    }
    if cells.len() < BLOCK && present >> cells.len() != 0 {
        return Err(r.corrupt("coordinates"));
    }
    Ok(())
}
