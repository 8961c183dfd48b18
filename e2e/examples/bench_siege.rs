//! How long decisions take in peace and under siege: `make bench-siege`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{sync::atomic::Ordering, thread, time::Duration};

use common::{
    http::Client,
    siege::{Siege, connections, decide, shop},
};
use serde_json::json;

fn main() {
    let shop = shop();
    let measure = || {
        let mut ada = Client::new(shop.address());
        let mut took: Vec<Duration> = (0..3_000)
            .map(|_| {
                thread::sleep(Duration::from_millis(2));
                decide(&mut ada, "ada").1
            })
            .collect();
        took.sort();
        [took.len() / 2, took.len() * 99 / 100].map(|at| took[at].as_secs_f64() * 1e3)
    };
    let [peace, peace_p99] = measure();
    let siege = Siege::of(shop.address());
    while siege.opened.load(Ordering::Relaxed) < connections() as u64 {
        thread::yield_now();
    }
    let [war, war_p99] = measure();
    let (opened, answered) = siege.end();
    let result = json!({"peaceMs": {"p50": peace, "p99": peace_p99}, "siegeMs": {"p50": war, "p99": war_p99},
        "ratioP99": war_p99 / peace_p99, "connections": opened, "wrongRequestsAnswered": answered});
    println!("{result:#}");
}
