//! From YAML to [`PipelineSpec`]: every difference from the schema is found, not only the first.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value, json};

use crate::{
    names,
    problem::{Path, Problem, Problems, shortened},
    resource::PersonalizationPipeline,
    scalar::{SPAN_PATTERN, Span},
    schema,
    spec::PipelineSpec,
    tree::{self, Node, Tree, place},
};

const API_VERSION: &str = "millrace.dev/v1alpha1";
const KIND: &str = "PersonalizationPipeline";

static SPEC_SCHEMA: LazyLock<Value> = LazyLock::new(schema::of_spec);

/// The annotation whose text the page shows.
pub const NOTE: &str = "millrace.dev/note";

/// What `metadata` says.
#[derive(Default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    note: Option<String>,
}

/// A pipeline of the right shape. Whether it makes sense, [`crate::validate()`] says.
#[derive(Clone, Debug)]
pub struct Document {
    pub name: String,
    pub namespace: Option<String>,
    /// Of the annotation [`NOTE`]: shown on top of the page.
    pub note: Option<String>,
    pub spec: PipelineSpec,
    /// Line and column of each path of the YAML.
    pub(crate) places: BTreeMap<String, (u32, u32)>,
}

impl From<PersonalizationPipeline> for Document {
    fn from(resource: PersonalizationPipeline) -> Self {
        Self {
            name: resource.metadata.name.unwrap_or_default(),
            namespace: resource.metadata.namespace,
            note: resource.metadata.annotations.and_then(|mut annotations| annotations.remove(NOTE)),
            spec: resource.spec,
            places: BTreeMap::new(),
        }
    }
}

/// Reads one pipeline and checks it against the schema.
pub fn read(yaml: &str) -> Result<Document, Problems> {
    let tree = tree::parse(yaml)?;
    let mut walk = Walk { yaml, problems: Vec::new(), places: BTreeMap::new() };
    let Metadata { name, namespace, note } = walk.document(&tree);
    let Walk { mut problems, places, .. } = walk;
    if problems.is_empty() {
        let spec = tree.value.entry("spec").map(|spec| spec.value.to_json()).unwrap_or_default();
        match serde_json::from_value(spec) {
            Ok(spec) => return Ok(Document { name, namespace, note, spec, places }),
            Err(error) => problems.push(Problem::new(&Path::of("spec"), shortened(&error.to_string()))),
        }
    }
    Err(Problems::new(problems))
}

/// The path along which values and schema are compared, and what was found.
struct Walk<'y> {
    yaml: &'y str,
    problems: Vec<Problem>,
    places: BTreeMap<String, (u32, u32)>,
}

