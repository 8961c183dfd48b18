//! How long taking a checkpoint stops a profile task of about 1 GB of rows, at once and little by little.
//!
//! `cargo run --release -p millrace-engine --example bench_checkpoint [USERS [JOINS]]`. The mix's features and model: 4 M
//! users of 258 bytes, 200,000 open joins. A base, then 100,000 changed rows and their delta, each in one go and in slices of
//! 256 rows, between which events are applied. Times are of the clock: a stop is a stop. Beside it the weights of models of
//! 2^22 and 2^24 weights, all of them used, in one go.
#![allow(clippy::disallowed_types, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_crds::spec;
use millrace_engine::{
    checkpoint::Extent,
    event::{Event, Seq, Time},
    feature::mix,
    frame::{
        Kind, Origin, Progress,
        outbox::{Handle, Outbox},
    },
    learn::ftrl::{Entry, Ftrl},
    plan::Plan,
    profile::{Profile, Slice},
};

const USERS: u64 = 4_000_000;
const JOINS: u64 = 200_000;
const CHANGED: u64 = 100_000;
const SLICE_ROWS: usize = 256;
const FRAME_BYTES: usize = 64 << 10;
/// Applied between two slices.
const RECORDS: usize = 64;

struct Task {
    events: mix::Events,
    source: Outbox,
    to_events: Handle,
    profile: Profile,
    outbox: Outbox,
    handle: Handle,
    offset: u64,
}

impl Task {
    fn new(plan: &Arc<Plan>, users: u64) -> Self {
        let mut source = Outbox::new(1, &[Kind::Events]);
        let to_events = source.register(Origin::of_source(0, 0), 1, Seq::START, &[0]);
        let mut outbox = Outbox::new(1, &[Kind::Examples, Kind::DeadLetters]);
        let handle = outbox.register(Origin::of_profile(0), 1, Seq::START, &[0, 1]);
        let profile = Profile::new(plan.clone(), &[Origin::of_source(0, 0)]);
        Self { events: mix::Events::new(users, &plan.names), source, to_events, profile, outbox, handle, offset: 0 }
    }

    fn write(&mut self, user: u64) {
        let mut record = Vec::new();
        self.events.write_of(user, &mut record);
        let head = Event::read(&record[4..]).expect("as written").head;
        self.source.record(&self.to_events, 0, |out| out.extend_from_slice(&record));
        let progress = Progress { watermark: Time(head.time.0 - 1), highest: head.time, ..Progress::default() };
        self.source.advance(&self.to_events, head.seq, progress);
    }

    /// The longest drain of a few records.
    fn apply(&mut self) -> Duration {
        let Some(frame) = self.source.cut(0) else { return Duration::ZERO };
        self.offset += 1;
        self.profile.accept(self.offset, &frame.into(), &mut self.outbox, &self.handle).expect("in order");
        let mut longest = Duration::ZERO;
        loop {
            let start = Instant::now();
            let is_done = self.profile.drain(RECORDS, &mut self.outbox, &self.handle).expect("as written");
            longest = longest.max(start.elapsed());
            for output in 0..2 {
                std::hint::black_box(self.outbox.cut(output));
            }
            if is_done {
                return longest;
            }
        }
    }

    fn fill(&mut self, users: impl Iterator<Item = u64>) {
        for user in users {
            self.write(user);
            if self.source.waiting_bytes(0) >= FRAME_BYTES {
                self.apply();
            }
        }
        self.apply();
    }

    fn at_once(&mut self, extent: Extent) -> Vec<u8> {
        let start = Instant::now();
        let bytes = self.profile.checkpoint(extent);
        println!("  {extent:?} in one go: {} bytes, a stop of {:.1} ms", bytes.len(), ms(start.elapsed()));
        bytes
    }

