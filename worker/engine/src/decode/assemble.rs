//! From values to encoded events: what a record, or one element of it, says by the mappings that match it.

use super::{
    Counts, DecodedEvent, MAX_EVENT_BYTES, MAX_ITEMS, MAX_RECORD_EVENT_BYTES, Place,
    number::{self, TextBuf},
    plan::{Fields, Mapping, Plan, TimeFrom, User},
    reject::{Fault, Reason},
    slots::{Raw, Slot, Val, View},
    time,
    value::{self, Field, MAX_TEXT_BYTES},
};
use crate::{
    event::{AttributeId, ConsentChange, EventWriter, Head, Item, Pseudonym, Seq, Time, Value},
    privacy::{Pseudonymizer, RawEvent, RawEventId, RawId},
};

/// What became of a record or element that could be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Events,
    UnknownType,
    Dropped,
    Unconsented,
}

/// Events on their way out.
pub(super) struct Sink<'o> {
    pub events: &'o mut Vec<DecodedEvent>,
    pub bytes: &'o mut Vec<u8>,
    pub counts: &'o mut Counts,
}

/// One record, or one element of it.
pub(super) struct Element<'r> {
    pub plan: &'r Plan,
    pub by: &'r Pseudonymizer,
    pub view: View<'r>,
    pub place: Place,
    /// Index within the record.
    pub index: u32,
}

/// What the events of one element share.
struct Shared {
    user: Pseudonym,
    time: i64,
    version: Option<f64>,
}

impl<'r> Element<'r> {
    /// Appends the events, all or (on a fault) some of which the caller takes back.
    pub(super) fn decode(&self, out: &mut Sink<'_>) -> Result<Verdict, Fault> {
        let plan = self.plan;
        if plan.drop.iter().any(|conditions| value::all_hold(conditions, self.view)) {
            return Ok(Verdict::Dropped);
        }
        if let Some(item) = &plan.item {
            return self.table_item(item, out).map(|()| Verdict::Events);
        }
        let mut shared = None;
        for (n, mapping) in plan.mappings.iter().enumerate() {
            if !value::all_hold(&mapping.when, self.view) {
                continue;
            }
            let shared = match &shared {
                Some(shared) => shared,
                None => match self.shared()? {
                    Some(found) => shared.insert(found),
                    None => return Ok(Verdict::Unconsented),
                },
            };
            self.event(mapping, n as u32, shared, out)?;
        }
        Ok(if shared.is_some() { Verdict::Events } else { Verdict::UnknownType })
    }

    /// What stands of a rejected element: withdrawals. Nothing else in a record can stop one.
    pub(super) fn withdrawals(&self, out: &mut Sink<'_>) -> Result<(), Fault> {
        let mapped = self.plan.mappings.iter().enumerate().filter(|(_, m)| self.consent(m) == ConsentChange::Withdraw);
        let mut matched = mapped.filter(|(_, m)| value::all_hold(&m.when, self.view)).peekable();
        if matched.peek().is_none() {
            return Ok(());
        }
        let Some(shared) = self.shared()? else { return Ok(()) };
        matched.try_for_each(|(n, mapping)| self.event(mapping, n as u32, &shared, out))
    }

    /// What an event of this mapping says of consent.
    fn consent(&self, mapping: &Mapping) -> ConsentChange {
        match &mapping.granted_if {
            None => ConsentChange::None,
            Some(conditions) if value::all_hold(conditions, self.view) => ConsentChange::Grant,
            Some(_) => ConsentChange::Withdraw,
        }
    }

    /// `None`: not logged in, or refused.
    fn shared(&self) -> Result<Option<Shared>, Fault> {
        let user = match self.plan.user {
            User::Nobody => return Ok(None),
            User::Row => self.by.row_user(&self.plan.source, self.place.partition, self.place.row),
            User::Field(slot) => {
                let mut buf = TextBuf::new();
                match value::id(self.view.get(slot), &mut buf).map_err(|r| (r, Some(slot)))? {
                    None | Some("") => return Ok(None),
                    Some(text) => self.by.user(RawId::new(text).ok_or((Reason::IdTooLong, Some(slot)))?),
                }
            }
        };
        if !value::all_hold(&self.plan.consent, self.view) {
            return Ok(None);
        }
        Ok(Some(Shared { user, time: self.time()?, version: self.version() }))
    }

    /// When it happened, if that can be read and believed. Whoever stays unknown moves the partition's time on as well:
    /// otherwise anonymous traffic alone would hold up everybody.
    pub(super) fn believable_time(&self) -> Option<Time> {
        self.time().ok().filter(|time| *time <= self.plan.time.not_after).map(Time)
    }

