//! JSON bodies to requests. What is wrong is said by place and by what was expected, never by what was there: a body
//! holds identities.

use millrace_crds::names;
use serde::de::DeserializeOwned;
use serde_json::{error::Category, value::RawValue};
use serde_path_to_error::Segment;

use super::{
    api::{AtMost, DecideRequest, MAX_BATCH},
    problem::{INVALID, MALFORMED_JSON, NOTHING_READ, Problem, TOO_MANY},
};

/// Names of all fields of requests: what may be told of a path.
const FIELDS: [&str; 16] = [
    "user",
    "placement",
    "platform",
    "session",
    "attributes",
    "candidates",
    "ranking",
    "count",
    "explain",
    "id",
    "orders",
    "formatVersion",
    "task",
    "do",
    "epoch",
    "rolledBack",
];

const UNKNOWN: &str = "there is an unknown field";

/// The body of `POST /v1/decisions`.
pub enum Decisions {
    One(Box<DecideRequest>),
    /// Each element by itself right or wrong.
    Batch(Vec<Result<DecideRequest, Problem>>),
}

/// Reads one request, or a list of them.
pub fn decisions(body: &[u8]) -> Result<Decisions, Problem> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(Problem::new(NOTHING_READ, "the body is empty; send an object, or a list of objects")),
        Some(b'[') => {
            let elements = list::<MAX_BATCH>(body, "decisions")?;
            let read = |(n, raw): (usize, &RawValue)| match raw.get().starts_with('{') {
                true => typed(raw.get().as_bytes(), Some(n)),
                // serde would read a list as the fields in their order.
                false => {
                    Err(Problem::new(INVALID, format!("`[{n}]`: expected an object")).with("field", format!("[{n}]")))
                }
            };
            Ok(Decisions::Batch(elements.into_iter().enumerate().map(read).collect()))
        }
        Some(_) => typed(body, None).map(|request| Decisions::One(Box::new(request))),
    }
}

/// The elements of a JSON array as they stand there.
pub fn list<'a, const MAX: usize>(body: &'a [u8], of: &str) -> Result<Vec<&'a RawValue>, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde::Deserializer::deserialize_seq(&mut reader, AtMost::<&RawValue, MAX>::new());
    match read.and_then(|list| reader.end().map(|()| list)) {
        Ok(list) => Ok(list),
        Err(error) if error.classify() == Category::Data => {
            let detail = format!("more than {MAX} {of} in one request; send several");
            Err(Problem::new(TOO_MANY, detail).with("limit", MAX))
        }
        Err(error) => Err(malformed(&error)),
    }
}

/// `error` is of syntax, so that its message is one of serde_json's own and holds nothing of the body.
pub fn malformed(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let (line, column) = (error.line(), error.column());
    Problem::new(MALFORMED_JSON, format!("line {line}, column {column}: {what}"))
        .with("line", line)
        .with("column", column)
}

/// `index`: of this element, if it is one of a batch.
pub fn typed<T: DeserializeOwned>(json: &[u8], index: Option<usize>) -> Result<T, Problem> {
    let error = match serde_json::from_slice(json) {
        Ok(read) => return Ok(read),
        Err(error) if error.classify() == Category::Data => error,
        Err(error) => return Err(malformed(&error)),
    };
    // Once more, to learn where it is: only errors pay for it.
    let path = match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(json)) {
        Ok(_) => String::new(),
        Err(error) => path(error.path(), index),
    };
    let what = expected(&error);
    // An unknown field is told by where it stands: its name stays here.
    let path =
        if what.starts_with(UNKNOWN) { path.trim_end_matches('*').trim_end_matches('.').to_owned() } else { path };
    let shown = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
    let mut problem = Problem::new(INVALID, format!("{shown}{what}"));
    if !path.is_empty() {
        problem = problem.with("field", path);
    }
    if index.is_none() {
        problem = problem.with("line", error.line()).with("column", error.column());
    }
    Err(problem)
}

fn path(path: &serde_path_to_error::Path, index: Option<usize>) -> String {
    let mut text = index.map(|n| format!("[{n}]")).unwrap_or_default();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } => {
                let known = FIELDS.iter().find(|field| *field == key);
                let dot = if text.is_empty() { "" } else { "." };
                text.push_str(&format!("{dot}{}", known.unwrap_or(&"*")));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

/// What serde's message says of what was expected; what it says of what was found stays here.
fn expected(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if text.starts_with("missing field `") || text.starts_with("duplicate field `") {
        return text.to_owned();
    }
    let Some((found, wanted)) = text.rsplit_once(", expected ") else {
        return "not as /v1/openapi.json describes it".to_owned();
    };
    let Some(unknown) = found.strip_prefix("unknown field `").and_then(|rest| rest.strip_suffix('`')) else {
        return format!("expected {wanted}");
    };
    let known: Vec<&str> = wanted.split('`').skip(1).step_by(2).collect();
    match names::nearest(unknown, known.iter().copied()) {
        Some(nearest) => format!("{UNKNOWN}; did you mean `{nearest}`?"),
        None => format!("{UNKNOWN}; the fields are {}", known.join(", ")),
    }
}
