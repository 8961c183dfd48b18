//! Pipelines that are wrong: each with the path and a key phrase of what is said about it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Row, check, edited};
use millrace_crds::load;

const SHOP: &str = include_str!("shop.yaml");
const ESHOP: &str = include_str!("eshop.yaml");
const OTTO: &str = include_str!("otto.yaml");

#[test]
fn the_shape() {
    let rows: &[Row] = &[
        ("millrace.dev/v1alpha1", "millrace.dev/v1", "apiVersion", "must be `millrace.dev/v1alpha1`"),
        ("kind: PersonalizationPipeline", "kind: Pipeline", "kind", "must be `PersonalizationPipeline`"),
        ("name: shop,", "name: Shop_1,", "metadata.name", "a-z, 0-9 and dashes"),
        ("name: shop, ", "", "metadata.name", "is missing"),
        ("namespace: web", "namespace: 7", "metadata.namespace", "must be text, not `7`; put it in quotes"),
        ("metadata: {", "metdata: {", "metdata", "did you mean `metadata`?"),
        ("partitions: 64", "partitions: 0", "spec.partitions", "must be from 1 to 4096, not 0"),
        ("partitions: 64", "partitions: many", "spec.partitions", "must be a whole number, not `many`"),
        ("partitions: 64", "partitions: 6.4", "spec.partitions", "must be a whole number"),
        ("partitions: 64", "partition: 64", "spec.partition", "did you mean `partitions`?"),
        ("partitions: 64", "partition: 64", "spec.partitions", "is missing and must be given"),
        ("partitions: 64", "partitions:", "spec.partitions", "not nothing; give it or leave the field out"),
        ("interval: 30s", "interval: 30", "spec.checkpoints.interval", "must be a duration such as 500ms, 30s"),
        ("interval: 30s", "interval: 30 s", "spec.checkpoints.interval", "is not a duration such as 500ms, 30s"),
        ("interval: 30s", "interval: 1y", "spec.checkpoints.interval", "is not a duration such as"),
        ("interval: 30s", "interval: 40000d", "spec.checkpoints.interval", "longer than a hundred years"),
        ("\"shown[].sku\"", "[a]", "spec.sources[0].events[1].fields.items", "must be text or a mapping, not a list"),
        ("items: \"shown", "itms: \"shown", "spec.sources[0].events[1].fields.itms", "did you mean `items`?"),
        (
            "format: Json\n    eventTime",
            "format: json\n    eventTime",
            "spec.sources[0].format",
            "did you mean `Json`? (allowed: Json, Csv)",
        ),
        ("unit: ms", "unit: m", "spec.sources[0].eventTime.unit", "not one of the values allowed here"),
        ("file: {path", "kinesis: {stream", "spec.sources[0].kinesis", "there is no field `kinesis` here"),
        ("n: 5", "n: 17", "spec.features.lastItems.n", "must be from 1 to 16, not 17"),
        ("bits: 20", "bits: 27", "spec.models[0].learner.ftrl.bits", "must be from 6 to 26"),
        ("l1: 1,", "l1: -1,", "spec.models[0].learner.ftrl.l1", "must be from 0"),
        ("buckets: 24", "buckets: 65", "spec.features.itemCtr.buckets", "must be from 1 to 64"),
        ("[click, impression]", "[click]", "spec.features.itemCtr.ratio", "must have at least 2 entries"),
        ("tumbling: true", "tumbling: 1", "spec.features.spent.tumbling", "must be true or false, not `1`"),
        ("active: k1", "active: 1", "spec.privacy.pseudonymKeys.active", "put it in quotes"),
        ("{web: web, ios: app, android: app}", "{web: true}", "spec.sources[0].platform.map.web", "must be text"),
        ("[taste, item.category],", "[taste],", "spec.models[0].crosses[0]", "at least 2 entries"),
        ("drop: [{bot: true}]", "drop: {bot: true}", "spec.sources[0].drop", "each entry of a list begins with `- `"),
        ("drop: [{bot: true}]", "drop: [{country: NO}]", "spec.sources[0].drop[0].country", "is read as `false`"),
        ("topic: [content, search]", "topic: []", "spec.sources[0].events[1].when.topic", "at least 1 entries"),
    ];
    check(SHOP, rows);
}

