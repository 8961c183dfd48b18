//! Clients that break every rule: each gets a clear answer or its connection ended, and others go on being answered.

use std::{
    sync::atomic::AtomicBool,
    thread::{self, JoinHandle},
};

use millrace_crds::spec::Limits;

use super::*;

const HOME: &str = r#"{"user": "ann", "placement": "home", "candidates": ["a", "b"]}"#;

/// Somebody who asks all the time, over a kept connection and over new ones, and must always be answered. As every client,
/// it tries again where a connection has ended before any answer.
struct Customer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Customer {
    fn of(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut kept = Client::new(address);
            let mut answered = 0;
            while answered < 5 || !stopped.load(Ordering::SeqCst) {
                Self::ask(&mut kept);
                Self::ask(&mut Client::new(address));
                answered += 1;
                thread::sleep(Duration::from_millis(2));
            }
            answered
        });
        Self { stop, thread }
    }
    fn ask(client: &mut Client) {
        let address = client.stream().peer_addr().unwrap();
        for _ in 0..20 {
            if let Some(reply) = client.try_request("POST", "/v1/decisions", &[], HOME) {
                assert_eq!(reply.status, 200);
                return;
            }
            *client = Client::new(address);
        }
        panic!("twenty connections ended without an answer");
    }
    fn was_always_answered(self) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.thread.join().expect("a customer was not answered") >= 5);
    }
}

fn limited(limits: Limits) -> Serving {
    Serving { limits, ..Serving::default() }
}

/// So short that tests see them end.
fn hasty() -> Timeouts {
    let short = Duration::from_millis(300);
    Timeouts { header: short, body: short, idle: short, write: short, linger: short, ..Timeouts::default() }
}

fn start_hasty() -> Running {
    start_with(&Serving::default(), Path::new("."), hasty(), Semaphore::MAX_PERMITS).unwrap()
}

#[test]
fn large_bodies_are_refused_by_their_length_or_while_they_come() {
    let server = start(&limited(Limits { body_bytes: 2_048, ..Limits::default() }));
    let customer = Customer::of(server.address);
    for path in ["/v1/decisions", "/v1/events"] {
        // Announced: refused before a byte of it.
        let mut client = Client::new(server.address);
        client.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, &reply.problem("body-too-large")["limit"]), (413, &json!(2_048)));
        client.ends();
        // Asked first, as curl does.
        let mut client = Client::new(server.address);
        client.send(format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2049\r\n\r\n"
        ));
        assert_eq!(client.reply().status, 413);
        // Chunks without an end.
        let mut client = Client::new(server.address);
        client.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"));
        while client.stream().write_all(&[&b"200\r\n"[..], &[b' '; 512], b"\r\n"].concat()).is_ok() {}
        // All of it was sent before the answer was read: it is not lost.
        let mut client = Client::new(server.address);
        client.request("POST", path, &[], vec![b' '; 3 << 20]).problem("body-too-large");
        client.ends();
        let mut client = Client::new(server.address);
        assert_eq!(client.post(path, vec![b' '; 2_048]).problem("nothing-read")["status"], 400, "the limit itself");
    }
    customer.was_always_answered();
}

