//! An event after privacy: what the events log holds. No raw identity can get here, see [`crate::privacy`].
//!
//! Encoded (version 1 of the frame's records): a fixed head of 104 bytes, then three short texts, items, attributes.

use crate::codec::{Corrupt, Put, Reader};

/// Event time: microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    pub const MIN: Time = Time(i64::MIN);
    pub const MAX: Time = Time(i64::MAX);
    pub fn plus(self, micros: i64) -> Time {
        Time(self.0.saturating_add(micros))
    }
    pub fn minus(self, micros: i64) -> Time {
        Time(self.0.saturating_sub(micros))
    }
}

/// A record's place in its origin: (input offset, index within that input). The same after any restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq {
    pub offset: u64,
    pub index: u32,
}

impl Seq {
    /// Before everything: offsets of inputs start at 1.
    pub const START: Seq = Seq { offset: 0, index: u32::MAX };
    /// Covers all of the input at `offset`.
    pub const fn end_of(offset: u64) -> Seq {
        Seq { offset, index: u32::MAX }
    }
}

/// A user's keyed 128-bit pseudonym. The only form in which an identity exists downstream of `privacy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym(pub u128);

/// What a record says of consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConsentChange {
    None = 0,
    Grant = 1,
    Withdraw = 2,
}

/// Index of an event's name in [`crate::names::Names::events`].
pub type EventType = u8;
/// Index of an attribute's name in [`crate::names::Names::attributes`].
pub type AttributeId = u16;

/// A value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Number(f64),
    Text(&'a str),
    Bool(bool),
}

impl Value<'_> {
    /// The stable hash by which categories are told apart. Whole numbers and their text are the same category.
    pub fn category(&self) -> u64 {
        match self {
            Value::Text(text) => category_of_text(text),
            Value::Number(n) => category_of_number(*n),
            Value::Bool(b) => category_of_text(if *b { "true" } else { "false" }),
        }
    }
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Number(n) => Some(*n),
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Text(_) => None,
        }
    }
}

/// xxh3 of the text; never 0, which means "no category" where categories are stored.
pub fn category_of_text(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()).max(1)
}

/// A whole number below 2^53 is the category of its decimal text, any other number that of its bits.
pub fn category_of_number(n: f64) -> u64 {
    if n == libm::trunc(n) && libm::fabs(n) < 9_007_199_254_740_992.0 {
        let mut text = [0u8; 20];
        let mut at = text.len();
        let mut rest = (n as i64).unsigned_abs();
        loop {
            at -= 1;
            text[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if n < 0.0 {
            at -= 1;
            text[at] = b'-';
        }
        xxhash_rust::xxh3::xxh3_64(&text[at..]).max(1)
    } else {
        xxhash_rust::xxh3::xxh3_64(&n.to_bits().to_le_bytes()).max(1)
    }
}

/// The fixed part of an event. Ids are keyed hashes; 0 means absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    pub seq: Seq,
    /// Where it stands in the merge. For a late or future withdrawal not what the event said, see `stated`.
    pub time: Time,
    /// The time the event itself stated.
    pub stated: Time,
    pub user: Pseudonym,
    pub event_type: EventType,
    pub consent: ConsentChange,
    /// Keyed hash of the event id and of which event of its record this is; 0 without an id.
    pub id: u128,
    pub decision: u64,
    pub session: u64,
    pub basket: u64,
    /// NaN: absent.
    pub value: f64,
}

/// One item of an event. NaN and -1 mean absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    pub id: &'a str,
    pub position: i32,
    pub quantity: f64,
    pub value: f64,
    pub propensity: f64,
    attributes: &'a [u8],
}

impl<'a> Item<'a> {
    pub fn new(id: &'a str) -> Self {
        Self { id, position: -1, quantity: f64::NAN, value: f64::NAN, propensity: f64::NAN, attributes: &[] }
    }
    /// `attributes`: encoded, in ascending id.
    pub(crate) fn with_attributes(id: &'a str, attributes: &'a [u8]) -> Self {
        Self { attributes, ..Self::new(id) }
    }
    /// The item's own attributes (`item.…`), in ascending id.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { reader: Reader::new(self.attributes) }
    }
}

const HEAD_BYTES: usize = 12 + 8 + 8 + 16 + 4 + 16 + 8 + 8 + 8 + 8;

/// Writes one event: `new`, then items with their attributes, then the event's attributes, then `finish`.
pub struct EventWriter<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    items: u16,
    items_at: usize,
    attributes_at: usize,
}

