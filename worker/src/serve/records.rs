//! The body of `POST /v1/events` to its records: one JSON object, an array of them, or one a line.

use axum::{
    body::Bytes,
    http::{HeaderMap, header},
};
use serde_json::value::RawValue;

use super::{
    api::MAX_RECORDS,
    json::{self, malformed},
    problem::{NOTHING_READ, Problem, TOO_MANY, UNSUPPORTED_MEDIA_TYPE},
};

/// How records stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One JSON text: an object, or an array of records.
    Json,
    /// One JSON text a line.
    Lines,
    /// Not said: found out.
    Unknown,
}

impl Layout {
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        match media_type(headers).as_deref() {
            Some("application/json") => Ok(Layout::Json),
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines") => {
                Ok(Layout::Lines)
            }
            None | Some("text/plain" | "application/octet-stream") => Ok(Layout::Unknown),
            Some(_) => Err(Problem::new(
                UNSUPPORTED_MEDIA_TYPE,
                "send events as application/json (an object or an array) or as application/x-ndjson (one a line)",
            )),
        }
    }
}

/// The media type without its parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The records as they stand in `body`, without copying them. Lines are not checked; blank ones are none.
pub fn split(body: &Bytes, layout: Layout) -> Result<Vec<Bytes>, Problem> {
    let Some(first) = body.iter().find(|byte| !byte.is_ascii_whitespace()) else {
        return Err(Problem::new(NOTHING_READ, "the body is empty; send an object, an array or one object a line"));
    };
    match layout {
        Layout::Lines => lines(body),
        _ if *first == b'[' => {
            let elements = json::list::<MAX_RECORDS>(body, "records")?;
            Ok(elements.into_iter().map(|raw| body.slice_ref(raw.get().as_bytes())).collect())
        }
        Layout::Json => one(body).map(|record| vec![record]).map_err(|error| malformed(&error)),
        // An object over several lines is one record.
        Layout::Unknown => one(body).map_or_else(|_| lines(body), |record| Ok(vec![record])),
    }
}

fn one(body: &Bytes) -> Result<Bytes, serde_json::Error> {
    serde_json::from_slice::<&RawValue>(body).map(|raw| body.slice_ref(raw.get().as_bytes()))
}

fn lines(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let mut records = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if records.len() == MAX_RECORDS {
            let detail = format!("more than {MAX_RECORDS} records in one request; send several");
            return Err(Problem::new(TOO_MANY, detail).with("limit", MAX_RECORDS));
        }
        records.push(body.slice_ref(line));
    }
    Ok(records)
}