#[test]
fn where_checkpoints_are() {
    const BUCKET: &str = "spec.checkpoints.s3.bucket";
    const PREFIX: &str = "spec.checkpoints.s3.prefix";
    const ENDPOINT: &str = "spec.checkpoints.s3.endpoint";
    let rows: &[Row] = &[
        ("bucket: acme-millrace, ", "", BUCKET, "is missing"),
        ("acme-millrace", "ab", BUCKET, "at least 3"),
        ("acme-millrace", "Acme", BUCKET, "the name of a general purpose bucket"),
        ("acme-millrace", "arn:aws:s3:::acme", BUCKET, "the name of a general purpose bucket"),
        ("prefix: shop/", "prefix: /shop", PREFIX, "none beginning with `.`"),
        ("prefix: shop/", "prefix: a/../b", PREFIX, "without `..`"),
        ("prefix: shop/", "prefix: \"\"", PREFIX, "at least 1"),
        ("region: eu-west-1", "region: eu west", "spec.checkpoints.s3.region", "such as eu-west-1"),
        ("https://s3.example.com", "s3.example.com", ENDPOINT, "a URL such as"),
        ("https://s3.example.com", "https://user:secret@s3.example.com", ENDPOINT, "without user"),
        ("https://s3.example.com", "https://s3.example.com?a=b", ENDPOINT, "without user, query"),
        ("pathStyle: true", "pathStyle: 1", "spec.checkpoints.s3.pathStyle", "must be true or false"),
        ("pathStyle: true", "accessKey: x", "spec.checkpoints.s3.accessKey", "there is no field `accessKey` here"),
    ];
    check(SHOP, rows);
}

#[test]
fn privacy() {
    let rows: &[Row] = &[
        ("secret: shop-keys,", "", "spec.privacy.pseudonymKeys", "one of `file`, `secret` must be given"),
        ("secret: shop-keys,", "secret: a, file: b,", "spec.privacy.pseudonymKeys", "only one of `file`, `secret`"),
        ("{field: customerId}", "{}", "spec.privacy.user", "one of `field`, `rowNumber` must be given"),
        ("{field: customerId}", "{field: a, rowNumber: true}", "spec.privacy.user", "only one of `field`, `rowNumber`"),
        ("{field: customerId}", "{field: a, rowNumber: false}", "spec.privacy.user.rowNumber", "can only be true"),
        ("{field: customerId}", "{field: a..b}", "spec.privacy.user.field", "is not a path such as"),
        ("{field: customerId}", "{field: \"a[].b\"}", "spec.privacy.user.field", "one value is needed"),
        (
            "{event: consent, granted",
            "{event: consnt, granted",
            "spec.privacy.consent.event",
            "did you mean `consent`?",
        ),
        ("consent: {event: consent, ", "consent: {", "spec.privacy.consent", "one of `event`, `field`, `assumed`"),
        ("{personalization: true}", "{}", "spec.privacy.consent.grantedIf", "nobody would be kept"),
        (
            "{event: consent, g",
            "{field: agreed, g",
            "spec.privacy.consent.grantedIf.personalization",
            "only the field `agreed`",
        ),
        ("{event: consent, g", "{assumed: \"\", g", "spec.privacy.consent.assumed", "must give the reason"),
        ("{event: consent, g", "{assumed: x, g", "spec.privacy.consent.grantedIf", "not looked at"),
        (
            "[locale, item.c",
            "[locale, locale, item.c",
            "spec.privacy.allowedAttributes[1]",
            "in this list already, at 0",
        ),
        (
            "[locale, item.c",
            "[locale, value, item.c",
            "spec.privacy.allowedAttributes[1]",
            "already means something else",
        ),
        (
            "item.price, \"affinity_{0..79}",
            "item.price, \"affinity_{79..0}",
            "spec.privacy.allowedAttributes[4]",
            "is empty",
        ),
        (
            "item.price, \"affinity_{0..79}",
            "item.price, \"affinity_{0..}",
            "spec.privacy.allowedAttributes[4]",
            "a range such as",
        ),
    ];
    check(SHOP, rows);
}

