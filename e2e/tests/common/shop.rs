//! A worker that serves the small shop, and what its shoppers send.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Ended, Running, binary, http::Client};

pub const PIPELINE: &str = include_str!("../../src/shop-pipeline.yaml");
pub const KEYS: &str = "test: 000102030405060708090a0b0c0d0e0f\n";
const SOON: Duration = Duration::from_secs(60);

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub struct Shop {
    dir: TempDir,
    running: Option<Running>,
    pub client: Client,
}

impl Shop {
    /// Opens the shop with its goods on the shelves: `pipeline` is edited before.
    pub fn open(edit: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("keys.txt"), KEYS).unwrap();
        for api in ["decisions", "events", "admin"] {
            fs::write(dir.path().join(format!("{api}.txt")), format!("secret-of-{api}\n")).unwrap();
        }
        fs::write(dir.path().join("pipeline.yaml"), edit(PIPELINE.into())).unwrap();
        let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
        let mut shop = Self { dir, running: None, client: Client::new(nowhere) };
        shop.start();
        shop
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the worker and waits until it serves.
    pub fn start(&mut self) {
        let address_file = self.data().join("serving.json");
        let _ = fs::remove_file(&address_file);
        let mut command = Command::new(binary());
        command.arg("run").arg(self.dir.path().join("pipeline.yaml")).arg("--data").arg(self.data());
        command.args(["--listen", "127.0.0.1:0", "--quiet", "--output", "json"]);
        let mut running = Running::start(&mut command);
        let mut address = None;
        running.until("it serves", || {
            let text = fs::read_to_string(&address_file).unwrap_or_default();
            address = serde_json::from_str::<Value>(&text).ok().and_then(|v| v["address"].as_str()?.parse().ok());
            address.is_some_and(|address| {
                Client::new(address).request("GET", "/readyz", None).is_some_and(|reply| reply.status == 200)
            })
        });
        self.client = Client::new(address.unwrap());
        self.running = Some(running);
    }

    /// Writes another version of the pipeline, for the next start.
    pub fn change(&self, edit: impl FnOnce(String) -> String) {
        let file = self.dir.path().join("pipeline.yaml");
        fs::write(&file, edit(fs::read_to_string(&file).unwrap())).unwrap();
    }

    /// Visits of users who look, click and order now and then; returns how many got a decision that is not the default.
    pub fn visits(&mut self, users: &[&str], round: usize, count: usize) -> u64 {
        let mut decided = 0;
        for n in 0..count {
            let user = users[(round * 7 + n * 3) % users.len()];
            let body = request(Some(user)).to_string();
            let reply = self.client.request("POST", "/v1/decisions", Some(("application/json", body.as_bytes())));
            let Some(answer) = reply.filter(|reply| reply.status == 200).map(|reply| reply.json()) else { continue };
            if answer["experiment"].is_null() {
                continue;
            }
            decided += 1;
            let mut events = vec![shown(user, now_ms(), &answer, 1 + n % 3)];
            if n % 4 == 0 {
                let sku = answer["items"][0]["id"].as_str().unwrap();
                events.push(click(user, now_ms(), sku, answer["decision"].as_str()));
            }
            if n % 10 == 0 {
                events.push(json!({"type": "order", "id": format!("o{round}-{n}"), "ts": now_ms(), "customerId": user,
                    "client": "web", "total": 10 + n, "lines": []}));
            }
            self.send(&events);
        }
        decided
    }

    pub fn address(&self) -> SocketAddr {
        self.client.address()
    }

    /// kill -9.
    pub fn kill(&mut self) -> Ended {
        self.running.take().unwrap().kill()
    }

    /// Stops in good order: the summary.
    pub fn stop(&mut self) -> Value {
        let running = self.running.take().unwrap();
        running.terminate();
        running.finish().summary()
    }

    /// Another command on the same folder.
    pub fn command(&self, arguments: &[&str]) -> Ended {
        let mut process = Command::new(binary());
        process.args(arguments).arg("--data").arg(self.data());
        Running::start(process.args(["--output", "json"])).finish()
    }

