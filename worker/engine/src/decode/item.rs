//! Records of a table to items.

use super::{
    DecodedEvent, MAX_MAPPINGS, MAX_RECORD_EVENT_BYTES,
    assemble::{Element, Sink},
    number::TextBuf,
    plan::Item,
    reject::{Fault, Reason},
    slots::{Slot, Val},
    value::{self, MAX_TEXT_BYTES},
};
use crate::{
    catalog::ItemRecord,
    event::{ConsentChange, Pseudonym, Seq, Time, put_attribute},
};

impl Element<'_> {
    /// Appends the item of a table's record.
    pub(super) fn table_item(&self, item: &Item, out: &mut Sink<'_>) -> Result<(), Fault> {
        let (start, index) = (out.bytes.len(), self.index * MAX_MAPPINGS as u32);
        let stated = self.time()?;
        let fault = |reason| (reason, Some(item.id));
        let mut buf = TextBuf::new();
        let id = value::id(self.view.get(item.id), &mut buf).map_err(fault)?;
        let id = match id.ok_or(fault(Reason::MissingField))? {
            "" => return Err(fault(Reason::EmptyId)),
            id if id.len() > MAX_TEXT_BYTES => return Err(fault(Reason::IdTooLong)),
            id => id,
        };
        let available = item.available.map_or(Ok(true), |slot| self.available(slot))?;
        let (mut attributes, mut ignored) = (Vec::new(), 0);
        for (id, field) in &item.attributes {
            let mut buf = TextBuf::new();
            match field.attribute(field.read(self.view), self.plan.csv, &mut buf) {
                Ok(Some(value)) => put_attribute(&mut attributes, *id, value),
                Ok(None) => {}
                Err(()) => ignored += 1,
            }
        }
        // As items of events, which get these attributes.
        if attributes.len() > usize::from(u16::MAX) || start + attributes.len() > MAX_RECORD_EVENT_BYTES {
            return Err(fault(Reason::TooLong));
        }
        let seq = Seq { offset: self.place.row, index };
        ItemRecord::new(seq, Time(stated), id, available, &attributes).write(out.bytes);
        out.counts.ignored_attributes += ignored;
        out.events.push(DecodedEvent {
            index,
            stated: Time(stated),
            future: stated > self.plan.time.not_after,
            user: Pseudonym::default(),
            consent: ConsentChange::None,
            bytes: (start as u32, out.bytes.len() as u32),
        });
        Ok(())
    }

    /// True, or a number above zero. What is missing is not there.
    fn available(&self, slot: Slot) -> Result<bool, Fault> {
        let csv = self.plan.csv;
        match self.view.get(slot) {
            Val::Missing => Ok(false),
            Val::Bool(b) => Ok(b),
            Val::Text(text) if csv && text.eq_ignore_ascii_case("true") => Ok(true),
            Val::Text(text) if csv && text.eq_ignore_ascii_case("false") => Ok(false),
            val => Ok(value::number(val, csv).map_err(|reason| (reason, Some(slot)))?.is_some_and(|n| n > 0.0)),
        }
    }
}
