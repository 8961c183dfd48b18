//! Reads a request's body within limits.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{header, request::Parts},
};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{
    limits::{BodyRoom, Limits},
    problem::{BODY_TOO_LARGE, CUT_OFF, Problem, TOO_SLOW, UNSUPPORTED_MEDIA_TYPE},
    room::{Phase, Place},
};

/// The whole body, and its share of the memory for bodies.
pub async fn read(parts: &Parts, mut body: Body, limits: &Limits) -> Result<(Bytes, BodyRoom), Problem> {
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not read; send it as it is"));
    }
    let most = limits.body_bytes;
    let too_large = || {
        let detail = format!("more than {most} bytes; send less at once");
        Problem::new(BODY_TOO_LARGE, detail).with("limit", most)
    };
    // hyper has refused a length that is none.
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > most as u64) {
        return Err(too_large());
    }
    let deadline = Instant::now() + limits.timeouts.body;
    let (mut read, mut room) = (Vec::new(), limits.body());
    loop {
        let Ok(frame) = timeout_at(deadline, body.frame()).await else {
            let seconds = limits.timeouts.body.as_secs_f64();
            let detail = format!("the body took longer than {seconds} s; send less at once");
            return Err(Problem::new(TOO_SLOW, detail).with("seconds", seconds));
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Problem::new(CUT_OFF, "fewer bytes came than were announced"))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if read.len() + bytes.len() > most {
            return Err(too_large());
        }
        room.grow(read.len() + bytes.len())?;
        read.extend_from_slice(&bytes);
    }
    if let Some(place) = parts.extensions.get::<Arc<Place>>() {
        place.set(Phase::Answering);
    }
    Ok((Bytes::from(read), room))
}