    /// A command that asks the running worker.
    pub fn ask(&self, arguments: &[&str]) -> Ended {
        let mut process = Command::new(binary());
        process.args(arguments).arg("--address").arg(format!("http://{}", self.address()));
        Running::start(process.args(["--output", "json"])).finish()
    }

    /// Sends events, again where a connection ended without an answer: their ids tell.
    pub fn send_again(&mut self, events: &[Value]) {
        let body = json!(events).to_string();
        for _ in 0..20 {
            let json = Some(("application/json", body.as_bytes()));
            if let Some(reply) = self.client.request("POST", "/v1/events?source=events", json) {
                reply.expect(202);
                return;
            }
        }
        panic!("twenty connections ended without an answer");
    }

    pub fn peak_kib(&self) -> u64 {
        self.running.as_ref().unwrap().peak_kib().unwrap()
    }

    /// Looks again and again until this gives something.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Client) -> Option<T>) -> T {
        let client = &mut self.client;
        let running = self.running.as_mut().unwrap();
        let started = Instant::now();
        loop {
            if let Some(found) = look(client) {
                return found;
            }
            assert!(!running.ended_within(Duration::from_millis(5)), "it ended before {what}");
            assert!(started.elapsed() < SOON, "not in time: {what}");
        }
    }

    /// Sends events, all of which are to be accepted.
    pub fn send(&mut self, events: &[Value]) {
        let reply = self.client.post("/v1/events?source=events", &json!(events)).expect(202);
        assert_eq!(reply["accepted"], events.len(), "{reply}");
    }

    pub fn stock(&mut self, products: &[(&str, &str, bool)]) {
        let of = |(sku, category, available): &(&str, &str, bool)| json!({"sku": sku, "category": category, "inStock": available});
        let records: Vec<Value> = products.iter().map(of).collect();
        self.client.post("/v1/events?source=products", &json!(records)).expect(202);
    }

    pub fn decide(&mut self, user: Option<&str>) -> Value {
        self.client.post("/v1/decisions", &request(user)).expect(200)
    }

    /// Has the worker take notice of so many items and of these users' consent.
    pub fn ready(&mut self, items: usize, users: &[&str]) {
        for user in users {
            self.send(&[consent(user, now_ms(), true)]);
        }
        self.until("the shelves are filled", |client| {
            let answer = client.post("/v1/decisions", &json!({"placement": "home", "count": 3}));
            (answer.expect(200)["items"].as_array()?.len() == items.min(3)).then_some(())
        });
        for user in users {
            self.until("consent is known", |client| {
                let answer = client.post("/v1/decisions", &request(Some(user))).expect(200);
                (answer["reason"] != "noConsent" && answer["reason"] != "notReady").then_some(())
            });
        }
    }
}

pub fn request(user: Option<&str>) -> Value {
    match user {
        Some(user) => json!({"user": user, "placement": "home", "platform": "web", "session": "s1", "explain": true}),
        None => json!({"placement": "home", "platform": "web"}),
    }
}

pub fn consent(user: &str, ts: i64, granted: bool) -> Value {
    json!({"type": "consent", "ts": ts, "customerId": user, "personalization": granted})
}

pub fn click(user: &str, ts: i64, sku: &str, decision: Option<&str>) -> Value {
    json!({"type": "click", "id": format!("c-{user}-{ts}-{sku}"), "ts": ts, "customerId": user, "client": "web",
        "sessionId": "s1", "sku": sku, "decision": decision})
}

/// The first `exposed` items of an answer were seen.
pub fn shown(user: &str, ts: i64, answer: &Value, exposed: usize) -> Value {
    let items = answer["items"].as_array().unwrap();
    let shown: Vec<Value> =
        items.iter().take(exposed).map(|item| json!({"sku": item["id"], "pos": item["position"]})).collect();
    json!({"type": "shown", "id": format!("v-{}", answer["decision"].as_str().unwrap()), "ts": ts, "customerId": user,
        "client": "web", "sessionId": "s1", "slot": "home", "decision": answer["decision"], "shown": shown})
}

/// A feature of the first item of an explained answer.
pub fn value(answer: &Value, feature: &str) -> Value {
    answer["items"][0]["values"]["ctr"][feature].clone()
}
