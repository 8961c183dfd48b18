//! A trace of a shop's events with everything in it that goes wrong: the same bytes for the same configuration.
//!
//! Two sources: `shop` (JSON lines, several files, every third one gzipped) and `tills` (one CSV file). Users browse in
//! sessions: impressions of several items, clicks, cart adds, orders. Among them: grants and withdrawals of consent (on
//! time, late, from the future), users without consent, records without a user, client retries (in the same or another
//! file, within and beyond the dedup window), late and future events, events out of order within bounds, records of
//! version 1 and of a version nobody knows, unknown types, bots, and broken records of twelve kinds. Every identity (of
//! users, sessions, decisions, baskets, events) contains [`MARK`].
//!
//! So that the trace means one thing only: no grant follows a withdrawal within four hours (retries come sooner), and no
//! future event stands among the first records of a file.

use std::{
    fs, io,
    io::{BufWriter, Write},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};

use crate::rng::Rng;

/// Part of every raw identity; no byte that the pipeline writes may hold it.
pub const MARK: &str = "IDMARK";

/// The pipeline that reads a trace; sources are relative to it.
pub const PIPELINE: &str = include_str!("trace-pipeline.yaml");
const KEYS: &str = include_str!("trace-keys.txt");

const START_MS: i64 = 1_772_000_000_000;
const SESSIONS: usize = 200;
const ITEMS: u64 = 400;
const HOUR_MS: i64 = 3_600_000;
/// So many records wait to be sent again.
const RETRIES: usize = 500;

/// What to generate.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    pub seed: u64,
    /// Records, of all sources together.
    pub events: u64,
    /// Files of the source `shop`; `tills` is one more.
    pub partitions: usize,
    pub users: u64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { seed: 1, events: 1_000_000, partitions: 4, users: 20_000 }
    }
}

/// Writes `pipeline.yaml`, `keys.txt`, `shop/` and `tills/` into `dir`.
pub fn write_trace(dir: &Path, config: &TraceConfig) -> io::Result<()> {
    fs::create_dir_all(dir.join("shop"))?;
    fs::create_dir_all(dir.join("tills"))?;
    fs::write(dir.join("pipeline.yaml"), PIPELINE)?;
    fs::write(dir.join("keys.txt"), KEYS)?;
    let mut files = Vec::new();
    for n in 0..config.partitions {
        files.push(Sink::shop(dir, n)?);
    }
    let mut tills = BufWriter::new(fs::File::create(dir.join("tills/till.csv"))?);
    writeln!(tills, "time,receipt,user.id,kind,sku,category,amount")?;
    let mut shop = Shop::new(config);
    let mut records = Vec::new();
    for n in 0..config.events {
        shop.step(n, &mut records);
        for Record { to, bytes } in records.drain(..) {
            let line = match to {
                To::Shop(partition) => files[partition].out(),
                To::Tills => &mut tills as &mut dyn Write,
            };
            line.write_all(&bytes)?;
            line.write_all(b"\n")?;
        }
    }
    tills.flush()?;
    files.into_iter().try_for_each(Sink::finish)
}

enum Sink {
    Plain(BufWriter<fs::File>),
    Gzip(GzEncoder<BufWriter<fs::File>>),
}

impl Sink {
    fn shop(dir: &Path, n: usize) -> io::Result<Self> {
        let gzip = n % 3 == 1;
        let name = format!("shop/part-{n:02}.jsonl{}", if gzip { ".gz" } else { "" });
        let file = BufWriter::new(fs::File::create(dir.join(name))?);
        Ok(if gzip { Self::Gzip(GzEncoder::new(file, Compression::fast())) } else { Self::Plain(file) })
    }
    fn out(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(file) => file,
        }
    }
    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Gzip(file) => file.finish()?.flush(),
        }
    }
}

#[derive(Clone, Copy)]
enum To {
    Shop(usize),
    Tills,
}

