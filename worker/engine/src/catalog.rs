//! The items that there are, from a table source.

use std::collections::BTreeMap;

use crate::event::{AttributeId, Value};

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

/// One item.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogItem {
    pub id: String,
    /// In ascending id.
    pub attributes: Vec<(AttributeId, OwnedValue)>,
    pub available: bool,
}

/// All items, by id.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    items: BTreeMap<String, CatalogItem>,
    changes: u64,
}

impl Catalog {
    pub fn upsert(&mut self, item: CatalogItem) {
        self.changes += 1;
        self.items.insert(item.id.clone(), item);
    }
    pub fn get(&self, item: &str) -> Option<&CatalogItem> {
        self.items.get(item)
    }
    /// In a stable order.
    pub fn available(&self) -> impl Iterator<Item = &CatalogItem> {
        self.items.values().filter(|item| item.available)
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
}
