//! Over a real broker: the same results as over files, whatever happens to the worker and to the broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{
    Run, count,
    kafka::{InTopics, Shop},
    result, trace,
};
use millrace_e2e::{broker::Broker, rng::Rng};

#[test]
fn topics_give_what_files_give_and_survive_kills() {
    let folder = tempfile::tempdir().unwrap();
    let (_, undisturbed) = trace(folder.path(), 100_000);
    let shop = Shop::on(Broker::shared());
    let topics = InTopics::new(&shop, folder.path());
    topics.fill(&shop, folder.path(), 0, 100);
    let run = Run::new(&topics.pipeline, &folder.path().join("over topics"));
    let mut rng = Rng::new(7);
    let slow = run.clone().with(&["--max-rate", "10000"]);
    for kill in 0..5 {
        let mut running = slow.start();
        if running.ended_within(Duration::from_millis(rng.range(200, 1_500))) {
            panic!("ended before kill {kill}: {:?}", running.finish());
        }
        running.kill();
    }
    let summary = run.summary();
    assert_eq!(result(&summary), undisturbed, "{summary}");
    assert!(count(&summary, "read") > 0);
    assert_eq!(run.other(&["replay"]).summary()["equal"], true);
}