#[test]
fn a_body_is_continued_when_it_may_come() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let length = HOME.len();
    client.send(format!(
        "POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    ));
    assert_eq!(client.reply().status, 100);
    client.send(HOME);
    assert_eq!(client.reply().status, 200);
}

#[test]
fn a_million_candidates_are_refused() {
    let server = start(&limited(Limits { body_bytes: 64 << 20, ..Limits::default() }));
    let customer = Customer::of(server.address);
    for (list, element) in [("candidates", "\"a\""), ("candidates", "{\"id\":\"a\"}"), ("ranking", "\"a\"")] {
        let body = format!(r#"{{"placement": "home", "{list}": [{}]}}"#, vec![element; 1_000_000].join(","));
        let problem = Client::new(server.address).post("/v1/decisions", body).problem("invalid-request");
        assert_eq!((&problem["field"], problem["status"].as_u64()), (&json!(list), Some(422)));
        assert!(problem["detail"].as_str().unwrap().contains("at most 1000"), "{problem}");
        let body = format!(r#"{{"placement": "home", "{list}": [{}]}}"#, vec![element; 1_000].join(","));
        assert_eq!(Client::new(server.address).post("/v1/decisions", body).status, 200);
    }
    let attributes: Vec<String> = (0..257).map(|n| format!("\"a{n}\": 1")).collect();
    let body = |n: usize| format!(r#"{{"placement": "home", "attributes": {{{}}}}}"#, attributes[..n].join(","));
    assert_eq!(Client::new(server.address).post("/v1/decisions", body(256)).status, 200);
    Client::new(server.address).post("/v1/decisions", body(257)).problem("invalid-request");
    customer.was_always_answered();
}

#[test]
fn nested_bodies_are_refused() {
    let server = start(&Serving::default());
    let customer = Customer::of(server.address);
    let deep = |open: &str, n: usize| open.repeat(n);
    for (path, body) in [
        ("/v1/decisions", deep("[", 500_000)),
        ("/v1/decisions", deep("{\"a\":", 100_000)),
        ("/v1/decisions", format!("{{\"placement\": \"home\", \"attributes\": {}", deep("{\"a\":", 100_000))),
        ("/v1/decisions", format!("[{}{}]", deep("[", 100_000), deep("]", 100_000))),
        ("/v1/events", deep("[", 500_000)),
        ("/v1/events", deep("{\"a\":", 100_000)),
    ] {
        let reply = Client::new(server.address).post(path, body);
        let is_answer = reply.status == 200 && reply.json()[0]["status"] == 422;
        assert!(is_answer || [400, 422].contains(&reply.status), "{path}: {reply:?}");
    }
    customer.was_always_answered();
}

#[test]
fn bodies_that_are_cut_off_do_nothing() {
    let server = start_hasty();
    let customer = Customer::of(server.address);
    for (path, body) in [("/v1/events", "{\"a\": 1}\n{\"b\""), ("/v1/decisions", &HOME[..20])] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
        // The sending side is closed: there is still somebody who listens.
        let mut client = Client::new(server.address);
        client.send(format!("{head}content-length: 1000\r\n\r\n{body}"));
        client.stream().shutdown(std::net::Shutdown::Write).unwrap();
        if let Some(reply) = client.try_reply(false) {
            assert_eq!(reply.problem("body-cut-off")["status"], 400);
        }
        client.ends();
        // Gone.
        let mut client = Client::new(server.address);
        client.send(format!("{head}content-length: 1000\r\n\r\n{body}"));
        drop(client);
        // Silent.
        let mut client = Client::new(server.address);
        client.send(format!("{head}content-length: 1000\r\n\r\n{body}"));
        let reply = client.reply();
        assert_eq!((reply.status, &reply.problem("request-too-slow")["seconds"]), (408, &json!(0.3)));
        client.ends();
        // Chunks that are none.
        let mut client = Client::new(server.address);
        client.send(format!("{head}transfer-encoding: chunked\r\n\r\nxyz\r\n{body}"));
        assert_eq!(client.reply().problem("body-cut-off")["status"], 400);
        client.ends();
    }
    assert!(server.engine.records.lock().unwrap().is_empty());
    customer.was_always_answered();
}

#[test]
fn what_is_no_request_is_answered_and_closed() {
    let server = start(&Serving::default());
    let customer = Customer::of(server.address);
    let long = "x".repeat(100_000);
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    for (bytes, slug, status) in [
        ("hello\r\n\r\n".to_owned(), "malformed-request", 400),
        ("\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "malformed-request", 400),
        ("GET /healthz HTTP/9.9\r\n\r\n".to_owned(), "malformed-request", 400),
        ("GET /healthz HTTP/1.1\r\nbroken header\r\n\r\n".to_owned(), "malformed-request", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "malformed-request", 400),
        (
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n".to_owned(),
            "malformed-request",
            400,
        ),
        (
            "POST /v1/events HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            "malformed-request",
            400,
        ),
        (format!("GET /healthz HTTP/1.1\r\nh: {long}\r\n\r\n"), "headers-too-large", 431),
        (format!("GET /healthz HTTP/1.1\r\nh: {long}"), "headers-too-large", 431),
        (format!("GET /healthz HTTP/1.1\r\n{many}\r\n"), "headers-too-large", 431),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), "headers-too-large", 431),
    ] {
        let mut client = Client::new(server.address);
        let shown = &bytes[..bytes.len().min(60)];
        let _ = client.stream().write_all(bytes.as_bytes());
        let reply = client.try_reply(false).unwrap_or_else(|| panic!("{shown}: no answer"));
        assert_eq!((reply.status, reply.headers["connection"].as_str()), (status, "close"), "{shown}");
        reply.problem(slug);
        client.ends();
    }
    customer.was_always_answered();
}

#[test]
fn the_limit_of_headers_is_told() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    assert_eq!(client.request("GET", "/healthz", &[&format!("h: {}", "x".repeat(16_000))], "").status, 200);
    let reply = client.request("GET", "/healthz", &[&format!("h: {}", "x".repeat(17_000))], "");
    assert_eq!((reply.status, &reply.problem("headers-too-large")["limit"]), (431, &json!(16_384)));
    let path = |bytes: usize| format!("/healthz?{}", "x".repeat(bytes - 9));
    let reply = Client::new(server.address).get(&path(8_193));
    assert_eq!((reply.status, &reply.problem("uri-too-long")["limit"]), (414, &json!(8_192)));
    assert_eq!(Client::new(server.address).get(&path(8_192)).status, 200);
}

#[test]
fn slow_senders_are_told_and_closed() {
    let server = start_hasty();
    let customer = Customer::of(server.address);
    // Says nothing.
    Client::new(server.address).ends();
    // Begins and stops.
    let mut client = Client::new(server.address);
    client.send("POST /v1/decisions HT");
    assert_eq!(client.reply().problem("request-too-slow")["status"], 408);
    client.ends();
    // Drips headers for ever.
    let mut client = Client::new(server.address);
    client.send("POST /v1/decisions HTTP/1.1\r\n");
    let mut n = 0;
    while client.stream().write_all(format!("h{n}: x\r\n").as_bytes()).is_ok() {
        n += 1;
        thread::sleep(Duration::from_millis(20));
        assert!(n < 1_000, "headers may take for ever");
    }
    // Drips a body for ever.
    let mut client = Client::new(server.address);
    client.send("POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n");
    let mut n = 0;
    while client.stream().write_all(b" ").is_ok() {
        n += 1;
        thread::sleep(Duration::from_millis(20));
        assert!(n < 1_000, "a body may take for ever");
    }
    // Asks once, then nothing.
    let mut client = Client::new(server.address);
    assert_eq!(client.get("/healthz").status, 200);
    client.ends();
    customer.was_always_answered();
}

#[test]
fn slow_readers_are_closed() {
    let server = start_hasty();
    let customer = Customer::of(server.address);
    let mut client = Client::new(server.address);
    // Asks and asks and never reads, until neither side's buffers take more.
    let request = b"GET /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let began = std::time::Instant::now();
    while client.stream().write_all(&request).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(60), "one who never reads is served for ever");
    }
    customer.was_always_answered();
}

