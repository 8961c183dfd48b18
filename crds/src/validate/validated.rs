//! A pipeline that was found to be right, and what of it affects results.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{problem::Path, read::Document, scalar::Span, spec::PipelineSpec};

/// A pipeline whose names resolve and whose combinations fit.
#[derive(Clone, Debug)]
pub struct Validated {
    document: Document,
    result_digest_text: String,
}

impl Validated {
    pub(super) fn new(document: Document) -> Self {
        let mut value = serde_json::to_value(&document.spec).unwrap_or_default();
        drop_what_leaves_results_alone(&mut value);
        let mut result_digest_text = String::new();
        write_canonical(&value, &mut result_digest_text);
        Self { document, result_digest_text }
    }
    pub fn name(&self) -> &str {
        &self.document.name
    }
    /// `default` where the document names none.
    pub fn namespace(&self) -> &str {
        self.document.namespace.as_deref().unwrap_or("default")
    }
    /// What the page shows on top.
    pub fn note(&self) -> Option<&str> {
        self.document.note.as_deref()
    }
    pub fn spec(&self) -> &PipelineSpec {
        &self.document.spec
    }
    /// How far above the lowest watermark a record may be read: as given, otherwise 1 h, or twice the greatest
    /// `maxOutOfOrderness` where that is more.
    pub fn max_skew(&self) -> Span {
        let greatest = self.spec().sources.iter().map(|s| s.event_time.max_out_of_orderness).max().unwrap_or_default();
        let default = Span::hours(1).max(Span::micros(2 * greatest.as_micros()));
        self.spec().ordering.max_skew.unwrap_or(default)
    }
    /// Everything of the spec that affects results, as JSON with sorted keys: all but `checkpoints`, `kafka`, `serving`
    /// and where files and keys are. Kept with the data, so that a changed spec on old data is noticed.
    pub fn result_digest_text(&self) -> &str {
        &self.result_digest_text
    }
    /// Paths in which this spec may give other results than the one of `older_canonical_json`: `spec` if that is
    /// no JSON.
    pub fn changes(&self, older_canonical_json: &str) -> Vec<String> {
        let (Ok(older), Ok(newer)) =
            (serde_json::from_str(older_canonical_json), serde_json::from_str(&self.result_digest_text))
        else {
            return vec!["spec".to_owned()];
        };
        let mut paths = Vec::new();
        differences(&older, &newer, &Path::of("spec"), &mut paths);
        paths
    }
}

/// The spec of a [`Validated::result_digest_text`]; what that leaves out is empty.
///
/// # Errors
/// It is no such text, or of a spec that this version does not know.
pub fn spec_of_result_digest_text(text: &str) -> Result<PipelineSpec, serde_json::Error> {
    let mut spec: Value = serde_json::from_str(text)?;
    for source in spec.get_mut("sources").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::Object(file)) = source.get_mut("file") {
            file.entry("path").or_insert_with(|| Value::String(String::new()));
        }
    }
    serde_json::from_value(spec)
}

fn drop_what_leaves_results_alone(spec: &mut Value) {
    let remove = |value: Option<&mut Value>, keys: &[&str]| {
        if let Some(Value::Object(map)) = value {
            map.retain(|key, _| !keys.contains(&key.as_str()));
        }
    };
    remove(Some(&mut *spec), &["checkpoints", "kafka", "serving"]);
    remove(spec.pointer_mut("/privacy/pseudonymKeys"), &["file", "secret"]);
    for source in spec.get_mut("sources").and_then(Value::as_array_mut).into_iter().flatten() {
        remove(source.get_mut("file"), &["path"]);
    }
}

/// JSON without spaces, with sorted keys.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, value) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn differences(older: &Value, newer: &Value, path: &Path, paths: &mut Vec<String>) {
    match (older, newer) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let [a, b] = [a, b].map(|map| map.get(key).unwrap_or(&Value::Null));
                differences(a, b, &path.key(key), paths);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for i in 0..a.len().max(b.len()) {
                let [a, b] = [a, b].map(|list| list.get(i).unwrap_or(&Value::Null));
                differences(a, b, &path.index(i), paths);
            }
        }
        (a, b) if a == b => {}
        _ => paths.push(path.as_str().to_owned()),
    }
}
