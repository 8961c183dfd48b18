//! A pipeline that changes while its state lives on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{fs, io::Write, path::Path};

use common::{
    Run, count,
    http::Client,
    shop::{Shop, consent, now_ms, request, value},
};
use serde_json::{Value, json};

const GOODS: [(&str, &str, bool); 4] =
    [("a1", "hats", true), ("a2", "hats", true), ("b1", "socks", true), ("b2", "socks", true)];

/// Another feature of the old model, and another model.
fn second(yaml: String) -> String {
    let yaml = yaml.replace("    clicks: {count: click}\n", "    clicks: {count: click}\n    orders: {count: order}\n");
    let yaml = yaml.replace("features: [clicks, taste,", "features: [clicks, orders, taste,");
    let added =
        "  - {name: plainer, outcome: click, features: [clicks, itemCtr], learner: {ftrl: {bits: 12}}}\n  policies:\n";
    let yaml = yaml.replace("  policies:\n", added);
    yaml.replace("score: {ctr: 1.0}", "score: {ctr: 0.5, plainer: 0.5}")
}

/// Without the added model and the old feature.
fn third(yaml: String) -> String {
    let yaml =
        yaml.lines().filter(|line| !line.contains("name: plainer")).map(|line| format!("{line}\n")).collect::<String>();
    let yaml = yaml.replace("score: {ctr: 0.5, plainer: 0.5}", "score: {ctr: 1.0}");
    yaml.replace("features: [clicks, orders, taste,", "features: [orders, taste,")
}

fn generation_of(shop: &mut Shop) -> u64 {
    shop.until("the page has its figures", |client| client.get("/v1/status").expect(200)["generation"].as_u64())
}

/// Event time goes by events.
fn time_passes(client: &mut Client, user: &str) {
    client.post("/v1/events?source=events", &json!([consent(user, now_ms(), true)])).expect(202);
}

fn model<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["models"].as_array()?.iter().find(|model| model["name"] == name)
}