#[test]
fn two_thousand_silent_connections_keep_nobody_out() {
    let server = start(&limited(Limits { connections: 500, ..Limits::default() }));
    let customer = Customer::of(server.address);
    let mut silent: Vec<Client> = (0..2_000)
        .map(|n| {
            let mut client = Client::new(server.address);
            client.send(match n % 4 {
                0 => "",
                1 => "POST /v1/decisions HTTP/1.1\r\n",
                2 => "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
                _ => "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n",
            });
            client
        })
        .collect();
    customer.was_always_answered();
    // The first one was given up for the last ones.
    silent[0].ends();
    Customer::ask(&mut silent[1_996]);
}

#[test]
fn when_all_connections_are_busy_more_are_told_so() {
    let limits = Limits { connections: 3, ..Limits::default() };
    let server = start_with(&limited(limits), Path::new("."), Timeouts::default(), 0).unwrap();
    let ask = || {
        let mut client = Client::new(server.address);
        client.send(format!(
            "POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{HOME}",
            HOME.len()
        ));
        client
    };
    let mut busy = [ask(), ask(), ask()];
    until(|| server.engine.waiting() == 3);
    let mut refused = Client::new(server.address);
    let reply = refused.reply();
    assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (503, "1"));
    reply.problem("busy");
    refused.ends();
    server.engine.may_decide.add_permits(4);
    for client in &mut busy {
        assert_eq!(client.reply().status, 200);
    }
    assert_eq!(ask().reply().status, 200, "in the place of one that is idle now");
}

