//! Where everything is in a row.
//!
//! ```text
//! local:     flags (u8) | a handle (u32) for each set of `distinct`
//! canonical: pseudonym (u128) | consent granted (time) | last event (time) | session (u64), if cells are kept of it
//!            | sums of experiments | bought items | cells of the user | cells of the session
//! ```
//! Only the canonical part, and the sets themselves, are digested and saved.

use crate::event::{AttributeId, EventType};

use super::{CompileError, cells, hidden::Hidden};

/// Flags of a row that only its table uses.
pub(crate) const FLAGS_AT: usize = 0;
const HANDLES_AT: usize = 1;
const HANDLE_BYTES: usize = 4;
const PSEUDONYM_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const SESSION_BYTES: usize = 8;
/// Pseudonym, consent, last event.
pub(crate) const HEADER_BYTES: usize = PSEUDONYM_BYTES + 2 * TIME_BYTES;
/// A row wider than this is a mistake in the pipeline, not a profile.
const ROW_BYTES_MAX: usize = 16 * 1024;

/// Where a value comes from: the `of` or `by` of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    Value,
    Item,
    Attribute(AttributeId),
    ItemAttribute(AttributeId),
}

/// How the last values are kept: `Tagged` says of each whether it is a number or a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    Number,
    Category,
    Tagged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    /// f64, relative to the start of the clock's half-life.
    Decayed,
    Affinity {
        places: u8,
    },
    Keyed,
    Last {
        n: u8,
        form: Form,
    },
    TimeSince,
    Distinct,
}

impl Kind {
    /// Bytes of one bucket.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Kind::Count | Kind::Distinct => 4,
            Kind::Sum | Kind::Min | Kind::Max | Kind::Decayed | Kind::TimeSince => 8,
            Kind::Mean => 12,
            Kind::Affinity { .. } | Kind::Keyed => self.places() * cells::PLACE_BYTES,
            Kind::Last { n, form: Form::Tagged } => n as usize * 9,
            Kind::Last { n, .. } => n as usize * 8,
        }
    }
    /// Categories that its table holds.
    pub(crate) const fn places(self) -> usize {
        match self {
            Kind::Affinity { places } => places as usize,
            Kind::Keyed => cells::KEYED_PLACES,
            _ => 0,
        }
    }
    /// Needs the category of a number too, not just of text.
    pub(crate) const fn is_keyed(self) -> bool {
        matches!(self, Kind::Affinity { .. } | Kind::Keyed | Kind::Distinct)
    }
}

/// Time in steps of `unit`, for windows (the width of a bucket) or decays (the half-life).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    pub unit: i64,
    pub decays: bool,
}

/// What a cell is before it has a place. Features that need the same share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub of_session: bool,
    pub events: Vec<EventType>,
    pub kind: Kind,
    pub input: Option<Input>,
    pub step: Option<Step>,
    pub buckets: u16,
}

/// A cell with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub kind: Kind,
    pub of_session: bool,
    pub at: usize,
    pub buckets: u16,
    /// Index in [`Layout::clocks`].
    pub clock: Option<u16>,
    /// Of a `distinct`: where its handle is.
    pub handle_at: usize,
}

/// Cells of one [`Step`] advance together: `at` holds when the newest bucket or the half-life began.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub at: usize,
    pub step: Step,
    pub of_session: bool,
    pub cells: Vec<Cell>,
}

/// The set of a `distinct`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetPlace {
    pub handle_at: usize,
    pub size_at: usize,
    pub of_session: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Bytes of a row, and of its local part.
    pub bytes: usize,
    pub local: usize,
    pub session_at: Option<usize>,
    /// Start of the session's cells, which go to the end.
    pub session_cells: usize,
    pub hidden: Hidden,
    /// All cells of features, each with a hash of its definition.
    pub cells: Vec<(u64, Cell)>,
    pub clocks: Vec<Clock>,
    pub sets: Vec<SetPlace>,
    /// Tells layouts apart, in checkpoints.
    pub id: u64,
}

impl Layout {
    pub(crate) fn pseudonym_at(&self) -> usize {
        self.local
    }
    pub(crate) fn granted_at(&self) -> usize {
        self.local + PSEUDONYM_BYTES
    }
    pub(crate) fn last_event_at(&self) -> usize {
        self.granted_at() + TIME_BYTES
    }

    /// Places the cells, those of the same events side by side. Returns them in the order of `wanted`.
    /// `identities`: of each wanted cell, a hash of its definition.
    pub(crate) fn place(
        wanted: &[Wanted],
        identities: &[u64],
        hidden: Hidden,
        id: u64,
    ) -> Result<(Self, Vec<Cell>), CompileError> {
        let mut layout = Self { id, hidden, ..Self::default() };
        let sets = wanted.iter().filter(|w| w.kind == Kind::Distinct).count();
        layout.local = HANDLES_AT + sets * HANDLE_BYTES;
        layout.bytes = layout.last_event_at() + TIME_BYTES;
        if wanted.iter().any(|w| w.of_session) {
            layout.session_at = Some(layout.bytes);
            layout.bytes += SESSION_BYTES;
        }
        layout.bytes = layout.hidden.place(layout.bytes);
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|i| &wanted[*i]);
        let mut placed: Vec<Option<Cell>> = vec![None; wanted.len()];
        for of_session in [false, true] {
            if of_session {
                layout.session_cells = layout.bytes;
            }
            for i in order.iter().copied().filter(|i| wanted[*i].of_session == of_session) {
                placed[i] = Some(layout.place_one(&wanted[i])?);
            }
        }
        let cells: Vec<Cell> = placed.into_iter().flatten().collect();
        layout.cells = identities.iter().copied().zip(cells.iter().copied()).collect();
        Ok((layout, cells))
    }

    fn place_one(&mut self, wanted: &Wanted) -> Result<Cell, CompileError> {
        let of_session = wanted.of_session;
        let clock = wanted.step.map(|step| self.clock(step, of_session));
        let at = self.take(wanted.kind.bytes() * usize::from(wanted.buckets))?;
        let handle_at = HANDLES_AT + self.sets.len() * HANDLE_BYTES;
        let cell = Cell { kind: wanted.kind, of_session, at, buckets: wanted.buckets, clock, handle_at };
        if cell.kind == Kind::Distinct {
            self.sets.push(SetPlace { handle_at, size_at: at, of_session });
        }
        if let Some(clock) = clock {
            self.clocks[usize::from(clock)].cells.push(cell);
        }
        Ok(cell)
    }

    fn clock(&mut self, step: Step, of_session: bool) -> u16 {
        let found = self.clocks.iter().position(|c| c.step == step && c.of_session == of_session);
        found.unwrap_or_else(|| {
            self.clocks.push(Clock { at: self.bytes, step, of_session, cells: Vec::new() });
            self.bytes += TIME_BYTES;
            self.clocks.len() - 1
        }) as u16
    }

    fn take(&mut self, bytes: usize) -> Result<usize, CompileError> {
        let at = self.bytes;
        self.bytes += bytes;
        if self.bytes > ROW_BYTES_MAX {
            return Err(CompileError::TooWide { max_bytes: ROW_BYTES_MAX });
        }
        Ok(at)
    }
}