impl Walk<'_> {
    fn wrong(&mut self, path: &Path, tree: &Tree, message: String) {
        let value = match &tree.value {
            Node::Null | Node::List(_) | Node::Mapping(_) => None,
            Node::Text(text) => Some(text.clone()),
            Node::Bool(b) => Some(b.to_string()),
            Node::Number(n) => Some(n.to_string()),
        };
        let problem = Problem::new(path, message).at(place(tree));
        self.problems.push(match value {
            Some(value) => problem.value(&value),
            None => problem,
        });
    }

    fn document(&mut self, tree: &Tree) -> Metadata {
        const KEYS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
        let root = Path::default();
        let Node::Mapping(entries) = &tree.value else {
            self.wrong(&root, tree, format!("a {KIND} must be a mapping, not {}", tree.value.shown()));
            return Default::default();
        };
        for (key, _) in entries.iter().filter(|(key, _)| !KEYS.contains(&key.value.as_str())) {
            let problem =
                Problem::new(&root.key(&key.value), format!("there is no field `{}` here", shortened(&key.value)));
            self.problems.push(problem.one_of(&key.value, KEYS).at(place(key)));
        }
        for (key, only) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            let Some(text) = self.text(tree, &root, key, true) else { continue };
            if text != only {
                let problem = Problem::new(&root.key(key), format!("must be `{only}`, not `{}`", shortened(&text)));
                let at = tree.value.entry(key).map(place).unwrap_or_default();
                self.problems.push(problem.one_of(&text, [only]).at(at));
            }
        }
        let metadata = self.metadata(tree);
        match tree.value.entry("spec") {
            Some(spec) => self.value(spec, &SPEC_SCHEMA, &root.key("spec")),
            None => self.missing(&root, "spec", tree),
        }
        metadata
    }

    fn metadata(&mut self, tree: &Tree) -> Metadata {
        let path = Path::of("metadata");
        let Some(metadata) = tree.value.entry("metadata") else {
            self.missing(&path, "name", tree);
            return Default::default();
        };
        if !matches!(metadata.value, Node::Mapping(_)) {
            self.wrong(&path, metadata, format!("must be a mapping with a `name`, not {}", metadata.value.shown()));
            return Default::default();
        }
        let name = self.text(metadata, &path, "name", true);
        let namespace = self.text(metadata, &path, "namespace", false);
        for (key, text) in [("name", &name), ("namespace", &namespace)] {
            if let (Some(text), Some(tree)) = (text, metadata.value.entry(key))
                && !names::is_dns_label(text)
            {
                let message =
                    format!("`{}` must be at most 63 of a-z, 0-9 and dashes, no dash first or last", shortened(text));
                self.wrong(&path.key(key), tree, message);
            }
        }
        let annotations = metadata.value.entry("annotations");
        let note = annotations.and_then(|annotations| self.text(annotations, &path.key("annotations"), NOTE, false));
        Metadata { name: name.unwrap_or_default(), namespace, note }
    }

    fn text(&mut self, parent: &Tree, path: &Path, key: &str, required: bool) -> Option<String> {
        match parent.value.entry(key) {
            Some(Tree { value: Node::Text(text), .. }) => return Some(text.clone()),
            Some(other) => self.wrong_type(other, &[&json!({"type": "string"})], &path.key(key)),
            None if required => self.missing(path, key, parent),
            None => {}
        }
        None
    }

    fn missing(&mut self, path: &Path, key: &str, parent: &Tree) {
        let problem = Problem::new(&path.key(key), "is missing and must be given");
        self.problems.push(problem.at(place(parent)));
    }

    /// One value against its part of the schema.
    fn value(&mut self, tree: &Tree, schema: &Value, path: &Path) {
        self.places.insert(path.as_str().to_owned(), place(tree));
        let ways: Vec<&Value> = match schema.get(schema::WAYS).and_then(Value::as_array) {
            Some(ways) => ways.iter().collect(),
            None => vec![schema],
        };
        let Some(schema) = ways.iter().find(|way| is_of_type(&tree.value, kind_of(way))) else {
            return self.wrong_type(tree, &ways, path);
        };
        match &tree.value {
            Node::Mapping(entries) => self.mapping(tree, entries, schema, path),
            Node::List(items) => self.list(tree, items, schema, path),
            Node::Text(text) => self.text_value(tree, text, schema, path),
            Node::Number(n) => self.number(tree, n.as_f64().unwrap_or(f64::NAN), schema, path),
            Node::Bool(_) => self.boolean(tree, path),
            Node::Null => {}
        }
    }

    fn mapping(&mut self, tree: &Tree, entries: &[(tree::Key, Tree)], schema: &Value, path: &Path) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let other = schema.get("additionalProperties").filter(|other| other.is_object());
        for (key, inner) in entries {
            let here = path.key(&key.value);
            match properties.get(&key.value).or(other) {
                Some(schema) => self.value(inner, schema, &here),
                None => {
                    let message = format!("there is no field `{}` here", shortened(&key.value));
                    let problem = Problem::new(&here, message).at(place(key));
                    self.problems.push(problem.one_of(&key.value, properties.keys().map(String::as_str)));
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for key in required.filter_map(Value::as_str).filter(|key| tree.value.entry(key).is_none()) {
            self.missing(path, key, tree);
        }
        self.size(tree, entries.len(), "entries", schema, ["minProperties", "maxProperties"], path);
    }

    fn list(&mut self, tree: &Tree, items: &[Tree], schema: &Value, path: &Path) {
        if let Some(schema) = schema.get("items") {
            for (i, item) in items.iter().enumerate() {
                self.value(item, schema, &path.index(i));
            }
        }
        self.size(tree, items.len(), "entries", schema, ["minItems", "maxItems"], path);
    }

    fn text_value(&mut self, tree: &Tree, text: &str, schema: &Value, path: &Path) {
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            if !allowed.iter().any(|name| name == text) {
                let problem =
                    Problem::new(path, format!("`{}` is not one of the values allowed here", shortened(text)));
                self.problems.push(problem.one_of(text, allowed.iter().filter_map(Value::as_str)).at(place(tree)));
            }
        } else if is_span(schema) {
            if let Err(message) = text.parse::<Span>() {
                self.wrong(path, tree, message);
            }
        } else {
            self.size(tree, text.chars().count(), "characters", schema, ["minLength", "maxLength"], path);
        }
    }

    fn number(&mut self, tree: &Tree, n: f64, schema: &Value, path: &Path) {
        let [least, most] = ["minimum", "maximum"].map(|key| schema.get(key).and_then(Value::as_f64));
        if least.is_some_and(|least| n < least) || most.is_some_and(|most| n > most) {
            let range = match (least, most) {
                (Some(least), Some(most)) => format!("from {least} to {most}"),
                (Some(least), None) => format!("at least {least}"),
                (_, most) => format!("at most {}", most.unwrap_or_default()),
            };
            self.wrong(path, tree, format!("must be {range}, not {n}"));
        }
    }

    /// `no`, `off` and the like are booleans for Kubernetes. Who wrote Norway's code did not mean that.
    fn boolean(&mut self, tree: &Tree, path: &Path) {
        let span = tree.defined.span();
        let written = span.byte_offset().zip(span.byte_len()).and_then(|(at, len)| {
            let at = usize::try_from(at).ok()?;
            self.yaml.get(at..at.checked_add(usize::try_from(len).ok()?)?)
        });
        if let Some(word) = written.map(str::trim)
            && ["yes", "no", "on", "off", "y", "n"].contains(&word.to_ascii_lowercase().as_str())
        {
            let message =
                format!("`{word}` without quotes is read as {}; write \"{word}\" or true or false", tree.value.shown());
            self.wrong(path, tree, message);
        }
    }

    fn size(&mut self, tree: &Tree, size: usize, of: &str, schema: &Value, keys: [&str; 2], path: &Path) {
        let [least, most] = keys.map(|key| schema.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX));
        let size = size as u64;
        if least != u64::MAX && size < least {
            self.wrong(path, tree, format!("must have at least {least} {of}, not {size}"));
        } else if size > most {
            self.wrong(path, tree, format!("must have at most {most} {of}, not {size}"));
        }
    }

    fn wrong_type(&mut self, tree: &Tree, ways: &[&Value], path: &Path) {
        let described: Vec<&str> = ways.iter().map(|way| described(way)).collect();
        let hint = match (&tree.value, ways.iter().map(|way| kind_of(way)).next_back()) {
            (Node::Null, _) => "; give it or leave the field out",
            (Node::Mapping(_), Some("array")) => "; each entry of a list begins with `- `",
            (Node::Number(_) | Node::Bool(_), Some("string")) if !is_span(ways[0]) => "; put it in quotes",
            _ => "",
        };
        self.wrong(path, tree, format!("must be {}, not {}{hint}", described.join(" or "), tree.value.shown()));
    }
}

fn kind_of(schema: &Value) -> &str {
    schema.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn is_of_type(node: &Node, kind: &str) -> bool {
    node.kind() == kind || (node.kind() == "integer" && kind == "number")
}

fn is_span(schema: &Value) -> bool {
    schema.get("pattern").is_some_and(|pattern| pattern == SPAN_PATTERN)
}

fn described(schema: &Value) -> &str {
    match kind_of(schema) {
        "string" if is_span(schema) => "a duration such as 500ms, 30s, 10m, 1h30m or 7d",
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a mapping",
    }
}