#[test]
fn sources() {
    let rows: &[Row] = &[
        ("- name: events", "- name: Events", "spec.sources[0].name", "is not a name"),
        (
            "    file: {path: \"data/*.jsonl.gz\"}\n",
            "",
            "spec.sources[0]",
            "one of `file`, `http`, `kafka` must be given",
        ),
        ("\"data/*.jsonl.gz\"", "\"\"", "spec.sources[0].file.path", "must not be empty"),
        (
            "format: Json\n    eventTime",
            "format: Json\n    delimiter: ;\n    eventTime",
            "spec.sources[0].delimiter",
            "for format Csv only",
        ),
        (
            "format: Json\n    eventTime",
            "format: Json\n    each: \"a[]\"\n    eventTime",
            "spec.sources[0].each",
            "written without `[]`",
        ),
        ("{field: ts,", "{", "spec.sources[0].eventTime", "one of `field`, `fields` must be given"),
        ("{field: ts,", "{field: ts, fields: [a, b, c],", "spec.sources[0].eventTime", "only one of"),
        ("{field: ts,", "{fields: [a, b],", "spec.sources[0].eventTime.fields", "3 to 6 fields, not 2"),
        ("{field: ts,", "{field: ts, plus: rowNumber,", "spec.sources[0].eventTime.plus", "is added to `fields`"),
        ("{field: ts,", "{field: ts, maxAhead: 5m,", "spec.sources[0].eventTime.maxAhead", "use `notAfter`"),
        (
            ", notAfter: \"2027-01-01T00:00:00+01:00\"",
            "",
            "spec.sources[0].eventTime.notAfter",
            "one wrong clock a day ahead",
        ),
        (
            "\"2027-01-01T00:00:00+01:00\"",
            "\"2027-01-01\"",
            "spec.sources[0].eventTime.notAfter",
            "not an instant of RFC 3339",
        ),
        (
            "\"2026-01-01T00:00:00Z\"",
            "\"2027-01-01T00:00:00Z\"",
            "spec.sources[0].eventTime.notBefore",
            "before `notAfter`",
        ),
        ("maxSkew: 2h", "maxSkew: 30s", "spec.ordering.maxSkew", "greater than every maxOutOfOrderness"),
        ("retain: 48h", "retain: 20s", "spec.checkpoints.retain", "shorter than the interval"),
        ("idleAfter: 30s", "idleAfter: 0s", "spec.sources[0].idleAfter", "longer than zero"),
        ("dedupWithin: 24h", "dedupWithin: 0s", "spec.sources[0].eventId.dedupWithin", "longer than zero"),
        ("{field: client, map", "{map", "spec.sources[0].platform", "one of `field`, `const` must be given"),
        ("{field: client, map", "{const: web, map", "spec.sources[0].platform.map", "a `const` is used always"),
        ("session: session.id", "session: \"sessions[].id\"", "spec.sources[0].session", "one value is needed"),
        ("    version: {field: v, convert: number}\n", "", "spec.sources[0].events[1].versions", "give its `version`"),
        (
            "        1: {placement: page",
            "        v1: {placement: page",
            "spec.sources[0].events[1].versions.v1",
            "number of a version",
        ),
        ("1: {placement: page", "1: {placement: page.", "spec.sources[0].events[1].versions.1.placement", "not a path"),
        ("drop: [{bot: true}]", "drop: [{}]", "spec.sources[0].drop[0]", "would drop every record"),
        (
            "when: {type: click}",
            "when: {\"type[]\": click}",
            "spec.sources[0].events[2].when[\"type[]\"]",
            "one value is needed",
        ),
        ("- name: cartAdd", "- name: click", "spec.sources[0].events[3].name", "stands here twice"),
        ("- name: cartAdd", "- name: cart add", "spec.sources[0].events[3].name", "is not a name"),
        (
            "\"shown[].pos\"",
            "\"seen[].pos\"",
            "spec.sources[0].events[1].fields.positions",
            "not of the array of the items",
        ),
        ("\"shown[].pos\"", "\"shown[].a[].pos\"", "spec.sources[0].events[1].fields.positions", "lists in lists"),
        ("\"lines[].sku\"", "sku", "spec.sources[0].events[4].fields.quantities", "is a list, but `items` is one item"),
        ("value: total", "value: \"lines[].total\"", "spec.sources[0].events[4].fields.value", "one value is needed"),
        (
            "attributes: {item.category: category}",
            "attributes: {item.categry: category}",
            "spec.sources[0].events[2].fields.attributes[\"item.categry\"]",
            "did you mean `item.category`?",
        ),
    ];
    check(SHOP, rows);
    let csv: &[Row] = &[
        ("delimiter: \";\"", "delimiter: \";;\"", "spec.sources[0].delimiter", "must be one ASCII character"),
        ("delimiter: \";\"", "delimiter: §", "spec.sources[0].delimiter", "must be one ASCII character"),
        ("format: Csv", "format: Csv\n    each: lines", "spec.sources[0].each", "for format Json only"),
        ("[order, country, item.c", "[order, value, item.c", "spec.privacy.allowedAttributes[1]", "already means"),
        ("[year, month, day]", "[year, month, \"day[]\"]", "spec.sources[0].eventTime.fields[2]", "CSV has no lists"),
    ];
    check(ESHOP, csv);
    let each: &[Row] = &[
        ("\"events[].ts\"", "\"event[].ts\"", "spec.sources[0].eventTime.field", "one value is needed"),
        ("\"events[].ts\"", "\"events[].a[].ts\"", "spec.sources[0].eventTime.field", "one value is needed"),
    ];
    check(OTTO, each);
}

