//! How fresh decisions are: probes are shoppers of their own who view an item, and then ask until a decision knows of it.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    Stop,
    http::Connection,
    report::{Freshness, quantiles},
};
use crate::world::settings::PLACEMENT;

const TIMEOUT: Duration = Duration::from_secs(2);
/// A probe that takes longer is given up, and counted as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The variant whose decisions are explained by what is known of the shopper, and a feature that tells.
const VARIANT: &str = "personal";
const MODEL: &str = "ctr";
const FEATURE: &str = "likesCategory";

struct Prober {
    connection: Connection,
    every: Duration,
    freshness: Freshness,
    micros: Vec<u32>,
}

/// Probes, so many a second at most, until told to stop.
pub fn run(address: SocketAddr, per_second: f64, stop: &Stop) -> Freshness {
    let mut prober = Prober {
        connection: Connection::new(address, TIMEOUT),
        every: Duration::from_secs_f64(1.0 / per_second),
        freshness: Freshness::default(),
        micros: Vec::new(),
    };
    // Tells runs on one folder apart.
    let run = now_ms();
    for number in 0u64.. {
        if stop.is_set() {
            break;
        }
        let begun = Instant::now();
        match prober.probe(&format!("probe-{run}-{number}")) {
            Ok(Some(took)) => prober.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)),
            Ok(None) => {}
            Err(_) => prober.freshness.lost += 1,
        }
        std::thread::sleep(prober.every.saturating_sub(begun.elapsed()));
    }
    let latency = quantiles(&mut prober.micros);
    Freshness { probes: prober.micros.len() as u64, latency, ..prober.freshness }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

impl Prober {
    /// From the answer that the view was accepted to the first decision that knows of it. None: of another variant.
    fn probe(&mut self, user: &str) -> io::Result<Option<Duration>> {
        self.send(user, json!({"topic": "identity", "type": "consent", "personalization": true}))?;
        let first = self.until(user, |decision| decision["variant"].is_string())?;
        if first["variant"] != VARIANT {
            return Ok(None);
        }
        let sku = first["items"][0]["id"].clone();
        self.send(user, json!({"topic": "interaction", "type": "view", "sku": sku}))?;
        let accepted = Instant::now();
        self.until(user, |decision| {
            decision["items"].as_array().into_iter().flatten().any(|item| !item["values"][MODEL][FEATURE].is_null())
        })?;
        Ok(Some(accepted.elapsed()))
    }

    fn send(&mut self, user: &str, mut event: Value) -> io::Result<()> {
        let ts = now_ms() as u64;
        for (field, value) in [
            ("id", json!(format!("{user}-{}", event["type"]))),
            ("ts", json!(ts)),
            ("v", json!(2)),
            ("customerId", json!(user)),
            ("client", json!("web")),
            ("sessionId", json!(user)),
        ] {
            event[field] = value;
        }
        let path = "/v1/events?source=events";
        let reply = self.connection.post(path, "application/json", event.to_string().as_bytes())?;
        if reply.status == 202 { Ok(()) } else { Err(io::Error::other(format!("HTTP {}", reply.status))) }
    }

    fn until(&mut self, user: &str, holds: impl Fn(&Value) -> bool) -> io::Result<Value> {
        let request =
            json!({"user": user, "placement": PLACEMENT, "platform": "web", "session": user, "explain": true});
        let (body, begun) = (request.to_string(), Instant::now());
        loop {
            let reply = self.connection.post("/v1/decisions", "application/json", body.as_bytes())?;
            let decision: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            if holds(&decision) {
                return Ok(decision);
            }
            if begun.elapsed() > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}
