//! Checkpoints of the table: a base holds every user, a delta what changed.
//!
//! Version 1: version (u16), 0 for a base or 1 for changes (u8), the layout's id (u64), bytes of a row (u32), number of
//! rows (u32), rows in ascending pseudonym (each followed by its sets), number of tombstones (u32), pseudonyms (u128) in
//! ascending order. Integrity as a whole (checksums) is the checkpoint's; what is checked here is that no bytes can panic or lead
//! to a table that `Users` cannot lead to.

use crate::{
    codec::{Corrupt, Put, Reader},
    event::Pseudonym,
    feature::{Features, RowMut, get_u32, layout::FLAGS_AT, put_u32},
};

use super::{DIRTY, LIVE, Slot, Users};

const VERSION: u16 = 1;
const BASE: u8 = 0;
const CHANGES: u8 = 1;
const PSEUDONYM_BYTES: usize = 16;

impl Users {
    /// Appends a base. Equal tables give equal bytes.
    pub fn encode_all(&self, out: &mut Vec<u8>) {
        let live = (0..self.arena.used).filter(|slot| self.arena.row(*slot)[FLAGS_AT] & LIVE != 0);
        self.encode(BASE, live.collect(), out);
    }

    /// Appends what changed since the last mark, as of now.
    pub fn encode_changes(&mut self, out: &mut Vec<u8>) {
        self.dirty.retain(|slot| self.arena.row(*slot)[FLAGS_AT] & DIRTY != 0);
        self.dirty.sort_unstable();
        self.dirty.dedup();
        self.encode(CHANGES, self.dirty.clone(), out);
    }

    /// From here on, changes count anew.
    pub fn mark_clean(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            self.arena.row_mut(slot)[FLAGS_AT] &= !DIRTY;
        }
        self.tombstones.clear();
    }

    fn encode(&self, kind: u8, slots: Vec<u32>, out: &mut Vec<u8>) {
        let mut order: Vec<(Pseudonym, u32)> = slots.into_iter().map(|s| (self.pseudonym_of(Slot(s)), s)).collect();
        order.sort_unstable();
        out.put_u16(VERSION);
        out.put_u8(kind);
        out.put_u64(self.layout.id);
        out.put_u32((self.layout.bytes - self.layout.local) as u32);
        out.put_u32(order.len() as u32);
        for (_, slot) in order {
            self.row(Slot(slot)).encode(out);
        }
        let tombstones = if kind == BASE || planted::is(planted::Bug::DeltaWithoutTombstones) {
            None
        } else {
            Some(&self.tombstones)
        };
        out.put_u32(tombstones.map_or(0, |t| t.len() as u32));
        tombstones.into_iter().flatten().for_each(|pseudonym| out.put_u128(pseudonym.0));
    }

    /// Reads a base. Every user is clean.
    pub fn load_all(features: &Features, bytes: &[u8]) -> Result<Users, Corrupt> {
        let mut users = Users::new(features);
        users.apply(BASE, bytes)?;
        users.mark_clean();
        Ok(users)
    }

    /// Applies changes to the table as it was when they began. Users are as dirty as before; what changed is dirty. After an
    /// error the table is part old, part new, and of no use.
    pub fn apply_changes(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.apply(CHANGES, bytes)
    }

    fn apply(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut r = Reader::new(bytes);
        let row_bytes = self.layout.bytes - self.layout.local;
        if r.u16("version of users")? != VERSION || r.u8("kind of users")? != kind {
            return Err(r.corrupt("version or kind of users"));
        }
        if r.u64("layout of users")? != self.layout.id || r.u32("row bytes")? as usize != row_bytes {
            return Err(r.corrupt("layout of users"));
        }
        let mut last = None;
        for _ in 0..r.count(row_bytes, "number of users")? {
            let pseudonym = self.apply_row(&mut r, row_bytes)?;
            if last.replace(pseudonym).is_some_and(|last| last >= pseudonym) {
                return Err(r.corrupt("order of users"));
            }
        }
        for _ in 0..r.count(PSEUDONYM_BYTES, "number of tombstones")? {
            self.remove(Pseudonym(r.u128("tombstone")?));
        }
        if r.is_empty() { Ok(()) } else { Err(r.corrupt("end of users")) }
    }

    fn apply_row(&mut self, r: &mut Reader<'_>, row_bytes: usize) -> Result<Pseudonym, Corrupt> {
        let canonical = r.take(row_bytes, "row")?;
        let mut pseudonym = [0; PSEUDONYM_BYTES];
        pseudonym.copy_from_slice(&canonical[..PSEUDONYM_BYTES]);
        let pseudonym = Pseudonym(u128::from_le_bytes(pseudonym));
        let slot = self.get_or_insert(pseudonym);
        let RowMut { bytes, sets, layout } = self.row_mut(slot);
        RowMut { bytes, sets, layout }.remove_sets(false);
        bytes[layout.local..].copy_from_slice(canonical);
        for set in &layout.sets {
            let (handle, size) = sets.decode(r)?;
            put_u32(bytes, set.handle_at, handle);
            if get_u32(bytes, set.size_at) != size {
                return Err(r.corrupt("size of a set"));
            }
        }
        if self.row(slot).hidden_is_sound() { Ok(pseudonym) } else { Err(r.corrupt("sums of experiments")) }
    }
}
