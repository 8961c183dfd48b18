//! The schema of the spec: what schemars derives, made fit for Kubernetes and for [`crate::read`].
//!
//! Kubernetes wants a *structural* schema: every node has exactly one type, and none depends on a value. What is
//! written in more than one way (a path or a rule, one or many) has no type there; its ways are kept beside it,
//! under [`WAYS`], which Kubernetes does not see and `read` checks.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use crate::{
    names,
    scalar::Scalar,
    spec::{FieldRef, FieldRule, Names, OneOrMany, PipelineSpec},
};

/// The ways in which a value may be written, each a schema of another type. Not a keyword of Kubernetes.
pub const WAYS: &str = "x-ways";

const MAX_TEXT_CHARS: u32 = 1024;
const MAX_LIST_ITEMS: u32 = 256;
const MAX_MAPPING_ENTRIES: u32 = 1000;

/// The schema of [`PipelineSpec`], without references.
pub fn of_spec() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<PipelineSpec>().to_value()
}

/// A rule that Kubernetes itself keeps (CEL): exactly one of these fields is given.
pub(crate) fn one_of(fields: &[&str]) -> Value {
    let message = format!("exactly one of {} must be given", fields.join(", "));
    json!([{"rule": format!("{} == 1", given(fields)), "message": message}])
}

/// A rule that Kubernetes itself keeps (CEL): two of these fields are never given together.
pub(crate) fn at_most_one_of(fields: &[&str]) -> Value {
    let message = format!("at most one of {} may be given", fields.join(", "));
    json!([{"rule": format!("{} <= 1", given(fields)), "message": message}])
}

/// How many of these fields are given.
fn given(fields: &[&str]) -> String {
    let given: Vec<String> = fields.iter().map(|field| format!("has(self.{field})")).collect();
    format!("[{}].filter(given, given).size()", given.join(", "))
}

/// A rule that Kubernetes itself keeps (CEL): the value never changes.
pub(crate) fn immutable() -> Value {
    json!([{"rule": "self == oldSelf", "message": "is immutable"}])
}

/// A rule that Kubernetes itself keeps (CEL), as [`crate::names::check_bucket`] does.
pub(crate) fn bucket() -> Value {
    let rule = "self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$') && !self.contains('..') \
                && !self.matches('^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$') && !self.endsWith('--x-s3')";
    json!([{"rule": rule, "message": names::BUCKET_RULE}])
}

/// Likewise, as [`crate::names::check_key_prefix`] does.
pub(crate) fn key_prefix() -> Value {
    let rule =
        "self.matches('^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*/?$') && !self.matches('(^|/)[.]') && !self.contains('..')";
    json!([{"rule": rule, "message": names::KEY_PREFIX_RULE}])
}

/// Likewise, as [`crate::names::check_region`] does.
pub(crate) fn region() -> Value {
    json!([{"rule": "self.matches('^[A-Za-z0-9-]+$')", "message": names::REGION_RULE}])
}

/// Likewise, as [`crate::names::check_endpoint`] does.
pub(crate) fn endpoint() -> Value {
    let host = "([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]])";
    let rule = format!("self.matches('^https?://{host}(:[0-9]{{1,5}})?(/[A-Za-z0-9_.~-]+)*/?$')");
    json!([{"rule": rule, "message": names::ENDPOINT_RULE}])
}

/// Gives every node one type and every list, mapping and text a bound. Fields that may be absent may not be
/// `null`, as everywhere in Kubernetes.
pub fn tidy(schema: &mut Schema) {
    if let Some(node) = schema.as_object_mut() {
        tidy_node(node);
    }
}

fn tidy_node(node: &mut Map<String, Value>) {
    drop_null(node);
    merge_enum(node);
    if let Some(format) = node.remove("format")
        && format == "uint32"
    {
        node.entry("maximum").or_insert(json!(u32::MAX));
    }
    node.remove("title");
    if let Some(default) = node.get_mut("default") {
        drop_null_entries(default);
    }
    bound(node);
    for key in ["items", "additionalProperties"] {
        if let Some(Value::Object(inner)) = node.get_mut(key) {
            tidy_node(inner);
        }
    }
    let properties = node.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    properties.filter_map(Value::as_object_mut).for_each(tidy_node);
    let ways = node.get_mut(WAYS).and_then(Value::as_array_mut).into_iter().flatten();
    ways.filter_map(Value::as_object_mut).for_each(tidy_node);
}