    fn version(&self) -> Option<f64> {
        match self.plan.version.as_ref()?.read(self.view) {
            Val::Int(n) => Some(n as f64),
            Val::UInt(n) => Some(n as f64),
            Val::Float(n) => Some(n),
            Val::Text(text) => number::strict(text),
            _ => None,
        }
    }

    /// The event time in microseconds, not before `notBefore`.
    pub(super) fn time(&self) -> Result<i64, Fault> {
        let plan = &self.plan.time;
        let (at, stated) = match &plan.from {
            TimeFrom::Field(slot) => (*slot, self.time_of_field(*slot)?),
            TimeFrom::Calendar(slots) => (slots[0], self.time_of_calendar(slots)?),
            TimeFrom::Nowhere => return Ok(Time::MIN.0),
        };
        let out_of_range = (Reason::TimeOutOfRange, Some(at));
        let row = if plan.plus_row { i64::try_from(self.place.row).map_err(|_| out_of_range)? } else { 0 };
        let time = time::of_integer(row, plan.unit).and_then(|row| stated.checked_add(row)).ok_or(out_of_range)?;
        if time < plan.not_before { Err(out_of_range) } else { Ok(time) }
    }

    fn time_of_field(&self, slot: Slot) -> Result<i64, Fault> {
        let unit = self.plan.time.unit;
        let time = match self.view.get(slot) {
            Val::Missing => return Err((Reason::MissingField, Some(slot))),
            Val::Int(n) => time::of_integer(n, unit),
            Val::UInt(n) => time::of_float(n as f64, unit),
            Val::Float(n) => time::of_float(n, unit),
            Val::Text(text) => return time::of_text(text, unit).ok_or((Reason::BadTime, Some(slot))),
            Val::Bool(_) | Val::List(_) | Val::Wrong => return Err((Reason::WrongType, Some(slot))),
        };
        time.ok_or((Reason::TimeOutOfRange, Some(slot)))
    }

    fn time_of_calendar(&self, slots: &[Slot]) -> Result<i64, Fault> {
        // Month and day of the shortest form are there; hour, minute and second may not be.
        let mut parts = [1, 1, 1, 0, 0, 0];
        for (part, slot) in parts.iter_mut().zip(slots) {
            let n = value::number(self.view.get(*slot), true).map_err(|r| (r, Some(*slot)))?;
            let n = n.ok_or((Reason::MissingField, Some(*slot)))?;
            *part = number::whole(n).ok_or((Reason::BadTime, Some(*slot)))?;
        }
        let [year, month, day, hour, minute, second] = parts;
        let (date, clock) = (time::of_date(year, month, day), time::of_clock(hour, minute, second));
        date.zip(clock).map(|(date, clock)| date + clock).ok_or((Reason::BadTime, slots.first().copied()))
    }

    fn event(&self, mapping: &Mapping, n: u32, shared: &Shared, out: &mut Sink<'_>) -> Result<(), Fault> {
        let start = out.bytes.len();
        let index = self.index * super::MAX_MAPPINGS as u32 + n;
        let consent = self.consent(mapping);
        let mut raw = RawEvent {
            seq: Seq { offset: self.place.row, index },
            time: Time(shared.time),
            user: shared.user,
            event_type: mapping.event_type,
            consent,
            value: f64::NAN,
            id: None,
            decision: None,
            session: None,
            basket: None,
        };
        if consent == ConsentChange::None {
            self.write(mapping, mapping.fields(shared.version), raw, out)?;
        } else {
            // Only user and time are read, and the id if it is one: all else could stop a withdrawal.
            let mut buf = TextBuf::new();
            raw.id = self.event_id(mapping, &mut buf).unwrap_or(None);
            EventWriter::new(out.bytes, &raw.seal(self.by), "", "", "").attributes().finish();
        }
        let too_long = out.bytes.len() - start > MAX_EVENT_BYTES || out.bytes.len() > MAX_RECORD_EVENT_BYTES;
        if too_long && consent != ConsentChange::Withdraw {
            return Err((Reason::TooLong, None));
        }
        out.events.push(DecodedEvent {
            index,
            stated: Time(shared.time),
            future: shared.time > self.plan.time.not_after,
            user: shared.user,
            consent,
            bytes: (start as u32, out.bytes.len() as u32),
        });
        Ok(())
    }

