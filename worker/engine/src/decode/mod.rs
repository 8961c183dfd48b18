//! From the bytes of one source record to encoded, pseudonymised events.
//!
//! A record is read along the paths that the spec names and no others ([`trie`], [`json`], [`csv`]) into slots; then the
//! mappings that match it make events of the slots ([`assemble`]). Each record, or each element of `each`, has exactly one
//! outcome: events, or unknown type, dropped, unconsented, empty, rejected. Nothing that arrives is an error of the call.
//!
//! What is decided here:
//! - Of equal keys in a JSON object the last counts. Unknown fields are ignored, and `1e999` or broken text in them too.
//! - What is null, missing or (CSV) empty is missing. A path that leads through a number, or through an object where `[]`
//!   asks for an array, is of a wrong type.
//! - A version is read by the lowest listed version that is not below it, else by the newest mapping.
//! - An attribute of a wrong shape (object, list, text above 255 bytes, another number of values than items) is missing
//!   and counted; any other field of a wrong shape rejects the element as a whole.
//! - Items without ids, but no `items` at all, are an error; positions and the like without items are ignored.
//! - Numbers as ids and texts are their decimal text: 7 and 7.0 are the item `7`.
//! - A CSV field is a number where a number is needed; as an attribute where it looks like one (`007` and `1e5` do not).
//! - A consent event has only user, time and id. A withdrawal stands even where another event of its record rejects it.
//! - Empty decision, session and basket ids are absent. Retries of an event without an id cannot be recognized.

mod assemble;
mod csv;
mod item;
mod json;
mod number;
mod plan;
pub mod record;
mod reject;
mod slots;
mod time;
mod trie;
mod value;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use millrace_crds::spec::{PipelineSpec, Source};

use self::{
    assemble::{Element, Sink, Verdict},
    csv::Columns,
    plan::Plan,
    slots::{Raw, Slots, View},
};
pub use self::{
    csv::{HeaderError, MissingColumn},
    plan::CompileError,
    reject::{MAX_SAMPLE_BYTES, Reason, Reject},
};
use crate::{
    event::{ConsentChange, Pseudonym, Time},
    names::Names,
    privacy::Pseudonymizer,
};

/// A longer record is rejected.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
/// Objects and arrays nest no deeper.
pub const MAX_NESTING: usize = 128;
/// A record unrolls into no more elements.
pub const MAX_ELEMENTS: usize = 65_536;
/// An event has no more items.
pub const MAX_ITEMS: usize = 4_096;
/// A source has no more entries in `events`.
pub const MAX_MAPPINGS: usize = 256;
/// An encoded event is no longer.
pub const MAX_EVENT_BYTES: usize = 1 << 20;
/// All events of a record are no longer; elements beyond are rejected.
const MAX_RECORD_EVENT_BYTES: usize = 16 << 20;
/// So many rejects of one record have a sample.
const MAX_SAMPLES: usize = 16;
/// The bounds of believable times where the spec has none.
const NOT_BEFORE: &str = "1970-01-01T00:00:00Z";
const NOT_AFTER: &str = "2100-01-01T00:00:00Z";

/// A record's place in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: u32,
    /// From 1, within the partition.
    pub row: u64,
}

/// One event of a record or, of a table, one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedEvent {
    /// Element times 256 plus the mapping's place in `events`: the same whatever else of the record yields events.
    pub index: u32,
    /// The time it states. Not before `notBefore`. [`Time::MIN`] for an item that counts from when it is read.
    pub stated: Time,
    /// Above `notAfter` (2100 where the spec has none).
    pub future: bool,
    /// 0 of an item.
    pub user: Pseudonym,
    pub consent: ConsentChange,
    /// From and to in [`Decoded::bytes`]: the length that stands before the event (4 bytes), and the event (an item: a
    /// [`crate::catalog::ItemRecord`]). Its `seq` is (row, index), its `time` what is stated.
    pub bytes: (u32, u32),
}

/// Outcomes without a trace, in numbers of elements (without `each`: records).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// No entry of `events` matches.
    pub unknown_type: u32,
    /// Matches one of `drop`.
    pub dropped: u32,
    /// Not logged in, or refused.
    pub unconsented: u32,
    /// A blank line, or nothing to unroll.
    pub empty: u32,
    /// Not an outcome: attributes of a wrong shape, which count as missing.
    pub ignored_attributes: u32,
}

