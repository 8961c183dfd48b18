//! Pipelines that are right, and what can be asked of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use millrace_crds::{Document, Validated, load, resource::PersonalizationPipeline, scalar::Span, validate};

const SHOP: &str = include_str!("shop.yaml");
const ESHOP: &str = include_str!("eshop.yaml");
const OTTO: &str = include_str!("otto.yaml");

fn good(yaml: &str) -> Validated {
    load(yaml).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn good_pipelines_pass() {
    let shop = good(SHOP);
    assert_eq!((shop.name(), shop.namespace()), ("shop", "web"));
    assert_eq!(shop.spec().sources[0].events[1].name, "impression");
    let eshop = good(ESHOP);
    assert_eq!(eshop.namespace(), "default");
    assert_eq!(eshop.spec().sources[0].events[1].fields, eshop.spec().sources[0].events[0].fields);
    assert_eq!(good(OTTO).spec().sources[0].each.as_deref(), Some("events"));
}

/// Where decisions are the impressions, no event of that name has to come.
#[test]
fn decisions_may_be_impressions() {
    let yaml = SHOP
        .replace("- name: impression", "- name: view")
        .replace("exposeWithin: 2m", "impressions: decision")
        .replace("mode: Default", "impressions: decision");
    good(&yaml);
}

/// The shop over brokers, its events in two topics.
fn over_topics() -> String {
    let (from, to) = ("notBefore: \"2026-01-01T00:00:00Z\", notAfter: \"2027-01-01T00:00:00+01:00\"", "maxAhead: 1m");
    let yaml = SHOP
        .replace("file: {path: \"data/*.jsonl.gz\"}", "kafka: {topics: [identity, content, search, basket]}")
        .replace(from, to);
    yaml.replacen("spec:\n", "spec:\n  kafka: {bootstrapServers: \"a:9092, b:9092\"}\n", 1)
}

#[test]
fn events_may_be_in_topics() {
    let shop = good(&over_topics());
    let kafka = shop.spec().kafka.as_ref().unwrap();
    assert_eq!((kafka.topics.replication_factor, kafka.topics.create, &kafka.topics.prefix), (1, true, &None));
    let source = &shop.spec().sources[0];
    assert_eq!(source.max_ahead(), Some(Span::seconds(60)));
    let names =
        |topic: &str| -> Vec<String> { source.of_topic(topic).events.iter().map(|event| event.name.clone()).collect() };
    assert_eq!(names("identity"), ["consent", "click"]);
    assert_eq!(names("content"), ["impression", "click"]);
    assert_eq!(names("search"), ["impression", "click"]);
    assert_eq!(names("basket"), ["click", "cartAdd", "order"]);
    let impression = &source.of_topic("search").events[0];
    assert!(impression.when.is_empty(), "it is decided: {:?}", impression.when);
    // Where brokers are is nothing that results depend on; which topics are read is.
    let moved = over_topics().replace("a:9092, b:9092", "c:9092");
    assert_eq!(good(&moved).changes(shop.result_digest_text()), Vec::<String>::new());
    let other = over_topics().replace("[identity, content", "[login, identity, content");
    assert_eq!(good(&other).changes(shop.result_digest_text())[0], "spec.sources[0].kafka.topics[0]");
}

#[test]
fn events_may_be_posted() {
    let (from, to) = ("notBefore: \"2026-01-01T00:00:00Z\", notAfter: \"2027-01-01T00:00:00+01:00\"", "maxAhead: 1m");
    let yaml = SHOP.replace("file: {path: \"data/*.jsonl.gz\"}", "http: {partitions: 4}");
    let posted = good(&yaml.replace(from, to));
    let [events, products] = posted.spec().sources.as_slice() else { panic!("two sources") };
    assert_eq!(events.max_ahead(), Some(Span::seconds(60)));
    assert_eq!(products.max_ahead(), Some(Span::seconds(300)));
    assert_eq!(good(SHOP).spec().sources[0].max_ahead(), None, "records of files have no timestamp");
}

#[test]
fn max_skew_has_a_default() {
    assert_eq!(good(SHOP).max_skew(), Span::hours(2));
    let skew_with = |bound: &str| {
        let yaml = SHOP.replace("ordering: {maxSkew: 2h}", "ordering: {}").replace("Orderness: 30s", bound);
        good(&yaml).max_skew()
    };
    assert_eq!(skew_with("Orderness: 30s"), Span::hours(1));
    assert_eq!(skew_with("Orderness: 40m"), Span::seconds(80 * 60));
}

#[test]
fn the_resource_of_a_cluster_validates_alike() {
    let yaml: serde_json::Value = serde_yaml::from_str(OTTO).unwrap();
    let resource: PersonalizationPipeline = serde_json::from_value(yaml).unwrap();
    let validated = validate(Document::from(resource)).unwrap();
    assert_eq!(validated.result_digest_text(), good(OTTO).result_digest_text());
    let mut broken =
        Document::from(serde_json::from_value::<PersonalizationPipeline>(serde_yaml::from_str(OTTO).unwrap()).unwrap());
    broken.spec.models[0].outcome = "oder".into();
    let problems = validate(broken).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "spec.models[0].outcome: `oder` is not an outcome; did you mean `order`? (allowed: order)"
    );
}