struct Record {
    to: To,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct User {
    /// Arrival time of the standing grant.
    granted: Option<i64>,
    /// No grant before this arrival time.
    not_before: i64,
}

struct Session {
    user: u64,
    id: String,
    client: &'static str,
    version: u64,
    /// Decision id and items of the last impression.
    shown: Option<(String, Vec<u64>)>,
    cart: Vec<u64>,
    left: u64,
}

struct Shop {
    rng: Rng,
    now_ms: i64,
    next_night_ms: i64,
    partitions: usize,
    users: Vec<User>,
    sessions: Vec<Session>,
    /// Sent records that a client may send again: arrival time, where to, record.
    sent: Vec<(i64, usize, Value)>,
    next_id: u64,
}

impl Shop {
    fn new(config: &TraceConfig) -> Self {
        let mut shop = Self {
            rng: Rng::new(config.seed),
            now_ms: START_MS,
            next_night_ms: START_MS + 6 * HOUR_MS,
            partitions: config.partitions.max(1),
            users: vec![User { granted: None, not_before: 0 }; config.users.max(1) as usize],
            sessions: Vec::new(),
            sent: Vec::new(),
            next_id: 0,
        };
        shop.sessions = (0..SESSIONS).map(|_| shop.session()).collect();
        shop
    }

    /// Appends the records of one step: one, or two when a user agrees at the start of a session.
    fn step(&mut self, n: u64, out: &mut Vec<Record>) {
        self.now_ms += self.rng.below(518) as i64;
        if self.now_ms > self.next_night_ms {
            self.now_ms += 8 * HOUR_MS;
            self.next_night_ms = self.now_ms + 6 * HOUR_MS;
        }
        let settled = n > 2_000;
        match self.rng.below(1_000) {
            0..=14 => self.broken(n, out),
            15..=24 => self.without_user(out),
            25..=34 => self.skipped(out),
            35..=44 => self.consent_change(settled, out),
            45..=59 => self.retry(out),
            60..=64 if settled => self.future(out),
            65..=94 => self.till(out),
            _ => self.browse(out),
        }
        if n == 1_000 {
            self.huge(out);
        }
    }

    fn id(&mut self, kind: &str) -> String {
        self.next_id += 1;
        format!("{MARK}-{kind}{}", self.next_id)
    }

    fn session(&mut self) -> Session {
        let user = self.rng.below(self.users.len() as u64);
        let client = ["web", "ios", "android", "tv"][self.rng.below(4) as usize];
        let version = if self.rng.per_mille(100) { 1 } else { 2 + u64::from(self.rng.per_mille(20)) };
        let left = self.rng.range(3, 30);
        Session { user, id: self.id("s"), client, version, shown: None, cart: Vec::new(), left }
    }

    /// Mostly the user's own partition, sometimes any.
    fn partition(&mut self, user: u64) -> usize {
        let n = if self.rng.per_mille(800) { user } else { self.rng.next_u64() };
        (n % self.partitions as u64) as usize
    }

    /// Event time of something that arrives now: a little out of order, or late.
    fn time(&mut self) -> i64 {
        let behind = if self.rng.per_mille(15) { self.rng.range(60_000, 1_800_000) } else { self.rng.below(31_000) };
        self.now_ms - behind as i64
    }

    fn head(&mut self, kind: &str, ts: i64, user: u64) -> Map<String, Value> {
        let id = self.id("e");
        let mut record = Map::new();
        record.insert("type".into(), json!(kind));
        record.insert("ts".into(), json!(ts));
        record.insert("id".into(), json!(id));
        record.insert("user".into(), json!({"id": user_id(user), "email": format!("{MARK}-{user}@example.com")}));
        record
    }

    fn send(&mut self, partition: usize, record: Value, out: &mut Vec<Record>) {
        out.push(Record { to: To::Shop(partition), bytes: record.to_string().into_bytes() });
        if self.rng.per_mille(100) {
            let kept = (self.now_ms, partition, record);
            match self.sent.len() {
                0..RETRIES => self.sent.push(kept),
                len => self.sent[self.rng.below(len as u64) as usize] = kept,
            }
        }
    }

