//! The whole profile task on one thread: frames from memory in, examples out, with the fixed mix of 20 features.
//!
//! `cargo run --release -p millrace-engine --example bench_profile [ROUNDS [USERS]]`. Eight tasks take turns: 100,000 and 2 M
//! users, each with the mix's model (impressions open joins, clicks label them, every impression becomes an example),
//! without it, with it and the event ids of the last hour, and with it and a placement, an experiment and what was
//! bought. Times are this thread's on the CPU (Linux), so that a busy machine distorts them less. With USERS, one size only,
//! to look into with a profiler.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]

use std::sync::Arc;

use millrace_engine::{
    event::{Event, Seq, Time},
    feature::mix,
    frame::{
        Kind, Origin, Progress,
        outbox::{Handle, Outbox},
    },
    plan::Plan,
    profile::Profile,
};

const USERS: [u64; 2] = [100_000, 2_000_000];
const EVENTS_PER_ROUND: u64 = 200_000;
/// As the worker cuts them.
const FRAME_BYTES: usize = 64 << 10;
const PLACEMENTS: &str = r#"[{"name": "home", "candidates": {"fromRequest": 100}, "slots": 5, "default": "RequestOrder",
    "exclude": {"boughtWithin": "30d"}}]"#;
const EXPERIMENTS: &str = r#"[{"name": "test", "placements": ["home"], "metrics": ["ctr"], "variants": {
    "control": {"weight": 1, "policy": "RequestOrder"}, "other": {"weight": 1, "policy": "RequestOrder"}}}]"#;
/// As the worker drains.
const DRAIN_BUDGET: usize = 512;
/// How far watermarks lie behind: about a hundred events.
const OUT_OF_ORDERNESS_MICROS: i64 = 1_000_000;

/// What ingest does: events into frames.
struct Source {
    events: mix::Events,
    outbox: Outbox,
    handle: Handle,
}

impl Source {
    fn new(events: mix::Events) -> Self {
        let mut outbox = Outbox::new(1, &[Kind::Events]);
        let handle = outbox.register(Origin::of_source(0, 0), 1, Seq::START, &[0]);
        Self { events, outbox, handle }
    }

    /// Frames of `n` events, of users drawn evenly.
    fn frames(&mut self, n: u64) -> Vec<Arc<[u8]>> {
        self.frames_of((0..n).map(|_| None))
    }

    /// Frames of an event of each of these users; of a random one where there is none.
    fn frames_of(&mut self, users: impl Iterator<Item = Option<u64>>) -> Vec<Arc<[u8]>> {
        let (mut frames, mut record) = (Vec::new(), Vec::new());
        for user in users {
            record.clear();
            match user {
                Some(user) => self.events.write_of(user, &mut record),
                None => self.events.write(&mut record),
            }
            let head = Event::read(&record[4..]).expect("as written").head;
            self.outbox.record(&self.handle, 0, |out| out.extend_from_slice(&record));
            let watermark = Time(head.time.0 - OUT_OF_ORDERNESS_MICROS);
            let progress = Progress { watermark, highest: head.time, ..Progress::default() };
            self.outbox.advance(&self.handle, head.seq, progress);
            if self.outbox.waiting_bytes(0) >= FRAME_BYTES {
                frames.extend(self.outbox.cut(0).map(Arc::from));
            }
        }
        frames.extend(self.outbox.cut(0).map(Arc::from));
        frames
    }
}

/// A profile task with its source and its outbox, whose frames are thrown away.
struct Task {
    name: &'static str,
    users: u64,
    source: Source,
    profile: Profile,
    outbox: Outbox,
    handle: Handle,
    offset: u64,
    outputs: usize,
    ns_per_event: Vec<f64>,
}

impl Task {
    fn new(plan: &Arc<Plan>, name: &'static str, users: u64) -> Self {
        let kinds: Vec<Kind> = plan.models.iter().map(|_| Kind::Examples).chain([Kind::DeadLetters]).collect();
        let mut outbox = Outbox::new(1, &kinds);
        let all: Vec<usize> = (0..kinds.len()).collect();
        let handle = outbox.register(Origin::of_profile(0), 1, Seq::START, &all);
        let profile = Profile::new(plan.clone(), &[Origin::of_source(0, 0)]);
        let events = mix::Events::new(users, &plan.names);
        let source = Source::new(if plan.dedupe_micros > 0 { events.with_ids() } else { events });
        let outputs = kinds.len();
        Self { name, users, source, profile, outbox, handle, offset: 0, outputs, ns_per_event: Vec::new() }
    }

