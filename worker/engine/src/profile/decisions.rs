//! Decisions that may still be named by an impression or an outcome, filed as they were encoded.
//!
//! A decision is found by its user and its id together, so that nobody's impressions are joined with another's decision.
//! Each costs its encoding and about 150 bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{
    codec::{Corrupt, Put, Reader},
    control::{Decision, DecisionRef, UsedModelRef, cut},
    event::{Pseudonym, Time},
    example::{ExampleHead, VALUE_BYTES},
};

type Key = (Pseudonym, u64);

/// Ids of all served schemas there were, with the number of their columns.
pub type Served = BTreeMap<u64, usize>;

struct Filed {
    /// Kept until the merged watermark has passed it.
    until: Time,
    encoded: Box<[u8]>,
}

#[derive(Default)]
pub struct Decisions {
    filed: BTreeMap<Key, Filed>,
    deadlines: BTreeSet<(Time, Key)>,
    /// Since the last mark: what came, and what went of that which was there.
    added: BTreeSet<Key>,
    removed: BTreeSet<Key>,
    encoded_bytes: usize,
    digest: u128,
    under_way: Option<Image>,
}

/// What a checkpoint under way is still to hold. Decisions come and go, and never change.
struct Image {
    head: Vec<u8>,
    tail: Vec<u8>,
    of: Of,
    /// Those that have gone since.
    gone: BTreeMap<Key, Filed>,
}

enum Of {
    /// All that were there, above this one.
    All(Option<Key>),
    Some(BTreeSet<Key>),
}

impl Image {
    fn wants(&self, key: &Key) -> bool {
        match &self.of {
            Of::All(above) => above.is_none_or(|above| *key > above),
            Of::Some(keys) => keys.contains(key),
        }
    }
}

/// Encoded bytes of all that are filed, at most. Beyond, the oldest go: event time may stand still while decisions go on.
const MOST_BYTES: usize = 256 << 20;

/// Least bytes of a change: user, id, deadline, length.
const CHANGE_BYTES: usize = 16 + 8 + 8 + 4;

impl Decisions {
    pub fn count(&self) -> usize {
        self.filed.len()
    }
    /// Bytes of all decisions as encoded.
    pub fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }

    /// False: one of this user and id is there already, and stays.
    pub fn file(&mut self, decision: &Decision, until: Time) -> bool {
        let mut encoded = Vec::new();
        decision.write(&mut encoded);
        let is_new = self.insert((decision.user, decision.id), until, encoded.into());
        self.keep_below(MOST_BYTES);
        is_new
    }

    /// Lets go of the oldest until there are at most so many bytes.
    fn keep_below(&mut self, most_bytes: usize) {
        while self.encoded_bytes > most_bytes
            && let Some((_, key)) = self.deadlines.first().copied()
        {
            self.remove(key);
        }
    }

    fn insert(&mut self, key: Key, until: Time, encoded: Box<[u8]>) -> bool {
        if self.filed.contains_key(&key) {
            return false;
        }
        self.encoded_bytes += encoded.len();
        let filed = Filed { until, encoded };
        self.digest = self.digest.wrapping_add(digest_of(&key, &filed));
        self.filed.insert(key, filed);
        self.deadlines.insert((until, key));
        self.added.insert(key);
        true
    }

    fn remove(&mut self, key: Key) {
        let Some(filed) = self.filed.remove(&key) else { return };
        self.encoded_bytes -= filed.encoded.len();
        self.digest = self.digest.wrapping_sub(digest_of(&key, &filed));
        self.deadlines.remove(&(filed.until, key));
        if !self.added.remove(&key) {
            self.removed.insert(key);
            if let Some(image) = self.under_way.as_mut().filter(|image| image.wants(&key)) {
                image.gone.insert(key, filed);
            }
        }
    }

    pub fn find(&self, user: Pseudonym, id: u64) -> Option<DecisionRef<'_>> {
        let filed = self.filed.get(&(user, id))?;
        // It was checked when it was filed.
        DecisionRef::read(&mut Reader::new(&filed.encoded)).ok()
    }

    /// Lets go of what the watermark has passed.
    pub fn expire(&mut self, watermark: Time) {
        while let Some((until, key)) = self.deadlines.first().copied()
            && until < watermark
        {
            self.remove(key);
        }
    }

    pub fn forget(&mut self, user: Pseudonym) {
        let keys: Vec<Key> = self.filed.range((user, 0)..=(user, u64::MAX)).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }

    /// Independent of the order in which they came.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// Fixes what [`Decisions::go_on`] is to encode: all, or what changed since the last time.
    pub fn begin(&mut self, changes_only: bool) {
        let (added, removed) = (std::mem::take(&mut self.added), std::mem::take(&mut self.removed));
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let (count, of) = match changes_only {
            true => (added.len(), Of::Some(added)),
            false => (self.filed.len(), Of::All(None)),
        };
        head.put_u32(count as u32);
        let removed = removed.iter().filter(|_| changes_only);
        tail.put_u32(removed.clone().count() as u32);
        for key in removed {
            tail.put_u128(key.0.0);
            tail.put_u64(key.1);
        }
        self.under_way = Some(Image { head, tail, of, gone: BTreeMap::new() });
    }

    /// Appends the next decisions, about as many as are left of `budget`, as they were at the beginning. True at the end.
    pub fn go_on(&mut self, budget: &mut usize, out: &mut Vec<u8>) -> bool {
        let Some(mut image) = self.under_way.take() else { return true };
        out.append(&mut image.head);
        while *budget > 0 {
            *budget -= 1;
            let Some(key) = self.next(&mut image) else {
                out.append(&mut image.tail);
                return true;
            };
            let gone = image.gone.remove(&key);
            let Some(filed) = gone.as_ref().or_else(|| self.filed.get(&key)) else { continue };
            out.put_u128(key.0.0);
            out.put_u64(key.1);
            out.put_i64(filed.until.0);
            out.put_bytes(&filed.encoded);
        }
        self.under_way = Some(image);
        false
    }

    /// The next that was there at the beginning.
    fn next(&self, image: &mut Image) -> Option<Key> {
        match &mut image.of {
            Of::Some(keys) => keys.pop_first(),
            Of::All(above) => {
                let from = above.map_or(Bound::Unbounded, Bound::Excluded);
                let mut held = self.filed.range((from, Bound::Unbounded)).map(|(key, _)| *key);
                let held = held.find(|key| !self.added.contains(key));
                let gone = image.gone.first_key_value().map(|(key, _)| *key);
                let next = match (held, gone) {
                    (Some(held), Some(gone)) => Some(held.min(gone)),
                    (held, gone) => held.or(gone),
                };
                *above = next.or(*above);
                next
            }
        }
    }

    pub fn cancel(&mut self) {
        self.under_way = None;
    }

    /// Takes over what `go_on` wrote: all of it first, then changes in order.
    pub fn read(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        let mut came = Vec::new();
        for _ in 0..r.count(CHANGE_BYTES, "decisions")? {
            let key = (Pseudonym(r.u128("user of a decision")?), r.u64("decision")?);
            let (until, encoded) = (Time(r.i64("deadline of a decision")?), r.bytes("decision")?);
            let decision = DecisionRef::read(&mut Reader::new(encoded))?;
            if (decision.user, decision.id) != key {
                return Err(r.corrupt("key of a decision"));
            }
            came.push((key, until, encoded));
        }
        // One that went may have come again.
        for _ in 0..r.count(24, "decisions that went")? {
            self.remove((Pseudonym(r.u128("user of a decision")?), r.u64("decision")?));
        }
        for (key, until, encoded) in came {
            self.insert(key, until, encoded.into());
        }
        self.added.clear();
        self.removed.clear();
        Ok(())
    }
}