#[test]
fn features() {
    let rows: &[Row] = &[
        (
            "{per: user, count: click, window",
            "{per: user, window",
            "spec.features.clicks7d",
            "must say what it is, by one of count",
        ),
        (
            "{per: user, count: click, w",
            "{count: click, timeSince: click, w",
            "spec.features.clicks7d",
            "not count and timeSince",
        ),
        ("count: click, w", "count: clik, w", "spec.features.clicks7d.count", "did you mean `click`?"),
        (
            "count: click, w",
            "count: click, halfLife: 1d, w",
            "spec.features.clicks7d.halfLife",
            "does not go with `count`",
        ),
        ("window: 7d", "window: 0s", "spec.features.clicks7d.window", "longer than zero"),
        ("count: click, window: 7d", "count: click, buckets: 7", "spec.features.clicks7d.buckets", "about a `window`"),
        ("tumbling: true", "tumbling: true, buckets: 3", "spec.features.spent.buckets", "has no buckets"),
        ("sum: order, of: value", "sum: order", "spec.features.spent.of", "`sum` needs `of`"),
        (
            "sum: order, of: value",
            "sum: click, of: value",
            "spec.features.spent.of",
            "no mapping of event `click` has it",
        ),
        ("sum: order, of: value", "sum: order, of: item", "spec.features.spent.of", "is no number"),
        (
            "by: item.category, half",
            "by: item.colour, half",
            "spec.features.taste.by",
            "not in privacy.allowedAttributes",
        ),
        ("by: item.category, half", "by: value, half", "spec.features.taste.by", "a candidate has no `value`"),
        (
            "by: item.category, halfLife: 14d",
            "by: item.category",
            "spec.features.taste.halfLife",
            "`affinity` needs `halfLife`",
        ),
        ("affinity: click, by: item.category", "affinity: click", "spec.features.taste.by", "`affinity` needs `by`"),
        ("halfLife: 1d}", "halfLife: 1d, by: item}", "spec.features.decayed.by", "does not go with `decayedSum`"),
        ("of: item, n: 5", "of: item", "spec.features.lastItems.n", "`lastN` needs `n`"),
        ("[60, 3600, 86400]", "[60, 60, 86400]", "spec.features.recency.bucket.bounds", "must ascend"),
        (
            "{log2: 2, max: 14}",
            "{log2: 2, bounds: [1]}",
            "spec.features.spent.bucket",
            "only one of `bounds` and `log2`",
        ),
        ("{log2: 2, max: 14}", "{log2: 0}", "spec.features.spent.bucket.log2", "above zero"),
        ("{log2: 2, max: 14}", "{}", "spec.features.spent.bucket", "one of `bounds`, `log2` and `max`"),
        (
            "anyOf: [\"affinity_{0..79}\"]",
            "anyOf: [\"affinity_{0..80}\"]",
            "spec.features.anyAffinity.anyOf[0]",
            "`affinity_80` is not in",
        ),
        ("anyOf: [\"affinity_{0..79}\"]", "anyOf: []", "spec.features.anyAffinity.anyOf", "at least one attribute"),
        ("{attribute: locale}", "{attribute: local}", "spec.features.localeIs.attribute", "did you mean `locale`?"),
        ("{attribute: locale}", "{per: session, attribute: locale}", "spec.features.localeIs.per", "leave `per` out"),
        ("[click, impression]", "[impression, click]", "spec.features.itemCtr.ratio", "per item, only a `count`"),
        ("[click, impression]", "[click, click]", "spec.features.itemCtr.ratio[1]", "stands here twice"),
        ("per: item, ratio", "per: global, by: item, ratio", "spec.features.itemCtr.by", "not for features per global"),
        (
            "{decayedSum: click",
            "{per: item, decayedSum: click",
            "spec.features.decayed.decayedSum",
            "per item, only a `count`",
        ),
        ("    session: session.id\n", "", "spec.features.sessionCarts.per", "no source says where the session is"),
        ("    localeIs: {", "    locale: {", "spec.features.locale", "means something else"),
        ("    localeIs: {", "    \"locale is\": {", "spec.features[\"locale is\"]", "is not a name"),
        ("[cartAdd, order]", "[cartAdd, cartAdd]", "spec.features.sessionCarts.count[1]", "stands here twice"),
    ];
    check(SHOP, rows);
}

