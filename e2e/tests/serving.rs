//! Decisions over HTTP: fresh, private, learned from as they were served, and the same after kill -9.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;

use common::{
    http::Client,
    shop::{KEYS, Shop, click, consent, now_ms, request, shown, value},
};
use millrace_engine::privacy::{Pseudonymizer, parse_keys};
use serde_json::{Value, json};

const GOODS: [(&str, &str, bool); 5] =
    [("a1", "hats", true), ("a2", "hats", true), ("b1", "socks", true), ("b2", "socks", true), ("c1", "coats", false)];

fn shop() -> Shop {
    let mut shop = Shop::open(|yaml| yaml);
    shop.stock(&GOODS);
    shop
}

fn items(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[test]
fn a_click_changes_the_next_decision() {
    let mut shop = shop();
    shop.ready(4, &["ada"]);
    let before = shop.decide(Some("ada"));
    assert_eq!(value(&before, "clicks"), 0.0, "{before}");
    shop.send(&[click("ada", now_ms(), "a1", None)]);
    let after = shop.until("the click is known", |client| {
        let answer = client.post("/v1/decisions", &request(Some("ada"))).expect(200);
        (value(&answer, "clicks") == 1.0).then_some(answer)
    });
    // The click says only the item: the catalog knows that it is a hat.
    let all = after["items"].as_array().unwrap();
    let taste = |item: &Value| item["values"]["ctr"]["taste"].as_f64();
    let hats = all.iter().filter(|item| item["id"].as_str().unwrap().starts_with('a'));
    assert!(hats.clone().count() > 0 && hats.clone().all(|item| taste(item) == Some(1.0)), "{after}");
    assert!(!items(&after).contains(&"c1"), "out of stock");
    // Propensities are those of two policies with a tenth of exploration among four items.
    let first = after["items"][0]["propensity"].as_f64().unwrap();
    assert!((first - 0.925).abs() < 1e-9 || (first - 0.025).abs() < 1e-9, "{after}");
}

#[test]
fn what_is_bought_or_sold_out_is_not_shown() {
    let mut shop = shop();
    shop.ready(4, &["ada"]);
    shop.send(&[
        json!({"type": "order", "id": "o1", "ts": now_ms(), "customerId": "ada", "client": "web", "total": 9.5,
        "lines": [{"sku": "a1"}]}),
    ]);
    shop.until("the order is known", |client| {
        (0..20)
            .all(|_| !items(&client.post("/v1/decisions", &request(Some("ada"))).expect(200)).contains(&"a1"))
            .then_some(())
    });
    shop.stock(&[("b1", "socks", false), ("c1", "coats", true)]);
    shop.until("the shelves are known", |client| {
        let answer = client.post("/v1/decisions", &request(Some("ada"))).expect(200);
        let mut ids = items(&answer);
        ids.sort_unstable();
        (ids == ["a2", "b2", "c1"]).then_some(())
    });
}

#[test]
fn without_login_or_consent_there_is_only_the_default_and_nothing_is_kept() {
    let mut shop = shop();
    shop.ready(4, &[]);
    let nobody = shop.decide(None);
    let stranger = shop.decide(Some("eve"));
    assert_eq!((nobody["reason"].as_str(), stranger["reason"].as_str()), (Some("notLoggedIn"), Some("noConsent")));
    assert_eq!(nobody["personalized"], false);
    assert_eq!(items(&nobody), items(&stranger), "default content is the same for all");
    shop.send(&[click("eve", now_ms(), "a1", None)]);
    shop.client.get("/v1/profiles/eve").expect(404);
    let summary = shop.stop();
    assert_eq!(summary["users"], 0, "{summary}");
    let examples = shop.command(&["examples"]);
    assert!(examples.status.success() && examples.stdout.trim().is_empty(), "{}", examples.stdout);
}

#[test]
fn after_a_withdrawal_the_very_next_decision_is_the_default() {
    let mut shop = shop();
    let day = 86_400_000;
    for (user, delay) in [("on-time", 1), ("future", day), ("late", 1)] {
        shop.ready(4, &[user]);
        let granted = now_ms();
        if user == "late" {
            // Moves both partitions' watermarks far ahead of the withdrawal that follows.
            shop.send(&(0..20).map(|n| click(&format!("u{n}"), granted + 60_000, "a1", None)).collect::<Vec<_>>());
        }
        shop.send(&[consent(user, granted + delay, false)]);
        let next = shop.decide(Some(user));
        assert_eq!(
            (next["reason"].as_str(), next["personalized"].as_bool()),
            (Some("noConsent"), Some(false)),
            "{user}"
        );
        shop.until("the row is gone", |client| {
            (client.get(&format!("/v1/profiles/{user}")).status == 404).then_some(())
        });
    }
}

#[test]
fn who_is_erased_stays_gone_and_leaves_no_byte_in_the_next_checkpoint() {
    let mut shop = shop();
    shop.ready(4, &["ada", "bob"]);
    for sku in ["a1", "a2", "b1"] {
        shop.send(&[click("ada", now_ms(), sku, None), click("bob", now_ms(), sku, None)]);
    }
    shop.client.get("/v1/profiles/ada").expect(200);
    let pseudonym = Pseudonymizer::new(&parse_keys(KEYS).unwrap()["test"]).user_of("ada").0.to_le_bytes();
    let holds = |shop: &Shop| newest_files(shop).iter().any(|bytes| bytes.windows(16).any(|w| w == pseudonym));
    wait_for_checkpoint(&mut shop, holds);
    let reply = shop.client.delete("/v1/users/ada");
    assert!(reply.status == 200 || reply.status == 204, "{reply:?}");
    assert_eq!(shop.decide(Some("ada"))["reason"], "noConsent");
    shop.client.get("/v1/profiles/ada").expect(404);
    wait_for_checkpoint(&mut shop, |shop| !holds(shop));
    shop.kill();
    shop.start();
    shop.client.get("/v1/profiles/ada").expect(404);
    shop.client.get("/v1/profiles/bob").expect(200);
    shop.stop();
    let replay = shop.command(&["replay"]).summary();
    assert_eq!(replay["equal"], true, "{replay}");
}

/// Contents of the files of the newest checkpoints of all profile tasks.
fn newest_files(shop: &Shop) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    for task in ["profile/0", "profile/1"] {
        let shown = shop.command(&["checkpoints", "show", task]);
        let Ok(json) = serde_json::from_str::<Value>(shown.stdout.lines().last().unwrap_or_default()) else { continue };
        for file in json["task"]["checkpoints"][0]["files"].as_array().into_iter().flatten() {
            let key = file["key"].as_str().unwrap();
            contents.push(fs::read(shop.data().join("checkpoints").join(key)).unwrap_or_default());
        }
    }
    contents
}

