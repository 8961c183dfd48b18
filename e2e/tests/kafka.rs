//! Over a real broker: the same results as over files, whatever happens to the worker and to the broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{net::TcpListener, process::Command, time::Duration};

use common::{
    Run, Running, binary, count,
    http::Client,
    kafka::{InTopics, RECEIVED_MS, Shop, lines},
    result, trace,
};
use millrace_e2e::{
    broker::Broker,
    rng::Rng,
    s3,
    trace::{TraceConfig, write_trace},
};
use rdkafka::Offset;

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
    let files = topics.files(folder.path());
    let read: Vec<_> = files.iter().map(|file| Offset::Offset(lines(file).count() as i64)).collect();
    assert_eq!(
        shop.committed("millrace.default.trace", &topics.topic, files.len() as i32),
        read,
        "for Kafka's own tools"
    );
    assert_eq!(run.other(&["replay"]).summary()["equal"], true);
}

/// Everything that a topic holds comes to the profiles: also of a partition that was added while nobody read.
#[test]
fn a_topic_may_grow() {
    let folder = tempfile::tempdir().unwrap();
    write_trace(folder.path(), &TraceConfig { events: 20_000, users: 400, ..TraceConfig::default() }).unwrap();
    let shop = Shop::on(Broker::shared());
    let topics = InTopics::new(&shop, folder.path());
    topics.fill(&shop, folder.path(), 0, 50);
    let run = Run::new(&topics.pipeline, &folder.path().join("data"));
    let half = count(&run.summary(), "read");
    let all = lines(&topics.files(folder.path())[0]).collect::<Vec<_>>();
    shop.grow(&topics.topic, 5);
    shop.produce(&topics.topic, 4, RECEIVED_MS, &all[all.len() / 2..]);
    let summary = run.summary();
    assert_eq!(count(&summary, "read"), half + (all.len() - all.len() / 2) as u64);
    assert!(count(&summary, "accepted") > 0);
    assert_eq!(run.other(&["replay"]).summary()["equal"], true);
}

/// What the pipeline goes on with must be there: otherwise it says so, and goes on with nothing else.
#[test]
fn a_topic_that_is_another_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_trace(folder.path(), &TraceConfig { events: 5_000, users: 100, ..TraceConfig::default() }).unwrap();
    let shop = Shop::on(Broker::shared());
    let topics = InTopics::new(&shop, folder.path());
    topics.fill(&shop, folder.path(), 0, 50);
    let run = Run::new(&topics.pipeline, &folder.path().join("data"));
    let first = result(&run.summary());
    assert_eq!(result(&run.summary()), first, "nothing new");
    // The same topics with other state.
    Run::new(&topics.pipeline, &folder.path().join("other")).finish().refused(&["own.", "prefix"]);
    topics.make_again(&shop);
    run.finish().refused(&[&topics.topic, "ends before offset"]);
    topics.fill(&shop, folder.path(), 50, 100);
    topics.fill(&shop, folder.path(), 0, 50);
    run.finish().refused(&[&topics.topic, "deleted and made again"]);
    topics.make_again(&shop);
    topics.fill(&shop, folder.path(), 0, 50);
    assert_eq!(result(&run.summary()), first, "what was there is there again");
    topics.fill(&shop, folder.path(), 50, 100);
    shop.delete_records(&topics.topic, 0, -1);
    run.finish().refused(&[&topics.topic, "was deleted"]);
    shop.delete(&topics.topic);
    run.finish().refused(&[&topics.topic, "no such topic"]);
}

/// A worker that follows its topics outlives its broker, and loses nothing.
#[test]
fn the_broker_may_be_killed_under_a_worker() {
    let folder = tempfile::tempdir().unwrap();
    let (_, undisturbed) = trace(folder.path(), 40_000);
    let broker = Broker::start().unwrap();
    let shop = Shop::on(&broker);
    let topics = InTopics::new(&shop, folder.path());
    let run = Run::new(&topics.pipeline, &folder.path().join("data"));
    let mut follow = Command::new(binary());
    follow.arg("run").arg(&topics.pipeline).arg("--data").arg(&run.data).args(["--quiet", "--output", "json"]);
    let pages = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut running = Running::start(follow.arg("--metrics-address").arg(pages.to_string()));
    let ready = || Client::new(pages).request("GET", "/readyz", None).map(|reply| (reply.status, reply.text()));
    let says = |status: u16, text: &str| ready().is_some_and(|told| told.0 == status && told.1.contains(text));
    running.until("ready", || says(200, "ready\n"));
    for part in 0..4 {
        topics.fill(&shop, folder.path(), part * 25, (part + 1) * 25);
        assert!(!running.ended_within(Duration::from_millis(300)), "{:?}", running.finish());
        if part == 1 {
            broker.pause();
            assert!(!running.ended_within(Duration::from_secs(3)), "{:?}", running.finish());
            broker.wake();
        } else {
            broker.kill();
            running.until("told", || says(200, "brokers have not answered"));
            let metrics = Client::new(pages).get("/metrics").text();
            let silent = metrics.lines().find_map(|line| line.strip_prefix("millrace_brokers_silent_seconds "));
            assert!(silent.is_some_and(|seconds| seconds.parse::<f64>().unwrap() > 0.0), "{metrics}");
            broker.go_on().unwrap();
            running.until("told", || says(200, "ready\n"));
        }
    }
    running.terminate();
    let ended = running.finish();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(result(&run.summary()), undisturbed);
    assert_eq!(run.other(&["replay"]).summary()["equal"], true);
}

/// With checkpoints in a bucket: the store may be away for a while, and the worker goes on.
#[test]
fn checkpoints_in_a_bucket_may_be_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    let (_, undisturbed) = trace(folder.path(), 40_000);
    let shop = Shop::on(Broker::shared());
    let topics = InTopics::new(&shop, folder.path());
    let mut store = s3::Server::start(&folder.path().join("store")).unwrap();
    let place = format!(
        "checkpoints: {{s3: {{bucket: {}, prefix: shop, endpoint: \"{}\", pathStyle: true}}, interval",
        s3::BUCKET,
        store.endpoint()
    );
    let yaml = std::fs::read_to_string(&topics.pipeline).unwrap();
    std::fs::write(&topics.pipeline, yaml.replace("checkpoints: {interval", &place)).unwrap();
    let run = Run::new(&topics.pipeline, &folder.path().join("data"));
    let credentials = [("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)];
    let with_store =
        |mut command: Command| Running::start(command.envs(credentials).env("AWS_EC2_METADATA_DISABLED", "true"));
    let mut follow = Command::new(binary());
    follow.arg("run").arg(&topics.pipeline).arg("--data").arg(&run.data).args(["--quiet", "--output", "json"]);
    let mut running = with_store(follow);
    for part in 0..4 {
        topics.fill(&shop, folder.path(), part * 25, (part + 1) * 25);
        assert!(!running.ended_within(Duration::from_millis(500)), "{:?}", running.finish());
        if part == 1 {
            store.kill().unwrap();
            assert!(!running.ended_within(Duration::from_secs(3)), "{:?}", running.finish());
        }
        if part == 2 {
            store.start_again().unwrap();
        }
    }
    running.kill();
    let ended = with_store(run.command()).finish();
    assert_eq!(result(&ended.summary()), undisturbed);
    let mut replay = Command::new(binary());
    replay.arg("replay").arg("--data").arg(&run.data).args(["--output", "json"]);
    assert_eq!(with_store(replay).finish().summary()["equal"], true);
    assert!(!run.data.join("checkpoints/tasks").exists(), "all of it is in the bucket");
}
