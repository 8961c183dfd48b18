//! The catalog as a profile task keeps it: what holds as of the merge, for features of events, and what was read, for
//! decisions.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    catalog::{AsOf, Catalog, CatalogItem, ItemRecord, read_item, write_item},
    codec::{Corrupt, Put, Reader},
    event::{AttributeId, Event, EventWriter, Item, Time, Value},
    frame::Origin,
};

/// Two views of one table. What was read is what holds as of the merge, and what is yet to come.
#[derive(Default)]
pub struct Catalogs {
    merged: Catalog,
    read: Catalog,
    /// Above the merged watermark.
    to_come: BTreeMap<AsOf, Arc<CatalogItem>>,
    /// Since the last checkpoint.
    changed: bool,
}

impl Catalogs {
    /// Everything that was read.
    pub fn read(&self) -> &Catalog {
        &self.read
    }

    /// A record of the table. At or below the watermark it counts at once: a table is never late.
    pub fn accept(&mut self, origin: Origin, record: &[u8], watermark: Time) -> Result<(), Corrupt> {
        let record = ItemRecord::read(record)?;
        let (as_of, item) = (AsOf { time: record.time, origin, seq: record.seq }, Arc::new(record.item()));
        self.changed = true;
        self.read.apply(as_of, &item);
        match as_of.time <= watermark {
            true => self.merged.apply(as_of, &item),
            false => {
                self.to_come.insert(as_of, item);
            }
        }
        Ok(())
    }

    /// Time goes on: what comes is of `time` or later. At equal times the catalog changes first.
    pub fn advance(&mut self, time: Time) {
        while let Some(first) = self.to_come.first_entry().filter(|first| first.key().time <= time) {
            let (as_of, item) = first.remove_entry();
            self.changed = true;
            self.merged.apply(as_of, &item);
        }
    }

    /// The event with the values of the catalog as of the merge for all that its items do not say themselves. `own`
    /// holds what is new.
    pub fn complete<'a>(&self, event: Event<'a>, own: &'a mut Vec<u8>) -> Result<Event<'a>, Corrupt> {
        complete(&self.merged, event, own)
    }

    /// Likewise, as of what was read: for events that wait still.
    pub fn complete_waiting<'a>(&self, event: Event<'a>, own: &'a mut Vec<u8>) -> Result<Event<'a>, Corrupt> {
        complete(&self.read, event, own)
    }

    /// Independent of how the log was cut.
    pub fn digest(&self) -> u128 {
        let mut bytes = Vec::new();
        self.write_whole(&mut bytes);
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }

    /// `changes_only`: nothing, where nothing changed since `mark_saved`.
    pub fn write(&self, changes_only: bool, out: &mut Vec<u8>) {
        let is_there = self.changed || !changes_only;
        out.put_u8(u8::from(is_there));
        if is_there {
            self.write_whole(out);
        }
    }

    fn write_whole(&self, out: &mut Vec<u8>) {
        self.merged.write(out);
        out.put_u32(self.to_come.len() as u32);
        self.to_come.iter().for_each(|(as_of, item)| write_item(*as_of, item, out));
    }

    pub fn mark_saved(&mut self) {
        self.changed = false;
    }

    /// Reads what `write` wrote, over what was read of the checkpoint before.
    pub fn restore(&mut self, r: &mut Reader<'_>) -> Result<(), Corrupt> {
        if r.u8("catalog")? == 0 {
            return Ok(());
        }
        self.merged = Catalog::read(r)?;
        self.read = self.merged.clone();
        self.to_come.clear();
        for _ in 0..r.count(1, "items to come")? {
            let (as_of, item) = read_item(r)?;
            self.read.apply(as_of, &item);
            self.to_come.insert(as_of, item);
        }
        Ok(())
    }
}

/// What is known of the item that the event does not say.
fn missing<'k>(known: &'k CatalogItem, item: &Item<'_>) -> impl Iterator<Item = (AttributeId, Value<'k>)> {
    let said = item.attributes();
    let is_missing = move |id| !said.clone().raw().any(|own| own.id == id);
    known.attributes.iter().filter(move |(id, _)| is_missing(*id)).map(|(id, value)| (*id, value.value()))
}

/// As they are encoded.
fn bytes_of(attributes: &[(AttributeId, Value<'_>)]) -> usize {
    let bytes = |value: &Value<'_>| match value {
        Value::Number(_) => 8,
        Value::Text(text) => 1 + text.len(),
        Value::Bool(_) => 0,
    };
    attributes.iter().map(|(_, value)| 3 + bytes(value)).sum()
}

fn complete<'a>(catalog: &Catalog, event: Event<'a>, own: &'a mut Vec<u8>) -> Result<Event<'a>, Corrupt> {
    let known = |item: &Item<'_>| catalog.get(item.id);
    let lacks = |item: Item<'_>| known(&item).is_some_and(|known| missing(known, &item).next().is_some());
    if !event.items().any(lacks) {
        return Ok(event);
    }
    own.clear();
    let mut writer = EventWriter::new(own, &event.head, event.placement, event.platform, event.currency);
    let mut attributes = Vec::new();
    for item in event.items() {
        writer.item(&item);
        attributes.clear();
        attributes.extend(item.attributes());
        attributes.extend(known(&item).into_iter().flat_map(|known| missing(known, &item)));
        if bytes_of(&attributes) > usize::from(u16::MAX) {
            attributes.clear();
            attributes.extend(item.attributes()); // more than an item can have: only what it says itself
        }
        attributes.sort_by_key(|(id, _)| *id);
        attributes.iter().for_each(|(id, value)| writer.item_attribute(*id, *value));
    }
    let mut writer = writer.attributes();
    event.attributes().for_each(|(id, value)| writer.attribute(id, value));
    writer.finish();
    Event::read(&own[4..])
}