fn wait_for_checkpoint(shop: &mut Shop, mut holds: impl FnMut(&Shop) -> bool) {
    let started = std::time::Instant::now();
    while !holds(shop) {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "no such checkpoint in time");
        // Something new, so that there is something to save.
        shop.send(&[click("bob", now_ms(), "b2", None)]);
    }
}

#[test]
fn what_is_learned_is_what_was_served() {
    let mut shop = shop();
    let users = ["ada", "bob", "cem", "dan"];
    shop.ready(4, &users);
    let mut served: Vec<(Value, usize)> = Vec::new();
    for round in 0..5 {
        for user in users {
            let answer = shop.decide(Some(user));
            let exposed = 1 + round % 3;
            let mut events = vec![shown(user, now_ms(), &answer, exposed)];
            if round % 2 == 0 {
                let sku = answer["items"][0]["id"].as_str().unwrap();
                events.push(click(user, now_ms() + 1, sku, answer["decision"].as_str()));
            }
            shop.send(&events);
            served.push((answer, exposed));
        }
    }
    let exposed: usize = served.iter().map(|(_, exposed)| exposed).sum();
    // Others' clicks move event time on, past all windows.
    shop.until("all examples are learned", |client| {
        let others: Vec<Value> = (0..20).map(|n| click(&format!("u{n}"), now_ms() + 10_000, "a1", None)).collect();
        client.post("/v1/events?source=events", &json!(others)).expect(202);
        let status = client.get("/v1/status").expect(200);
        (status["models"][0]["examples"] == exposed).then_some(())
    });
    shop.stop();
    let listed = shop.command(&["examples"]);
    let examples: Vec<Value> = listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(examples.len(), exposed, "only what was seen is learned from");
    // Each exposed item of each answer is one example: of the same propensity, policy and variant, and with the values and
    // scores of the models that ranked it.
    let key = |policy: &Value, variant: String, item: &Value, propensity: &Value, model: String| {
        format!("{policy} {variant} {item} {propensity} {model}")
    };
    let by_model = |policy: &Value, score: &Value, values: &Value| match policy == "personal" {
        true => format!("{score} {values}"),
        false => String::new(),
    };
    let of_example = |e: &Value| {
        let model = by_model(&e["policy"], &e["score"], &e["values"]);
        key(&e["policy"], e["variant"].as_str().unwrap().to_owned(), &e["item"], &e["propensity"], model)
    };
    let mut learned: Vec<String> = examples.iter().map(of_example).collect();
    let mut wanted: Vec<String> = Vec::new();
    for (answer, exposed) in &served {
        let variant = format!("launch/{}", answer["variant"].as_str().unwrap());
        for item in answer["items"].as_array().unwrap().iter().take(*exposed) {
            let model = by_model(&answer["policy"], &item["score"], &item["values"]["ctr"]);
            wanted.push(key(&answer["policy"], variant.clone(), &item["id"], &item["propensity"], model));
        }
    }
    assert!(served.iter().any(|(answer, _)| answer["policy"] == "personal"));
    learned.sort();
    wanted.sort();
    assert_eq!(learned, wanted);
    assert!(examples.iter().any(|e| e["label"] == true) && examples.iter().any(|e| e["label"] == false));
}

