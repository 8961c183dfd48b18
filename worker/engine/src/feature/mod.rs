//! Features of users and sessions: how events change them and how models read them.
//!
//! # What each feature says
//!
//! *Events* of a feature are the user's events of its types, in the order in which they were applied; `t` is the time of
//! reading or, if that is later, of the user's last event. Numbers are read as numbers, everything else as the
//! stable hash of [`Value::category`](crate::event::Value::category).
//!
//! - **Inputs** (`of`, `by`): `value` is the event's value, `item` each item's id, `item.x` that attribute of each
//!   item, any other name the event's attribute. An event with several items gives several inputs, in their order.
//!   What is absent, not finite, or empty text is no input. `true` and `false` are 1 and 0 where numbers are
//!   needed, otherwise categories; other text is no number.
//! - `count`: number of events, each once however many items it has. At most 2^32 - 1 (a bucket of a window:
//!   likewise); it stays there.
//! - `count` with `by`: inputs with the candidate's category. Kept for 16 categories; a new one takes the place of the one
//!   with the smallest count (of equal ones the first come), which is forgotten. Without the candidate's category: 0. A
//!   candidate without category: missing. Categories are told apart by 32 bits of their hash, here and in `affinity`.
//! - `sum`, `mean`, `min`, `max`: of the inputs. Of nothing the sum is 0, the others are missing.
//! - `window` (on the above except `by`, and on `ratio`): with `tumbling` only events in the multiple of the window
//!   since 1970 in which `t` is. Otherwise time is cut into buckets of `window / buckets` (8 by default; whole
//!   microseconds, rounded down) since 1970, and the events of bucket i count at `t` in bucket j if
//!   j - `buckets` < i <= j. Sums of a window add up the sums of its buckets, newest first.
//! - `decayedSum`: the sum of 2^(-(t - tᵢ) / halfLife) times the input (without `of`: for each event, 1), rounded
//!   to single precision. Kept as a double relative to the start of the half-life since 1970 in which the last such event
//!   was; what decayed by more than 2^-1022 is gone.
//! - `last`: the newest input. `lastN`: `n` columns, the newest first. Missing where there is none.
//! - `distinct`: number of different categories of the inputs: exact to 32, then a HyperLogLog estimate (2^10 registers),
//!   rounded to a whole number.
//! - `ratio` of [part, whole]: count of part / (count of whole + `smoothing`): `smoothing` events of the whole without a
//!   part are added, since an overall ratio would be another one for each partition. Missing if that divides by 0.
//! - `timeSince`: seconds from the last event to `t`. Missing if there is none.
//! - `affinity`: every input weighs 2^(-(t - tᵢ) / halfLife); the value is the weight of the candidate's category over the
//!   weight of all. Kept for `keep` categories (8), in single precision relative to the start of the half-life; a new one
//!   takes the place of the lightest (of equal ones the first come), which is forgotten. 0 if the candidate's is not among
//!   them, missing if there are none or the candidate has no category. What decayed by more than about 2^-126, compared
//!   with anything newer of the same half-life, is gone.
//! - `anyOf`: 1 if one of the attributes of the impression or the candidate is a number above zero, `true`, or text that
//!   is not empty, otherwise 0. `attribute`: the attribute itself, like a plain column.
//! - `per: session`: only events since the session began: an event with another session hash than the one before, whatever
//!   its type, begins one. 0 (no session) is a session like any other. Read for an impression of another session they are
//!   the defaults. An unknown user has session 0.
//! - `bucket`: a number x becomes the category 1 + b, at most 1 + `max`. With `bounds`, b is the number of bounds that are
//!   not above x; with `log2`, floor(log2 · log₂ x), 0 below 1; otherwise floor(x), 0 below 0. No number: missing.
//! - Plain columns: `item` is the candidate's id, `placement` and `platform` are the impression's, another name is
//!   an allowed attribute of the candidate (`item.x`) or the impression. Numbers are numbers; text and booleans categories.
//!   `item` and text that is empty: missing.
//!
//! Sums and weights stay finite: they stop at the greatest number.

mod cells;
mod compile;
mod distinct;
pub(crate) mod hidden;
pub(crate) mod layout;
pub(crate) mod migrate;
pub mod mix;
pub mod oracle;
mod read;
pub(crate) mod row;
mod update;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use millrace_crds::spec::PipelineSpec;

use crate::{event::EventType, names::Names};

pub(crate) use cells::{get_u32, put_u32, put_u128};
pub use distinct::{EXACT_MAX, Sets};
pub use read::{Context, Projection};
pub use row::{OwnedRow, RowMut, RowRef};

use compile::{Definition, Program};
use hidden::Hidden;
use layout::Layout;

/// A feature that cannot be: the spec was not validated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("feature {feature}: unknown event {name}")]
    UnknownEvent { feature: String, name: String },
    #[error("feature {feature}: {name} is not an allowed attribute")]
    UnknownAttribute { feature: String, name: String },
    #[error("model {model}: {name} is neither a feature nor an allowed attribute")]
    UnknownColumn { model: String, name: String },
    #[error("feature {feature}: exactly one of the fields from `count` to `attribute` must say what it is")]
    NotOne { feature: String },
    #[error("feature {feature}: `{field}` is missing")]
    Missing { feature: String, field: &'static str },
    #[error("feature {feature}: `{field}` is out of range")]
    OutOfRange { feature: String, field: &'static str },
    #[error("feature {feature}: {what} is not supported")]
    Unsupported { feature: String, what: &'static str },
    #[error("the features need rows of more than {max_bytes} bytes")]
    TooWide { max_bytes: usize },
}

/// The features of users, sessions and the context, compiled. Those of items and all together are the model task's.
#[derive(Clone, Debug)]
pub struct Features {
    layout: Arc<Layout>,
    /// Sorted by name.
    definitions: Vec<Definition>,
    /// By event type.
    programs: Vec<Program>,
    /// The row of an unknown user.
    empty: Box<[u8]>,
}

impl Features {
    pub fn compile(spec: &PipelineSpec, names: &Names) -> Result<Features, CompileError> {
        let compile::Compiled { layout, definitions, programs } =
            compile::compile(&spec.features, Hidden::of(spec, names), names)?;
        let empty = vec![0; layout.bytes].into();
        Ok(Features { layout, definitions, programs, empty })
    }

    /// Fixed bytes of a user: header and cells.
    pub fn row_bytes(&self) -> usize {
        self.layout.bytes
    }

    /// An empty row outside a table.
    pub fn new_row(&self) -> OwnedRow {
        OwnedRow::new(&self.layout)
    }

    /// Where the items of this event are kept as bought, for [`RowRef::bought`]; none unless a placement asks for it.
    pub fn bought_ring(&self, event: EventType) -> Option<usize> {
        self.layout.hidden.ring(event)
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }
}
