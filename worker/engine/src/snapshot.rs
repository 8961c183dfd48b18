//! A table's rows as of one moment, encoded little by little while the table goes on changing.
//!
//! By copy on update: a row that is about to change, or to go, and was not encoded yet, is encoded first (the idea is that of
//! Liedes and Wolski, "SIREN: A Memory-Conserving, Snapshot-Consistent Checkpoint Algorithm for In-Memory Databases", ICDE
//! 2006, and of Cao et al., "Fast Checkpoint Recovery Algorithms for Frequently Consistent Applications", SIGMOD 2011).
//!
//! The beginning costs a bit a row. Rows come out in ascending order of a key, so that equal tables give equal bytes: they are
//! first dealt into ranges of keys, a slice at a time, then each range is sorted and encoded.

use std::collections::BTreeMap;

/// A set of slots.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
}

const WORD_BITS: usize = u64::BITS as usize;

impl Bits {
    #[inline]
    pub fn insert(&mut self, slot: u32) {
        let at = slot as usize / WORD_BITS;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (slot as usize % WORD_BITS);
    }

    /// Whether it was there.
    #[inline]
    pub fn remove(&mut self, slot: u32) -> bool {
        let was_there = self.contains(slot);
        if was_there {
            self.words[slot as usize / WORD_BITS] &= !(1 << (slot as usize % WORD_BITS));
        }
        was_there
    }

    #[inline]
    pub fn contains(&self, slot: u32) -> bool {
        self.words.get(slot as usize / WORD_BITS).is_some_and(|word| word >> (slot as usize % WORD_BITS) & 1 == 1)
    }

    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The slots of one word, ascending.
    fn of_word(&self, at: usize) -> impl Iterator<Item = u32> + use<> {
        let first = (at * WORD_BITS) as u32;
        let rests = std::iter::successors(self.words.get(at).copied(), |rest| Some(rest & rest.wrapping_sub(1)));
        rests.take_while(|rest| *rest != 0).map(move |rest| first + rest.trailing_zeros())
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.words.len()).flat_map(|at| self.of_word(at))
    }

    pub fn memory_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

/// What a snapshot is taken of.
pub trait Rows {
    /// By which a row is ordered. No two have the same, and a row's never changes.
    fn key(&self, slot: u32) -> u128;
    /// Appends the row as it is now.
    fn encode(&mut self, slot: u32, out: &mut Vec<u8>);
    /// The one that is under way.
    fn under_way(&mut self) -> &mut UnderWay;

    /// Appends the next rows, about as many as are left of `budget`, as they were at the beginning. True at the end. Equal
    /// tables give equal bytes.
    fn go_on(&mut self, budget: &mut usize, out: &mut Vec<u8>) -> bool
    where
        Self: Sized,
    {
        let Some(mut snapshot) = self.under_way().take() else { return true };
        let is_done = snapshot.go_on(self, budget, out);
        if !is_done {
            *self.under_way() = Some(snapshot);
        }
        is_done
    }

    /// Gives up what is under way: the next checkpoint has to be a base.
    fn cancel(&mut self) {
        *self.under_way() = None;
    }

    /// The row is about to change, or to go.
    fn keep_image(&mut self, slot: u32)
    where
        Self: Sized,
    {
        if let Some(mut snapshot) = self.under_way().take() {
            snapshot.keep(slot, self);
            *self.under_way() = Some(snapshot);
        }
    }
}

/// Rows in a range of keys, on average.
const RANGE_ROWS: usize = 256;
const MOST_RANGES: usize = 1 << 16;

/// A row as it was at the beginning.
#[derive(Debug)]
struct Image {
    key: u128,
    bytes: Box<[u8]>,
}

#[derive(Debug)]
pub struct Snapshot {
    /// What comes before the rows, and behind them.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Slots of all rows that it holds, and of those that are neither encoded nor among the images.
    of: Bits,
    unchanged: Bits,
    images: BTreeMap<u32, Image>,
    /// Rows are dealt into ranges up to this word of `of`.
    dealt: usize,
    lowest: u128,
    range_log2: u32,
    ranges: Vec<Vec<u32>>,
    /// How many of them have been sorted; the last one, descending, as far as it is not encoded.
    sorted: usize,
    range: Vec<(u128, u32)>,
}

impl Snapshot {
    /// Of the rows in the slots `of`, whose keys lie from `lowest` to `highest`.
    pub fn begin(of: Bits, (lowest, highest): (u128, u128), head: Vec<u8>, tail: Vec<u8>) -> Self {
        let ranges = (of.count() / RANGE_ROWS).next_power_of_two().min(MOST_RANGES);
        let key_bits = u128::BITS - highest.saturating_sub(lowest).leading_zeros();
        Self {
            head,
            tail,
            unchanged: of.clone(),
            of,
            images: BTreeMap::new(),
            dealt: 0,
            lowest,
            range_log2: key_bits.saturating_sub(ranges.trailing_zeros()),
            ranges: vec![Vec::new(); ranges],
            sorted: 0,
            range: Vec::new(),
        }
    }

    /// The row is about to change, or to go.
    pub fn keep(&mut self, slot: u32, rows: &mut impl Rows) {
        if self.unchanged.remove(slot) {
            let mut bytes = Vec::new();
            rows.encode(slot, &mut bytes);
            self.images.insert(slot, Image { key: rows.key(slot), bytes: bytes.into() });
        }
    }

    /// Appends the next rows, about as many as are left of `budget`, which is lessened by what was done. True at the end.
    pub fn go_on(&mut self, rows: &mut impl Rows, budget: &mut usize, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.head);
        while *budget > 0 {
            if self.dealt < self.of.words.len() {
                *budget = budget.saturating_sub(self.deal(rows));
            } else if let Some((_, slot)) = self.range.pop() {
                *budget -= 1;
                self.encode(slot, rows, out);
            } else if self.sorted < self.ranges.len() {
                *budget = budget.saturating_sub(self.sort(rows));
            } else {
                out.append(&mut self.tail);
                return true;
            }
        }
        false
    }

    /// Deals the rows of one word into ranges. How much of a budget that takes: a row is looked at, no more.
    fn deal(&mut self, rows: &impl Rows) -> usize {
        for slot in self.of.of_word(self.dealt) {
            let range = self.key(slot, rows).saturating_sub(self.lowest).checked_shr(self.range_log2).unwrap_or(0);
            let last = self.ranges.len() - 1;
            self.ranges[usize::try_from(range).map_or(last, |range| range.min(last))].push(slot);
        }
        self.dealt += 1;
        1 + self.of.words[self.dealt - 1].count_ones() as usize / 4
    }

    /// Likewise, sorts the next range.
    fn sort(&mut self, rows: &impl Rows) -> usize {
        let slots = std::mem::take(&mut self.ranges[self.sorted]);
        self.sorted += 1;
        self.range = slots.into_iter().map(|slot| (self.key(slot, rows), slot)).collect();
        self.range.sort_unstable_by(|a, b| b.cmp(a));
        1 + self.range.len() / 4
    }

    fn key(&self, slot: u32, rows: &impl Rows) -> u128 {
        self.images.get(&slot).map_or_else(|| rows.key(slot), |image| image.key)
    }

    fn encode(&mut self, slot: u32, rows: &mut impl Rows, out: &mut Vec<u8>) {
        if self.unchanged.remove(slot) {
            rows.encode(slot, out);
        } else if let Some(image) = self.images.remove(&slot) {
            out.extend_from_slice(&image.bytes);
        }
    }
}

/// The snapshot of a table, while one is under way.
pub type UnderWay = Option<Box<Snapshot>>;