#[test]
fn the_digest_text_holds_what_affects_results_and_nothing_else() {
    let shop = good(SHOP);
    let text = shop.result_digest_text();
    assert!(text.starts_with(r#"{"catalog":{"attributes":["category","brand","price"],"#), "{text}");
    let same = SHOP
        .replace("interval: 30s", "interval: 1m")
        .replace("data/*.jsonl.gz", "elsewhere/*.jsonl")
        .replace("secret: shop-keys", "file: keys.yaml")
        .replace("retain: 48h", "retain: 2d")
        .replace("bucket: acme-millrace", "bucket: another-bucket")
        .replace("limits: {bodyBytes: 65536}", "limits: {connections: 7}");
    assert_eq!(good(&same).result_digest_text(), text);
    assert_eq!(good(&same).changes(text), Vec::<String>::new());
}

#[test]
fn the_same_place_is_written_alike() {
    let place = |yaml: &str| good(yaml).spec().checkpoints.s3.as_ref().map(ToString::to_string).unwrap_or_default();
    assert_eq!(place(SHOP), "s3://acme-millrace/shop/ at https://s3.example.com");
    assert_eq!(
        place(&SHOP.replace("prefix: shop/", "prefix: shop").replace("example.com", "example.com/")),
        place(SHOP)
    );
    let of_aws = SHOP.replace("endpoint: \"https://s3.example.com\", pathStyle: true", "");
    assert_eq!(place(&of_aws), "s3://acme-millrace/shop/ in eu-west-1");
    assert_eq!(place(&SHOP.replace("prefix: shop/, ", "")), "s3://acme-millrace/ at https://s3.example.com");
    assert_eq!(place(ESHOP), "", "in the data folder");
}

#[test]
fn changes_are_named_by_path() {
    let older = good(SHOP).result_digest_text().to_owned();
    let newer = SHOP
        .replace("window: 7d", "window: 8d")
        .replace("bits: 20", "bits: 21")
        .replace("[[taste, item.category], [placement, platform, item]]", "[[taste, item.category]]")
        .replace("    localeIs: {attribute: locale}\n", "")
        .replace("active: k1", "active: k2");
    let expected = [
        "spec.features.clicks7d.window",
        "spec.features.localeIs",
        "spec.models[0].crosses[1]",
        "spec.models[0].learner.ftrl.bits",
        "spec.privacy.pseudonymKeys.active",
    ];
    assert_eq!(good(&newer).changes(&older), expected);
    assert_eq!(good(SHOP).changes("{"), ["spec"]);
}
