//! The items that there are, from a table source.
//!
//! What ingest appends for each record of the table, as a record of its origin: sequence (u64, u32), time i64, then version
//! 1: version u8, available u8, id (length u8), attributes as in an event, to the end. [`Catalog::write`]: version u8, items
//! u32, each led by its length (u32): origin, and the item as such a record.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{AttributeId, Attributes, Seq, Time, Value, put_attribute, put_short, short},
    frame::{Origin, put_origin, put_seq, read_origin, read_seq},
};

/// The format that this engine writes, and the newest that it reads.
pub const VERSION: u8 = 1;

/// A value that is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedValue {
    Number(f64),
    Text(String),
    Bool(bool),
}

impl OwnedValue {
    pub fn value(&self) -> Value<'_> {
        match self {
            OwnedValue::Number(number) => Value::Number(*number),
            OwnedValue::Text(text) => Value::Text(text),
            OwnedValue::Bool(b) => Value::Bool(*b),
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Number(number) => Self::Number(number),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Bool(b) => Self::Bool(b),
        }
    }
}

/// One item.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogItem {
    pub id: String,
    /// In ascending id.
    pub attributes: Vec<(AttributeId, OwnedValue)>,
    pub available: bool,
}

/// What a record says of an item, as the log holds it.
#[derive(Clone, Copy, Debug)]
pub struct ItemRecord<'a> {
    pub seq: Seq,
    /// From when on it holds; [`Time::MIN`]: from whenever it is read.
    pub time: Time,
    pub id: &'a str,
    pub available: bool,
    attributes: &'a [u8],
}

impl<'a> ItemRecord<'a> {
    /// `attributes`: encoded as in an event, in ascending id; the id has at most 255 bytes.
    pub fn new(seq: Seq, time: Time, id: &'a str, available: bool, attributes: &'a [u8]) -> Self {
        Self { seq, time, id, available, attributes }
    }

    /// Appends it, led by its length (u32).
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32(0);
        put_seq(out, self.seq);
        out.put_i64(self.time.0);
        out.put(&[VERSION, u8::from(self.available)]);
        put_short(out, self.id);
        out.put(self.attributes);
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Reads one, without the length before it, and checks all of it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let mut r = Reader::new(bytes);
        let (seq, time) = (read_seq(&mut r)?, Time(r.i64("time")?));
        if r.u8("item version")? != VERSION {
            return Err(r.corrupt("item version"));
        }
        let available = match r.u8("availability")? {
            0 => false,
            1 => true,
            _ => return Err(r.corrupt("availability")),
        };
        let id = short(&mut r)?;
        let attributes = r.take(r.remaining(), "item attributes")?;
        if id.is_empty() || !Attributes::read(attributes)?.raw().is_sorted_by(|a, b| a.id < b.id) {
            return Err(r.corrupt("item"));
        }
        Ok(Self { seq, time, id, available, attributes })
    }

    pub fn item(&self) -> CatalogItem {
        let attributes = Attributes::read(self.attributes).into_iter().flatten();
        let attributes = attributes.map(|(id, value)| (id, value.into())).collect();
        CatalogItem { id: self.id.to_owned(), attributes, available: self.available }
    }
}

/// Which of two records of an item is the newer one: the later time, then the place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsOf {
    pub time: Time,
    pub origin: Origin,
    pub seq: Seq,
}

impl AsOf {
    const UNKNOWN: AsOf = AsOf {
        time: Time::MIN,
        origin: Origin { source: 0, topic: 0, partition: 0, incarnation: 0 },
        seq: Seq { offset: 0, index: 0 },
    };
}

#[derive(Clone, Debug)]
struct Entry {
    as_of: AsOf,
    item: Arc<CatalogItem>,
}

/// All items, by id.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    items: BTreeMap<String, Entry>,
    changes: u64,
}

impl Catalog {
    /// Whatever was known of the item before.
    pub fn upsert(&mut self, item: CatalogItem) {
        self.changes += 1;
        self.items.insert(item.id.clone(), Entry { as_of: AsOf::UNKNOWN, item: Arc::new(item) });
    }

    /// Unless something newer is known of the item. So the outcome does not depend on the order of calls.
    pub fn apply(&mut self, as_of: AsOf, item: &Arc<CatalogItem>) {
        match self.items.get_mut(&item.id) {
            Some(known) if known.as_of > as_of => return,
            Some(known) => *known = Entry { as_of, item: item.clone() },
            None => {
                self.items.insert(item.id.clone(), Entry { as_of, item: item.clone() });
            }
        }
        self.changes += 1;
    }

