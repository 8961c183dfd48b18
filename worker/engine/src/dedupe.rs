//! Client retries: an event whose id was accepted within the window is a duplicate. Judged in merge order.

use std::collections::VecDeque;

use hashbrown::{HashTable, hash_table::Entry};

use crate::{
    codec::{Corrupt, Put, Reader},
    event::Time,
};

/// Ids of one events partition, for a window of event time.
pub struct Dedupe {
    window_micros: i64,
    /// Looked up only; the order of things is that of `by_age`.
    known: HashTable<u128>,
    by_age: VecDeque<(Time, u128)>,
    /// How many ids were ever added, and how many of them the last checkpoint held.
    added: u64,
    saved: u64,
    under_way: Option<Image>,
}

/// What a checkpoint under way is still to hold. Ids are numbered as they were added, and never change.
struct Image {
    head: Vec<u8>,
    next: u64,
    end: u64,
    /// From `next` on, those that have expired since.
    expired: VecDeque<(Time, u128)>,
}

/// Ids are keyed hashes already.
fn hash(id: &u128) -> u64 {
    *id as u64
}

impl Dedupe {
    pub fn new(window_micros: i64) -> Self {
        Self { window_micros, known: HashTable::new(), by_age: VecDeque::new(), added: 0, saved: 0, under_way: None }
    }

    /// The number of the oldest.
    fn first_number(&self) -> u64 {
        self.added - self.by_age.len() as u64
    }

    pub fn set_window(&mut self, micros: i64) {
        self.window_micros = micros;
    }

    pub fn len(&self) -> usize {
        self.by_age.len()
    }
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Is it the first with this id? Times never go back. Distance `window` still counts as a duplicate.
    pub fn first(&mut self, id: u128, time: Time) -> bool {
        self.expire(time);
        let Entry::Vacant(vacant) = self.known.entry(hash(&id), |k| *k == id, hash) else {
            return planted::is(planted::Bug::DuplicatesAccepted);
        };
        vacant.insert(id);
        self.by_age.push_back((time, id));
        self.added += 1;
        true
    }

    /// Would it be a duplicate at `time`, which no judged event is later than?
    pub fn has_seen(&self, id: u128, time: Time) -> bool {
        // Known ids whose window has passed by then are told apart only if there is one: they are few.
        let expired = || self.by_age.iter().take_while(|(t, _)| *t < time.minus(self.window_micros));
        self.known.find(hash(&id), |known| *known == id).is_some() && !expired().any(|(_, known)| *known == id)
    }

    /// Reads what judging these ids will need: their places, and those of as many that expire. Changes nothing.
    pub fn warm(&self, ids: &[u128]) {
        let oldest = self.by_age.iter().take(ids.len()).map(|(_, id)| id);
        let found = ids.iter().chain(oldest).filter(|id| self.known.find(hash(id), |known| known == *id).is_some());
        std::hint::black_box(found.count());
    }

    fn expire(&mut self, now: Time) {
        while let Some((time, id)) = self.by_age.front().copied()
            && time < now.minus(self.window_micros)
        {
            let number = self.first_number();
            if let Some(image) = self.under_way.as_mut().filter(|image| (image.next..image.end).contains(&number)) {
                image.expired.push_back((time, id));
            }
            self.by_age.pop_front();
            if let Ok(entry) = self.known.find_entry(hash(&id), |k| *k == id) {
                entry.remove();
            }
        }
    }

    /// Fixes what [`Dedupe::go_on`] is to encode: all ids, or those added since the last time, with the number of ids ever
    /// added.
    pub fn begin(&mut self, changes_only: bool) {
        let new = if changes_only { self.added - self.saved } else { self.added };
        let new = new.min(self.by_age.len() as u64);
        let mut head = Vec::new();
        head.put_u64(self.added);
        head.put_u32(new as u32);
        self.saved = self.added;
        self.under_way = Some(Image { head, next: self.added - new, end: self.added, expired: VecDeque::new() });
    }

    /// Appends the next ids, about as many as are left of `budget`, as they were at the beginning. True at the end.
    pub fn go_on(&mut self, budget: &mut usize, out: &mut Vec<u8>) -> bool {
        let first = self.first_number();
        let Some(image) = &mut self.under_way else { return true };
        out.append(&mut image.head);
        while *budget > 0 && image.next < image.end {
            *budget -= 1;
            let held = || self.by_age.get((image.next.saturating_sub(first)) as usize).copied();
            let Some((time, id)) = image.expired.pop_front().or_else(held) else { break };
            image.next += 1;
            out.put_i64(time.0);
            out.put_u128(id);
        }
        let is_done = image.next == image.end;
        if is_done {
            self.under_way = None;
        }
        is_done
    }

    pub fn cancel(&mut self) {
        self.under_way = None;
    }

    /// Adds what `go_on` wrote: a base first, then changes in order.
    pub fn read(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let added = r.u64("ids added")?;
        for _ in 0..r.count(24, "ids")? {
            let (time, id) = (Time(r.i64("id time")?), r.u128("id")?);
            self.first(id, time);
        }
        (self.added, self.saved) = (added, added);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of everything accepted, with checkpoints in between.
        #[test]
        fn equals_a_list(ids in proptest::collection::vec((0u128..20, 0i64..30, 0u8..8), 1..300)) {
            let mut dedupe = Dedupe::new(100);
            let mut saved: Vec<Vec<u8>> = Vec::new();
            let mut accepted: Vec<(i64, u128)> = Vec::new();
            let mut now = 0;
            for (id, step, checkpoint) in ids {
                now += step;
                let expected = !accepted.iter().any(|(t, k)| *k == id && now - t <= 100);
                prop_assert_eq!(dedupe.first(id, Time(now)), expected);
                if expected { accepted.push((now, id)); }
                if checkpoint == 0 {
                    let mut bytes = Vec::new();
                    dedupe.begin(!saved.is_empty());
                    while !dedupe.go_on(&mut 3, &mut bytes) {}
                    saved.push(bytes);
                    dedupe = Dedupe::new(100);
                    for bytes in &saved { dedupe.read(&mut Reader::new(bytes)).unwrap(); }
                }
            }
        }
    }
}
