//! A user's row: the fixed header, the cells, and the sets beside them.

use std::sync::Arc;

use crate::event::{Pseudonym, Time};

use super::{
    cells,
    distinct::{NO_SET, Sets},
    layout::Layout,
};

/// A row to read.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) sets: &'a Sets,
    pub(crate) layout: &'a Arc<Layout>,
}

/// A row to change.
#[derive(Debug)]
pub struct RowMut<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) sets: &'a mut Sets,
    pub(crate) layout: &'a Arc<Layout>,
}

impl<'a> RowRef<'a> {
    pub fn pseudonym(&self) -> Pseudonym {
        Pseudonym(cells::get_u128(self.bytes, self.layout.pseudonym_at()))
    }
    /// When consent was granted; [`Time::MIN`] if it never was.
    pub fn granted(&self) -> Time {
        Time(cells::get_time(self.bytes, self.layout.granted_at()))
    }
    /// Time of the newest event that reached the row; [`Time::MIN`] without one.
    pub fn last_event(&self) -> Time {
        Time(cells::get_time(self.bytes, self.layout.last_event_at()))
    }
    /// A copy that can be changed without changing the table.
    pub fn to_owned_row(&self) -> OwnedRow {
        OwnedRow::copy_of(self)
    }
    /// What of the row is digested and saved, except the sets.
    pub(crate) fn canonical(&self) -> &'a [u8] {
        &self.bytes[self.layout.local..]
    }
    /// The canonical part, then every set.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.canonical());
        for set in &self.layout.sets {
            self.sets.encode(cells::get_u32(self.bytes, set.handle_at), out);
        }
    }
}

impl RowMut<'_> {
    pub fn as_ref(&self) -> RowRef<'_> {
        RowRef { bytes: self.bytes, sets: self.sets, layout: self.layout }
    }
    pub fn granted(&self) -> Time {
        self.as_ref().granted()
    }
    pub fn set_granted(&mut self, time: Time) {
        cells::put_time(self.bytes, self.layout.granted_at(), time.0);
    }
    pub fn last_event(&self) -> Time {
        self.as_ref().last_event()
    }
    pub(crate) fn set_pseudonym(&mut self, user: Pseudonym) {
        cells::put_u128(self.bytes, self.layout.pseudonym_at(), user.0);
    }
    pub(crate) fn set_last_event(&mut self, time: Time) {
        cells::put_time(self.bytes, self.layout.last_event_at(), time.0);
    }
    /// Forgets the cells of the session before, if it was another one.
    pub(crate) fn enter_session(&mut self, session: u64) {
        let Some(at) = self.layout.session_at else { return };
        if cells::get_u64(self.bytes, at) != session {
            self.bytes[self.layout.session_cells..].fill(0);
            cells::put_u64(self.bytes, at, session);
            self.remove_sets(true);
        }
    }
    /// Forgets the sets, or those of the session only.
    pub(crate) fn remove_sets(&mut self, of_session_only: bool) {
        for set in self.layout.sets.iter().filter(|set| set.of_session || !of_session_only) {
            self.sets.remove(cells::get_u32(self.bytes, set.handle_at));
            cells::put_u32(self.bytes, set.handle_at, NO_SET);
        }
    }
    /// Adds to the set of a `distinct` and keeps its size in the row.
    pub(crate) fn insert(&mut self, handle_at: usize, size_at: usize, category: u64) {
        let mut handle = cells::get_u32(self.bytes, handle_at);
        let size = self.sets.insert(&mut handle, category);
        cells::put_u32(self.bytes, handle_at, handle);
        cells::put_u32(self.bytes, size_at, size);
    }
}

/// A row outside a table: a scratch copy for serving, or a user of a test.
#[derive(Debug)]
pub struct OwnedRow {
    bytes: Box<[u8]>,
    sets: Sets,
    layout: Arc<Layout>,
}

impl OwnedRow {
    pub(crate) fn new(layout: &Arc<Layout>) -> Self {
        Self { bytes: vec![0; layout.bytes].into(), sets: Sets::default(), layout: Arc::clone(layout) }
    }
    fn copy_of(row: &RowRef<'_>) -> Self {
        let mut copy = Self::new(row.layout);
        copy.copy_from(row);
        copy
    }
    /// Becomes a copy of a row of the same layout.
    pub(crate) fn copy_from(&mut self, row: &RowRef<'_>) {
        self.bytes.copy_from_slice(row.bytes);
        self.sets = Sets::default();
        for set in &row.layout.sets {
            let handle = self.sets.copy(row.sets, cells::get_u32(row.bytes, set.handle_at));
            cells::put_u32(&mut self.bytes, set.handle_at, handle);
        }
    }
    /// Becomes the row of a new user.
    pub(crate) fn clear(&mut self, user: Pseudonym) {
        self.bytes.fill(0);
        self.sets = Sets::default();
        self.row_mut().set_pseudonym(user);
    }
    pub fn row(&self) -> RowRef<'_> {
        RowRef { bytes: &self.bytes, sets: &self.sets, layout: &self.layout }
    }
    pub fn row_mut(&mut self) -> RowMut<'_> {
        RowMut { bytes: &mut self.bytes, sets: &mut self.sets, layout: &self.layout }
    }
}
