//! Checkpoints of the table: a base holds every user, a delta what changed.
//!
//! Version 1: version (u16), 0 for a base or 1 for changes (u8), the layout's id (u64), bytes of a row (u32), number of
//! rows (u32), rows in ascending pseudonym (each followed by its sets), number of tombstones (u32), pseudonyms (u128) in
//! ascending order. Integrity as a whole (checksums) is the checkpoint's; what is checked here is that no bytes can panic or lead
//! to a table that `Users` cannot lead to.

use std::collections::BTreeSet;

use crate::{
    checkpoint::Extent,
    codec::{Corrupt, Put, Reader},
    event::Pseudonym,
    feature::{Features, RowMut, get_u32, layout::FLAGS_AT, put_u32},
    snapshot::{Rows, Snapshot, UnderWay},
};

use super::{DIRTY, Slot, Users};

const VERSION: u16 = 1;
const BASE: u8 = 0;
const CHANGES: u8 = 1;
const PSEUDONYM_BYTES: usize = 16;
/// Of a set with a few members.
const SET_BYTES: usize = 32;

impl Rows for Users {
    fn key(&self, slot: u32) -> u128 {
        self.pseudonym_of(Slot(slot)).0
    }

    /// The row is as it is saved from here on.
    fn encode(&mut self, slot: u32, out: &mut Vec<u8>) {
        self.row(Slot(slot)).encode(out);
        self.arena.row_mut(slot)[FLAGS_AT] &= !DIRTY;
    }

    fn under_way(&mut self) -> &mut UnderWay {
        &mut self.snapshot
    }
}

impl Users {
    /// Fixes what [`Rows::go_on`] is to encode: all users as they are now, or what changed since the last checkpoint began.
    /// From here on, changes count anew. Returns about how many bytes that will be. One that is under way is lost.
    pub fn begin(&mut self, extent: Extent) -> usize {
        let dirty = std::mem::take(&mut self.dirty);
        let tombstones = std::mem::take(&mut self.tombstones);
        let (kind, of, tombstones) = match extent {
            Extent::Base => (BASE, self.live.clone(), BTreeSet::new()),
            Extent::Changes if planted::is(planted::Bug::DeltaWithoutTombstones) => (CHANGES, dirty, BTreeSet::new()),
            Extent::Changes => (CHANGES, dirty, tombstones),
        };
        let (rows, row_bytes) = (of.count(), self.layout.bytes - self.layout.local);
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        head.put_u16(VERSION);
        head.put_u8(kind);
        head.put_u64(self.layout.id);
        head.put_u32(row_bytes as u32);
        head.put_u32(rows as u32);
        tail.put_u32(tombstones.len() as u32);
        tombstones.iter().for_each(|pseudonym| tail.put_u128(pseudonym.0));
        let bytes = rows * (row_bytes + self.layout.sets.len() * SET_BYTES) + tail.len();
        self.snapshot = Some(Box::new(Snapshot::begin(of, (0, u128::MAX), head, tail)));
        bytes
    }

    /// From here on, changes count anew.
    pub fn mark_clean(&mut self) {
        for slot in std::mem::take(&mut self.dirty).iter() {
            self.arena.row_mut(slot)[FLAGS_AT] &= !DIRTY;
        }
        self.tombstones.clear();
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
