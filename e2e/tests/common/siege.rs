//! Clients that besiege a worker: ten thousand connections, and requests of every wrong kind.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    http::Client,
    shop::{Shop, request},
};

const CONNECTIONS: u64 = 10_000;

/// So many connections as this process may have, at most `CONNECTIONS`.
pub fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    CONNECTIONS.min(most.saturating_sub(500)) as usize
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(stream)
}

/// Connections that never say anything whole, opened again as they are closed.
fn silent(address: SocketAddr, count: usize, opened: &AtomicU64, stop: &AtomicBool) {
    let mut open: Vec<Option<TcpStream>> = Vec::new();
    for n in (0..count).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut stream) = connect(address) else { continue };
        let begun: &[u8] = match n % 4 {
            0 => b"",
            1 => b"POST /v1/decisions HTTP/1.1\r\n",
            2 => b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n[{",
            // Asks, and never reads the answer.
            _ => b"GET /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        let _ = stream.write_all(begun); // it may have been closed already
        if open.len() < count {
            open.push(Some(stream));
        } else {
            open[n] = Some(stream);
        }
        // Once all are there, a thousand a second come anew.
        if opened.fetch_add(1, Ordering::Relaxed) > count as u64 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Requests that are wrong in every way; each gets an answer with a 4xx or is cut off.
fn wrong(address: SocketAddr, answered: &AtomicU64, stop: &AtomicBool) {
    let nested = "[".repeat(100_000);
    let million: Vec<String> = (0..1_000_000).map(|n| format!("\"i{n}\"")).collect();
    let million = format!(r#"{{"placement":"home","candidates":[{}]}}"#, million.join(","));
    let huge = " ".repeat(8 << 20);
    let bodies: [(&str, &str, usize); 8] = [
        ("/v1/decisions", &nested, 0),
        ("/v1/decisions", &million, 0),
        ("/v1/events?source=events", &huge, 0),
        ("/v1/events?source=events", r#"{"type": 7, "customerId": {"a": []}, "ts": "never"}"#, 0),
        ("/v1/decisions", r#"{"user": 5, "placement": ["home"]}"#, 0),
        ("/v1/decisions", r#"{"placement": "nowhere"}"#, 0),
        // Cut off.
        ("/v1/decisions", r#"{"placement": "#, 500),
        ("/v1/no-such-thing", "{}", 0),
    ];
    for (path, body, missing) in bodies.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut stream) = connect(address) else { continue };
        let length = body.len() + missing;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        if missing > 0 {
            continue;
        }
        let _ = sent; // refused before the whole body was taken: the answer says so
        let mut answer = [0; 64];
        let Ok(n) = stream.read(&mut answer) else { continue };
        let text = String::from_utf8_lossy(&answer[..n]);
        if text.is_empty() {
            continue;
        }
        // A wrong event is accepted as a dead letter.
        assert!(["4", "503", "202"].iter().any(|s| text.starts_with(&format!("HTTP/1.1 {s}"))), "{path}: {text}");
        answered.fetch_add(1, Ordering::Relaxed);
        // What is measured is the worker, not who has more processors.
        thread::sleep(Duration::from_millis(5));
    }
}

/// All besiegers, until it is over.
pub struct Siege {
    stop: Arc<AtomicBool>,
    pub opened: Arc<AtomicU64>,
    pub answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Siege {
    pub fn of(address: SocketAddr) -> Self {
        let (stop, opened, answered) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let mut siege = Self { stop, opened, answered, threads: Vec::new() };
        let count = connections();
        let (stop, opened, answered) = (siege.stop.clone(), siege.opened.clone(), siege.answered.clone());
        siege.threads.push(thread::spawn(move || silent(address, count, &opened, &stop)));
        let stop = siege.stop.clone();
        siege.threads.push(thread::spawn(move || wrong(address, &answered, &stop)));
        siege
    }

    pub fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.opened.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed))
    }
}

/// A decision, tried again where a connection was given up before any answer; how long it took.
pub fn decide(client: &mut Client, user: &str) -> (serde_json::Value, Duration) {
    let body = request(Some(user)).to_string();
    let begun = Instant::now();
    for _ in 0..20 {
        let reply = client.request("POST", "/v1/decisions", Some(("application/json", body.as_bytes())));
        if let Some(reply) = reply {
            return (reply.expect(200), begun.elapsed());
        }
    }
    panic!("twenty connections ended without an answer");
}

/// A shop that is open, and ada, whom it knows.
pub fn shop() -> Shop {
    let mut shop = Shop::open(|yaml| yaml);
    shop.stock(&[("a1", "hats", true), ("b1", "socks", true), ("c1", "coats", true)]);
    shop.ready(3, &["ada"]);
    shop
}
