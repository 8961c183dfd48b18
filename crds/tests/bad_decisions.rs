//! Wrong tables, catalogs, policies, placements, experiments: as in `bad.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Row, check, edited};
use millrace_crds::load;

const SHOP: &str = include_str!("shop.yaml");

#[test]
fn tables_and_http() {
    let products = "- {name: products, http: {}, format: Json, table: true}";
    let with = |fields: &str| format!("- {{name: products, {fields}, table: true}}");
    let rows: &[(&str, &str, &str)] = &[
        ("http: {}, file: {path: p}, format: Json", "spec.sources[1]", "only one of `file`, `http`"),
        ("http: {}, format: Csv", "spec.sources[1].format", "only files are Csv"),
        ("http: {partitions: 2}, format: Json", "spec.sources[1].http.partitions", "must be 1 for a table"),
        ("http: {partitions: 65}, format: Json", "spec.sources[1].http.partitions", "must be from 1 to 64"),
        ("http: {}, format: Json, session: s", "spec.sources[1].session", "the records of a table are items"),
        ("http: {}, format: Json, events: [{name: x}]", "spec.sources[1].events", "the records of a table are items"),
        ("http: {}, format: Json, eventId: {field: id, dedupWithin: 1h}", "spec.sources[1].eventId", "are items"),
        (
            "http: {}, format: Json, eventTime: {field: t, maxOutOfOrderness: 1s}",
            "spec.sources[1].eventTime.maxOutOfOrderness",
            "are never late",
        ),
        (
            "http: {}, format: Json, eventTime: {field: t, notAfter: \"2027-01-01T00:00:00Z\"}",
            "spec.sources[1].eventTime.notAfter",
            "use `maxAhead`",
        ),
        (
            "http: {}, format: Json, eventTime: {fields: [year, month, day], plus: rowNumber}",
            "spec.sources[1].eventTime.plus",
            "only records of files have a number",
        ),
        (
            "file: {path: p}, format: Csv, eventTime: {field: t}",
            "spec.sources[1].eventTime.notAfter",
            "must be given for files",
        ),
    ];
    for (fields, path, phrase) in rows {
        let problems = edited(SHOP, products, &with(fields));
        let found = problems.as_slice().iter().any(|p| p.path == *path && p.to_string().contains(phrase));
        assert!(found && problems.as_slice().len() <= 2, "{fields}\nwanted {path}: {phrase}\ngot:\n{problems}");
    }
    let rows: &[Row] = &[
        (", table: true}", "}", "spec.catalog.source", "is not a source with `table: true`; there are none"),
        (", table: true}", "}", "spec.sources[1].events", "a source without events gives nothing"),
        (", table: true}", "}", "spec.sources[1].eventTime", "one of `field`, `fields` must be given"),
        ("{source: products, ", "{source: product, ", "spec.catalog.source", "did you mean `products`?"),
        ("{source: products, ", "{source: product, ", "spec.sources[1].table", "no catalog reads it"),
        ("item: sku, attr", "item: \"sku[]\", attr", "spec.catalog.item", "one value is needed"),
        (
            "[category, brand, price], a",
            "[categry, brand], a",
            "spec.catalog.attributes[0]",
            "did you mean `category`?",
        ),
        ("[category, brand, price], a", "[brand, brand], a", "spec.catalog.attributes[1]", "stands here twice"),
        ("available: inStock", "available: in..stock", "spec.catalog.available", "is not a path"),
        ("file: {path: \"data/*.jsonl.gz\"}", "http: {}", "spec.sources[0].eventTime.notAfter", "use `maxAhead`"),
    ];
    check(SHOP, rows);
    let http = SHOP.replace("file: {path: \"data/*.jsonl.gz\"}", "http: {partitions: 4}");
    let problems = load(&http.replace("{event: consent, grantedIf: {personalization: true}}", "{assumed: x}"));
    let problems = problems.unwrap_err().to_string();
    assert!(problems.contains("consent may be assumed for files only; source `events` is none"), "{problems}");
    assert!(!problems.contains("`products`"), "the items of a table agree to nothing: {problems}");
    let problems = load(&http.replace("{field: customerId}", "{rowNumber: true}")).unwrap_err().to_string();
    assert!(problems.contains("only records of files have a number; source `events` is none"), "{problems}");
}

