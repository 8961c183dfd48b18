//! The server over real sockets, before a stand-in for the engine.

mod access;
mod answers;
mod command;
mod hostile;
mod openapi;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use millrace_crds::spec::Serving;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    Backend, Prepared, ServeError, Server, SetupError, Timeouts,
    api::{Accepted, DecideAnswer, DecideRequest, EventsRequest, Identity, RankedItem, Rejected, Scalar, UsedModel},
    forwarded::{Forwarded, Question},
    orders::Told,
};
use crate::{
    host::fleet::Disobeyed,
    metrics::{Phase, Shared},
};

/// Whatever takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// Answers in the order of the candidates, and keeps what it is told.
pub struct StandIn {
    /// A decision takes one of these.
    may_decide: Semaphore,
    waiting: AtomicUsize,
    pub asked: Mutex<Vec<DecideRequest>>,
    pub records: Mutex<Vec<(Option<String>, Vec<u8>)>>,
    pub erased: Mutex<Vec<String>>,
    pub orders: Mutex<Told>,
}

impl StandIn {
    fn new(decisions: usize) -> Arc<Self> {
        let may_decide = Semaphore::new(decisions);
        let (asked, records, erased, orders) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { may_decide, waiting: AtomicUsize::new(0), asked, records, erased, orders })
    }
    /// Decisions that have been asked for and not been made.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
    fn placed(request: &DecideRequest) -> Result<DecideAnswer, ServeError> {
        match request.placement.as_str() {
            "home" => {}
            "broken" => return Err(ServeError::Failed("the cause".into())),
            "busy" => return Err(ServeError::Busy { retry_after: Duration::from_secs(3) }),
            _ => return Err(ServeError::Invalid { field: "placement", detail: "there is only `home`".into() }),
        }
        let count = request.count.map_or(3, |n| n as usize);
        let ids = request.candidates.iter().flatten().map(|c| c.id.clone());
        let values = request.explain.then(|| {
            let colors = request.attributes.iter().map(|(name, value)| match value {
                Scalar::Text(text) => (name.clone(), json!(text)),
                Scalar::Number(n) => (name.clone(), json!(n)),
                Scalar::Bool(b) => (name.clone(), json!(b)),
            });
            BTreeMap::from([("ctr".to_owned(), colors.collect())])
        });
        let item = |(n, id): (usize, String)| RankedItem {
            id,
            position: n as u32 + 1,
            score: Some(0.5),
            propensity: 1.0,
            propensity_error: None,
            values: values.clone(),
        };
        Ok(DecideAnswer {
            decision: "d1".into(),
            placement: "home".into(),
            experiment: Some("test".into()),
            variant: Some("control".into()),
            policy: "best".into(),
            personalized: request.user.is_some(),
            reason: if request.user.is_some() { "profile" } else { "noUser" }.into(),
            models: vec![UsedModel { name: "ctr".into(), version: 7 }],
            items: ids.take(count).enumerate().map(item).collect(),
        })
    }
}

impl Backend for StandIn {
    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<DecideAnswer, ServeError>> {
        async move {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.may_decide.acquire().await.map_err(|_| ServeError::Stopping)?.forget();
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let answer = Self::placed(&request);
            self.asked.lock().unwrap().push(request);
            answer
        }
        .boxed()
    }
    fn accept(&self, request: EventsRequest) -> BoxFuture<'_, Result<Accepted, ServeError>> {
        let mut accepted = Accepted::default();
        for (index, record) in request.records.iter().enumerate() {
            if serde_json::from_slice::<Value>(record).is_ok_and(|json| json.is_object()) {
                accepted.accepted += 1;
                self.records.lock().unwrap().push((request.source.clone(), record.to_vec()));
            } else {
                accepted.rejected.push(Rejected { index: index as u64, reason: "malformed".into() });
            }
        }
        async { Ok(accepted) }.boxed()
    }
    fn erase(&self, user: Identity) -> BoxFuture<'_, Result<(), ServeError>> {
        self.erased.lock().unwrap().push(user.reveal().to_owned());
        async { Ok(()) }.boxed()
    }
    fn profile(&self, user: Identity) -> BoxFuture<'_, Result<Value, ServeError>> {
        let known = user.reveal() == "ann/é";
        async move { if known { Ok(json!({"clicks": 3})) } else { Err(ServeError::UnknownUser) } }.boxed()
    }
    fn tasks(&self) -> Value {
        json!({"formatVersion": 1, "owner": "w1", "engineVersion": 4, "takesOrders": true, "tasks": [
            {"task": "profile/0", "role": "owns", "epoch": 7, "loadMillicores": 20, "stateBytes": 100, "state": "idle",
                "position": 4, "end": 6, "lagRecords": 1, "watermarkMs": null, "recordsPerSecond": 0.5, "checkpoint": null},
            {"task": "model/gone", "role": "failed", "epoch": 1, "loadMillicores": 0, "stateBytes": 0, "why": "no such task"},
        ]})
    }
    fn obey(&self, told: Told) -> Result<(), ServeError> {
        if told.orders.is_empty() {
            return Err(Disobeyed::TakesNone.into());
        }
        *self.orders.lock().unwrap() = told;
        Ok(())
    }
    fn forwarded(&self, question: Question) -> BoxFuture<'_, Result<Value, ServeError>> {
        async move {
            match question.ask {
                Forwarded::Profile { .. } => Ok(json!({"clicks": 3})),
                _ => Err(ServeError::NotHere { retry_after: Duration::from_secs(1) }),
            }
        }
        .boxed()
    }
    fn status(&self) -> Value {
        json!({"tasks": []})
    }
    fn experiments(&self) -> Value {
        json!([])
    }
    fn recent_decisions(&self) -> Value {
        json!([])
    }
}