fn digest_of(key: &Key, filed: &Filed) -> u128 {
    let mut bytes = Vec::with_capacity(CHANGE_BYTES + filed.encoded.len());
    bytes.put_u128(key.0.0);
    bytes.put_u64(key.1);
    bytes.put_i64(filed.until.0);
    bytes.put(&filed.encoded);
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

/// The decision by which an impression was shown, looked up once for all its examples.
pub struct Shown<'a> {
    decision: DecisionRef<'a>,
    /// `experiment/variant`.
    variant: String,
}

impl<'a> Shown<'a> {
    pub fn of(decision: DecisionRef<'a>) -> Self {
        let variant = decision.experiment.map_or(String::new(), |(e, v)| cut(&format!("{e}/{v}")).to_owned());
        Self { decision, variant }
    }

    /// Completes an example by what is known of its decision. `own`: its values as of the impression; what the model was
    /// served takes their place. `None`: the decision did not show this item.
    pub fn complete<'s>(
        &'s self,
        served: &Served,
        model: &str,
        head: ExampleHead<'s>,
        own: &'s [u8],
    ) -> Option<(ExampleHead<'s>, &'s [u8])> {
        let slot = self.decision.slots().find(|slot| slot.item == head.item)?;
        let mut head = ExampleHead {
            variant: &self.variant,
            policy: self.decision.policy,
            propensity: slot.propensity,
            score: slot.score,
            ..head
        };
        let mut values = own;
        if let Some((used, served)) = self.served(served, model, slot.values) {
            head.model_version = used.version;
            if let Some(served) = served {
                (head.schema, values) = (used.schema, served);
            }
        }
        Some((head, values))
    }

    /// The model as it was used and, if its columns are known, what it was served.
    fn served<'v>(
        &self,
        served: &Served,
        model: &str,
        mut values: &'v [u8],
    ) -> Option<(UsedModelRef<'a>, Option<&'v [u8]>)> {
        for used in self.decision.models() {
            let columns = served.get(&used.schema);
            let split = columns.and_then(|columns| values.split_at_checked(columns * VALUE_BYTES));
            if used.name == model {
                return Some((used, split.map(|(of_model, _)| of_model)));
            }
            // Where the next model's begin cannot be said without knowing this one's: nothing is left to it.
            values = split.map_or(&[], |(_, rest)| rest);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut decisions = Decisions::default();
        for id in 1..=3 {
            let decision = Decision { id, user: Pseudonym(7), ..Decision::default() };
            assert!(decisions.file(&decision, Time(id as i64)));
        }
        let each = decisions.encoded_bytes() / 3;
        let only_last = {
            let mut only_last = Decisions::default();
            only_last.file(&Decision { id: 3, user: Pseudonym(7), ..Decision::default() }, Time(3));
            only_last.digest()
        };
        decisions.keep_below(each + each / 2);
        assert_eq!((decisions.count(), decisions.encoded_bytes(), decisions.digest()), (1, each, only_last));
        assert!(decisions.find(Pseudonym(7), 3).is_some());
    }
}