    fn apply(&mut self, frames: &[Arc<[u8]>]) {
        for frame in frames {
            self.offset += 1;
            self.profile.accept(self.offset, frame, &mut self.outbox, &self.handle).expect("in order");
            while !self.profile.drain(DRAIN_BUDGET, &mut self.outbox, &self.handle).expect("as written") {}
            for output in 0..self.outputs {
                if self.outbox.waiting_bytes(output) >= FRAME_BYTES {
                    std::hint::black_box(self.outbox.cut(output));
                }
            }
        }
    }

    /// An event of every user, in parts: two million at once would be half a gigabyte of frames.
    fn fill(&mut self) {
        for from in (0..self.users).step_by(EVENTS_PER_ROUND as usize) {
            let part = from..self.users.min(from + EVENTS_PER_ROUND);
            let frames = self.source.frames_of(part.map(Some));
            self.apply(&frames);
        }
    }

    fn round(&mut self) {
        let frames = self.source.frames(EVENTS_PER_ROUND);
        let start = cpu_ns();
        self.apply(&frames);
        self.ns_per_event.push((cpu_ns() - start) as f64 / EVENTS_PER_ROUND as f64);
    }
}

fn cpu_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds on the CPU")
}

/// The median; the least and the greatest are printed beside it.
fn report(task: &mut Task) -> f64 {
    task.ns_per_event.sort_by(f64::total_cmp);
    let all = &task.ns_per_event;
    let (min, median, max) = (all[0], all[all.len() / 2], all[all.len() - 1]);
    let million_per_s = 1e3 / median;
    println!(
        "{:>9} users, {:<20} {median:6.0} ns an event (min {min:.0}, max {max:.0}): {million_per_s:.2} M events/s",
        task.users, task.name
    );
    median
}

fn main() {
    let argument = |n| std::env::args().nth(n).and_then(|text| text.parse::<u64>().ok());
    let rounds = argument(1).unwrap_or(11).max(1);
    let sizes = argument(2).map_or(USERS.to_vec(), |users| vec![users]);
    let whole = mix::spec().expect("the mix is right");
    let whole_features = whole.features.len();
    let mut without = whole.clone();
    without.models.clear();
    without.outcomes.clear();
    let mut with_ids = whole.clone();
    with_ids.sources[0].event_id =
        serde_json::from_str(r#"{"field": "id", "dedupWithin": "1h"}"#).expect("as the spec has it");
    let mut serving = whole.clone();
    serving.placements = serde_json::from_str(PLACEMENTS).expect("as the spec has it");
    serving.experiments = serde_json::from_str(EXPERIMENTS).expect("as the spec has it");
    let plans = [
        ("with model and joins", whole),
        ("features only", without),
        ("with event ids too", with_ids),
        ("with serving too", serving),
    ]
    .map(|(name, spec)| (name, Arc::new(Plan::compile(&spec).expect("compiles"))));
    println!("{} features, {} bytes of fixed cells a user", whole_features, plans[0].1.features.row_bytes());
    let mut tasks: Vec<Task> =
        plans.iter().flat_map(|(name, plan)| sizes.iter().map(|users| Task::new(plan, name, *users))).collect();
    tasks.iter_mut().for_each(Task::fill);
    for _ in 0..rounds {
        tasks.iter_mut().for_each(Task::round);
    }
    for of_plan in tasks.chunks_mut(sizes.len()) {
        let medians: Vec<f64> = of_plan.iter_mut().map(report).collect();
        if let [few, many] = medians[..] {
            println!("          2 M users are {:.2} times slower an event than 100,000", many / few);
        }
    }
    for task in tasks.iter_mut().filter(|task| task.name == "with serving too") {
        let (views, start) = (100_000, cpu_ns());
        let mut overlaid = 0;
        for user in 0..views {
            let view = task.profile.view(mix::Events::pseudonym(user % task.users));
            overlaid += u64::from(std::hint::black_box(view).row.is_some());
        }
        let ns = (cpu_ns() - start) as f64 / views as f64;
        println!("{:>9} users: {ns:.0} ns a view, {overlaid} of {views} with a row", task.users);
    }
    for task in &mut tasks {
        let users = task.profile.users();
        let memory = users.memory_bytes() / users.len();
        let (open, accepted) = (task.profile.open_joins(), task.profile.counts().accepted);
        let digest = task.profile.digest();
        println!(
            "{:>9} users, {:<20} {accepted} events, {open} open joins, {memory} bytes a user in all, digest {digest:032x}",
            task.users, task.name
        );
    }
}
