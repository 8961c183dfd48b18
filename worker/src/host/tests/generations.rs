//! A changed mapping: each record is read under one generation, whoever died in between.

use std::io::Write;

use super::*;
use crate::{
    host::make::{ingest_task, model_task, profile_task},
    store::checkpoint,
};

/// Who is the user, and what a click is.
fn pipeline(user: &str, click: &str, drop: &str) -> String {
    PIPELINE
        .replace("user: {field: user}", &format!("user: {{field: {user}}}"))
        .replace("consent: {event: consent, grantedIf: {ok: true}}", "consent: {assumed: \"a test\"}")
        .replace("    - {name: consent, when: {type: consent}}\n", "")
        .replace("http: {partitions: 3}", "file: {path: events.jsonl}")
        .replace("maxOutOfOrderness: 1h", "maxOutOfOrderness: 1h, notAfter: \"1970-01-01T00:20:00Z\"")
        .replace("    eventId: {field: id, dedupWithin: 1d}\n", drop)
        .replace("when: {type: click}", &format!("when: {{{click}}}"))
}

fn first() -> String {
    pipeline("user", "type: click", "")
}
/// Other users, fewer clicks, and no bots.
fn second() -> String {
    pipeline("visitor", "type: click, kind: real", "    drop: [{bot: true}]\n")
}

struct Record(u64);

impl Record {
    fn line(&self) -> String {
        let Record(n) = self;
        let (kind, bot) = (if self.is_real() { "real" } else { "void" }, self.is_bot());
        let body = if self.is_click() { r#""type":"click","sku":"i1""# } else { r#""type":"shown","skus":["i1"]"# };
        let (user, visitor, ts) = (n % 31, n % 29, 1_000 + n * 100);
        format!(r#"{{"user":"u{user}","visitor":"v{visitor}","ts":{ts},"kind":"{kind}","bot":{bot},{body}}}"#)
    }
    fn is_click(&self) -> bool {
        self.0.is_multiple_of(3)
    }
    fn is_real(&self) -> bool {
        self.0.is_multiple_of(2)
    }
    fn is_bot(&self) -> bool {
        self.0.is_multiple_of(5)
    }
    fn is_of_second(&self) -> bool {
        !self.is_bot() && (!self.is_click() || self.is_real())
    }
}

impl World {
    /// Appends records to the only file.
    fn write(&self, records: std::ops::Range<u64>) {
        let path = self.folder.path().join("events.jsonl");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        records.for_each(|n| writeln!(file, "{}", Record(n).line()).unwrap());
    }

    /// Runs to the end, and leaves the store as if that had died with its last checkpoint where it is now.
    fn run_and_die(&mut self, seed: u64) -> Left {
        let before = self.store.objects().clone();
        let left = self.run(seed);
        *self.store.objects() = before;
        for task in [ingest_task("shop", 0), profile_task(0), profile_task(1), model_task("ctr")] {
            checkpoint::claim(self.store.as_ref(), &task, &claimant()).unwrap();
        }
        left
    }

    /// What the file's task is known to have switched to.
    fn generation_saved(&self) -> u32 {
        let task = ingest_task("shop", 0);
        let (manifest, _) = checkpoint::read_manifest(self.store.as_ref(), &task).unwrap().unwrap();
        manifest.checkpoints.iter().take(2).map(|checkpoint| checkpoint.position.generation).min().unwrap()
    }
}

fn of_second(records: std::ops::Range<u64>) -> u64 {
    records.filter(|n| Record(*n).is_of_second()).count() as u64
}

#[test]
fn what_a_dead_owner_has_told_is_read_again_as_it_was() {
    let mut world = World::new(&first());
    world.write(0..300);
    world.run_until(100, 1);
    assert_eq!(world.run_and_die(2).accepted, 300);
    world.change(&second());
    world.write(300..400);
    // The file's end is read after the restart: whatever is there by then may have been told.
    assert_eq!(world.run(3).accepted, 400);
    assert_eq!(world.generation_saved(), 2);
    world.write(400..600);
    let all = 400 + of_second(400..600);
    assert_eq!(world.run(4).accepted, all);
    world.change(&first());
    world.write(600..700);
    assert_eq!(world.run(5).accepted, all + 100, "after a stop in good order the change counts at once");
}

#[test]
fn a_second_crash_and_a_second_change_keep_the_first_switch() {
    let mut world = World::new(&first());
    world.write(0..300);
    world.run_until(100, 1);
    world.run_and_die(2);
    world.change(&second());
    // It stops with the switch saved, at the end of these.
    world.run(3);
    world.write(300..500);
    let told = 300 + of_second(300..500);
    assert_eq!(world.run_and_die(4).accepted, told);
    world.change(&first());
    assert_eq!(world.run(5).accepted, told, "none again, none missing");
    world.write(500..550);
    assert_eq!(world.run(6).accepted, told + 50);
}

fn of_all_files(yaml: String) -> String {
    yaml.replace("events.jsonl", "\"*.jsonl\"")
}

#[test]
fn a_file_that_is_new_is_read_under_the_newest_generation() {
    let mut world = World::new(&of_all_files(first()));
    world.write(0..10);
    world.run(1);
    world.change(&of_all_files(second()));
    let lines: Vec<String> = (10..60).map(|n| Record(n).line()).collect();
    fs::write(world.folder.path().join("more.jsonl"), lines.join("\n")).unwrap();
    assert_eq!(world.run(2).accepted, 10 + of_second(10..60));
}