impl Counts {
    /// In the order in which [`record`] holds them.
    fn each(&mut self) -> [&mut u32; 5] {
        [
            &mut self.unknown_type,
            &mut self.dropped,
            &mut self.unconsented,
            &mut self.empty,
            &mut self.ignored_attributes,
        ]
    }
}

/// What one record yields. Reused for the next. Holds no identity: its `Debug` may be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The events are items of a table.
    pub items: bool,
    /// Element by element, then as declared.
    pub events: Vec<DecodedEvent>,
    pub bytes: Vec<u8>,
    /// Index and time of the elements of unknown users, as far as the time is believable. Nothing else is kept of them.
    pub unconsented: Vec<(u32, Time)>,
    pub counts: Counts,
    pub rejects: Vec<Reject>,
    /// Redacted samples, JSON objects.
    pub samples: String,
}

impl Decoded {
    pub fn clear(&mut self) {
        self.items = false;
        self.events.clear();
        self.bytes.clear();
        self.unconsented.clear();
        self.counts = Counts::default();
        self.rejects.clear();
        self.samples.clear();
    }
    /// An encoded event without the length before it, as [`crate::event::Event::read`] takes it.
    pub fn event_bytes(&self, event: &DecodedEvent) -> &[u8] {
        self.bytes.get(event.bytes.0 as usize + 4..event.bytes.1 as usize).unwrap_or_default()
    }
    /// The redacted sample of a reject: a JSON object of at most [`MAX_SAMPLE_BYTES`], or empty beyond the first 16.
    pub fn sample(&self, reject: &Reject) -> &str {
        self.samples.get(reject.sample.0 as usize..reject.sample.1 as usize).unwrap_or_default()
    }

    fn reject(&mut self, reason: Reason, element: u32, sample: impl FnOnce(&mut String)) {
        let start = self.samples.len();
        if self.rejects.len() < MAX_SAMPLES {
            sample(&mut self.samples);
        }
        self.rejects.push(Reject { reason, element, sample: (start as u32, self.samples.len() as u32) });
    }

    fn unparsed(&mut self, reason: Reason, record: &[u8], found: &str, column: Option<usize>) {
        self.reject(reason, 0, |samples| reject::unparsed(samples, record.len(), found, column));
    }
}

/// One source of the spec, compiled, with room for one record. Not `Debug`: that record's identities are in it.
pub struct Decoder {
    plan: Plan,
    columns: Columns,
    slots: Slots,
    by: Pseudonymizer,
}

impl Decoder {
    /// Refuses what `validate` refuses: paths that are none, `each` of CSV, unknown events, times that are none.
    pub fn compile(
        spec: &PipelineSpec,
        source: &Source,
        names: &Names,
        pseudonymizer: Pseudonymizer,
    ) -> Result<Self, CompileError> {
        let plan = plan::compile(spec, source, names)?;
        let slots = Slots::new(plan.trie.slot_count());
        Ok(Self { plan, columns: Columns::default(), slots, by: pseudonymizer })
    }

    /// Whether [`Decoder::header`] has to be called with each file's first line.
    pub fn wants_header(&self) -> bool {
        self.plan.csv
    }

    /// CSV: the line that names the columns, anew for each file. Until then every record is rejected.
    pub fn header(&mut self, line: &[u8]) -> Result<(), HeaderError> {
        self.columns = Columns::default();
        let wanted: Vec<(String, bool)> =
            self.plan.trie.paths.iter().cloned().zip(self.plan.required.clone()).collect();
        self.columns = Columns::of_header(line, self.plan.delimiter, &wanted)?;
        Ok(())
    }

