//! The table of users: rows in an arena, found by an index of pseudonyms.
//!
//! Rows lie side by side in chunks, so that growing moves none. The index holds 8 bytes a user, among them 32 bits of the
//! pseudonym (which is a keyed hash itself), so that neither growing nor an unknown user touches a row.

mod codec;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use hashbrown::HashTable;

use crate::{
    event::Pseudonym,
    feature::{
        Features, RowMut, RowRef, Sets, get_u32,
        layout::{FLAGS_AT, Layout},
        migrate::Migration,
        put_u128,
    },
    snapshot::{Bits, Rows, UnderWay},
};

/// A row's place. It stays the user's until the user is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Rows of a chunk, as a power of two.
const CHUNK_LOG2: u32 = 12;
const CHUNK_ROWS: usize = 1 << CHUNK_LOG2;

/// Bytes that memory gives at once.
const CACHE_LINE: usize = 64;

/// How many waits for memory are made to overlap.
pub const WARM_USERS: usize = 16;

/// Flags of a row.
const LIVE: u8 = 1;
/// Changed since the last checkpoint; while one is under way, of rows that it has not encoded yet: since that before.
const DIRTY: u8 = 2;
/// Changed since the last digest.
const UNDIGESTED: u8 = 4;

/// An entry of the index.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    slot: u32,
}

/// The low 64 bits of the pseudonym give a tag of 32, which gives the hash: its low bits choose the bucket and
/// its high ones the index's own tag.
fn tag_of(pseudonym: Pseudonym) -> u32 {
    let low = pseudonym.0 as u64;
    (low ^ (low >> 32)) as u32
}