#[test]
fn outcomes_and_models() {
    let rows: &[Row] = &[
        ("{event: order, join", "{event: odrer, join", "spec.outcomes.order.event", "did you mean `order`?"),
        ("within: 24h", "within: 0s", "spec.outcomes.order.within", "longer than zero"),
        ("- name: impression", "- name: impressions", "spec.outcomes", "need an event named `impression`"),
        ("items: \"shown[].sku\"", "basket: b", "spec.sources[0].events[1].fields.items", "gives no examples"),
        ("decision: decisionId\n", "basket: b\n", "spec.outcomes.click.join", "`impression` has a `decision`"),
        (
            "{event: order, join: item",
            "{event: consent, join: item",
            "spec.outcomes.order.join",
            "has `items` to join by",
        ),
        ("  - name: ctr", "  - name: ctr_model", "spec.models[0].name", "is not a name"),
        ("outcome: click", "outcome: clicked", "spec.models[0].outcome", "is not an outcome"),
        (
            "outcome: click",
            "outcome: order",
            "spec.models[0].features[3]",
            "counts `click`, but the outcome of this model is `order`",
        ),
        ("features: [clicks7d,", "features: [clicks7,", "spec.models[0].features[0]", "did you mean `clicks7d`?"),
        ("features: [clicks7d,", "features: [taste,", "spec.models[0].features[2]", "stands here twice"),
        (
            "[taste, item.category],",
            "[taste, item.categry],",
            "spec.models[0].crosses[0][1]",
            "did you mean `item.category`?",
        ),
        ("[taste, item.category],", "[taste, taste],", "spec.models[0].crosses[0][1]", "crossed with itself"),
        ("        positions: \"shown[].pos\"\n", "", "spec.models[0].position", "has `positions` to learn from"),
        ("alpha: 0.1", "alpha: 0", "spec.models[0].learner.ftrl.alpha", "above zero"),
        (
            "    platform: {field: client, map: {web: web, ios: app, android: app}}\n",
            "",
            "spec.models[0].features[8]",
            "where the `platform` is",
        ),
    ];
    check(SHOP, rows);
}

#[test]
fn several_sources_and_many_names() {
    let two = OTTO.replace("  outcomes:", &format!("{}  outcomes:", source_from(OTTO)));
    let problems = load(&two).unwrap_err();
    assert_eq!(problems.as_slice().len(), 1, "{problems}");
    assert_eq!(problems.as_slice()[0].path, "spec.sources[1].name");

    let source = |s: usize| {
        let events: String = (0..50).map(|e| format!("    - {{name: e{s}x{e}, when: {{t: {e}}}}}\n")).collect();
        let head = format!("  - name: s{s}\n    file: {{path: p}}\n    format: Json\n");
        format!("{head}    eventTime: {{field: ts, notAfter: \"2030-01-01T00:00:00Z\"}}\n    events:\n{events}")
    };
    let many: String = (0..4).map(source).collect();
    let problems = edited(OTTO, "  outcomes:", &format!("{many}  outcomes:"));
    assert!(problems.to_string().contains("spec.sources: 202 events have names, more than 200"), "{problems}");

    let attributes: String = (0..66).map(|i| format!("\"a{i}_{{0..999}}\", ")).collect();
    let problems = edited(OTTO, "    user:", &format!("    allowedAttributes: [{attributes}]\n    user:"));
    assert!(problems.to_string().contains("66000 attributes are allowed here"), "{problems}");
}

fn source_from(yaml: &str) -> &str {
    let from = yaml.find("  - name: sessions").unwrap();
    &yaml[from..yaml.find("  outcomes:").unwrap()]
}

