//! A worker under siege, while a shopper goes on shopping. How long that takes: `make bench-siege`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::atomic::Ordering;

use common::{
    http::Client,
    shop::{click, now_ms, shown},
    siege::{Siege, connections, decide, shop},
};
use serde_json::json;

/// Of the worker: far above what it needs, far below what a body of the besiegers would take if it were kept.
const PEAK_KIB: u64 = 600 << 10;

#[test]
fn ten_thousand_connections_and_wrong_requests_keep_nobody_from_shopping() {
    let mut shop = shop();
    let siege = Siege::of(shop.address());
    let mut ada = Client::new(shop.address());
    let mut bought = 0u64;
    let wanted = connections() as u64;
    while siege.opened.load(Ordering::Relaxed) < wanted || siege.answered.load(Ordering::Relaxed) < 16 || bought < 200 {
        let (answer, _) = decide(&mut ada, "ada");
        let sku = answer["items"][0]["id"].as_str().unwrap();
        let mut click = click("ada", now_ms(), sku, answer["decision"].as_str());
        click["id"] = json!(format!("click-{bought}"));
        shop.send_again(&[shown("ada", now_ms(), &answer, 2), click]);
        bought += 1;
    }
    let (opened, answered) = siege.end();
    assert!(opened >= wanted && answered >= 16, "{opened} {answered}");
    assert!(shop.peak_kib() < PEAK_KIB, "{} KiB", shop.peak_kib());
    let clicks = shop.until("every click counts", |client| {
        let profile = client.get("/v1/profiles/ada").expect(200);
        let clicks = profile["features"]["clicks"].as_str()?.parse::<f64>().ok()?;
        (clicks >= bought as f64).then_some(clicks)
    });
    assert_eq!(clicks, bought as f64, "and once");
    shop.stop();
    assert_eq!(shop.command(&["replay"]).summary()["equal"], true);
}
