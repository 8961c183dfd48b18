use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use serde_json::{Value, json};

use super::*;
use crate::world::Scenario;

/// A worker's door: takes everything, shows the first items that it heard of; broken as it is told.
#[derive(Default)]
struct Door {
    skus: Vec<String>,
    events: u64,
    decisions: u64,
    batches: u64,
    requests: u64,
    asked: Vec<Value>,
}

fn serve(listener: TcpListener, door: Arc<Mutex<Door>>) {
    for stream in listener.incoming() {
        let door = door.clone();
        thread::spawn(move || while answer(stream.as_ref().unwrap(), &door).is_some() {});
    }
}

/// One request; none: the connection is over.
fn answer(mut stream: &TcpStream, door: &Mutex<Door>) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, stream);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).ok()? > 2 {
        length = head.lines().last()?.strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (status, reply) = {
        let mut door = door.lock().unwrap();
        door.requests += 1;
        match head.split(' ').nth(1)? {
            "/readyz" => (if door.requests < 3 { 503 } else { 200 }, String::new()),
            // Both break down now and then, with and without an answer.
            "/v1/decisions" => match door.decide(&body) {
                _ if door.decisions % 20 == 7 => return None,
                _ if door.decisions % 20 == 9 => (500, "{}".to_owned()),
                answer => (200, answer),
            },
            path => {
                door.batches += 1;
                match door.batches % 5 {
                    2 => return None,
                    4 => (503, "{}".to_owned()),
                    _ => (202, door.take(path, &body)),
                }
            }
        }
    };
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{reply}", reply.len()).ok()
}

impl Door {
    fn take(&mut self, path: &str, body: &[u8]) -> String {
        let (mut accepted, mut rejected) = (0u64, Vec::new());
        for (index, line) in std::str::from_utf8(body).unwrap().lines().enumerate() {
            match serde_json::from_str::<Value>(line) {
                Ok(value) if path.ends_with("=products") => self.skus.push(value["sku"].as_str().unwrap().to_owned()),
                Ok(_) => self.events += 1,
                Err(_) => {
                    rejected.push(json!({"index": index, "reason": "notJson"}));
                    continue;
                }
            }
            accepted += 1;
        }
        json!({"accepted": accepted, "rejected": rejected}).to_string()
    }

    fn decide(&mut self, body: &[u8]) -> String {
        self.decisions += 1;
        self.asked.push(serde_json::from_slice(body).unwrap());
        let items: Vec<Value> = self.skus.iter().take(6).map(|sku| json!({"id": sku, "position": 1})).collect();
        json!({"decision": format!("d{}", self.decisions), "variant": "control", "reason": "notPersonal", "items": items})
            .to_string()
    }
}

fn settings() -> Settings {
    Settings {
        scenario: Scenario::Taste,
        seed: 3,
        users: 100,
        items: 20,
        events_per_second: 3_000.0,
        ..Settings::default()
    }
}

#[test]
fn a_worker_that_breaks_down_now_and_then_gets_everything_in_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, door) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Door::default())));
    let serving = door.clone();
    thread::spawn(move || serve(listener, serving));
    let (duration, patience) = (Some(Duration::from_millis(2_500)), Duration::from_secs(30));
    let report =
        drive(&Drive { address, settings: settings(), duration, patience, probes_per_second: None }, &Stop::default())
            .unwrap();
    let door = door.lock().unwrap();
    let (events, asked) = (&report.events, &report.decisions);
    assert!(events.events > 200 && events.products >= 20, "{events:?}");
    let rejected: u64 = events.rejected.values().sum();
    assert_eq!(events.accepted + rejected, events.events + events.products, "{events:?}");
    assert_eq!(door.events + door.skus.len() as u64, events.accepted);
    assert!(events.retried > 0 && events.errors["HTTP 503"] > 0, "{events:?}");
    let failed: u64 = asked.errors.values().sum();
    assert!(asked.answered > 20 && failed > 0 && asked.answered + failed <= asked.asked, "{asked:?}");
    assert!(report.variants["control"].exposed > 80 && report.variants["none"].decisions > 0, "{report}");
    assert!(asked.latency.p50_ms > 0.0 && asked.latency.p99_ms <= asked.latency.max_ms);

    let logged_in: Vec<&Value> = door.asked.iter().filter(|ask| ask["user"].is_string()).collect();
    assert!(!logged_in.is_empty() && logged_in.len() < door.asked.len(), "some are not logged in");
    assert!(logged_in.iter().all(|ask| ask["ranking"].as_array().unwrap().len() == 20 && ask["placement"] == "home"));
}

#[test]
fn without_a_worker_it_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let plan =
        Drive { address, settings: settings(), duration: None, patience: Duration::ZERO, probes_per_second: None };
    let error = drive(&plan, &Stop::default()).unwrap_err().to_string();
    assert!(error.contains("no worker serves at 127.0.0.1") && error.contains("millrace run"), "{error}");
}