    /// One event of a session; 85 % of users agree when they first come (again).
    fn browse(&mut self, out: &mut Vec<Record>) {
        let at = self.rng.below(self.sessions.len() as u64) as usize;
        let fresh = self.session();
        let slot = &mut self.sessions[at];
        if slot.left == 0 {
            *slot = fresh;
        }
        slot.left -= 1;
        let user = slot.user;
        let known = self.users[user as usize];
        if known.granted.is_none() && known.not_before <= self.now_ms && user % 100 < 85 {
            self.consent(user, self.now_ms, true, out);
            self.users[user as usize].granted = Some(self.now_ms);
        }
        let action = self.rng.below(100);
        let (has_shown, has_cart) = (self.sessions[at].shown.is_some(), !self.sessions[at].cart.is_empty());
        let ts = self.time();
        let record = match action {
            0..=34 => self.view(at, ts),
            35..=69 if has_shown => self.click(at, ts),
            70..=87 if has_shown => self.add(at, ts),
            88.. if has_cart => self.order(at, ts),
            _ => self.view(at, ts),
        };
        let partition = self.partition(user);
        self.send(partition, record, out);
    }

    fn in_session(&mut self, at: usize, kind: &str, ts: i64) -> Map<String, Value> {
        let mut record = self.head(kind, ts, self.sessions[at].user);
        let session = &self.sessions[at];
        record.insert("v".into(), json!(session.version));
        record.insert("session".into(), json!(session.id));
        record.insert("client".into(), json!(session.client));
        if session.user.is_multiple_of(3) {
            record.insert("locale".into(), json!(["de", "en", "fr"][(session.user / 3 % 3) as usize]));
        }
        record
    }

    fn view(&mut self, at: usize, ts: i64) -> Value {
        let decision = self.id("d");
        let items: Vec<u64> = (0..self.rng.range(1, 5)).map(|_| self.rng.below(ITEMS)).collect();
        let mut record = self.in_session(at, "view", ts);
        let version_1 = self.sessions[at].version == 1;
        let slot = if ts % 3 == 0 { "search" } else { "home" };
        let keys =
            if version_1 { ["code", "slot", "p", "cat", "cost"] } else { ["sku", "pos", "prop", "category", "price"] };
        let shown: Vec<Value> = items
            .iter()
            .enumerate()
            .map(|(n, item)| {
                json!({keys[0]: sku(*item), keys[1]: n + 1, keys[2]: 1.0 / (n as f64 + 2.0), keys[3]: category(*item), keys[4]: price(*item)})
            })
            .collect();
        if version_1 {
            record.insert("place".into(), json!(slot));
            record.insert("dec".into(), json!(decision));
            record.insert("list".into(), json!(shown));
        } else {
            record.insert("page".into(), json!({"slot": slot}));
            record.insert("decision".into(), json!(decision));
            record.insert("shown".into(), json!(shown));
        }
        self.sessions[at].shown = Some((decision, items));
        record.into()
    }

    fn click(&mut self, at: usize, ts: i64) -> Value {
        let (decision, items) = self.sessions[at].shown.clone().unwrap_or_default();
        let item = self.favourite(&items);
        let mut record = self.in_session(at, "click", ts);
        let version_1 = self.sessions[at].version == 1;
        let keys = if version_1 { ["code", "cat", "cost", "dec"] } else { ["sku", "category", "price", "decision"] };
        record.insert(keys[0].into(), json!(sku(item)));
        record.insert(keys[1].into(), json!(category(item)));
        record.insert(keys[2].into(), json!(price(item)));
        if self.rng.per_mille(800) {
            record.insert(keys[3].into(), json!(decision));
        }
        record.into()
    }

    /// Cheap items of the first category are liked best, so that there is something to learn.
    fn favourite(&mut self, items: &[u64]) -> u64 {
        let liked: Vec<u64> = items.iter().copied().filter(|item| item % 7 == 0).collect();
        let from = if liked.is_empty() || self.rng.per_mille(300) { items } else { &liked };
        self.rng.pick(from).copied().unwrap_or_default()
    }

    fn add(&mut self, at: usize, ts: i64) -> Value {
        let items = self.sessions[at].shown.clone().unwrap_or_default().1;
        let item = self.favourite(&items);
        let kind = if self.rng.per_mille(100) { "readd" } else { "add" };
        let mut record = self.in_session(at, kind, ts);
        record.insert("sku".into(), json!(sku(item)));
        record.insert("category".into(), json!(category(item)));
        record.insert("price".into(), json!(price(item)));
        self.sessions[at].cart.push(item);
        record.into()
    }

