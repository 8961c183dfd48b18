//! YAML as a tree that knows where each value stands, read within limits.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use crate::problem::{Path, Problem, Problems, shortened};

/// Longer documents would not fit into Kubernetes either.
pub const MAX_YAML_BYTES: usize = 1 << 20;

pub type Tree = Spanned<Node>;
pub type Key = Spanned<String>;

/// A value, as JSON has them; a mapping keeps its order.
#[derive(Clone, Debug)]
pub enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    Mapping(Vec<(Key, Tree)>),
}

impl Node {
    /// The JSON schema's name of its type; a whole number is a `number` too.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "boolean",
            Node::Number(n) if n.is_i64() || n.is_u64() => "integer",
            Node::Number(_) => "number",
            Node::Text(_) => "string",
            Node::List(_) => "array",
            Node::Mapping(_) => "object",
        }
    }

    /// For messages; only scalars are shown.
    pub fn shown(&self) -> String {
        match self {
            Node::Null => "nothing".into(),
            Node::Bool(b) => format!("`{b}`"),
            Node::Number(n) => format!("`{n}`"),
            Node::Text(text) => format!("`{}`", shortened(text)),
            Node::List(_) => "a list".into(),
            Node::Mapping(_) => "a mapping".into(),
        }
    }

    pub fn entry(&self, key: &str) -> Option<&Tree> {
        match self {
            Node::Mapping(entries) => entries.iter().find(|(k, _)| k.value == key).map(|(_, tree)| tree),
            _ => None,
        }
    }

    pub fn to_json(&self) -> Value {
        match self {
            Node::Null => Value::Null,
            Node::Bool(b) => Value::Bool(*b),
            Node::Number(n) => Value::Number(n.clone()),
            Node::Text(text) => Value::String(text.clone()),
            Node::List(items) => Value::Array(items.iter().map(|tree| tree.value.to_json()).collect()),
            Node::Mapping(entries) => {
                Value::Object(entries.iter().map(|(k, v)| (k.value.clone(), v.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }
}

/// Line and column, from 1.
pub fn place<T>(spanned: &Spanned<T>) -> (u32, u32) {
    (small(spanned.referenced.line()), small(spanned.referenced.column()))
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Reads one document. Deep or huge ones, aliases that multiply and doubled keys are refused.
pub fn parse(yaml: &str) -> Result<Tree, Problems> {
    let document = Path::default();
    if yaml.len() > MAX_YAML_BYTES {
        let message = format!("the document is longer than {MAX_YAML_BYTES} bytes");
        return Err(Problems::new(vec![Problem::new(&document, message)]));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_nodes: 100_000,
            max_events: 300_000,
            max_aliases: 100,
            max_documents: 1,
            max_total_scalar_bytes: 2 * MAX_YAML_BYTES,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
    };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        let problem = Problem::new(&document, message(error.without_snippet()));
        Problems::new(vec![match error.location() {
            Some(at) if at.line() > 0 => problem.at((small(at.line()), small(at.column()))),
            _ => problem,
        }])
    })
}

fn message(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } = error {
        return format!("the key `{}` stands here twice", shortened(key));
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let (line, _) = line.rsplit_once(" at line ").unwrap_or((line, ""));
    format!("this is not YAML as it is read here: {}", line.chars().take(200).collect::<String>())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true or false, a list or a mapping")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
        Node::deserialize(d)
    }
    fn visit_bool<E: de::Error>(self, b: bool) -> Result<Node, E> {
        Ok(Node::Bool(b))
    }
    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Node, E> {
        Ok(Node::Number(n.into()))
    }
    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Node, E> {
        Ok(Node::Number(n.into()))
    }
    fn visit_i128<E: de::Error>(self, n: i128) -> Result<Node, E> {
        self.visit_f64(n as f64)
    }
    fn visit_u128<E: de::Error>(self, n: u128) -> Result<Node, E> {
        self.visit_f64(n as f64)
    }
    fn visit_f64<E: de::Error>(self, n: f64) -> Result<Node, E> {
        Number::from_f64(n).map(Node::Number).ok_or_else(|| E::custom("numbers must be finite"))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }
}
