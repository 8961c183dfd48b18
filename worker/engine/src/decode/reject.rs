//! What could not be read, said without what was read.

use std::fmt::Write;

use super::{
    number::TextBuf,
    slots::{Slot, Val, View},
    trie::Trie,
    value,
};

/// No sample is longer, in bytes.
pub const MAX_SAMPLE_BYTES: usize = 500;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a record, or an element of it, could not be read. The names are stable: metrics and dead letters hold them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];
            /// The stable name, in camelCase.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// Not JSON; or CSV with broken quotes, or with more or fewer fields than columns.
    Malformed = "malformed",
    NotUtf8 = "notUtf8",
    /// The record, or what it would become, is over a limit.
    TooLong = "tooLong",
    /// Objects and arrays nest deeper than 128 levels.
    TooDeep = "tooDeep",
    /// More elements to unroll, or items in an event, than allowed.
    TooMany = "tooMany",
    /// Something else than a value of the type that is needed; lists of items of different lengths.
    WrongType = "wrongType",
    /// No event time, or no array to unroll.
    MissingField = "missingField",
    /// Not finite; a position that is no whole number from 0; a propensity that is not above 0 and at most 1.
    NumberOutOfRange = "numberOutOfRange",
    /// No number, RFC 3339 text or date.
    BadTime = "badTime",
    /// Before `notBefore`, or beyond what microseconds can say.
    TimeOutOfRange = "timeOutOfRange",
    /// An item or event id without a character.
    EmptyId = "emptyId",
    /// An item id above 255 bytes, or another id above 1,024.
    IdTooLong = "idTooLong",
    /// A placement, platform or currency above 255 bytes.
    TextTooLong = "textTooLong",
}

/// One record, or one element of it, that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub reason: Reason,
    /// The element's index within its record (0 without `each`).
    pub element: u32,
    /// Where its sample is in [`super::Decoded::samples`].
    pub sample: (u32, u32),
}

/// Why an element is rejected, and at which path.
pub(super) type Fault = (Reason, Option<Slot>);

/// Length, kind and column of what could not be parsed. `found` is a word of ours.
pub(super) fn unparsed(samples: &mut String, bytes: usize, found: &str, column: Option<usize>) {
    // Writing to a String cannot fail.
    let _ = write!(samples, "{{\"bytes\":{bytes},\"error\":\"{found}\"");
    if let Some(column) = column {
        let _ = write!(samples, ",\"column\":{column}");
    }
    samples.push('}');
}

/// What is at the paths of the spec, by type and length.
pub(super) fn parsed(samples: &mut String, trie: &Trie, view: View<'_>, bytes: usize, at: Option<Slot>) {
    let start = samples.len();
    samples.push('{');
    if let Some(slot) = at {
        samples.push_str("\"at\":");
        quote(samples, &trie.paths[slot as usize]);
        samples.push(',');
    }
    samples.push_str("\"found\":{");
    let mut separator = "";
    let mut left_out = 0;
    for (slot, path) in trie.paths.iter().enumerate() {
        let hidden = path.is_empty() || trie.each.is_some_and(|each| each.slot as usize == slot);
        let val = view.get(slot as Slot);
        if hidden || matches!(val, Val::Missing) {
            continue;
        }
        // Room for one path more, its placeholder, and the three numbers at the end.
        if samples.len() - start > MAX_SAMPLE_BYTES - 180 {
            left_out += 1;
            continue;
        }
        samples.push_str(separator);
        separator = ",";
        quote(samples, path);
        samples.push(':');
        placeholder(samples, val);
    }
    let _ =
        write!(samples, "}},\"leftOut\":{left_out},\"otherFields\":{},\"bytes\":{bytes}}}", view.slots.unknown_fields);
}

fn placeholder(samples: &mut String, val: Val<'_>) {
    let mut buf = TextBuf::new();
    let (kind, len) = match val {
        Val::Text(text) => ("text", text.len()),
        Val::Bool(_) => ("boolean", 0),
        Val::List(list) => ("list", list.len()),
        Val::Wrong | Val::Missing => ("other", 0),
        number => ("number", value::text(number, &mut buf).ok().flatten().map_or(0, str::len)),
    };
    let _ = if len > 0 { write!(samples, "\"<{kind} {len}>\"") } else { write!(samples, "\"<{kind}>\"") };
}

/// A path of the spec as JSON text, cut at about 70 bytes.
fn quote(samples: &mut String, path: &str) {
    let start = samples.len();
    samples.push('"');
    for c in path.chars() {
        match c {
            _ if samples.len() - start > 70 => break,
            '"' | '\\' => samples.extend(['\\', c]),
            c if c.is_control() => samples.push('?'),
            c => samples.push(c),
        }
    }
    samples.push('"');
}
