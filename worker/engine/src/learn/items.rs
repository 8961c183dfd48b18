//! Counts over time of one thing, and what is kept of many items with bounded memory.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::codec::{Corrupt, Put, Reader};

/// Items that are kept at most; beyond, the one that was not seen longest goes.
const MAX_ITEMS: usize = 1 << 20;
const NONE: u32 = u32::MAX;

/// Examples, and those with a positive label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub impressions: u64,
    pub outcomes: u64,
}

/// Running sums at the end of each bucket in which something happened, so that any range costs two searches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// (bucket, sum of it and all before), ascending. What is before the first bucket that matters is merged into one.
    sums: VecDeque<(i64, Tally)>,
}

impl Series {
    /// Counts one example in `bucket`; a bucket before the last counts as the last. Forgets how what lies before
    /// `keep_from` was spread.
    pub fn add(&mut self, bucket: i64, label: bool, keep_from: i64) {
        let last = self.sums.back().copied();
        let (last_bucket, mut sum) = last.unwrap_or((i64::MIN, Tally::default()));
        sum.impressions += 1;
        sum.outcomes += u64::from(label);
        match self.sums.back_mut() {
            Some(back) if last_bucket >= bucket => back.1 = sum,
            _ => self.sums.push_back((bucket, sum)),
        }
        while self.sums.get(1).is_some_and(|(bucket, _)| *bucket < keep_from) {
            self.sums.pop_front();
        }
    }

    /// Over the buckets `first..end`.
    pub fn between(&self, first: i64, end: i64) -> Tally {
        let (from, to) = (self.before(first), self.before(end));
        Tally {
            impressions: to.impressions.saturating_sub(from.impressions),
            outcomes: to.outcomes.saturating_sub(from.outcomes),
        }
    }

    fn before(&self, bucket: i64) -> Tally {
        // Mostly all of it is, or nothing.
        match (self.sums.front(), self.sums.back()) {
            (_, Some((last, sum))) if *last < bucket => return *sum,
            (Some((first, _)), _) if *first < bucket => {}
            _ => return Tally::default(),
        }
        let at = self.sums.partition_point(|(b, _)| *b < bucket);
        at.checked_sub(1).and_then(|at| self.sums.get(at)).map_or(Tally::default(), |(_, sum)| *sum)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.sums.len() as u32);
        for (bucket, sum) in &self.sums {
            out.put_i64(*bucket);
            out.put_u64(sum.impressions);
            out.put_u64(sum.outcomes);
        }
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let count = r.count(24, "series")?;
        let mut sums: VecDeque<(i64, Tally)> = VecDeque::with_capacity(count);
        for _ in 0..count {
            let bucket = r.i64("bucket")?;
            let sum = Tally { impressions: r.u64("impressions")?, outcomes: r.u64("outcomes")? };
            let ascends = sums
                .back()
                .is_none_or(|(b, s)| *b < bucket && s.impressions <= sum.impressions && s.outcomes <= sum.outcomes);
            if !ascends || sum.outcomes > sum.impressions {
                return Err(r.corrupt("series"));
            }
            sums.push_back((bucket, sum));
        }
        Ok(Self { sums })
    }
}

/// What is kept of one item.
pub trait Kept: Default {
    /// Of the shortest encoding.
    const BYTES: usize;
    /// The bucket of its last example; what is not kept in buckets does not expire.
    fn last_bucket(&self) -> i64;
    fn encode(&self, out: &mut Vec<u8>);
    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt>;
}

impl Kept for Series {
    const BYTES: usize = 4;
    fn last_bucket(&self) -> i64 {
        self.sums.back().map_or(i64::MIN, |(bucket, _)| *bucket)
    }
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Self::read(r)
    }
}

/// Which rows to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    All,
    /// Seen since [`Items::mark_clean`]: for checkpoints.
    Unsaved,
    /// Seen since [`Items::mark_shipped`]: for serving copies.
    Unshipped,
}

#[derive(Clone, Debug)]
struct Row<T> {
    key: u64,
    kept: T,
    /// Neighbours in the order in which items were last seen.
    older: u32,
    newer: u32,
    /// [`Items::seen`] when it was last seen.
    seen: u64,
    hash: u128,
}

/// What is kept of each item, found by the hash of its id, in the order in which they were last seen.
#[derive(Clone, Debug)]
pub struct Items<T> {
    rows: Vec<Row<T>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    oldest: u32,
    newest: u32,
    /// Counts examples.
    seen: u64,
    clean_at: u64,
    shipped_at: u64,
    digested_at: u64,
    /// Sum of the rows' hashes, as of `digested_at`, without the rows that left.
    hash_sum: u128,
    max_items: usize,
}

impl<T: Kept> Default for Items<T> {
    fn default() -> Self {
        Self::with_capacity_limit(MAX_ITEMS)
    }
}

impl<T: Kept> Items<T> {
    pub fn with_capacity_limit(max_items: usize) -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            oldest: NONE,
            newest: NONE,
            seen: 0,
            clean_at: 0,
            shipped_at: 0,
            digested_at: 0,
            hash_sum: 0,
            max_items,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn get(&self, key: u64) -> Option<&T> {
        let slot = *self.index.find(key, |slot| self.rows[*slot as usize].key == key)?;
        Some(&self.rows[slot as usize].kept)
    }

