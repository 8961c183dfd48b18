//! Those who wait for decisions: a few connections, each with its own thread.

use std::{
    io,
    net::SocketAddr,
    sync::mpsc::{Receiver, Sender},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::json;

use super::http::Connection;
use crate::world::{Ask, catalog::sku, settings::PLACEMENT};

/// A page does not wait longer for its content.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
pub struct Decided {
    pub decision: String,
    #[serde(default)]
    pub variant: Option<String>,
    pub reason: String,
    pub items: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
pub struct Shown {
    pub id: String,
}

/// What became of a request.
pub struct Outcome {
    pub token: u64,
    pub took: Duration,
    pub decided: Result<Decided, String>,
}

/// Asks until there are no more requests.
pub fn run(address: SocketAddr, asks: &Receiver<Ask>, outcomes: &Sender<Outcome>) {
    let mut connection = Connection::new(address, TIMEOUT);
    while let Ok(ask) = asks.recv() {
        let asked = Instant::now();
        let reply = connection.post("/v1/decisions", "application/json", request(&ask).as_bytes());
        let decided = match reply {
            Ok(reply) if reply.status == 200 => {
                serde_json::from_slice(&reply.body).map_err(|_| "unreadable".to_owned())
            }
            Ok(reply) => Err(format!("HTTP {}", reply.status)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => Err("timed out".to_owned()),
            Err(error) => Err(error.kind().to_string()),
        };
        if outcomes.send(Outcome { token: ask.token, took: asked.elapsed(), decided }).is_err() {
            return;
        }
    }
}

/// The body. A request without a login names no user.
pub fn request(ask: &Ask) -> String {
    let ranking: Vec<String> = ask.ranking.iter().map(|id| sku(*id)).collect();
    let mut body = json!({
        "placement": PLACEMENT, "platform": ask.platform, "session": ask.session,
        "attributes": {"locale": ask.locale}, "ranking": ranking,
    });
    if let Some(customer) = &ask.customer {
        body["user"] = customer.as_str().into();
    }
    body.to_string()
}