    /// Between two slices, events of users `from` on are applied.
    fn in_slices(&mut self, extent: Extent, users: u64) -> Vec<u8> {
        let begin = Instant::now();
        self.profile.begin_checkpoint(extent);
        let (begun, mut encoding) = (begin.elapsed(), begin.elapsed());
        let (mut longest, mut slices, mut longest_drain, mut events) = (Duration::ZERO, 0, Duration::ZERO, 0u64);
        let bytes = loop {
            let start = Instant::now();
            let slice = self.profile.continue_checkpoint(SLICE_ROWS);
            let took = start.elapsed();
            (longest, encoding, slices) = (longest.max(took), encoding + took, slices + 1);
            match slice {
                Slice::More => {}
                Slice::Done { bytes, .. } => break bytes,
                Slice::Cancelled => panic!("nothing was erased"),
            }
            for _ in 0..RECORDS {
                events += 1;
                self.write(events.wrapping_mul(0x9e37_79b9_7f4a_7c15) % users);
            }
            longest_drain = longest_drain.max(self.apply());
        };
        println!(
            "  {extent:?} in slices: {} bytes; begin {:.1} ms, longest of {slices} slices {:.2} ms, encoding {:.0} ms of {:.0}; \
             {events} events meanwhile, longest drain of {RECORDS} {:.2} ms",
            bytes.len(),
            ms(begun),
            ms(longest),
            ms(encoding),
            ms(begin.elapsed()),
            ms(longest_drain)
        );
        bytes
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn weights(bits: u32) {
    let settings = spec::Ftrl { alpha: 0.1, beta: 1.0, l1: 0.0, l2: 0.0, bits, half_life_examples: None };
    let (mut ftrl, mut scratch) = (Ftrl::new(&settings), Vec::new());
    let mut learn = |ftrl: &mut Ftrl, indices: &mut dyn Iterator<Item = u64>| {
        let entries: Vec<Entry> = indices.map(|index| Entry { index: index as u32, value: 1.0 }).collect();
        ftrl.margin(&entries, &mut scratch);
        ftrl.learn(&entries, &scratch, 0.5);
    };
    (0..1u64 << bits).step_by(64).for_each(|from| learn(&mut ftrl, &mut (from..from + 64)));
    let encode = |ftrl: &mut Ftrl, changes_only| {
        let (start, mut out) = (Instant::now(), Vec::new());
        ftrl.encode(&mut out, changes_only);
        ftrl.mark_clean();
        (out.len(), ms(start.elapsed()))
    };
    let (base_bytes, base_ms) = encode(&mut ftrl, false);
    for n in 0..CHANGED / 20 {
        let random = |i: u64| (n * 20 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits);
        learn(&mut ftrl, &mut (0..20).map(random));
    }
    let (delta_bytes, delta_ms) = encode(&mut ftrl, true);
    println!(
        "2^{bits} weights in one go: base {base_bytes} bytes, {base_ms:.1} ms; {CHANGED} changed weights {delta_bytes} bytes, {delta_ms:.1} ms"
    );
}

fn main() {
    let argument = |n| std::env::args().nth(n).and_then(|text| text.parse::<u64>().ok());
    let (users, joins) = (argument(1).unwrap_or(USERS), argument(2).unwrap_or(JOINS));
    let mut spec = mix::spec().expect("the mix is right");
    // A hundred events a second, 60 % of which open a join.
    let within = format!("{}s", joins / 60);
    spec.outcomes = serde_json::from_value(serde_json::json!({
        "click": {"event": "click", "join": "item", "within": within}
    }))
    .expect("as the spec has it");
    let plan = Arc::new(Plan::compile(&spec).expect("compiles"));
    let mut task = Task::new(&plan, users);
    task.fill(0..users);
    let memory = task.profile.users().memory_bytes();
    println!("{users} users, {} bytes in memory, {} open joins", memory, task.profile.open_joins());
    task.at_once(Extent::Base);
    let digest = task.profile.digest();
    let base = task.in_slices(Extent::Base, users);
    let restored = Profile::restore(plan.clone(), &[&base]).expect("as written").digest();
    assert_eq!(restored, digest, "restored, the checkpoint is the task as it was when it began");
    drop(base);
    let changed = |n: u64| (n..n + CHANGED).map(|n| n * 31 % users);
    for n in 0..2 {
        task.fill(changed(n * 7));
        task.at_once(Extent::Changes);
        task.fill(changed(n * 11));
        task.in_slices(Extent::Changes, users);
    }
    drop(task);
    [22, 24].into_iter().for_each(weights);
}