#[test]
fn all_problems_are_found_at_once_and_in_order() {
    let five = SHOP
        .replace("partitions: 64", "partitions: 0")
        .replace("interval: 30s", "interval: soon")
        .replace("format: Json\n", "format: Jsn\n")
        .replace("n: 5", "nn: 5")
        .replace("bits: 20", "bits: twenty");
    let problems = load(&five).unwrap_err();
    let paths: Vec<&str> = problems.as_slice().iter().map(|p| p.path.as_str()).collect();
    let expected = [
        "spec.partitions",
        "spec.checkpoints.interval",
        "spec.sources[0].format",
        "spec.features.lastItems.nn",
        "spec.models[0].learner.ftrl.bits",
    ];
    assert_eq!(paths, expected, "{problems}");

    let five = SHOP
        .replace("maxSkew: 2h", "maxSkew: 1s")
        .replace("dedupWithin: 24h", "dedupWithin: 0s")
        .replace("of: item, n: 5", "n: 5")
        .replace("outcome: click", "outcome: clik")
        .replace("alpha: 0.1", "alpha: 0");
    let problems = load(&five).unwrap_err();
    assert_eq!(problems.as_slice().len(), 5, "{problems}");
    assert!(problems.as_slice().is_sorted_by_key(|p| (p.line, p.column)), "{problems}");
}

#[test]
fn a_problem_says_where_and_what_in_text_and_json() {
    let problems = edited(SHOP, "format: Json\n    eventTime", "format: json\n    eventTime");
    let message = "16:13: spec.sources[0].format: `json` is not one of the values allowed here";
    assert_eq!(problems.to_string(), format!("{message}; did you mean `Json`? (allowed: Json, Csv)"));
    let json = serde_json::to_value(&problems).unwrap();
    let expected = serde_json::json!([{
        "path": "spec.sources[0].format",
        "message": "`json` is not one of the values allowed here",
        "value": "json",
        "allowed": ["Json", "Csv"],
        "nearest": "Json",
        "line": 16,
        "column": 13,
    }]);
    assert_eq!(json, expected);
    let problems = edited(SHOP, "items: \"shown", "itms: \"shown");
    assert_eq!((problems.as_slice()[0].line, problems.as_slice()[0].column), (Some(32), Some(9)), "{problems}");
}

#[test]
fn brokers_and_topics() {
    let (from, to) = ("notBefore: \"2026-01-01T00:00:00Z\", notAfter: \"2027-01-01T00:00:00+01:00\"", "maxAhead: 1m");
    let source = "kafka: {topics: [identity, content, search, basket]}";
    let yaml = SHOP.replace("file: {path: \"data/*.jsonl.gz\"}", source).replace(from, to);
    let brokers = "  kafka: {bootstrapServers: \"a:9092\"}\n";
    let yaml = yaml.replacen("spec:\n", &format!("spec:\n{brokers}"), 1);
    let rows: &[Row] = &[
        (brokers, "", "spec.sources[0].kafka", "needs `spec.kafka`"),
        ("a:9092", "a:9092,b", "spec.kafka.bootstrapServers", "must be HOST:PORT"),
        ("\"a:9092\"}", "\"a:1\", topics: {prefix: \"a/b\"}}", "spec.kafka.topics.prefix", "a topic's name has"),
        (
            "\"a:9092\"}",
            "\"a:1\", topics: {replicationFactor: 0}}",
            "spec.kafka.topics.replicationFactor",
            "from 1 to 9",
        ),
        (
            "\"a:9092\"}",
            "\"a:1\", auth: {type: Plain, username: \"\", password: {file: f}}}",
            "spec.kafka.auth.username",
            "must not be empty",
        ),
        (
            "\"a:9092\"}",
            "\"a:1\", auth: {type: Plain, username: u, password: {}}}",
            "spec.kafka.auth.password",
            "one of `file`, `secret` must be given",
        ),
        ("\"a:9092\"}", "\"a:1\", auth: {type: Md5, username: u, password: {file: f}}}", "spec.kafka.auth.type", "Md5"),
        ("search, basket]", "search, search]", "spec.sources[0].kafka.topics[3]", "listed twice"),
        ("search, basket]", "search, \"a b\"]", "spec.sources[0].kafka.topics[3]", "a topic's name has"),
        ("[identity, content, search, basket]", "[]", "spec.sources[0].kafka.topics", "at least 1"),
        ("[{bot: true}]", "[{topic: contents}]", "spec.sources[0].drop[0].topic", "did you mean `content`?"),
    ];
    check(&yaml, rows);
}
