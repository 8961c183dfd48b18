//! Random specs and records: the fast decoder agrees with the naive one.

use proptest::prelude::*;

use super::*;

/// A scalar that may fit anywhere.
fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        2 => Just(Json::Null),
        3 => prop::sample::select(vec![json!(0), json!(1), json!(2), json!(-3), json!(1.0), json!(0.25), json!(1e20), json!(u64::MAX)]),
        4 => prop::sample::select(vec!["", "a", "b", "c", "1", "0.5", "true", "x\"y", "z\u{0}", "7.0"]).prop_map(Json::from),
        1 => any::<bool>().prop_map(Json::from),
        1 => (250..260usize).prop_map(|n| json!("é".repeat(n / 2))),
    ]
}

/// Keys are few, so that paths meet.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "list", "item"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Json> {
    scalar().prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((key(), inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn record() -> impl Strategy<Value = Json> {
    let good_list = prop::collection::vec((scalar(), scalar(), value()), 0..4).prop_map(|elements| {
        Json::from(elements.into_iter().map(|(a, b, c)| json!({"a": a, "b": b, "c": c, "ts": 7})).collect::<Vec<_>>())
    });
    let time = prop_oneof![
        6 => (0..1_000_000i64).prop_map(Json::from),
        2 => any::<i64>().prop_map(Json::from),
        2 => prop::sample::select(vec![json!(0.5), json!(1e300), json!("2020-02-29T01:02:03.456789Z"), json!("x"), json!(-1.5)]),
        1 => value(),
    ];
    let list = prop_oneof![3 => good_list, 1 => value()];
    (prop::collection::vec((key(), value()), 0..5), list, time, scalar(), prop::option::of(0..5u32)).prop_map(
        |(fields, list, time, user, version)| {
            let mut record: Json = fields.into_iter().collect();
            record["list"] = list;
            record["ts"] = time;
            record["user"] = user;
            record["v"] = json!(version);
            record
        },
    )
}

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "b",
        "c",
        "list",
        "a.b",
        "b.a",
        "a.b.c",
        "a[].b",
        "list[].a",
        "list[].b",
        "list[].c",
        "c[]",
        "item.a",
        "item[].a",
        "list[].a.b",
    ])
}

fn field() -> impl Strategy<Value = Json> {
    let convert = prop::option::of(prop::sample::select(vec!["number", "text", "boolean"]));
    let default = prop::option::of(prop::sample::select(vec![json!(1), json!("d"), json!(true), json!(0.25)]));
    let rule = (path(), convert, default, any::<bool>()).prop_map(|(path, convert, default, map)| {
        let mut rule = json!({ "field": path });
        if let Some(convert) = convert {
            rule["convert"] = json!(convert);
        }
        if let Some(default) = default {
            rule["default"] = default;
        }
        if map {
            rule["map"] = json!({"a": "b", "1": "2", "true": "0.5"});
        }
        rule
    });
    prop_oneof![3 => path().prop_map(Json::from), 2 => rule, 1 => Just(json!({"const": 3}))]
}

fn when() -> impl Strategy<Value = Json> {
    let values = prop_oneof![
        Just(json!("a")),
        Just(json!(1)),
        Just(json!(true)),
        Just(json!(["a", 0.25, "1"])),
        Just(json!([0, "", "b"]))
    ];
    prop::collection::btree_map(path(), values, 0..2)
        .prop_map(|m| m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn fields() -> impl Strategy<Value = Json> {
    let names = prop::sample::select(vec![
        "decision",
        "placement",
        "basket",
        "value",
        "currency",
        "items",
        "positions",
        "quantities",
        "values",
        "propensities",
    ]);
    let attributes = prop::collection::btree_map(prop::sample::select(vec!["x", "item.a", "item.b"]), field(), 0..3);
    (prop::collection::btree_map(names, field(), 0..6), attributes).prop_map(|(fields, attributes)| {
        let mut fields: Json = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        fields["attributes"] = attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        fields
    })
}

fn mapping() -> impl Strategy<Value = Json> {
    let name = prop::sample::select(vec!["click", "impression", "consent"]);
    let versions = prop::collection::btree_map(prop::sample::select(vec!["1", "3"]), fields(), 0..2);
    (name, when(), fields(), versions).prop_map(|(name, when, fields, versions)| {
        let versions: Json = versions.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        json!({"name": name, "when": when, "fields": fields, "versions": versions})
    })
}

fn pipeline() -> impl Strategy<Value = PipelineSpec> {
    let consent = prop::sample::select(vec![
        json!({"assumed": "a test"}),
        json!({"event": "consent", "grantedIf": {"a": true, "b": 1}}),
        json!({"field": "a", "grantedIf": {"a": "a"}}),
    ]);
    let user = prop::sample::select(vec![json!({"field": "user"}), json!({"rowNumber": true}), json!({"field": "a"})]);
    let unit = prop::sample::select(vec!["s", "ms", "us", "ns"]);
    let events = prop::collection::vec(mapping(), 1..4);
    let drop = prop::collection::vec(when().prop_filter("all", |w| w != &json!({})), 0..2);
    let id = prop::option::of(path());
    let common = (
        prop::option::of(field()),
        prop::option::of(field()),
        prop::option::of(prop::sample::select(vec!["list", "a.b"])),
    );
    (consent, user, unit, events, drop, id, common).prop_filter_map(
        "paths that cannot be",
        |(consent, user, unit, events, drop, id, (platform, session, each))| {
            let time = if each == Some("list") { "list[].ts" } else { "ts" };
            let mut source =
                json!({"eventTime": {"field": time, "unit": unit}, "events": events, "drop": drop, "version": "v"});
            for (name, field) in [("platform", platform), ("session", session), ("each", each.map(Json::from))] {
                if let Some(field) = field {
                    source[name] = field;
                }
            }
            if let Some(id) = id {
                source["eventId"] = json!({"field": id, "dedupWithin": "1h"});
            }
            let privacy =
                json!({"consent": consent, "user": user, "allowedAttributes": ["x", "c", "item.a", "item.b"]});
            let spec = spec(privacy, source);
            let names = Names::of(&spec);
            let compiles = Decoder::compile(&spec, &spec.sources[0], &names, pseudonymizer()).is_ok();
            compiles.then_some(spec)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, max_local_rejects: 1_000_000, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_decoder_is_the_naive_one(spec in pipeline(), records in prop::collection::vec(record(), 1..6)) {
        let (names, by) = (Names::of(&spec), pseudonymizer());
        let naive = oracle::Oracle { spec: &spec, source: &spec.sources[0], names: &names, by: &by };
        let (mut fast, mut out) = (decoder(&spec), Decoded::default());
        for record in records {
            let text = record.to_string();
            fast.decode(text.as_bytes(), AT, &mut out);
            prop_assert_eq!(plain(&out), naive.decode(&text, AT), "{}", text);
        }
    }
}