#[test]
fn features_and_models_change_on_living_state_and_kill_9_changes_nothing() {
    let mut shop = Shop::open(|yaml| yaml);
    shop.stock(&GOODS);
    let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    shop.ready(4, &names);
    assert!(shop.visits(&names, 0, 150) > 100);
    // Every fourth visit has a click, which is always one of these users'.
    let clickers = [0, 4, 8, 12, 16].map(|n| names[n]);
    let personal = clickers.into_iter().find(|user| shop.decide(Some(user))["variant"] == "personal").unwrap();
    let clicks = shop.until("clicks are known", |client| {
        let before = client.post("/v1/decisions", &request(Some(personal))).expect(200);
        value(&before, "clicks").as_f64().filter(|clicks| *clicks > 0.0)
    });
    shop.until("the first model learns", |client| {
        time_passes(client, names[1]);
        (model(&client.get("/v1/status").expect(200), "ctr")?["examples"].as_u64()? > 100).then_some(())
    });
    shop.kill();

    shop.change(second);
    for round in 1..4 {
        shop.start();
        let answer = shop.until("the change is taken over", |client| {
            let answer = client.post("/v1/decisions", &request(Some(personal))).expect(200);
            (answer["reason"] != "notReady").then_some(answer)
        });
        assert_eq!(generation_of(&mut shop), 2);
        assert!(value(&answer, "clicks").as_f64() >= Some(clicks), "what was known is kept: {answer}");
        assert!(value(&answer, "orders").is_number(), "{answer}");
        assert!(answer["items"][0]["values"]["plainer"]["clicks"].is_number(), "{answer}");
        assert!(shop.visits(&names, round, 80) > 50);
        shop.kill();
    }
    shop.start();
    let learned = shop.until("both models learn", |client| {
        time_passes(client, names[1]);
        let status = client.get("/v1/status").expect(200);
        let [old, new] = ["ctr", "plainer"].map(|name| model(&status, name).and_then(|m| m["examples"].as_u64()));
        (new? > 0 && old? > new?).then_some(old)
    });
    shop.stop();

    shop.change(third);
    shop.start();
    shop.until("the change is taken over", |client| {
        let answer = client.post("/v1/decisions", &request(Some(personal))).expect(200);
        (answer["reason"] != "notReady").then_some(())
    });
    assert_eq!(generation_of(&mut shop), 3);
    assert!(shop.visits(&names, 9, 80) > 50);
    shop.until("the model goes on", |client| {
        time_passes(client, names[1]);
        let status = client.get("/v1/status").expect(200);
        assert!(model(&status, "plainer").is_none());
        (model(&status, "ctr")?["examples"].as_u64() > learned).then_some(())
    });
    shop.stop();
    let replay = shop.command(&["replay"]).summary();
    assert_eq!(replay["equal"], true, "{replay}");
    let tasks: Vec<&str> = replay["tasks"].as_array().unwrap().iter().map(|t| t["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["profile/0", "profile/1", "model/ctr"]);
    assert!(shop.command(&["replay", "--as-served"]).summary()["models"]["ctr"]["examples"].as_u64() > Some(0));
}

#[test]
fn what_state_cannot_follow_is_refused_and_nothing_is_touched() {
    let mut shop = Shop::open(|yaml| yaml);
    shop.stop();
    shop.change(|yaml| yaml.replace("dedupWithin: 1h", "dedupWithin: 2h").replace("smoothing: 20", "smoothing: 30"));
    let pipeline = shop.folder().join("pipeline.yaml");
    let run = ["run", pipeline.to_str().unwrap(), "--quiet"];
    shop.command(&run).refused(&["spec.sources[0].eventId.dedupWithin", "empty folder"]);
    shop.change(|yaml| yaml.replace("dedupWithin: 2h", "dedupWithin: 1h"));
    shop.command(&["replay"]).refused(&["spec.features.itemCtr.smoothing", "millrace run"]);
    shop.change(|yaml| yaml.replace("smoothing: 30", "smoothing: 20"));
    shop.start();
    assert_eq!(generation_of(&mut shop), 1);
}

const MAPPED: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: PersonalizationPipeline
metadata: {name: mapped}
spec:
  partitions: 4
  checkpoints: {interval: 100ms}
  privacy:
    pseudonymKeys: {file: keys.txt, active: k}
    user: {field: user}
    consent: {assumed: "a test"}
  sources:
  - name: clicks
    file: {path: events.jsonl}
    format: Json
    eventTime: {field: t, notAfter: "2030-01-01T00:00:00Z"}
    events:
    - {name: impression, when: {type: shown}, fields: {items: item}}
    - {name: click, when: {type: click}, fields: {items: item}}
  features:
    clicks: {count: click}
  outcomes:
    click: {event: click, join: item, within: 1m}
  models:
  - {name: ctr, outcome: click, features: [item, clicks]}
"#;

/// Other users, bots are no users, and what is a click is told by another field.
fn remapped() -> String {
    let yaml = MAPPED.replace("user: {field: user}", "user: {field: visitor}");
    let yaml = yaml.replace("    events:\n", "    drop: [{bot: true}]\n    events:\n");
    yaml.replace("when: {type: click}", "when: {kind: click}")
}

fn mapped_line(n: u64) -> String {
    let (user, visitor, item, bot, t) = (n % 97, n % 89, n % 7, n.is_multiple_of(10), 1_000_000 + n * 100);
    let kind = if n.is_multiple_of(3) { "click" } else { "shown" };
    format!(
        r#"{{"type":"{kind}","kind":"{kind}","user":"u{user}","visitor":"v{visitor}","bot":{bot},"item":"i{item}","t":{t}}}"#
    )
}

fn append_mapped(folder: &Path, lines: std::ops::Range<u64>) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(folder.join("events.jsonl")).unwrap();
    let text: String = lines.map(|n| mapped_line(n) + "\n").collect();
    file.write_all(text.as_bytes()).unwrap();
}

/// The newest generation that both newest checkpoints of the file's task know the beginning of.
fn switched_to(run: &Run) -> u64 {
    let tasks = run.other(&["checkpoints", "list"]).summary();
    let task = tasks["tasks"].as_array().unwrap().iter().find(|task| task["task"] == "ingest/clicks-0");
    let checkpoints = task.and_then(|task| task["checkpoints"].as_array()).cloned().unwrap_or_default();
    checkpoints.iter().take(2).filter_map(|checkpoint| checkpoint["generation"].as_u64()).min().unwrap_or(0)
}

#[test]
fn a_mapping_changes_in_the_middle_of_a_source_and_each_record_counts_once() {
    const FIRST: u64 = 30_000;
    const MORE: u64 = 6_000;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("keys.txt"), "k: 000102030405060708090a0b0c0d0e0f\n").unwrap();
    let pipeline = folder.path().join("pipeline.yaml");
    fs::write(&pipeline, MAPPED).unwrap();
    append_mapped(folder.path(), 0..FIRST);
    let run = Run::new(&pipeline, &folder.path().join("data"));
    let slow = run.clone().with(&["--max-rate", "10000"]);
    let mut running = slow.start();
    running.until("checkpoints are written", || {
        // The folder may not be there yet.
        let listed = run.other(&["checkpoints", "list"]);
        listed.status.success() && switched_to(&run) == 1
    });
    running.kill();

    fs::write(&pipeline, remapped()).unwrap();
    let mut running = slow.start();
    running.until("the switch is saved", || switched_to(&run) == 2);
    running.kill();
    append_mapped(folder.path(), FIRST..FIRST + MORE);
    slow.start().kill();
    let summary = run.summary();
    let all = FIRST + MORE;
    let bots = (FIRST..all).filter(|n| n.is_multiple_of(10)).count() as u64;
    assert_eq!((count(&summary, "read"), count(&summary, "accepted")), (all, all - bots), "{summary}");

    // Back again: after an end in good order that counts at once.
    fs::write(&pipeline, MAPPED).unwrap();
    append_mapped(folder.path(), all..all + MORE);
    let summary = run.summary();
    assert_eq!((count(&summary, "read"), count(&summary, "accepted")), (all + MORE, all + MORE - bots), "{summary}");
    let replay = run.other(&["replay"]).summary();
    assert_eq!(replay["equal"], true, "{replay}");
}