/// A running server on a port of its own.
pub struct Running {
    pub address: SocketAddr,
    pub engine: Arc<StandIn>,
    server: Option<Server>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.may_decide.close();
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn start(serving: &Serving) -> Running {
    start_with(serving, Path::new("."), Timeouts::default(), Semaphore::MAX_PERMITS).unwrap()
}

fn start_with(serving: &Serving, beside: &Path, timeouts: Timeouts, decisions: usize) -> Result<Running, SetupError> {
    let prepared = Prepared::new(serving, beside, here(), timeouts)?;
    let (address, engine) = (prepared.address(), StandIn::new(decisions));
    let shared = Shared::new(None);
    shared.update(Vec::new(), Phase::Ready);
    let server = Server::start(vec![prepared.listener(engine.clone(), shared)])?;
    Ok(Running { address, engine, server: Some(server) })
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
    /// The problem's type and detail, after checks that hold for every problem.
    #[track_caller]
    pub fn problem(&self, slug: &str) -> Value {
        let json = self.json();
        assert_eq!(json["type"], format!("/problems/{slug}"), "{json}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(json["status"], self.status);
        assert!(json["title"].is_string() && json["detail"].as_str().is_some_and(|d| !d.is_empty()), "{json}");
        let retry = self.headers.get("retry-after").map(|seconds| seconds.parse::<u64>().unwrap());
        assert_eq!(json["retryAfter"].as_u64(), retry);
        json
    }
}

/// A connection that speaks HTTP by hand.
pub struct Client<S: Read + Write = TcpStream>(BufReader<S>);

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }
    pub fn stream(&mut self) -> &mut S {
        self.0.get_mut()
    }
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }
    /// `headers`: lines without their ends.
    pub fn request(&mut self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Reply {
        self.try_request(method, path, headers, body).expect("the connection ended without an answer")
    }
    /// `None`: the connection has ended.
    pub fn try_request(&mut self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Option<Reply> {
        let body = body.as_ref();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        headers.iter().for_each(|line| head += &format!("{line}\r\n"));
        // What is refused early may be answered before it is sent.
        let _ = self.stream().write_all(&[head.as_bytes(), b"\r\n", body].concat());
        self.try_reply(method == "HEAD")
    }
    pub fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, &[], "")
    }
    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.request("POST", path, &[], body)
    }
    /// Reads one answer.
    pub fn reply(&mut self) -> Reply {
        self.try_reply(false).expect("the connection ended without an answer")
    }
    /// `None`: the connection has ended.
    pub fn try_reply(&mut self, is_head: bool) -> Option<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_owned(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if is_head { 0 } else { length }];
        self.0.read_exact(&mut body).unwrap();
        Some(Reply { status, headers, body })
    }
    /// Waits until the other side has closed.
    #[track_caller]
    pub fn ends(&mut self) {
        let mut rest = Vec::new();
        let ended = self.0.read_to_end(&mut rest);
        let reset = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.as_ref().map_or_else(reset, |n| *n == 0), "{ended:?}, {}", String::from_utf8_lossy(&rest));
    }
}

/// Polls until it is so.
#[track_caller]
fn until(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < end, "it did not become so");
        std::thread::sleep(Duration::from_millis(5));
    }
}