    fn write(&self, mapping: &Mapping, fields: &Fields, raw: RawEvent<'_>, out: &mut Sink<'_>) -> Result<(), Fault> {
        let mut bufs = [const { TextBuf::new() }; 7];
        let [id, decision, session, basket, placement, platform, currency] = &mut bufs;
        let head = RawEvent {
            value: self.number(fields.value.as_ref())?.unwrap_or(f64::NAN),
            id: self.event_id(mapping, id)?,
            decision: self.id(fields.decision.as_ref(), decision)?,
            session: self.id(self.plan.session.as_ref(), session)?,
            basket: self.id(fields.basket.as_ref(), basket)?,
            ..raw
        }
        .seal(self.by);
        let placement = self.text(fields.placement.as_ref(), placement)?;
        let platform = self.text(self.plan.platform.as_ref(), platform)?;
        let currency = self.text(fields.currency.as_ref(), currency)?;
        self.write_lists(fields, &head, [placement, platform, currency], out)
    }

    fn write_lists(&self, fields: &Fields, head: &Head, texts: [&str; 3], out: &mut Sink<'_>) -> Result<(), Fault> {
        let [placement, platform, currency] = texts;
        let mut writer = EventWriter::new(out.bytes, head, placement, platform, currency);
        let mut ignored = 0;
        let items = Items::of(self, fields)?;
        let mut bytes = 0;
        for i in 0..items.len {
            bytes += items.write(i, &mut writer, &mut ignored)?;
            if bytes > MAX_EVENT_BYTES {
                return Err((Reason::TooLong, None));
            }
        }
        let mut writer = writer.attributes();
        for (id, field) in &fields.attributes {
            let mut buf = TextBuf::new();
            match field.attribute(field.read(self.view), self.plan.csv, &mut buf) {
                Ok(Some(value)) => writer.attribute(*id, value),
                Ok(None) => {}
                Err(()) => ignored += 1,
            }
        }
        writer.finish();
        out.counts.ignored_attributes += ignored;
        Ok(())
    }

    /// An absent id is none, and so can no retry be recognized; an empty one is a mistake.
    fn event_id<'t>(&self, mapping: &Mapping, buf: &'t mut TextBuf) -> Result<Option<RawEventId<'t>>, Fault>
    where
        'r: 't,
    {
        let Some((slot, of_element)) = self.plan.event_id else { return Ok(None) };
        let fault = |reason| (reason, Some(slot));
        match value::id(self.view.get(slot), buf).map_err(fault)? {
            None => Ok(None),
            Some("") => Err(fault(Reason::EmptyId)),
            Some(text) => {
                let id = RawId::new(text).ok_or(fault(Reason::IdTooLong))?;
                let element = if of_element { 0 } else { self.index };
                Ok(Some(RawEventId { id, mapping: mapping.hash, element }))
            }
        }
    }

    /// A decision, session or basket. Empty: none.
    fn id<'t>(&self, field: Option<&'t Field>, buf: &'t mut TextBuf) -> Result<Option<RawId<'t>>, Fault>
    where
        'r: 't,
    {
        let Some(field) = field else { return Ok(None) };
        match value::id(field.read(self.view), buf).map_err(|r| (r, field.slot))? {
            None | Some("") => Ok(None),
            Some(text) => RawId::new(text).map(Some).ok_or((Reason::IdTooLong, field.slot)),
        }
    }

    fn text<'t>(&self, field: Option<&'t Field>, buf: &'t mut TextBuf) -> Result<&'t str, Fault>
    where
        'r: 't,
    {
        let Some(field) = field else { return Ok("") };
        let text = value::text(field.read(self.view), buf).map_err(|r| (r, field.slot))?.unwrap_or_default();
        if text.len() > MAX_TEXT_BYTES { Err((Reason::TextTooLong, field.slot)) } else { Ok(text) }
    }

    fn number(&self, field: Option<&Field>) -> Result<Option<f64>, Fault> {
        let Some(field) = field else { return Ok(None) };
        value::number(field.read(self.view), self.plan.csv).map_err(|r| (r, field.slot))
    }
}

/// A value for each item.
#[derive(Clone, Copy)]
enum Column<'r> {
    Absent,
    /// Of the only item or (attributes) of all.
    One(&'r Field, Val<'r>),
    Each(&'r Field, &'r [Raw]),
}

impl<'r> Column<'r> {
    fn of(field: Option<&'r Field>, view: View<'r>, items: usize) -> Result<Self, Fault> {
        let Some(field) = field else { return Ok(Self::Absent) };
        match field.read(view) {
            Val::Missing => Ok(Self::Absent),
            Val::List(list) if list.len() == items => Ok(Self::Each(field, list)),
            Val::Wrong | Val::List(_) => Err((Reason::WrongType, field.slot)),
            _ if items != 1 => Err((Reason::WrongType, field.slot)),
            val => Ok(Self::One(field, val)),
        }
    }