/// An optional value's schema becomes the value's.
fn drop_null(node: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = node.get("type") {
        let mut types = types.iter().filter(|t| *t != "null").cloned();
        if let (Some(only), None) = (types.next(), types.next()) {
            node.insert("type".into(), only);
        }
    }
    let is_null = |way: &Value| way.get("type").is_some_and(|t| t == "null");
    let Some(Value::Array(ways)) = node.get("anyOf") else { return };
    let rest: Vec<Value> = ways.iter().filter(|way| !is_null(way)).cloned().collect();
    if let [Value::Object(only)] = rest.as_slice() {
        node.remove("anyOf");
        for (key, value) in only {
            node.entry(key).or_insert_with(|| value.clone());
        }
    }
}

/// schemars gives each documented name of an enum its own schema; they become one, with one text.
fn merge_enum(node: &mut Map<String, Value>) {
    let Some(Value::Array(ways)) = node.get("oneOf") else { return };
    let mut names = Vec::new();
    let mut texts: Vec<String> =
        node.get("description").and_then(Value::as_str).map(str::to_owned).into_iter().collect();
    for way in ways {
        match (way.get("const"), way.get("enum")) {
            (Some(name), None) => {
                if let (Some(name), Some(text)) = (name.as_str(), way.get("description").and_then(Value::as_str)) {
                    texts.push(format!("`{name}`: {text}"));
                }
                names.push(name.clone());
            }
            (None, Some(Value::Array(more))) => names.extend(more.iter().cloned()),
            _ => return,
        }
    }
    node.remove("oneOf");
    node.insert("type".into(), json!("string"));
    node.insert("enum".into(), Value::Array(names));
    if !texts.is_empty() {
        node.insert("description".into(), json!(texts.join("\n")));
    }
}

fn drop_null_entries(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, v| !v.is_null());
        map.values_mut().for_each(drop_null_entries);
    }
}

/// Kubernetes estimates what its rules may cost from these bounds.
fn bound(node: &mut Map<String, Value>) {
    let (key, limit) = match node.get("type").and_then(Value::as_str) {
        Some("string") if !node.contains_key("enum") => ("maxLength", MAX_TEXT_CHARS),
        Some("array") => ("maxItems", MAX_LIST_ITEMS),
        Some("object") if !node.contains_key("properties") => ("maxProperties", MAX_MAPPING_ENTRIES),
        _ => return,
    };
    node.entry(key).or_insert(json!(limit));
}

/// A value that is written in one of several ways, each of another type.
fn written_as(description: &str, ways: Vec<Value>) -> Schema {
    json_schema!({"description": description, "x-kubernetes-preserve-unknown-fields": true, "x-ways": ways})
}

fn scalar_ways() -> Vec<Value> {
    ["string", "number", "boolean"].map(|kind| json!({"type": kind})).into()
}

macro_rules! schema_in_ways {
    ($kind:ident, $description:literal, $ways:expr) => {
        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                stringify!($kind).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let ways: fn(&mut SchemaGenerator) -> Vec<Value> = $ways;
                written_as($description, ways(generator))
            }
        }
    };
}

schema_in_ways!(Scalar, "Text, a number or a boolean.", |_| scalar_ways());
schema_in_ways!(OneOrMany, "Text, a number or a boolean; or a list of those, one of which it must be.", |generator| {
    let list = json!({"type": "array", "minItems": 1, "items": generator.subschema_for::<Scalar>()});
    [scalar_ways(), vec![list]].concat()
});
schema_in_ways!(Names, "A name or a list of names.", |_| {
    vec![json!({"type": "string"}), json!({"type": "array", "minItems": 1, "items": {"type": "string"}})]
});
schema_in_ways!(
    FieldRef,
    "A path (`a.b`, `a[].b`), or a mapping of `field`, `default`, `const`, `map` and `convert`.",
    |generator| { vec![json!({"type": "string"}), generator.subschema_for::<FieldRule>().to_value()] }
);