#[test]
fn more_decisions_than_may_wait_are_refused_at_once() {
    let limits = Limits { decisions_per_second: 1_000_000, ..Limits::default() };
    let server = start_with(&limited(limits), Path::new("."), Timeouts::default(), 0).unwrap();
    let batch = format!("[{}]", vec![HOME; 100].join(","));
    let mut asking: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = Client::new(server.address);
            let length = batch.len();
            client.send(format!(
                "POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{batch}"
            ));
            client
        })
        .collect();
    until(|| server.engine.waiting() == 1_000);
    let reply = Client::new(server.address).post("/v1/decisions", &batch);
    assert_eq!((reply.status, &reply.problem("busy")["retryAfter"]), (503, &json!(1)));
    assert_eq!(Client::new(server.address).post("/v1/events", "{}").status, 202, "events have their own room");
    server.engine.may_decide.add_permits(1_001);
    for client in &mut asking {
        assert_eq!(client.reply().json().as_array().unwrap().len(), 100);
    }
    assert_eq!(Client::new(server.address).post("/v1/decisions", HOME).status, 200);
}

#[test]
fn an_engine_that_does_not_answer_is_told() {
    let timeouts = Timeouts { decide: Duration::from_millis(50), ..Timeouts::default() };
    let server = start_with(&Serving::default(), Path::new("."), timeouts, 0).unwrap();
    let reply = Client::new(server.address).post("/v1/decisions", HOME);
    assert_eq!((reply.status, &reply.problem("no-answer")["retryAfter"]), (503, &json!(1)));
}

#[test]
fn rates_are_bounded_for_each_api() {
    let server = start(&limited(Limits { decisions_per_second: 1, events_per_second: 1, ..Limits::default() }));
    for (path, body, right) in [("/v1/decisions", HOME, 200), ("/v1/events", "{}\n{}\n{}", 202)] {
        let mut client = Client::new(server.address);
        assert_eq!(client.post(path, body).status, right);
        let mut client = Client::new(server.address);
        client.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"));
        let reply = client.reply();
        let problem = reply.problem("too-frequent");
        assert_eq!((reply.status, &problem["limit"]), (429, &json!(1)));
        let wait = problem["retryAfter"].as_u64().unwrap();
        assert!((1..=3).contains(&wait), "three events take three seconds: {wait}");
    }
    until(|| Client::new(server.address).post("/v1/decisions", HOME).status == 200);
}

#[test]
fn requests_may_follow_each_other_without_waiting() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let one = format!("POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{HOME}", HOME.len());
    client.send(one.repeat(50));
    for _ in 0..50 {
        assert_eq!(client.reply().status, 200);
    }
    client.send(format!("{one}garbage\r\n\r\n"));
    assert_eq!(client.reply().status, 200);
    client.reply().problem("malformed-request");
    client.ends();
}