    fn number(&self, item: usize, view: View<'_>) -> Result<Option<f64>, Fault> {
        let (field, val) = match self {
            Self::Absent => return Ok(None),
            Self::One(field, val) => (field, *val),
            Self::Each(field, list) => (field, field.element(view, &list[item])),
        };
        value::number(val, view.csv).map_err(|r| (r, field.slot))
    }
}

/// The items of an event, by columns.
struct Items<'r> {
    view: View<'r>,
    len: usize,
    ids: Column<'r>,
    at: Option<Slot>,
    positions: Column<'r>,
    quantities: Column<'r>,
    values: Column<'r>,
    propensities: Column<'r>,
    attributes: &'r [(AttributeId, Field)],
}

impl<'r> Items<'r> {
    fn of(element: &Element<'r>, fields: &'r Fields) -> Result<Self, Fault> {
        let view = element.view;
        let at = fields.items.as_ref().and_then(|field| field.slot);
        let (len, ids) = match fields.items.as_ref().map(|field| (field, field.read(view))) {
            None | Some((_, Val::Missing)) => (0, Column::Absent),
            Some((_, Val::Wrong)) => return Err((Reason::WrongType, at)),
            Some((field, Val::List(list))) => (list.len(), Column::Each(field, list)),
            Some((field, val)) => (1, Column::One(field, val)),
        };
        if len > MAX_ITEMS {
            return Err((Reason::TooMany, at));
        }
        let absent = matches!(ids, Column::Absent);
        let column = |field: &'r Option<Field>| Column::of(field.as_ref().filter(|_| !absent), view, len);
        Ok(Self {
            view,
            len,
            ids,
            at,
            positions: column(&fields.positions)?,
            quantities: column(&fields.quantities)?,
            values: column(&fields.values)?,
            propensities: column(&fields.propensities)?,
            attributes: &fields.item_attributes,
        })
    }

    /// Writes item `i` with its attributes; returns about how many bytes that took.
    fn write(&self, i: usize, writer: &mut EventWriter<'_>, ignored: &mut u32) -> Result<usize, Fault> {
        let mut buf = TextBuf::new();
        let val = match self.ids {
            Column::Absent => Val::Missing,
            Column::One(_, val) => val,
            Column::Each(field, list) => field.element(self.view, &list[i]),
        };
        let id = value::id(val, &mut buf).map_err(|r| (r, self.at))?.unwrap_or_default();
        if id.is_empty() {
            return Err((Reason::EmptyId, self.at));
        }
        if id.len() > MAX_TEXT_BYTES {
            return Err((Reason::IdTooLong, self.at));
        }
        let mut item = Item::new(id);
        let out_of_range = |column: &Column<'_>| (Reason::NumberOutOfRange, column.slot());
        if let Some(position) = self.positions.number(i, self.view)? {
            let position = number::whole(position).and_then(|p| i32::try_from(p).ok()).filter(|p| *p >= 0);
            item.position = position.ok_or(out_of_range(&self.positions))?;
        }
        item.quantity = self.quantities.number(i, self.view)?.unwrap_or(f64::NAN);
        item.value = self.values.number(i, self.view)?.unwrap_or(f64::NAN);
        if let Some(propensity) = self.propensities.number(i, self.view)? {
            if !(propensity > 0.0 && propensity <= 1.0) {
                return Err(out_of_range(&self.propensities));
            }
            item.propensity = propensity;
        }
        writer.item(&item);
        Ok(id.len() + 32 + self.write_attributes(i, writer, ignored)?)
    }

    fn write_attributes(&self, i: usize, writer: &mut EventWriter<'_>, ignored: &mut u32) -> Result<usize, Fault> {
        let mut bytes = 0;
        for (id, field) in self.attributes {
            let val = match field.read(self.view) {
                Val::List(list) if list.len() == self.len => field.element(self.view, &list[i]),
                val => val,
            };
            let mut buf = TextBuf::new();
            match field.attribute(val, self.view.csv, &mut buf) {
                Ok(Some(value)) => {
                    bytes += 3 + if let Value::Text(text) = value { 1 + text.len() } else { 8 };
                    writer.item_attribute(*id, value);
                }
                Ok(None) => {}
                Err(()) => *ignored += 1,
            }
            if bytes > usize::from(u16::MAX) {
                return Err((Reason::TooLong, field.slot));
            }
        }
        Ok(bytes)
    }
}

impl Column<'_> {
    fn slot(&self) -> Option<Slot> {
        match self {
            Self::Absent => None,
            Self::One(field, _) | Self::Each(field, _) => field.slot,
        }
    }
}
