//! Errors as answers: `application/problem+json` (RFC 9457). None holds anything of a request's content.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// What can go wrong. Its `slug` is the last part of the problem's `type`, and never changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub slug: &'static str,
    pub title: &'static str,
    pub status: StatusCode,
    /// For whoever looks the type up.
    pub meaning: &'static str,
}

macro_rules! kinds {
    ($($name:ident $status:ident $slug:literal $title:literal $meaning:literal)*) => {
        $(pub const $name: &Kind = &Kind {
            slug: $slug, title: $title, status: StatusCode::$status, meaning: $meaning,
        };)*
        /// All of them.
        pub const KINDS: &[&Kind] = &[$($name),*];
    };
}

kinds! {
    MALFORMED_REQUEST BAD_REQUEST "malformed-request" "The request is not HTTP/1.1"
        "Request line or headers break the protocol. The connection is closed."
    MALFORMED_JSON BAD_REQUEST "malformed-json" "The body is not JSON"
        "`line` and `column` count from 1 and say where reading ended. Nothing of the request was done."
    CUT_OFF BAD_REQUEST "body-cut-off" "The body ended early"
        "Fewer bytes came than were announced. Nothing of the request was done."
    NOTHING_READ BAD_REQUEST "nothing-read" "No record could be read"
        "The body is empty, or each of its records was rejected; `rejected` says why. Nothing was accepted."
    UNAUTHORIZED UNAUTHORIZED "unauthorized" "A token is needed"
        "Send `Authorization: Bearer TOKEN` with the token of this API, or with the admin token."
    FORBIDDEN FORBIDDEN "forbidden" "Not allowed"
        "APIs without a token answer only programs and pages of this machine. `explain` needs the admin token."
    NOT_FOUND NOT_FOUND "not-found" "There is no such path"
        "GET /v1/openapi.json lists the paths."
    UNKNOWN_USER NOT_FOUND "unknown-user" "There is no such user"
        "Nothing is kept of this user: no event with consent has arrived, or the user was erased."
    METHOD_NOT_ALLOWED METHOD_NOT_ALLOWED "method-not-allowed" "The path does not have this method"
        "The header `Allow` lists the methods of the path."
    TOO_SLOW REQUEST_TIMEOUT "request-too-slow" "The request came too slowly"
        "Headers and body have to arrive within `seconds`. Nothing of the request was done."
    BODY_TOO_LARGE PAYLOAD_TOO_LARGE "body-too-large" "The body is too large"
        "More than `limit` bytes. Send several requests, or raise spec.serving.limits.bodyBytes."
    TOO_MANY PAYLOAD_TOO_LARGE "too-many" "Too many at once"
        "More than `limit` decisions or records in one request. Send several requests."
    URI_TOO_LONG URI_TOO_LONG "uri-too-long" "The path is too long"
        "A path with its parameters may have `limit` bytes."
    UNSUPPORTED_MEDIA_TYPE UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The body is of an unknown type"
        "Send `application/json` (events also as `application/x-ndjson`), not compressed."
    INVALID UNPROCESSABLE_ENTITY "invalid-request" "The request is not valid"
        "`field` names what is wrong, where it is known. Nothing of the request was done."
    TOO_FREQUENT TOO_MANY_REQUESTS "too-frequent" "Too many requests"
        "More than `limit` decisions or events a second. Come again after `retryAfter` seconds."
    HEADERS_TOO_LARGE REQUEST_HEADER_FIELDS_TOO_LARGE "headers-too-large" "The headers are too large"
        "More than `limit` bytes, or more than 100 headers."
    FAILED INTERNAL_SERVER_ERROR "failed" "Something went wrong here"
        "The server's log says more. Whether the request was done is not known."
    NO_ORDERS CONFLICT "no-orders" "The worker does not take these orders"
        "`millrace run` has all tasks of its pipeline. A worker of a fleet refuses orders for another worker, and older ones."
    BUSY SERVICE_UNAVAILABLE "busy" "Too much to do"
        "More requests are under way than may be. Nothing of this one was done; come again after `retryAfter` seconds."
    NO_ANSWER SERVICE_UNAVAILABLE "no-answer" "No answer in time"
        "Whether the request was done is not known. Events with an id, and erasures, may be sent again."
    MOVING SERVICE_UNAVAILABLE "moving" "The profile is being moved"
        "Another worker has it in a moment. Nothing of the request was done; come again after `retryAfter` seconds."
    STOPPING SERVICE_UNAVAILABLE "stopping" "The server is stopping"
        "Nothing of the request was done. Come again after `retryAfter` seconds."
}

/// An error on its way to the caller.
#[derive(Debug)]
pub struct Problem {
    pub kind: &'static Kind,
    /// What is wrong and what to do about it.
    detail: String,
    extensions: Map<String, Value>,
    retry_after_s: Option<u64>,
}

impl Problem {
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), extensions: Map::new(), retry_after_s: None }
    }
    /// Adds a member of this kind of problem.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(member.to_owned(), value.into());
        self
    }
    /// For people.
    pub fn text(&self) -> String {
        format!("{}: {}", self.kind.title, self.detail)
    }
    /// At least a second.
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        self.retry_after_s = Some(seconds);
        self.with("retryAfter", seconds)
    }
    /// The problem as an element of a batch's answer.
    pub fn to_json(&self) -> Value {
        let mut json = Map::from_iter([
            ("type".to_owned(), json!(format!("/problems/{}", self.kind.slug))),
            ("title".to_owned(), json!(self.kind.title)),
            ("status".to_owned(), json!(self.kind.status.as_u16())),
            ("detail".to_owned(), json!(self.detail)),
        ]);
        json.extend(self.extensions.clone());
        Value::Object(json)
    }
    /// The whole answer as bytes, for where no request was read that it could answer. The connection ends with it.
    pub fn to_http(&self) -> Vec<u8> {
        let body = self.to_json().to_string();
        let retry = self.retry_after_s.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n",
            self.kind.status.as_u16(),
            self.kind.status.canonical_reason().unwrap_or_default(),
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }
}

pub const MEDIA_TYPE: &str = "application/problem+json";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.kind.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"millrace\""));
        }
        response
    }
}
