//! A model whose world changes: the alarm is told, decisions fall back to default content, and a kill changes nothing of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::shop::{Shop, click, consent, now_ms};
use serde_json::{Value, json};

const ITEMS: i64 = 40;
const USERS: i64 = 20;

/// Impression `n` of all items, ten milliseconds after the one before, and clicks on a share of them.
fn exposed(begin: i64, n: i64, clicked_of_20: i64) -> Vec<Value> {
    let (ts, user) = (begin + 10 * n, format!("user-{}", n % USERS));
    let items: Vec<Value> = (0..ITEMS).map(|i| json!({"sku": format!("i{i}"), "pos": i + 1})).collect();
    let impression = json!({"type": "shown", "id": format!("v{n}"), "ts": ts, "customerId": user, "client": "web",
        "slot": "home", "shown": items});
    let is_clicked = |i: &i64| (n * 7919 + i * 104_729 + n * i * 31) % 20 < clicked_of_20;
    let clicks = (0..ITEMS).filter(is_clicked).map(|i| click(&user, ts + 1, &format!("i{i}"), None));
    std::iter::once(impression).chain(clicks).collect()
}

fn send(shop: &mut Shop, events: &[Value]) {
    events.chunks(1_000).for_each(|chunk| shop.send(chunk));
}

#[test]
fn an_alarm_is_told_and_answered_and_outlasts_a_kill() {
    let mut shop = Shop::open(|yaml| {
        yaml.replace(
            "features: [clicks, taste, itemCtr, item, item.category]",
            "drift: {answer: fallBackToDefault}\n    features: [itemCtr, item]",
        )
    });
    let goods: Vec<String> = (0..ITEMS).map(|i| format!("i{i}")).collect();
    shop.stock(&goods.iter().map(|sku| (sku.as_str(), "hats", true)).collect::<Vec<_>>());
    let begin = now_ms() - 60_000;
    send(&mut shop, &(0..USERS).map(|n| consent(&format!("user-{n}"), begin, true)).collect::<Vec<_>>());
    // A tenth is clicked, then, once predictions are judged, three fifths; then others' clicks move event time on.
    let before: Vec<Value> = (0..280).flat_map(|n| exposed(begin + 10, n, 2)).collect();
    let after: Vec<Value> = (280..300).flat_map(|n| exposed(begin + 10, n, 12)).collect();
    send(&mut shop, &before);
    send(&mut shop, &after);
    let mut later = begin + 20_000;
    let status = shop.until("all examples are learned", |client| {
        later += 1_000.min(now_ms() - later);
        let others: Vec<Value> = (0..20).map(|n| click(&format!("u{n}"), later, "i1", None)).collect();
        client.post("/v1/events?source=events", &json!(others)).expect(202);
        let status = client.get("/v1/status").expect(200);
        (status["models"][0]["examples"] == 300 * ITEMS).then_some(status)
    });
    let drift = &status["models"][0]["drift"];
    assert_eq!(drift["alarmsRaised"], drift["alarms"].as_array().unwrap().len(), "{drift}");
    let alarm = &drift["alarms"][0];
    assert_eq!((&alarm["kind"], &alarm["done"]), (&json!("predictsTooLow"), &json!("fellBackToDefault")), "{drift}");
    assert!(alarm["example"].as_i64().unwrap() > 280 * ITEMS, "{alarm}");
    assert!(alarm["observedOverPredicted"].as_f64().unwrap() > 1.2, "{alarm}");
    let model = &status["models"][0];
    assert_eq!(
        (&drift["state"], &model["standing"], &model["frozen"]),
        (&json!("predictions"), &json!("fellBackToDefault"), &json!(false))
    );
    // The status and the metrics are not brought up to date together.
    shop.until("the metrics say so", |client| {
        let metrics = client.request("GET", "/metrics", None).unwrap();
        let metrics = String::from_utf8(metrics.body).unwrap();
        metrics.contains("millrace_model_fallen_back{model=\"ctr\"} 1").then_some(())
    });
    falls_back(&mut shop);

    let ended = shop.kill();
    let told = ended.stderr.lines().filter(|line| line.contains("drift: ")).count();
    assert_eq!(told as i64, drift["alarmsRaised"].as_i64().unwrap(), "each once: {}", ended.stderr);
    shop.start();
    let again = shop.until("the model is there again", |client| {
        let status = client.get("/v1/status").expect(200);
        (status["models"][0]["examples"] == 300 * ITEMS).then_some(status)
    });
    assert_eq!(&again["models"][0]["drift"], drift);
    falls_back(&mut shop);
    let summary = shop.stop();
    assert!(summary["warnings"].to_string().contains("default content is shown"), "{summary}");
}

/// Users of the variant that asks the model get default content, and the status says that serving copies know.
fn falls_back(shop: &mut Shop) {
    shop.until("copies know", |client| {
        let status = client.get("/v1/status").expect(200);
        (status["models"][0]["serving"]["fallBack"] == "default").then_some(())
    });
    let answers: Vec<Value> = (0..USERS).map(|n| shop.decide(Some(&format!("user-{n}")))).collect();
    let of_model: Vec<&Value> = answers.iter().filter(|answer| answer["variant"] == "personal").collect();
    assert!(!of_model.is_empty());
    for answer in of_model {
        let says = (&answer["reason"], &answer["policy"], &answer["personalized"]);
        assert_eq!(says, (&json!("fellBack"), &json!("plain"), &json!(false)), "{answer}");
    }
    assert!(answers.iter().all(|answer| answer["reason"] != "personalized"));
}