#[test]
fn policies_and_placements() {
    let rows: &[Row] = &[
        (
            "popular: {rankBy: itemCtr}",
            "popular: {}",
            "spec.policies.popular",
            "one of `rankBy`, `score` must be given",
        ),
        ("{rankBy: itemCtr}", "{rankBy: itemCtr, score: {ctr: 1}}", "spec.policies.popular", "only one of"),
        ("{rankBy: itemCtr}", "{rankBy: itemCr}", "spec.policies.popular.rankBy", "did you mean `itemCtr`?"),
        ("{rankBy: itemCtr}", "{rankBy: taste}", "spec.policies.popular.rankBy", "is not a feature `per: item`"),
        ("taste, itemCtr, item,", "taste, item,", "spec.policies.popular.rankBy", "no model has `itemCtr`"),
        ("popular: {rankBy", "RequestOrder: {rankBy", "spec.policies.RequestOrder", "the order of the request already"),
        ("likely: {score", "li kely: {score", "spec.policies[\"li kely\"]", "is not a name"),
        ("{ctr: 1.0, buyers", "{ctrr: 1.0, buyers", "spec.policies.personal.score.ctrr", "did you mean `ctr`?"),
        ("buyers: 2.5", "buyers: 0", "spec.policies.personal.score.buyers", "says nothing"),
        ("epsilon: 0.05", "epsilon: 1.5", "spec.policies.personal.explore.epsilonGreedy.epsilon", "from 0 to 1"),
        ("slots: All}", "slots: First}", "spec.policies.personal.explore.epsilonGreedy.slots", "allowed: All, Last"),
        (
            "explore: {softmax: {temperature: 0.02}}",
            "explore: {}",
            "spec.policies.soft.explore",
            "one of `epsilonGreedy`",
        ),
        ("temperature: 0.02", "temperature: 0", "spec.policies.soft.explore.softmax.temperature", "above zero"),
        (
            "{rankBy: request}",
            "{rankBy: request, explore: {softmax: {temperature: 1}}}",
            "spec.policies.given.explore.softmax",
            "needs scores",
        ),
        (
            "{rankBy: request}",
            "{rankBy: request, explore: {thompson: {}}}",
            "spec.policies.given.explore.thompson",
            "give `score`",
        ),
        (
            "likely: {score: {buyers: 1}",
            "likely: {score: {ctr: 1}",
            "spec.policies.likely.explore.thompson",
            "model `ctr` keeps no distribution",
        ),
        ("samples: 100", "samples: 9", "spec.policies.likely.explore.thompson.samples", "from 10 to 10000"),
        ("- {name: home", "- {name: search", "spec.placements[1].name", "stands here twice"),
        ("- {name: home", "- {name: \"home page\"", "spec.placements[0].name", "is not a name"),
        ("{catalog: available}", "{}", "spec.placements[0].candidates", "one of `catalog`, `fromRequest`"),
        ("{catalog: available}", "{catalog: all}", "spec.placements[0].candidates.catalog", "allowed: available"),
        ("{fromRequest: 200}", "{fromRequest: 19}", "spec.placements[1].candidates.fromRequest", "number of slots, 20"),
        ("slots: 20", "slots: 101", "spec.placements[1].slots", "from 1 to 100"),
        ("default: popular", "default: personal", "spec.placements[0].default", "without personal features (`rankBy`)"),
        ("default: popular", "default: populr", "spec.placements[0].default", "did you mean `popular`?"),
        ("default: popular", "default: RequestOrder", "spec.placements[0].default", "is the order of a request"),
        ("default: popular", "default: given", "spec.placements[0].default", "is the order of a request"),
        ("policy: soft", "policy: sft", "spec.placements[1].policy", "did you mean `soft`?"),
        ("boughtWithin: 30d", "boughtWithin: 0s", "spec.placements[0].exclude.boughtWithin", "longer than zero"),
        ("boughtWithin: 30d", "event: order", "spec.placements[0].exclude.event", "which is not given"),
        ("30d}, e", "30d, event: consent}, e", "spec.placements[0].exclude.event", "`consent` has `items`"),
        ("exposeWithin: 2m", "exposeWithin: 0s", "spec.placements[0].exposeWithin", "longer than zero"),
        (
            "exposeWithin: 2m",
            "exposeWithin: 2m, impressions: decision",
            "spec.placements[0].exposeWithin",
            "no impression is waited for",
        ),
        ("decision: decisionId\n", "basket: b\n", "spec.placements[0].impressions", "use `impressions: decision`"),
        ("mode: Default", "mode: Never", "spec.placements[1].mode", "allowed: Personalize, Default"),
    ];
    check(SHOP, rows);
    let catalog =
        "  catalog: {source: products, item: sku, attributes: [category, brand, price], available: inStock}\n";
    let row = (catalog, "", "spec.placements[0].candidates.catalog", "give `spec.catalog`");
    check(SHOP, &[row, (catalog, "", "spec.sources[1].table", "no catalog reads it")]);
}