    pub fn get(&self, item: &str) -> Option<&CatalogItem> {
        self.items.get(item).map(|entry| entry.item.as_ref())
    }
    /// In a stable order.
    pub fn available(&self) -> impl Iterator<Item = &CatalogItem> {
        self.items.values().map(|entry| entry.item.as_ref()).filter(|item| item.available)
    }
    pub fn len(&self) -> usize {
        self.items.len()
    }
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// Grows with every change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u32(self.items.len() as u32);
        for Entry { as_of, item } in self.items.values() {
            write_item(*as_of, item, out);
        }
    }

    /// Reads what `write` wrote.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        if r.u8("catalog version")? != VERSION {
            return Err(r.corrupt("catalog version"));
        }
        let mut catalog = Self::default();
        for _ in 0..r.count(MIN_ITEM_BYTES, "catalog items")? {
            let (as_of, item) = read_item(r)?;
            catalog.apply(as_of, &item);
        }
        Ok(catalog)
    }
}

/// Length, origin, and the shortest record.
const MIN_ITEM_BYTES: usize = 12 + 4 + 12 + 8 + 4;

/// Appends an item with its origin.
pub fn write_item(as_of: AsOf, item: &CatalogItem, out: &mut Vec<u8>) {
    let mut attributes = Vec::new();
    item.attributes.iter().for_each(|(id, value)| put_attribute(&mut attributes, *id, value.value()));
    put_origin(out, &as_of.origin);
    ItemRecord::new(as_of.seq, as_of.time, &item.id, item.available, &attributes).write(out);
}

/// Reads what `write_item` wrote.
pub fn read_item(r: &mut Reader<'_>) -> Result<(AsOf, Arc<CatalogItem>), Corrupt> {
    let origin = read_origin(r)?;
    let record = ItemRecord::read(r.bytes("item")?)?;
    let as_of = AsOf { time: record.time, origin, seq: record.seq };
    Ok((as_of, Arc::new(record.item())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_of(time: i64, offset: u64) -> AsOf {
        AsOf { time: Time(time), origin: Origin::of_source(2, 1), seq: Seq { offset, index: 0 } }
    }

    fn item(id: &str, price: f64) -> Arc<CatalogItem> {
        let attributes = vec![
            (1, OwnedValue::Text("Grüße".into())),
            (3, OwnedValue::Number(price)),
            (9, OwnedValue::Bool(true)),
        ];
        Arc::new(CatalogItem { id: id.into(), attributes, available: price > 0.0 })
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        catalog.apply(as_of(5, 1), &item("a", 1.5));
        catalog.apply(as_of(i64::MIN, 2), &item("ü", 0.0));
        catalog
    }

    fn written(catalog: &Catalog) -> Vec<u8> {
        let mut bytes = Vec::new();
        catalog.write(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written(&catalog());
        let read = Catalog::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(written(&read), bytes);
        assert_eq!((read.get("a"), read.get("ü")), (Some(&*item("a", 1.5)), Some(&*item("ü", 0.0))));
        assert_eq!(read.available().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    /// Catalogs that lie in checkpoints must stay readable, and items in logs: these bytes never change.
    #[test]
    fn golden_version_1() {
        let hex: String = written(&catalog()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("catalog_v1.hex").trim());
    }

    #[test]
    fn the_newest_record_counts_in_any_order() {
        let records = [(as_of(5, 1), 1.0), (as_of(5, 2), 2.0), (as_of(4, 9), 3.0), (as_of(i64::MIN, 10), 4.0)];
        for first in 0..records.len() {
            let mut catalog = Catalog::default();
            let turned = records[first..].iter().chain(&records[..first]);
            turned.for_each(|(as_of, price)| catalog.apply(*as_of, &item("a", *price)));
            assert_eq!(catalog.get("a"), Some(&*item("a", 2.0)), "from {first}");
        }
    }

    #[test]
    fn items_without_an_id_or_with_an_attribute_twice_are_damaged() {
        let read = |record: ItemRecord<'_>| {
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            ItemRecord::read(&bytes[4..]).map(|record| record.item())
        };
        let (seq, mut twice) = (Seq { offset: 1, index: 0 }, Vec::new());
        put_attribute(&mut twice, 3, Value::Bool(true));
        assert!(read(ItemRecord::new(seq, Time(0), "a", true, &twice)).is_ok());
        assert!(read(ItemRecord::new(seq, Time(0), "", true, &twice)).is_err());
        put_attribute(&mut twice, 3, Value::Bool(true));
        assert!(read(ItemRecord::new(seq, Time(0), "a", true, &twice)).is_err());
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_another_catalog(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4), cut: u16) {
            let mut bytes = written(&catalog());
            for (at, byte) in changes {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - usize::from(cut) % 8);
            if let Ok(read) = Catalog::read(&mut Reader::new(&bytes)) {
                let again = written(&read);
                prop_assert_eq!(written(&Catalog::read(&mut Reader::new(&again)).unwrap()), again);
            }
        }
    }
}