    fn order(&mut self, at: usize, ts: i64) -> Value {
        let cart = std::mem::take(&mut self.sessions[at].cart);
        let lines: Vec<Value> = cart
            .iter()
            .map(|item| json!({"sku": sku(*item), "qty": 1 + item % 3, "price": price(*item), "category": category(*item)}))
            .collect();
        let mut record = self.in_session(at, "order", ts);
        record.insert("orderId".into(), json!(self.id("o")));
        record.insert("total".into(), json!(cart.iter().map(|item| price(*item)).sum::<f64>()));
        record.insert("lines".into(), json!(lines));
        record.insert("big".into(), json!(cart.len() > 2));
        record.into()
    }

    fn consent(&mut self, user: u64, ts: i64, granted: bool, out: &mut Vec<Record>) {
        let mut record = self.head("consent", ts, user);
        record.insert("personalization".into(), json!(granted));
        let partition = self.partition(user);
        out.push(Record { to: To::Shop(partition), bytes: Value::from(record).to_string().into_bytes() });
    }

    fn consent_change(&mut self, settled: bool, out: &mut Vec<Record>) {
        let at = self.rng.below(self.sessions.len() as u64) as usize;
        let user = self.sessions[at].user;
        let kind = self.rng.below(10);
        let Some(granted) = self.users[user as usize].granted else {
            // Grants that must not count: late, or from the future.
            match kind {
                0..=4 if settled => self.consent(user, self.now_ms - HOUR_MS, true, out),
                5..=6 if settled => self.consent(user, START_MS + 9_000 * HOUR_MS, true, out),
                _ => self.browse(out),
            }
            return;
        };
        let ts = match kind {
            0..=2 if settled => self.now_ms - self.rng.range(60_000, 7_200_000) as i64,
            3 if settled => START_MS + 9_000 * HOUR_MS,
            // Stated before the standing grant: when that makes it late, the grant stands.
            4..=5 => granted - 60_000,
            _ => self.now_ms,
        };
        self.consent(user, ts, false, out);
        self.users[user as usize] = User { granted: None, not_before: self.now_ms + 4 * HOUR_MS };
    }

    /// The same bytes again, some seconds or hours later, in the same or another file; sometimes with a new time.
    fn retry(&mut self, out: &mut Vec<Record>) {
        if self.sent.is_empty() {
            return self.browse(out);
        }
        let at = self.rng.below(self.sent.len() as u64) as usize;
        let (sent_ms, mut partition, mut record) = self.sent.swap_remove(at);
        if self.now_ms - sent_ms > 3 * HOUR_MS {
            return self.browse(out);
        }
        if self.rng.per_mille(500) {
            partition = (partition + 1) % self.partitions;
        }
        if self.rng.per_mille(600) {
            record["ts"] = json!(self.now_ms);
        }
        out.push(Record { to: To::Shop(partition), bytes: record.to_string().into_bytes() });
    }

    fn future(&mut self, out: &mut Vec<Record>) {
        let at = self.rng.below(self.sessions.len() as u64) as usize;
        let ts = if self.rng.per_mille(500) { 253_402_300_799_000 } else { START_MS + 9_000 * HOUR_MS };
        let shown = self.sessions[at].shown.clone();
        let record = self.view(at, ts);
        self.sessions[at].shown = shown;
        let partition = self.partition(at as u64);
        self.send(partition, record, out);
    }

    /// Not logged in.
    fn without_user(&mut self, out: &mut Vec<Record>) {
        let ts = self.now_ms;
        let at = self.rng.below(self.sessions.len() as u64) as usize;
        let shown = self.sessions[at].shown.clone();
        let mut record = self.view(at, ts);
        self.sessions[at].shown = shown;
        record["user"] = if self.rng.per_mille(500) { Value::Null } else { json!({"id": null}) };
        let partition = self.partition(at as u64);
        self.send(partition, record, out);
    }