#[test]
fn experiments_serving_and_switches() {
    let two = "{control: {weight: 50, policy: popular}, personal: {weight: 50, policy: personal}, oracle: {weight: 1, policy: given}}";
    let metrics = "metrics: [ctr, revenuePerUser, revenuePerBasket]";
    let rows: &[Row] = &[
        (
            "placements: [home, search]",
            "placements: [hom]",
            "spec.experiments[0].placements[0]",
            "did you mean `home`?",
        ),
        ("placements: [home, search]", "placements: [home, home]", "spec.experiments[0].placements[1]", "twice"),
        ("placements: [home, search]", "placements: []", "spec.experiments[0].placements", "at least 1 entries"),
        ("- name: launch", "- name: the launch", "spec.experiments[0].name", "is not a name"),
        (two, "{control: {weight: 1, policy: popular}}", "spec.experiments[0].variants", "2 to 16 variants, not 1"),
        (
            "{weight: 1, policy: given}",
            "{weight: 0, policy: given}",
            "spec.experiments[0].variants.oracle.weight",
            "from 1",
        ),
        ("policy: given", "policy: givn", "spec.experiments[0].variants.oracle.policy", "did you mean `given`?"),
        ("oracle: {weight", "All: {weight", "spec.experiments[0].variants.All", "means all variants"),
        ("oracle: {weight", "or/cle: {weight", "spec.experiments[0].variants[\"or/cle\"]", "is not a name"),
        ("unit: user", "control: contrl", "spec.experiments[0].control", "did you mean `control`?"),
        ("unit: user", "salt: \"\"", "spec.experiments[0].salt", "must not be empty"),
        ("unit: user", "click: clik", "spec.experiments[0].click", "did you mean `click`?"),
        ("unit: user", "order: consent", "spec.experiments[0].order", "`consent` has `value`"),
        ("unit: user", "order: ordr", "spec.experiments[0].order", "did you mean `order`?"),
        ("unit: user", "confidence: 1", "spec.experiments[0].confidence", "from 0.5 to 0.9999"),
        (metrics, "metrics: [ctr, ctr]", "spec.experiments[0].metrics[1]", "stands here twice"),
        (metrics, "metrics: [cr]", "spec.experiments[0].metrics[0]", "allowed: ctr, revenuePerUser, revenuePerBasket"),
        ("variants: All", "variants: controll", "spec.models[0].trainOn.variants", "did you mean `control`?"),
        ("variants: [control, personal]", "variants: [x]", "spec.models[1].trainOn.variants[0]", "is not a variant"),
        (
            "variants: [control, personal]",
            "variants: [control, control]",
            "spec.models[1].trainOn.variants[1]",
            "stands here twice",
        ),
        ("features: [item]", "features: [item, locale]", "spec.models[1].learner.betaBernoulli", "knows items only"),
        ("{betaBernoulli", "{ftrl: {bits: 9}, betaBernoulli", "spec.models[1].learner.ftrl", "has one learner"),
        ("priorExamples: 20", "priorExamples: 0", "spec.models[1].learner.betaBernoulli.priorExamples", "above zero"),
        ("tolerance: 0.3", "tolerance: 0", "spec.models[0].drift.tolerance", "chance alone alarms"),
        ("tolerance: 0.3", "psi: 0", "spec.models[0].drift.psi", "chance alone alarms"),
        ("answer: forgetFaster", "answer: forget", "spec.models[0].drift.answer", "fallBackToDefault"),
        ("{secret: {name: shop-api, key: token}}", "{}", "spec.serving.tokens.decisions", "one of `file`, `secret`"),
        ("name: shop-api", "name: \"\"", "spec.serving.tokens.decisions.secret.name", "must not be empty"),
        ("{file: tls.key}", "{file: \"\"}", "spec.serving.tls.key.file", "must not be empty"),
        ("bodyBytes: 65536", "bodyBytes: 10", "spec.serving.limits.bodyBytes", "from 1024 to"),
    ];
    check(SHOP, rows);
    let another = "  - name: again\n    placements: [search]\n    variants: {control: {weight: 1, policy: popular}, b: {weight: 1, \
                   policy: popular}}\n    metrics: [revenuePerUser]\n  serving:\n";
    let row = ("  serving:\n", another, "spec.experiments[1].placements[0]", "is in experiment `launch` already");
    check(SHOP, &[row]);
}