    /// Decodes one record (a line, with its end or without) into `out`, which is cleared first.
    pub fn decode(&mut self, record: &[u8], place: Place, out: &mut Decoded) {
        out.clear();
        out.items = self.plan.item.is_some();
        if record.len() > MAX_RECORD_BYTES {
            return out.unparsed(Reason::TooLong, record, "too long", None);
        }
        let text = match std::str::from_utf8(record) {
            Ok(text) => text,
            Err(error) => return out.unparsed(Reason::NotUtf8, record, "not UTF-8", Some(error.valid_up_to() + 1)),
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_ascii().is_empty() {
            out.counts.empty += 1;
            return;
        }
        self.slots.clear();
        let read = if self.plan.csv { self.read_csv(text, out) } else { self.read_json(text, out) };
        if read {
            self.elements(text, place, out);
        }
    }

    fn read_csv(&mut self, text: &str, out: &mut Decoded) -> bool {
        match self.columns.read(text, self.plan.delimiter, &mut self.slots) {
            Ok(true) => true,
            Ok(false) => {
                out.unparsed(Reason::Malformed, text.as_bytes(), "not as many fields as columns", None);
                false
            }
            Err(csv::BadQuotes) => {
                out.unparsed(Reason::Malformed, text.as_bytes(), "broken quotes", None);
                false
            }
        }
    }

    fn read_json(&mut self, text: &str, out: &mut Decoded) -> bool {
        if json::too_deep(text.as_bytes()) {
            out.unparsed(Reason::TooDeep, text.as_bytes(), "nested too deep", None);
            return false;
        }
        if let Err(error) = json::read(text, &self.plan.trie, &mut self.slots) {
            // The message itself is not shown; that it is about a number's range is all that is taken from it.
            let (reason, found) = match error.classify() {
                serde_json::error::Category::Eof => (Reason::Malformed, "truncated"),
                _ if error.to_string().starts_with("number out of range") => (Reason::NumberOutOfRange, "number"),
                _ => (Reason::Malformed, "syntax"),
            };
            out.unparsed(reason, text.as_bytes(), found, Some(error.column()));
            return false;
        }
        if !self.slots.root_is_object {
            out.unparsed(Reason::WrongType, text.as_bytes(), "not an object", None);
        }
        self.slots.root_is_object
    }

    /// The record as a whole, or each element of it.
    fn elements(&mut self, text: &str, place: Place, out: &mut Decoded) {
        let Some(each) = self.plan.trie.each else { return self.element(text, place, 0, out) };
        let whole = |reason, slots: &Slots, out: &mut Decoded| {
            let view = View { text, slots, csv: self.plan.csv };
            let sample = |s: &mut String| reject::parsed(s, &self.plan.trie, view, text.len(), Some(each.slot));
            out.reject(reason, 0, sample);
        };
        match self.slots.values[each.slot as usize] {
            Raw::Missing => return whole(Reason::MissingField, &self.slots, out),
            Raw::List { .. } if self.slots.too_many_elements => return whole(Reason::TooMany, &self.slots, out),
            Raw::List { .. } => {}
            _ => return whole(Reason::WrongType, &self.slots, out),
        }
        out.counts.empty += u32::from(self.slots.element_ends.is_empty());
        let mut from = 0;
        for index in 0..self.slots.element_ends.len() {
            let to = self.slots.element_ends[index] as usize;
            for slot in &self.plan.trie.nodes[each.element as usize].all {
                self.slots.values[*slot as usize] = Raw::Missing;
            }
            for at in from..to {
                let (slot, value) = self.slots.sparse[at];
                self.slots.values[slot as usize] = value;
            }
            self.element(text, place, index as u32, out);
            from = to;
        }
    }

    fn element(&self, text: &str, place: Place, index: u32, out: &mut Decoded) {
        let plan = &self.plan;
        let view = View { text, slots: &self.slots, csv: plan.csv };
        let (events, bytes, ignored) = (out.events.len(), out.bytes.len(), out.counts.ignored_attributes);
        let mut sink = Sink { events: &mut out.events, bytes: &mut out.bytes, counts: &mut out.counts };
        let element = Element { plan, by: &self.by, view, place, index };
        match element.decode(&mut sink) {
            Ok(Verdict::Events) => {}
            Ok(Verdict::UnknownType) => out.counts.unknown_type += 1,
            Ok(Verdict::Dropped) => out.counts.dropped += 1,
            Ok(Verdict::Unconsented) => {
                sink.counts.unconsented += 1;
                out.unconsented.extend(element.believable_time().map(|time| (index * MAX_MAPPINGS as u32, time)));
            }
            Err((reason, at)) => {
                sink.events.truncate(events);
                sink.bytes.truncate(bytes);
                sink.counts.ignored_attributes = ignored;
                // Its own fault, if it has one, is the one that is told already.
                let _ = element.withdrawals(&mut sink);
                out.reject(reason, index, |s| reject::parsed(s, &plan.trie, view, text.len(), at));
            }
        }
    }
}
