//! What a record holds at the paths that the spec names. Raw: may hold identities, so nothing here can be printed.

/// Index of a path's value.
pub(super) type Slot = u16;

/// A value as it arrived. Texts and lists lie elsewhere, so that buffers outlive records.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Raw {
    /// Not there, or null, or (CSV) empty.
    Missing,
    /// Something that has no place there: an object, or the way to the path leads through something else.
    Wrong,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    UInt(u64),
    Float(f64),
    /// Bytes of the record.
    Text {
        at: u32,
        len: u32,
    },
    /// Bytes of [`Slots::unescaped`].
    Unescaped {
        at: u32,
        len: u32,
    },
    /// Elements of one of [`Slots::lists`].
    List {
        of: Slot,
        at: u32,
        len: u32,
    },
}

/// The values of one record; reused for the next.
pub(super) struct Slots {
    pub values: Vec<Raw>,
    /// One for each slot.
    pub lists: Vec<Vec<Raw>>,
    dirty_lists: Vec<Slot>,
    unescaped: String,
    /// Values of the elements of `each`: only what is there.
    pub sparse: Vec<(Slot, Raw)>,
    /// Where in `sparse` each element ends.
    pub element_ends: Vec<u32>,
    /// Fields at the levels that were looked at which the spec does not name.
    pub unknown_fields: u32,
    pub root_is_object: bool,
    pub too_many_elements: bool,
}

impl Slots {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            values: vec![Raw::Missing; slots],
            lists: vec![Vec::new(); slots],
            dirty_lists: Vec::new(),
            unescaped: String::new(),
            sparse: Vec::new(),
            element_ends: Vec::new(),
            unknown_fields: 0,
            root_is_object: false,
            too_many_elements: false,
        }
    }

    /// Forgets the last record.
    pub(super) fn clear(&mut self) {
        self.values.fill(Raw::Missing);
        for slot in self.dirty_lists.drain(..) {
            self.lists[slot as usize].clear();
        }
        self.unescaped.clear();
        self.sparse.clear();
        self.element_ends.clear();
        self.unknown_fields = 0;
        self.root_is_object = false;
        self.too_many_elements = false;
    }

    pub(super) fn push(&mut self, list: Slot, value: Raw) {
        let values = &mut self.lists[list as usize];
        if values.is_empty() {
            self.dirty_lists.push(list);
        }
        values.push(value);
    }

    /// Keeps text that is not in the record as such.
    pub(super) fn keep(&mut self, text: &str) -> Raw {
        let at = self.unescaped.len() as u32;
        self.unescaped.push_str(text);
        Raw::Unescaped { at, len: text.len() as u32 }
    }
}

/// A value to look at. Holds identities: never `Debug`.
#[derive(Clone, Copy)]
pub(super) enum Val<'r> {
    Missing,
    Wrong,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(&'r str),
    List(&'r [Raw]),
}

/// One record, or one element of it, to look at.
#[derive(Clone, Copy)]
pub(super) struct View<'r> {
    pub text: &'r str,
    pub slots: &'r Slots,
    /// CSV: everything is text, so numbers and booleans are recognized in it.
    pub csv: bool,
}

impl<'r> View<'r> {
    // Inlined, all of it, so that a value stays in registers: by way of memory it would cost a store-forwarding stall.
    #[inline(always)]
    pub(super) fn get(&self, slot: Slot) -> Val<'r> {
        self.val(&self.slots.values[slot as usize])
    }

    #[inline(always)]
    pub(super) fn val(&self, raw: &Raw) -> Val<'r> {
        match *raw {
            Raw::Missing => Val::Missing,
            Raw::Wrong => Val::Wrong,
            Raw::Bool(b) => Val::Bool(b),
            Raw::Int(n) => Val::Int(n),
            Raw::UInt(n) => Val::UInt(n),
            Raw::Float(n) => Val::Float(n),
            Raw::Text { at, len } => text_at(self.text, at, len),
            Raw::Unescaped { at, len } => text_at(&self.slots.unescaped, at, len),
            Raw::List { of, at, len } => {
                let (at, len) = (at as usize, len as usize);
                self.slots.lists[of as usize].get(at..at + len).map_or(Val::Wrong, Val::List)
            }
        }
    }
}

#[inline(always)]
fn text_at(text: &str, at: u32, len: u32) -> Val<'_> {
    text.get(at as usize..(at + len) as usize).map_or(Val::Wrong, Val::Text)
}