    /// Bots and types that nobody knows.
    fn skipped(&mut self, out: &mut Vec<Record>) {
        let at = self.rng.below(self.sessions.len() as u64) as usize;
        let mut record = self.in_session(at, "ping", self.now_ms);
        if self.rng.per_mille(500) {
            record.insert("type".into(), json!("view"));
            record.insert("bot".into(), json!(true));
        }
        let partition = self.partition(at as u64);
        self.send(partition, record.into(), out);
    }

    /// A sale at the till of a shop, mostly of something that was shown before.
    fn till(&mut self, out: &mut Vec<Record>) {
        let at = self.rng.below(self.sessions.len() as u64) as usize;
        let items = self.sessions[at].shown.clone().map_or_else(|| vec![3], |(_, items)| items);
        let item = self.favourite(&items);
        let behind = if self.rng.per_mille(20) { self.rng.range(300_000, 900_000) } else { self.rng.below(125_000) };
        let time = rfc3339(self.now_ms - behind as i64);
        let kind = if self.rng.per_mille(50) { "refund" } else { "sale" };
        let time = if self.rng.per_mille(10) { format!("the day of {MARK}") } else { time };
        let receipt = self.id("r");
        let user = user_id(self.sessions[at].user);
        let line = format!("{time},{receipt},{user},{kind},{},{},{}", sku(item), category(item), price(item));
        if self.rng.per_mille(20) {
            out.push(Record { to: To::Tills, bytes: line.clone().into_bytes() });
        }
        out.push(Record { to: To::Tills, bytes: line.into_bytes() });
    }

    fn broken(&mut self, n: u64, out: &mut Vec<Record>) {
        let at = self.rng.below(self.sessions.len() as u64) as usize;
        let shown = self.sessions[at].shown.clone();
        let mut record = self.view(at, self.now_ms);
        self.sessions[at].shown = shown;
        let text = record.to_string();
        let bytes = match n % 12 {
            0 => text.as_bytes()[..text.len() / 2].to_vec(),
            1 => self.garbage(),
            2 => with(&mut record, "ts", json!("yesterday")),
            3 => with(&mut record, "ts", Value::Null),
            4 => format!("[1, \"{MARK}\", {{}}]").into_bytes(),
            5 => text.replacen("\"ts\":", "\"ts\":NaN, \"was\":", 1).into_bytes(),
            6 => with(&mut record, "ts", json!(-62_135_596_800_000_i64)),
            7 => format!("{{\"type\":\"view\",\"{MARK}-key\":{}", "[".repeat(if n < 20_000 { 100_000 } else { 1_000 }))
                .into_bytes(),
            8 => text.replacen("\"ts\":", "\"ts\":1e300, \"was\":", 1).into_bytes(),
            9 => with(&mut record, "user", json!([MARK])),
            10 => with(&mut record, "id", json!("")),
            _ => with(&mut record, "ts", json!([MARK])),
        };
        let partition = self.partition(at as u64);
        out.push(Record { to: To::Shop(partition), bytes });
    }

    /// Bytes that are neither UTF-8 nor a line's end, with an identity among them.
    fn garbage(&mut self) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..40).map(|_| 0x80 | self.rng.below(128) as u8).collect();
        bytes.extend_from_slice(MARK.as_bytes());
        bytes
    }

    /// One record of 10 MB, whose time is wrong as well.
    fn huge(&mut self, out: &mut Vec<Record>) {
        let bytes =
            format!("{{\"type\":\"view\",\"ts\":\"never\",\"blob\":\"{}\"}}", MARK.repeat(10_000_000 / MARK.len()));
        out.push(Record { to: To::Shop(0), bytes: bytes.into_bytes() });
    }
}

fn with(record: &mut Value, field: &str, value: Value) -> Vec<u8> {
    record[field] = value;
    record.to_string().into_bytes()
}

/// A user's raw id.
pub fn user_id(user: u64) -> String {
    format!("{MARK}-u{user:06}")
}

fn sku(item: u64) -> String {
    format!("p{item}")
}

fn category(item: u64) -> String {
    format!("c{}", item % 7)
}

fn price(item: u64) -> f64 {
    (item % 50) as f64 + 0.5
}

/// Milliseconds since 1970 as RFC 3339 in UTC (Hinnant's civil_from_days).
fn rfc3339(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s, ms) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }
}
