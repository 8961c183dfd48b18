//! The shop's gateway: events and catalog records on their way, gathered for some milliseconds, sent until they are taken.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{Stop, http::Connection, report::Sent};

/// One record for one source.
pub enum Record {
    Event(String),
    Product(String),
}

const GATHER: Duration = Duration::from_millis(5);
const RECORDS_MAX: usize = 1_000;
const TIMEOUT: Duration = Duration::from_secs(20);
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_secs(1);

/// JSON lines of both sources.
#[derive(Default)]
struct Batch {
    events: String,
    products: String,
    records: usize,
}

impl Batch {
    fn push(&mut self, record: &Record) {
        let (lines, json) = match record {
            Record::Event(json) => (&mut self.events, json),
            Record::Product(json) => (&mut self.products, json),
        };
        lines.push_str(json);
        lines.push('\n');
        self.records += 1;
    }
    fn clear(&mut self) {
        self.events.clear();
        self.products.clear();
        self.records = 0;
    }
}

fn lines(text: &str) -> u64 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u64
}

#[derive(Deserialize)]
struct Taken {
    accepted: u64,
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    reason: String,
}

pub struct Sender {
    connection: Connection,
    stop: Stop,
    sent: Sent,
}

impl Sender {
    pub fn new(address: SocketAddr, stop: Stop) -> Self {
        Self { connection: Connection::new(address, TIMEOUT), stop, sent: Sent::default() }
    }

    /// Sends what comes until the other end is dropped.
    pub fn run(mut self, records: &Receiver<Record>) -> Sent {
        let mut batch = Batch::default();
        while let Ok(first) = records.recv() {
            let until = Instant::now() + GATHER;
            batch.push(&first);
            while batch.records < RECORDS_MAX {
                match records.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(record) => batch.push(&record),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.sent.products += lines(&batch.products);
            self.sent.events += lines(&batch.events);
            self.post("/v1/events?source=products", &batch.products);
            self.post("/v1/events?source=events", &batch.events);
            batch.clear();
        }
        self.sent
    }

    /// Again and again, until it is taken or refused for good: an event's id tells the worker that it comes again.
    fn post(&mut self, path: &str, lines: &str) {
        if lines.is_empty() {
            return;
        }
        let mut pause = RETRY_FIRST;
        loop {
            self.sent.requests += 1;
            let trouble = match self.connection.post(path, "application/x-ndjson", lines.as_bytes()) {
                Ok(reply) if reply.status < 300 => return self.taken(&reply.body),
                Ok(reply) => (reply.status == 429 || reply.status >= 500, format!("HTTP {}", reply.status)),
                Err(error) => (true, error.kind().to_string()),
            };
            let (again, what) = trouble;
            *self.sent.errors.entry(what).or_default() += 1;
            if !again || self.stop.is_set() {
                return;
            }
            self.sent.retried += 1;
            thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    fn taken(&mut self, body: &[u8]) {
        let Ok(taken) = serde_json::from_slice::<Taken>(body) else {
            *self.sent.errors.entry("unreadable answer".into()).or_default() += 1;
            return;
        };
        self.sent.accepted += taken.accepted;
        for rejected in taken.rejected {
            *self.sent.rejected.entry(rejected.reason).or_default() += 1;
        }
    }
}