    /// Changes what is kept of the item, which is now the last seen. If there are too many, the one that was not seen
    /// longest goes, and so do those whose last bucket is before `keep_from`.
    pub fn update(&mut self, key: u64, keep_from: i64, change: impl FnOnce(&mut T)) {
        let slot = self.touch(key);
        change(&mut self.rows[slot as usize].kept);
        self.evict(keep_from);
    }

    /// Changes what is kept of every item, as if each had been seen once more in the order in which they were last.
    pub fn update_all(&mut self, change: impl Fn(&mut T)) {
        let mut slot = self.oldest;
        while let Some(row) = self.rows.get_mut(slot as usize) {
            self.seen += 1;
            row.seen = self.seen;
            change(&mut row.kept);
            slot = row.newer;
        }
    }

    /// Moves the item, which is made if need be, to the newest end.
    fn touch(&mut self, key: u64) -> u32 {
        self.seen += 1;
        let slot = match self.index.find(key, |slot| self.rows[*slot as usize].key == key) {
            Some(slot) => {
                let slot = *slot;
                self.unlink(slot);
                slot
            }
            None => self.insert(key),
        };
        self.link_newest(slot);
        slot
    }

    fn insert(&mut self, key: u64) -> u32 {
        let row = Row { key, kept: T::default(), older: NONE, newer: NONE, seen: 0, hash: 0 };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.rows[slot as usize] = row;
                slot
            }
            None => {
                self.rows.push(row);
                (self.rows.len() - 1) as u32
            }
        };
        let rows = &self.rows;
        self.index.insert_unique(key, slot, |slot| rows[*slot as usize].key);
        slot
    }

    fn unlink(&mut self, slot: u32) {
        let Row { older, newer, .. } = &self.rows[slot as usize];
        let (older, newer) = (*older, *newer);
        match self.rows.get_mut(older as usize) {
            Some(row) => row.newer = newer,
            None => self.oldest = newer,
        }
        match self.rows.get_mut(newer as usize) {
            Some(row) => row.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let (older, seen) = (self.newest, self.seen);
        match self.rows.get_mut(older as usize) {
            Some(row) => row.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        let row = &mut self.rows[slot as usize];
        (row.older, row.newer, row.seen) = (older, NONE, seen);
    }

    fn evict(&mut self, keep_from: i64) {
        while let Some(row) = self.rows.get(self.oldest as usize) {
            if row.kept.last_bucket() >= keep_from && self.len() <= self.max_items {
                return;
            }
            let (slot, key, hash) = (self.oldest, row.key, row.hash);
            self.unlink(slot);
            self.hash_sum = self.hash_sum.wrapping_sub(hash);
            if let Ok(entry) = self.index.find_entry(key, |s| *s == slot) {
                entry.remove();
            }
            self.rows[slot as usize].kept = T::default();
            self.free.push(slot);
        }
    }

    /// Slots of the rows seen after `since`, newest first.
    fn seen_after(&self, since: u64) -> impl Iterator<Item = u32> + '_ {
        let first = self.rows.get(self.newest as usize).map(|_| self.newest);
        let next = |slot: &u32| {
            let older = self.rows[*slot as usize].older;
            self.rows.get(older as usize).map(|_| older)
        };
        std::iter::successors(first, next).take_while(move |slot| self.rows[*slot as usize].seen > since)
    }

    /// Over the items and their series, in any order. Costs what was seen since the last call.
    pub fn digest(&mut self) -> u128 {
        let stale: Vec<u32> = self.seen_after(self.digested_at).collect();
        let mut bytes = Vec::new();
        for slot in stale {
            let row = &mut self.rows[slot as usize];
            bytes.clear();
            bytes.put_u64(row.key);
            row.kept.encode(&mut bytes);
            let hash = xxhash_rust::xxh3::xxh3_128(&bytes);
            self.hash_sum = self.hash_sum.wrapping_sub(row.hash).wrapping_add(hash);
            row.hash = hash;
        }
        self.digested_at = self.seen;
        self.hash_sum
    }

    /// The oldest bucket of a row that is kept, then the rows wanted, oldest first.
    pub fn encode(&self, out: &mut Vec<u8>, rows: Rows) {
        let since = match rows {
            Rows::All => 0,
            Rows::Unsaved => self.clean_at,
            Rows::Unshipped => self.shipped_at,
        };
        let mut slots: Vec<u32> = self.seen_after(since).collect();
        slots.reverse();
        out.put_i64(self.rows.get(self.oldest as usize).map_or(i64::MIN, |row| row.kept.last_bucket()));
        out.put_u32(slots.len() as u32);
        for slot in slots {
            let row = &self.rows[slot as usize];
            out.put_u64(row.key);
            row.kept.encode(out);
        }
    }

    pub fn mark_clean(&mut self) {
        self.clean_at = self.seen;
    }

    pub fn mark_shipped(&mut self) {
        self.shipped_at = self.seen;
    }

    /// Takes over the rows that [`Items::encode`] wrote and drops those that expired meanwhile.
    pub fn apply(&mut self, r: &mut Reader<'_>, expires: bool) -> Result<(), Corrupt> {
        let keep_from = r.i64("oldest bucket")?;
        for _ in 0..r.count(8 + T::BYTES, "items")? {
            let (key, kept) = (r.u64("item")?, T::read(r)?);
            let slot = self.touch(key);
            self.rows[slot as usize].kept = kept;
        }
        self.evict(if expires { keep_from } else { i64::MIN });
        self.mark_clean();
        Ok(())
    }
}
