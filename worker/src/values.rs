//! Feature values, as JSON for people and programs.

use std::collections::BTreeMap;

use millrace_engine::{
    codec::Reader,
    example::{FeatureValue, Schema, VALUE_BYTES},
};
use serde_json::{Value, json};

/// Categories are hashes; they are shown as such.
fn value(value: FeatureValue) -> Value {
    match value {
        FeatureValue::Missing => Value::Null,
        FeatureValue::Number(n) => json!(n),
        FeatureValue::Category(c) => json!(format!("{c:016x}")),
    }
}

/// By column; a feature of several columns has a list.
pub fn by_column(schema: &Schema, values: impl Iterator<Item = FeatureValue>) -> BTreeMap<String, Value> {
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (column, v) in schema.columns.iter().zip(values) {
        lists.entry(column.name.clone()).or_default().push(value(v));
    }
    let one = |mut list: Vec<Value>| if list.len() == 1 { list.remove(0) } else { Value::Array(list) };
    lists.into_iter().map(|(name, list)| (name, one(list))).collect()
}

/// Of values as a decision or an example holds them.
pub fn of_bytes(schema: &Schema, bytes: &[u8]) -> BTreeMap<String, Value> {
    let values = bytes.chunks_exact(VALUE_BYTES);
    by_column(schema, values.map(|v| FeatureValue::read(&mut Reader::new(v)).unwrap_or(FeatureValue::Missing)))
}
