//! A calendar queue: entries in buckets of event time. Only the bucket at the front is kept sorted, so that a long
//! wait for a watermark costs an append, and a release a sort of neighbours.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use crate::event::{Seq, Time};

/// A waiting record: its place in the order, and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub time: Time,
    /// Index among the merge's origins, which are sorted.
    pub origin: u16,
    pub seq: Seq,
    pub frame: u32,
    pub at: u32,
    pub len: u32,
}

/// About a second: wide enough that a busy bucket is a long run, narrow enough that a sort stays in cache.
const BUCKET_MICROS_LOG2: u32 = 20;

#[derive(Default)]
pub struct Calendar {
    later: BTreeMap<i64, Vec<Entry>>,
    /// The bucket in use, descending, so that the next entry is at its end.
    front: Vec<Entry>,
    /// What came for the front's bucket, or an earlier one, after it was sorted.
    stragglers: BinaryHeap<Reverse<Entry>>,
    front_bucket: i64,
    len: usize,
}

fn bucket(time: Time) -> i64 {
    time.0 >> BUCKET_MICROS_LOG2
}

impl Calendar {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, entry: Entry) {
        self.len += 1;
        let bucket = bucket(entry.time);
        if self.front_is_empty() || bucket > self.front_bucket {
            self.later.entry(bucket).or_default().push(entry);
        } else {
            self.stragglers.push(Reverse(entry));
        }
    }

    fn front_is_empty(&self) -> bool {
        self.front.is_empty() && self.stragglers.is_empty()
    }

    fn fill_front(&mut self) {
        if self.front_is_empty()
            && let Some((bucket, mut entries)) = self.later.pop_first()
        {
            // Stable sorts find runs: frames are nearly in order.
            entries.sort_by(|a, b| b.cmp(a));
            self.front = entries;
            self.front_bucket = bucket;
        }
    }

    pub fn peek(&mut self) -> Option<Time> {
        self.fill_front();
        let straggler = self.stragglers.peek().map(|Reverse(e)| e.time);
        match (self.front.last().map(|e| e.time), straggler) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn pop(&mut self) -> Option<Entry> {
        self.fill_front();
        let from_stragglers = match (self.front.last(), self.stragglers.peek()) {
            (Some(front), Some(Reverse(straggler))) => straggler < front,
            (None, Some(_)) => true,
            _ => false,
        };
        let entry = if from_stragglers { self.stragglers.pop().map(|Reverse(e)| e) } else { self.front.pop() };
        self.len -= usize::from(entry.is_some());
        entry
    }

    /// The next entries, in about their order.
    pub fn upcoming(&self) -> impl Iterator<Item = &Entry> {
        self.front.iter().rev().chain(self.later.values().flatten())
    }

    /// A copy of everything, in order.
    pub fn sorted(&self) -> Vec<Entry> {
        let mut all = self.front.to_vec();
        all.extend(self.stragglers.iter().map(|Reverse(e)| *e));
        all.extend(self.later.values().flatten());
        all.sort_unstable();
        all
    }

    /// Copies of all entries, in chunks that follow each other, each in any order.
    pub fn chunks(&self) -> VecDeque<Vec<Entry>> {
        let mut first = self.front.clone();
        first.extend(self.stragglers.iter().map(|Reverse(entry)| *entry));
        std::iter::once(first).chain(self.later.values().cloned()).collect()
    }

    /// Drops the entries that are not to `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        self.front.retain(&mut keep);
        self.later.values_mut().for_each(|entries| entries.retain(&mut keep));
        self.later.retain(|_, entries| !entries.is_empty());
        self.stragglers.retain(|Reverse(entry)| keep(entry));
        let later: usize = self.later.values().map(Vec::len).sum();
        self.len = self.front.len() + later + self.stragglers.len();
    }

    /// A new origin came in at `at`: those from there on move up by one. The order stays as it was.
    pub fn renumber_origins(&mut self, at: u16) {
        let move_up = |e: &mut Entry| e.origin += u16::from(e.origin >= at);
        self.front.iter_mut().for_each(move_up);
        self.later.values_mut().flatten().for_each(move_up);
        self.stragglers = self
            .stragglers
            .drain()
            .map(|Reverse(mut e)| {
                move_up(&mut e);
                Reverse(e)
            })
            .collect();
    }
}