impl<'b> EventWriter<'b> {
    /// Texts are cut at 255 bytes by the caller's limits; longer ones are refused in `decode`.
    pub fn new(out: &'b mut Vec<u8>, head: &Head, placement: &str, platform: &str, currency: &str) -> Self {
        let start = out.len();
        out.put_u32(0);
        out.put_u64(head.seq.offset);
        out.put_u32(head.seq.index);
        out.put_i64(head.time.0);
        out.put_i64(head.stated.0);
        out.put_u128(head.user.0);
        out.put(&[head.event_type, head.consent as u8, 0, 0]);
        out.put_u128(head.id);
        out.put_u64(head.decision);
        out.put_u64(head.session);
        out.put_u64(head.basket);
        out.put_f64(head.value);
        for text in [placement, platform, currency] {
            put_short(out, text);
        }
        let items_at = out.len();
        out.put_u16(0);
        Self { out, start, items: 0, items_at, attributes_at: 0 }
    }

    /// Begins an item; `item_attribute` adds to the last one begun.
    pub fn item(&mut self, item: &Item<'_>) {
        self.close_item();
        self.items += 1;
        put_short(self.out, item.id);
        self.out.put_u32(item.position as u32);
        self.out.put_f64(item.quantity);
        self.out.put_f64(item.value);
        self.out.put_f64(item.propensity);
        self.attributes_at = self.out.len();
        self.out.put_u16(0);
    }

    /// An attribute of the last item begun. In ascending id.
    pub fn item_attribute(&mut self, id: AttributeId, value: Value<'_>) {
        put_attribute(self.out, id, value);
    }

    fn close_item(&mut self) {
        if self.items > 0 {
            let len = (self.out.len() - self.attributes_at - 2) as u16;
            self.out[self.attributes_at..self.attributes_at + 2].copy_from_slice(&len.to_le_bytes());
        }
    }

    /// Ends the items; the event's own attributes follow.
    pub fn attributes(mut self) -> AttributesWriter<'b> {
        self.close_item();
        self.out[self.items_at..self.items_at + 2].copy_from_slice(&self.items.to_le_bytes());
        AttributesWriter { out: self.out, start: self.start }
    }
}

pub struct AttributesWriter<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
}

impl AttributesWriter<'_> {
    /// In ascending id.
    pub fn attribute(&mut self, id: AttributeId, value: Value<'_>) {
        put_attribute(self.out, id, value);
    }
    pub fn finish(self) {
        let len = (self.out.len() - self.start - 4) as u32;
        self.out[self.start..self.start + 4].copy_from_slice(&len.to_le_bytes());
    }
}

pub(crate) fn put_short(out: &mut Vec<u8>, text: &str) {
    out.put_u8(text.len() as u8);
    out.put(text.as_bytes());
}

pub(crate) fn put_attribute(out: &mut Vec<u8>, id: AttributeId, value: Value<'_>) {
    out.put_u16(id);
    match value {
        Value::Number(n) => {
            out.put_u8(NUMBER);
            out.put_f64(n);
        }
        Value::Text(text) => {
            out.put_u8(TEXT);
            put_short(out, text);
        }
        Value::Bool(b) => out.put_u8(if b { TRUE } else { FALSE }),
    }
}

/// A decoded event over the bytes of its frame.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub head: Head,
    pub placement: &'a str,
    pub platform: &'a str,
    pub currency: &'a str,
    pub item_count: u16,
    items: &'a [u8],
    attributes: &'a [u8],
}

/// Where the user stands in an event's bytes: behind sequence and times.
const USER_AT: usize = STATED_AT + 8;
const STATED_AT: usize = 12 + 8;

impl<'a> Event<'a> {
    /// A request for a decision, as the impression that features are read for. `attributes`: encoded, in ascending id.
    pub(crate) fn of_request(
        time: Time,
        session: u64,
        placement: &'a str,
        platform: &'a str,
        attributes: &'a [u8],
    ) -> Self {
        let head = Head {
            seq: Seq::START,
            time,
            stated: time,
            user: Pseudonym::default(),
            event_type: 0,
            consent: ConsentChange::None,
            id: 0,
            decision: 0,
            session,
            basket: 0,
            value: f64::NAN,
        };
        Self { head, placement, platform, currency: "", item_count: 0, items: &[], attributes }
    }

    /// The user and the event id of an event that need not have been read before.
    pub fn user_and_id(bytes: &[u8]) -> Option<(Pseudonym, u128)> {
        let mut r = Reader::new(bytes.get(USER_AT..)?);
        let user = Pseudonym(r.u128("user").ok()?);
        r.u32("type, consent, reserved").ok()?;
        Some((user, r.u128("event id").ok()?))
    }

