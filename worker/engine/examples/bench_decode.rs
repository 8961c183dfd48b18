//! JSON bytes to encoded events, beside `serde_json` reading the same bytes into a plain struct of borrowed fields.
//!
//! `cargo run --release -p millrace-engine --example bench_decode [ROUNDS]`. The two take turns on the same events, 250 at a
//! time, so that neighbours on the machine slow both. Each round prints nanoseconds an event, the median of its turns; the
//! last line the ratio of their speeds (1 is as fast as the plain struct).
#![allow(clippy::disallowed_types, clippy::unwrap_used, clippy::expect_used)]

use std::{hint::black_box, time::Instant};

use millrace_crds::spec::PipelineSpec;
use millrace_engine::{
    decode::{Decoded, Decoder, Place},
    names::Names,
    privacy::{Key, Pseudonymizer},
};
use serde::Deserialize;

const EVENTS: usize = 20_000;
const TURN: usize = 250;

/// All fields of an event as it arrives.
#[derive(Deserialize)]
struct Plain<'a> {
    v: u32,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    ts: i64,
    user: &'a str,
    item: &'a str,
    placement: &'a str,
    policy: &'a str,
    propensity: f64,
    value: f64,
    consent: bool,
    session: &'a str,
    platform: &'a str,
}

/// 13 fields, 236 bytes on average; 80 % impressions, 15 % views, 4 % clicks, 1 % orders; all with consent, so that
/// every event is encoded.
fn lines() -> Vec<String> {
    let mut state = 1u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let line = |n: usize| {
        let kind = match random(100) {
            0..80 => "impression",
            80..95 => "view",
            95..99 => "click",
            _ => "order",
        };
        let (user, item, ts) = (random(100_000), random(10_000), 1_750_000_000_000 + n * 5);
        let placement = ["home", "search", "cart", "email"][random(4) as usize];
        let platform = ["web", "ios", "android"][user as usize % 3];
        let id = u128::from(random(1 << 31)) << 64 | n as u128;
        let value = if kind == "order" { random(20_000) as f64 / 100.0 } else { 0.0 };
        let (policy, session) = (user % 3, ts / 1_800_000);
        format!(
            "{{\"v\":1,\"id\":\"{id:032x}\",\"type\":\"{kind}\",\"ts\":{ts},\"user\":\"u{user}\",\"item\":\"i{item}\",\
             \"placement\":\"{placement}\",\"policy\":\"p{policy}\",\"propensity\":0.1,\"value\":{value:?},\
             \"consent\":true,\"session\":\"s{user}-{session}\",\"platform\":\"{platform}\"}}"
        )
    };
    (0..EVENTS).map(line).collect()
}

fn spec() -> PipelineSpec {
    let event = |name: &str| {
        serde_json::json!({"name": name, "when": {"type": name}, "fields": {"items": "item", "placement": "placement",
            "propensities": "propensity", "value": "value"}})
    };
    serde_json::from_value(serde_json::json!({
        "partitions": 1,
        "privacy": {"pseudonymKeys": {"active": "bench"}, "user": {"field": "user"},
            "consent": {"field": "consent", "grantedIf": {"consent": true}}, "allowedAttributes": ["policy"]},
        "sources": [{"name": "events", "format": "Json", "eventTime": {"field": "ts"}, "version": "v",
            "eventId": {"field": "id", "dedupWithin": "1h"}, "platform": "platform", "session": "session",
            "events": [event("impression"), event("click"), event("order"), event("view")]}],
    }))
    .expect("the spec is right")
}

/// Nanoseconds.
fn plain(lines: &[String]) -> f64 {
    let start = Instant::now();
    for line in lines {
        let event: Plain<'_> = serde_json::from_slice(line.as_bytes()).expect("valid");
        black_box((event.v, event.id, event.kind, event.ts, event.user, event.item, event.placement));
        black_box((event.policy, event.propensity, event.value, event.consent, event.session, event.platform));
    }
    start.elapsed().as_nanos() as f64
}

/// Nanoseconds.
fn decode(lines: &[String], decoder: &mut Decoder, out: &mut Decoded) -> f64 {
    let start = Instant::now();
    let mut events = 0;
    for (row, line) in lines.iter().enumerate() {
        decoder.decode(line.as_bytes(), Place { partition: 0, row: row as u64 + 1 }, out);
        events += out.events.len();
        black_box(&out.bytes);
    }
    let elapsed = start.elapsed();
    assert_eq!(events, lines.len(), "every record is an event");
    elapsed.as_nanos() as f64
}

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(30);
    let lines = lines();
    let spec = spec();
    let by = Pseudonymizer::new(&Key::new("bench", [7; 16]));
    let mut decoder = Decoder::compile(&spec, &spec.sources[0], &Names::of(&spec), by).expect("compiles");
    let mut out = Decoded::default();
    println!("{EVENTS} events of {} bytes on average", lines.iter().map(String::len).sum::<usize>() / EVENTS);
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (mut plains, mut decodes) = (Vec::new(), Vec::new());
        for (turn, lines) in lines.chunks(TURN).enumerate() {
            // Which goes first alternates: the second finds the lines in the cache.
            if turn % 2 == 0 {
                plains.push(plain(lines));
            }
            decodes.push(decode(lines, &mut decoder, &mut out));
            if turn % 2 == 1 {
                plains.push(plain(lines));
            }
        }
        let (plain, ours) = (median(&mut plains) / TURN as f64, median(&mut decodes) / TURN as f64);
        println!("plain struct {plain:.0} ns, record to encoded event {ours:.0} ns");
        ratios.push(plain / ours);
    }
    let median = median(&mut ratios);
    let (min, max) = (ratios[0], ratios[rounds - 1]);
    println!("speed relative to the plain struct: min {min:.2}, median {median:.2}, max {max:.2}");
}

/// Sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