fn hash_of(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

/// Users and their rows.
#[derive(Debug)]
pub struct Users {
    layout: Arc<Layout>,
    arena: Arena,
    sets: Sets,
    index: HashTable<Entry>,
    /// Slots of removed users.
    free: Vec<u32>,
    /// Slots of all rows, and of those that changed since the last checkpoint began.
    live: Bits,
    dirty: Bits,
    /// Slots that became undigested, in that order; a slot may be there twice.
    undigested: Vec<u32>,
    /// Users removed since the last checkpoint began and not there again.
    tombstones: BTreeSet<Pseudonym>,
    /// The checkpoint under way.
    snapshot: UnderWay,
    /// The digest of each slot as it is in `digest`; 0 if it is not.
    row_digests: Vec<u128>,
    digest: u128,
}

#[derive(Debug)]
struct Arena {
    row_bytes: usize,
    chunks: Vec<Box<[u8]>>,
    /// Slots ever used.
    used: u32,
}

impl Arena {
    fn place(&self, slot: u32) -> (usize, usize) {
        ((slot >> CHUNK_LOG2) as usize, (slot as usize & (CHUNK_ROWS - 1)) * self.row_bytes)
    }
    #[inline]
    fn row(&self, slot: u32) -> &[u8] {
        let (chunk, at) = self.place(slot);
        &self.chunks[chunk][at..at + self.row_bytes]
    }
    #[inline]
    fn row_mut(&mut self, slot: u32) -> &mut [u8] {
        let (chunk, at) = self.place(slot);
        &mut self.chunks[chunk][at..at + self.row_bytes]
    }
    fn add(&mut self) -> u32 {
        let slot = self.used;
        self.used += 1;
        if self.place(slot).0 == self.chunks.len() {
            self.chunks.push(vec![0; CHUNK_ROWS * self.row_bytes].into());
        }
        slot
    }
}

impl Users {
    pub fn new(features: &Features) -> Self {
        let layout = Arc::clone(features.layout());
        Self {
            arena: Arena { row_bytes: layout.bytes, chunks: Vec::new(), used: 0 },
            layout,
            sets: Sets::default(),
            index: HashTable::new(),
            free: Vec::new(),
            live: Bits::default(),
            dirty: Bits::default(),
            undigested: Vec::new(),
            tombstones: BTreeSet::new(),
            snapshot: None,
            row_digests: Vec::new(),
            digest: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    #[inline]
    pub fn find(&self, pseudonym: Pseudonym) -> Option<Slot> {
        let tag = tag_of(pseudonym);
        let found = self.index.find(hash_of(tag), |e| e.tag == tag && self.pseudonym_of(Slot(e.slot)) == pseudonym);
        found.map(|entry| Slot(entry.slot))
    }

    /// Reads what the next updates of these users will need, so that the waits for memory overlap. [`WARM_USERS`] at a
    /// time are enough. Changes nothing. `slots` becomes those of the users who are probably there.
    pub fn warm(&self, pseudonyms: impl IntoIterator<Item = Pseudonym>, slots: &mut Vec<Slot>) {
        slots.clear();
        for tag in pseudonyms.into_iter().map(tag_of) {
            // Whether it is really this user, only the row could tell.
            slots.extend(self.index.find(hash_of(tag), |entry| entry.tag == tag).map(|entry| Slot(entry.slot)));
        }
        let mut sum = 0u8;
        for slot in &*slots {
            sum = self.arena.row(slot.0).iter().step_by(CACHE_LINE).fold(sum, |sum, byte| sum ^ byte);
        }
        for set in &self.layout.sets {
            let handles = slots.iter().map(|slot| get_u32(self.arena.row(slot.0), set.handle_at));
            sum = handles.fold(sum, |sum, handle| sum ^ self.sets.warm(handle));
        }
        std::hint::black_box(sum);
    }

    /// The user's row, an empty one if the user is new. A new row is dirty.
    #[inline]
    pub fn get_or_insert(&mut self, pseudonym: Pseudonym) -> Slot {
        match self.find(pseudonym) {
            Some(slot) => slot,
            None => self.insert(pseudonym),
        }
    }

    #[cold]
    fn insert(&mut self, pseudonym: Pseudonym) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.row_digests.push(0);
            self.arena.add()
        });
        let tag = tag_of(pseudonym);
        self.index.insert_unique(hash_of(tag), Entry { tag, slot }, |entry| hash_of(entry.tag));
        self.tombstones.remove(&pseudonym);
        self.live.insert(slot);
        let at = self.layout.pseudonym_at();
        let row = self.arena.row_mut(slot);
        row[FLAGS_AT] = LIVE;
        put_u128(row, at, pseudonym.0);
        self.touch(slot);
        Slot(slot)
    }

    /// Forgets a user, and remembers until the next checkpoint that it did. Returns whether the user was there. One that is
    /// under way has the user still.
    pub fn remove(&mut self, pseudonym: Pseudonym) -> bool {
        let Some(Slot(slot)) = self.find(pseudonym) else { return false };
        self.keep_image(slot);
        self.live.remove(slot);
        self.dirty.remove(slot);
        self.tombstones.insert(pseudonym);
        let tag = tag_of(pseudonym);
        if let Ok(entry) = self.index.find_entry(hash_of(tag), |entry| entry.slot == slot) {
            entry.remove();
        }
        let row = self.arena.row_mut(slot);
        RowMut { bytes: row, sets: &mut self.sets, layout: &self.layout }.remove_sets(false);
        row.fill(0);
        self.digest = self.digest.wrapping_sub(std::mem::take(&mut self.row_digests[slot as usize]));
        self.free.push(slot);
        true
    }

    #[inline]
    pub fn row(&self, slot: Slot) -> RowRef<'_> {
        RowRef { bytes: self.arena.row(slot.0), sets: &self.sets, layout: &self.layout }
    }

    /// Marks the row dirty.
    #[inline]
    pub fn row_mut(&mut self, slot: Slot) -> RowMut<'_> {
        self.touch(slot.0);
        RowMut { bytes: self.arena.row_mut(slot.0), sets: &mut self.sets, layout: &self.layout }
    }

    #[inline]
    pub fn pseudonym_of(&self, slot: Slot) -> Pseudonym {
        self.row(slot).pseudonym()
    }

    #[inline]
    fn touch(&mut self, slot: u32) {
        if self.snapshot.is_some() {
            self.keep_image(slot);
        }
        let flags = &mut self.arena.row_mut(slot)[FLAGS_AT];
        let before = *flags;
        if before & LIVE == 0 || before & (DIRTY | UNDIGESTED) == DIRTY | UNDIGESTED {
            return;
        }
        *flags = before | DIRTY | UNDIGESTED;
        if before & DIRTY == 0 {
            self.dirty.insert(slot);
        }
        if before & UNDIGESTED == 0 {
            self.undigested.push(slot);
        }
    }

    /// Goes over to other features: cells whose definition stays keep what they hold. Slots stay; every user is dirty. A
    /// checkpoint under way is lost.
    pub fn migrate(&mut self, features: &Features) {
        self.snapshot = None;
        let new = Arc::clone(features.layout());
        let migration = Migration::between(&self.layout, &new);
        let mut arena = Arena { row_bytes: new.bytes, chunks: Vec::new(), used: 0 };
        let mut live = Vec::with_capacity(self.index.len());
        for slot in 0..self.arena.used {
            let to = arena.add();
            if self.arena.row(slot)[FLAGS_AT] & LIVE != 0 {
                let row = arena.row_mut(to);
                migration.apply(self.arena.row(slot), row, &mut self.sets);
                row[FLAGS_AT] = LIVE | DIRTY | UNDIGESTED;
                live.push(slot);
            }
        }
        (self.arena, self.layout, self.digest) = (arena, new, 0);
        self.row_digests.fill(0);
        self.undigested = live;
        self.dirty.clone_from(&self.live);
    }

    /// A digest of all users, their rows and sets. Equal tables have equal digests, however they came about; only what
    /// changed since the last call is read.
    pub fn digest(&mut self) -> u128 {
        let mut encoded = Vec::new();
        for slot in std::mem::take(&mut self.undigested) {
            let flags = &mut self.arena.row_mut(slot)[FLAGS_AT];
            if *flags & UNDIGESTED == 0 {
                continue;
            }
            *flags &= !UNDIGESTED;
            encoded.clear();
            self.row(Slot(slot)).encode(&mut encoded);
            let new = xxhash_rust::xxh3::xxh3_128(&encoded);
            let old = std::mem::replace(&mut self.row_digests[slot as usize], new);
            self.digest = self.digest.wrapping_sub(old).wrapping_add(new);
        }
        self.digest
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.arena.chunks.len() * CHUNK_ROWS * self.arena.row_bytes
            + self.sets.memory_bytes()
            + self.index.allocation_size()
            + (self.free.capacity() + self.undigested.capacity()) * size_of::<u32>()
            + self.live.memory_bytes()
            + self.dirty.memory_bytes()
            + self.row_digests.capacity() * size_of::<u128>()
            + self.tombstones.len() * size_of::<Pseudonym>()
    }
}