    /// The user and what the event says of consent, likewise.
    pub fn user_and_consent(bytes: &[u8]) -> Option<(Pseudonym, u8)> {
        let mut r = Reader::new(bytes.get(USER_AT..)?);
        let user = Pseudonym(r.u128("user").ok()?);
        r.u8("event type").ok()?;
        Some((user, r.u8("consent").ok()?))
    }

    /// The user and the time that the event itself stated, likewise.
    pub fn user_and_stated(bytes: &[u8]) -> Option<(Pseudonym, Time)> {
        let mut r = Reader::new(bytes.get(STATED_AT..)?);
        let stated = Time(r.i64("stated time").ok()?);
        Some((Pseudonym(r.u128("user").ok()?), stated))
    }

    /// Reads one event, without the length that stands before it, and checks all of it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let mut r = Reader::new(bytes);
        if bytes.len() < HEAD_BYTES {
            return Err(r.corrupt("event head"));
        }
        let seq = Seq { offset: r.u64("offset")?, index: r.u32("index")? };
        let (time, stated, user) = (Time(r.i64("time")?), Time(r.i64("stated time")?), Pseudonym(r.u128("user")?));
        let event_type = r.u8("event type")?;
        let consent = match r.u8("consent")? {
            0 => ConsentChange::None,
            1 => ConsentChange::Grant,
            2 => ConsentChange::Withdraw,
            _ => return Err(r.corrupt("consent")),
        };
        r.u16("reserved")?;
        let id = r.u128("event id")?;
        let (decision, session, basket) = (r.u64("decision")?, r.u64("session")?, r.u64("basket")?);
        let value = r.f64("value")?;
        let head = Head { seq, time, stated, user, event_type, consent, id, decision, session, basket, value };
        let (placement, platform, currency) = (short(&mut r)?, short(&mut r)?, short(&mut r)?);
        let item_count = r.u16("item count")?;
        let items_at = r.at();
        for _ in 0..item_count {
            let (id, item) = split_item(&mut r)?;
            check_text(id, &r)?;
            check_attributes(item.attributes)?;
        }
        let attributes_at = r.at();
        let attributes = &bytes[attributes_at..];
        check_attributes(attributes)?;
        Ok(Self { head, placement, platform, currency, item_count, items: &bytes[items_at..attributes_at], attributes })
    }
    pub fn items(&self) -> Items<'a> {
        Items { reader: Reader::new(self.items) }
    }
    /// The event's own attributes, in ascending id.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { reader: Reader::new(self.attributes) }
    }
    pub fn attribute(&self, id: AttributeId) -> Option<Value<'a>> {
        self.attributes().find_id(id)
    }
}

/// A text led by its length (u8).
pub(crate) fn short<'a>(r: &mut Reader<'a>) -> Result<&'a str, Corrupt> {
    let len = r.u8("text length")? as usize;
    std::str::from_utf8(r.take(len, "text")?).map_err(|_| r.corrupt("text"))
}

/// An item and its id apart. Neither the id nor the attributes are checked.
#[inline]
fn split_item<'a>(r: &mut Reader<'a>) -> Result<(&'a [u8], Item<'a>), Corrupt> {
    let id_len = r.u8("text length")? as usize;
    let id = r.take(id_len, "text")?;
    let position = r.u32("position")? as i32;
    let (quantity, value, propensity) = (r.f64("quantity")?, r.f64("item value")?, r.f64("propensity")?);
    let len = r.u16("item attributes")? as usize;
    let attributes = r.take(len, "item attributes")?;
    Ok((id, Item { id: "", position, quantity, value, propensity, attributes }))
}

/// An attribute whose value may not be wanted.
#[derive(Clone, Copy, Debug)]
pub struct RawAttribute<'a> {
    pub id: AttributeId,
    kind: u8,
    /// A number's bytes, or a text's.
    bytes: &'a [u8],
}

const NUMBER: u8 = 0;
const TEXT: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;

impl<'a> RawAttribute<'a> {
    #[inline]
    fn read(r: &mut Reader<'a>) -> Result<Self, Corrupt> {
        let (id, kind) = (r.u16("attribute")?, r.u8("attribute type")?);
        let len = match kind {
            NUMBER => 8,
            TEXT => usize::from(r.u8("text length")?),
            FALSE | TRUE => 0,
            _ => return Err(r.corrupt("attribute type")),
        };
        Ok(Self { id, kind, bytes: r.take(len, "attribute value")? })
    }

    /// None only for a text that is not UTF-8.
    #[inline]
    pub fn value(&self) -> Option<Value<'a>> {
        match self.kind {
            NUMBER => self.bytes.first_chunk().map(|bytes| Value::Number(f64::from_le_bytes(*bytes))),
            TEXT => std::str::from_utf8(self.bytes).ok().map(Value::Text),
            kind => Some(Value::Bool(kind == TRUE)),
        }
    }
}

