//! Catalogs: a table of files is read alike in any order, a posted one as the log says.

use super::*;
use crate::{configuration::Configuration, replay::Replay};

/// Item attributes come from the table only.
fn with_table(table: &str) -> String {
    let table = format!(
        "  - {{name: goods, {table}, table: true, format: Json, eventTime: {{field: ts, notAfter: \"1970-01-01T00:20:00Z\"}}}}\n  features:\n"
    );
    PIPELINE
        .replace("  sources:\n", "    allowedAttributes: [item.category]\n  catalog: {source: goods, item: sku, attributes: [category]}\n  sources:\n")
        .replace("  features:\n", &table)
        .replace("    clicks: {count: click}\n", "    clicks: {count: click}\n    taste: {affinity: click, by: item.category, halfLife: 1h}\n")
        .replace("features: [item, clicks]", "features: [item, item.category, clicks, taste]")
}

/// Half of the goods; then the others, and the first ones again in another category, 8 minutes later.
fn goods() -> [Vec<String>; 2] {
    let of = |items: std::ops::Range<u32>, category: &str, ts: u32| -> Vec<String> {
        items.map(|n| format!(r#"{{"sku":"i{n}","ts":{ts},"category":"{category}{}"}}"#, n % 3)).collect()
    };
    [of(0..6, "c", 0), [of(6..11, "c", 1), of(0..6, "d", 480_000)].concat()]
}

fn files() -> World {
    let yaml =
        with_table("file: {path: goods}").replace("http: {partitions: 3}", "file: {path: events.jsonl}").replace(
            "maxOutOfOrderness: 1h}\n    eventId",
            "maxOutOfOrderness: 1h, notAfter: \"1970-01-01T00:20:00Z\"}\n    eventId",
        );
    let world = World::new(&yaml);
    let folder = world.folder.path();
    fs::create_dir(folder.join("goods")).unwrap();
    for (name, records) in ["a.jsonl", "b.jsonl"].iter().zip(goods()) {
        fs::write(folder.join("goods").join(name), records.join("\n") + "\n").unwrap();
    }
    fs::write(folder.join("events.jsonl"), records().join("\n") + "\n").unwrap();
    world
}

#[test]
fn a_table_of_files_is_read_alike_in_any_order_and_with_restarts() {
    let left = files().run(1);
    assert!(left.accepted > 800);
    assert_eq!(files().run(2), left);
    for stop_after in [3, 12, 200] {
        let mut parts = files();
        parts.run_until(stop_after, 5 + stop_after);
        assert_eq!(parts.run(6), left, "stopped after {stop_after} records");
    }
}

#[test]
fn what_a_table_holds_at_the_first_start_is_older_than_all_events() {
    let left = files().run(1);
    let mut other_times = files();
    let file = other_times.folder.path().join("goods/b.jsonl");
    let goods = fs::read_to_string(&file).unwrap();
    fs::write(&file, goods.replace("480000", "7")).unwrap();
    assert_eq!(other_times.run(1), left);
    let mut others = files();
    fs::write(others.folder.path().join("goods/b.jsonl"), goods.replace(r#""d"#, r#""e"#)).unwrap();
    assert_ne!(others.run(1), left);
}

#[test]
fn a_posted_table_is_what_a_replay_of_the_log_makes_of_it() {
    let mut world = World::new(&with_table("http: {}").replace(", notAfter: \"1970-01-01T00:20:00Z\"}}", "}}"));
    let [first, second] = goods();
    world.post_to("goods", &first, RECEIVED);
    world.post(&records()[..400], RECEIVED);
    world.run_until(150, 3);
    world.post_to("goods", &second, RECEIVED);
    world.post(&records()[400..], RECEIVED);
    let left = world.run(4);
    assert!(left.accepted > 800);
    let configuration = Configuration::first_of(&world.pipeline);
    let partitions = world.partitions();
    let (log, store) = (world.log.clone(), world.store.clone());
    let replay =
        Replay { pipeline: &world.pipeline, configuration: &configuration, log, store, partitions: &partitions };
    let rebuilt = replay.rebuild(|_| {}).unwrap();
    assert_eq!(rebuilt.len(), 3);
    assert!(rebuilt.iter().all(|task| task.equal), "{rebuilt:?}");
}