#[test]
fn tokens_keep_strangers_out() {
    let tokens = "  serving:\n    tokens:\n      decisions: {file: decisions.txt}\n      events: {file: events.txt}\n      \
        admin: {file: admin.txt}\n";
    let mut shop = Shop::open(|yaml| yaml + tokens);
    let decide = |client: &mut Client| client.post("/v1/decisions", &json!({"placement": "home"})).status;
    assert_eq!((decide(&mut shop.client), shop.client.get("/v1/status").status), (401, 401));
    let address = shop.address();
    let mut decider = Client::new(address).with_token("secret-of-decisions");
    assert_eq!((decide(&mut decider), decider.delete("/v1/users/ada").status), (200, 401));
    let mut admin = Client::new(address).with_token("secret-of-admin");
    assert_eq!((admin.get("/v1/status").status, admin.delete("/v1/users/ada").status), (200, 200));
    let mut sender = Client::new(address).with_token("secret-of-events");
    assert_eq!(sender.post("/v1/events?source=events", &click("ada", now_ms(), "a1", None)).status, 202);
}

#[test]
fn kill_9_in_the_middle_of_traffic_changes_nothing_that_is_kept() {
    let mut shop = shop();
    let users: Vec<String> = (0..40).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    shop.ready(4, &names[..1]);
    shop.send(&names.iter().map(|user| consent(user, now_ms(), true)).collect::<Vec<_>>());
    let mut decided = 0u64;
    for round in 0..6 {
        decided += shop.visits(&names, round, 150);
        shop.kill();
        shop.start();
    }
    assert!(decided > 300, "{decided}");
    let experiment = shop.until("both variants have users", |client| {
        let all = client.get("/v1/experiments").expect(200);
        let variants = all["experiments"][0]["variants"].as_array()?.clone();
        (variants.iter().filter_map(|v| v["users"].as_u64()).sum::<u64>() == 40).then_some(all)
    });
    let shown = shop.ask(&["experiment", "show", "launch"]).summary();
    assert_eq!(shown["experiments"][0]["variants"], experiment["experiments"][0]["variants"]);
    let ctr = &shown["experiments"][0]["metrics"][0]["variants"][0];
    assert!(ctr["numerator"].as_f64() > Some(0.0) && ctr["denominator"].as_f64() > ctr["numerator"].as_f64(), "{ctr}");
    shop.ask(&["experiment", "show", "lunch"]).refused(&["no experiment `lunch`", "launch"]);
    shop.stop();
    let replay = shop.command(&["replay"]).summary();
    assert_eq!(replay["equal"], true, "{replay}");
}