fn check_attributes(bytes: &[u8]) -> Result<(), Corrupt> {
    let mut r = Reader::new(bytes);
    while !r.is_empty() {
        let raw = RawAttribute::read(&mut r)?;
        if raw.kind == TEXT {
            check_text(raw.bytes, &r)?;
        }
    }
    Ok(())
}

/// Most texts are ASCII, which is told faster.
#[inline]
fn check_text(text: &[u8], r: &Reader<'_>) -> Result<(), Corrupt> {
    if text.is_ascii() || std::str::from_utf8(text).is_ok() { Ok(()) } else { Err(r.corrupt("text")) }
}

/// Items of an event that was checked when it was read.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;
    fn next(&mut self) -> Option<Item<'a>> {
        if self.reader.is_empty() {
            return None;
        }
        let (id, item) = split_item(&mut self.reader).ok()?;
        Some(Item { id: std::str::from_utf8(id).ok()?, ..item })
    }
}

/// Attributes of an event or item that was checked when it was read.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    reader: Reader<'a>,
}

impl<'a> Attributes<'a> {
    /// Checks all of them.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        check_attributes(bytes)?;
        Ok(Self { reader: Reader::new(bytes) })
    }
    /// Without looking at the values.
    #[inline]
    pub fn raw(mut self) -> impl Iterator<Item = RawAttribute<'a>> {
        std::iter::from_fn(move || match self.reader.is_empty() {
            true => None,
            false => RawAttribute::read(&mut self.reader).ok(),
        })
    }
    /// The value of one attribute.
    pub fn find_id(self, id: AttributeId) -> Option<Value<'a>> {
        self.raw().find(|raw| raw.id == id).and_then(|raw| raw.value())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttributeId, Value<'a>);
    fn next(&mut self) -> Option<(AttributeId, Value<'a>)> {
        if self.reader.is_empty() {
            return None;
        }
        let raw = RawAttribute::read(&mut self.reader).ok()?;
        Some((raw.id, raw.value()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NON_ASCII: &str = "Grüße";

    fn head() -> Head {
        let (seq, time) = (Seq { offset: 3, index: 1 }, Time(5));
        let (event_type, consent) = (2, ConsentChange::Grant);
        let (user, id) = (Pseudonym(u128::MAX / 3), u128::MAX / 5);
        let (decision, session, basket, value) = (1, 2, 3, 0.5);
        Head { seq, time, stated: Time(4), user, event_type, consent, id, decision, session, basket, value }
    }

    fn encoded(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut w = EventWriter::new(&mut bytes, &head(), "home", "web", "EUR");
        w.item(&Item::new(text));
        w.item_attribute(1, Value::Text(text));
        w.item_attribute(2, Value::Bool(true));
        let mut w = w.attributes();
        w.attribute(3, Value::Number(1.5));
        w.attribute(4, Value::Text(text));
        w.finish();
        bytes.split_off(4)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = encoded(NON_ASCII);
        let event = Event::read(&bytes).unwrap();
        assert_eq!((event.head, event.placement, event.platform, event.currency), (head(), "home", "web", "EUR"));
        let item = event.items().next().unwrap();
        assert_eq!(item.id, NON_ASCII);
        let of_item: Vec<_> = item.attributes().collect();
        assert_eq!(of_item, [(1, Value::Text(NON_ASCII)), (2, Value::Bool(true))]);
        let of_event: Vec<_> = event.attributes().collect();
        assert_eq!(of_event, [(3, Value::Number(1.5)), (4, Value::Text(NON_ASCII))]);
        assert_eq!((event.attribute(4), event.attribute(5)), (Some(Value::Text(NON_ASCII)), None));
    }

    #[test]
    fn what_is_read_ahead_is_the_events_own() {
        let bytes = encoded("i");
        assert_eq!(Event::user_and_id(&bytes), Some((head().user, head().id)));
        assert_eq!(Event::user_and_id(&bytes[..HEAD_BYTES / 2]), None);
    }

    /// Texts are checked once, when the event is read: those of items and attributes too.
    #[test]
    fn text_that_is_not_utf8_is_refused_wherever_it_is() {
        let bytes = encoded(NON_ASCII);
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with("ü".as_bytes())).collect();
        assert_eq!(places.len(), 3);
        for at in places {
            let mut bad = bytes.clone();
            bad[at] = 0xff;
            assert!(Event::read(&bad).is_err(), "at byte {at}");
        }
    }
}
