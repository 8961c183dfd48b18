//! The resource's definition: up to date, and such that Kubernetes takes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::PathBuf};

use millrace_crds::{
    resource::{CRD_FILE, crd_yaml},
    scalar::SPAN_PATTERN,
    schema,
};
use serde_json::{Value, json};

fn definition() -> Value {
    serde_yaml::from_str(&crd_yaml().unwrap()).unwrap()
}

fn spec_of(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

#[test]
fn the_written_definition_is_not_stale() {
    let file = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("yaml").join(CRD_FILE);
    assert_eq!(fs::read_to_string(file).unwrap(), crd_yaml().unwrap(), "run `make crds`");
}

/// What Kubernetes asks of a structural schema, and that everything is bounded.
fn check_node(node: &Value, path: &str) {
    const KEYWORDS: [&str; 21] = [
        "type",
        "description",
        "default",
        "enum",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "pattern",
        "nullable",
        "title",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    let node = node.as_object().unwrap_or_else(|| panic!("{path}: {node}"));
    for key in node.keys() {
        assert!(KEYWORDS.contains(&key.as_str()) || key.starts_with("x-kubernetes-list-"), "{path}: {key}");
    }
    let Some(kind) = node.get("type").and_then(Value::as_str) else {
        assert_eq!(node.get("x-kubernetes-preserve-unknown-fields"), Some(&json!(true)), "{path} has no type");
        return;
    };
    let bound = match kind {
        "string" if !node.contains_key("enum") => Some("maxLength"),
        "array" => Some("maxItems"),
        "object" if node.contains_key("additionalProperties") => Some("maxProperties"),
        "string" | "object" | "integer" | "number" | "boolean" => None,
        other => panic!("{path}: {other}"),
    };
    assert!(bound.is_none_or(|bound| node.contains_key(bound)), "{path} has no bound");
    assert!(kind != "array" || node.contains_key("items"), "{path}");
    assert!(!(node.contains_key("properties") && node.contains_key("additionalProperties")), "{path}");
    if let Some(properties) = node.get("properties") {
        properties.as_object().unwrap().iter().for_each(|(key, inner)| check_node(inner, &format!("{path}.{key}")));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = node.get(key) {
            check_node(inner, &format!("{path}.{key}"));
        }
    }
}

#[test]
fn the_schema_is_structural_and_bounded() {
    let definition = definition();
    let root = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    check_node(&root["properties"]["spec"], "spec");
    check_node(&root["properties"]["status"], "status");
}

#[test]
fn the_definition_says_what_users_type() {
    let definition = definition();
    let names = &definition["spec"]["names"];
    assert_eq!((&names["kind"], &names["shortNames"]), (&json!("PersonalizationPipeline"), &json!(["mrp"])));
    assert_eq!(definition["spec"]["scope"], "Namespaced");
    assert_eq!(definition["spec"]["versions"][0]["subresources"], json!({"status": {}}));
    let partitions = &spec_of(&definition)["properties"]["partitions"];
    assert_eq!(partitions["x-kubernetes-validations"][0]["rule"], "self == oldSelf");
    assert_eq!((partitions["minimum"].as_f64(), partitions["maximum"].as_f64()), (Some(1.0), Some(4096.0)));
}

/// Calls `visit` with every part of the schema that documents are read by.
fn visit_all(node: &Value, visit: &mut impl FnMut(&Value)) {
    visit(node);
    let inner = |key: &str| node.get(key).filter(|inner| inner.is_object());
    ["items", "additionalProperties"].into_iter().filter_map(inner).for_each(|inner| visit_all(inner, visit));
    let properties = node.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.values());
    let ways = node.get(schema::WAYS).and_then(Value::as_array).into_iter().flatten();
    properties.chain(ways).for_each(|inner| visit_all(inner, visit));
}

#[test]
fn every_node_that_documents_are_read_by_has_one_type() {
    let mut patterns = 0;
    visit_all(&schema::of_spec(), &mut |node| {
        assert!(node.get("type").is_some_and(Value::is_string) ^ node.get(schema::WAYS).is_some(), "{node}");
        for keyword in ["anyOf", "oneOf", "allOf", "$ref", "const", "format"] {
            assert!(node.get(keyword).is_none(), "{keyword} in {node}");
        }
        if let Some(pattern) = node.get("pattern") {
            assert_eq!(pattern, SPAN_PATTERN, "a pattern that `read` does not know");
            patterns += 1;
        }
    });
    assert!(patterns >= 8, "{patterns}");
}
