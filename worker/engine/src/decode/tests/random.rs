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

/// What is an id, and nearly always one that is allowed.
fn id() -> impl Strategy<Value = Json> {
    prop_oneof![
        20 => prop::sample::select(vec![json!("a"), json!("b"), json!(1), json!("1"), json!(2.0), json!("x\"y")]),
        1 => scalar(),
    ]
}

/// What is a position, a quantity, a value and a propensity all in one.
fn number() -> impl Strategy<Value = Json> {
    prop_oneof![20 => Just(json!(1)), 3 => Just(Json::Null), 1 => Just(json!(0.25)), 1 => scalar()]
}

/// A value that fits where `key` is looked for, or (rarely) any.
fn fitting(key: &'static str) -> impl Strategy<Value = (String, Json)> {
    let fits = match key {
        "a" | "user" => id().boxed(),
        "b" => number().boxed(),
        "c" => prop_oneof![id(), prop::collection::vec(id(), 1..3).prop_map(Json::from)].boxed(),
        _ => (id(), number()).prop_map(|(a, b)| json!({"a": a, "b": b})).boxed(),
    };
    prop_oneof![20 => fits, 1 => value()].prop_map(move |value| (key.to_owned(), value))
}

fn time() -> impl Strategy<Value = Json> {
    prop_oneof![
        20 => (0..1_000_000i64).prop_map(Json::from),
        2 => Just(json!("2020-02-29T01:02:03.456789Z")),
        1 => any::<i64>().prop_map(Json::from),
        1 => prop::sample::select(vec![json!(0.5), json!(1e300), json!("x"), json!(-1.5)]),
        1 => value(),
    ]
}

fn record() -> impl Strategy<Value = Json> {
    let elements = prop::collection::vec((id(), number(), value(), time()), 1..4).prop_map(|elements| {
        let elements = elements.into_iter().map(|(a, b, c, ts)| json!({"a": a, "b": b, "c": c, "ts": ts}));
        Json::from(elements.collect::<Vec<_>>())
    });
    let list = prop_oneof![8 => elements, 1 => value()];
    let fields = ["a", "b", "c", "item", "user"].map(fitting);
    (fields, list, time(), prop::option::of(0..5u32), prop::option::of(key())).prop_map(
        |(fields, list, time, version, without)| {
            let mut record: Json = fields.into_iter().collect();
            record["list"] = list;
            record["ts"] = time;
            record["v"] = json!(version);
            if let Some(key) = without {
                record.as_object_mut().unwrap().remove(&key);
            }
            record
        },
    )
}

/// The value of one field, one of all elements, or (rarely) anything.
fn fitting_field(name: &'static str, listed: bool) -> impl Strategy<Value = (String, Json)> {
    let paths = match name {
        "items" if listed => vec!["list[].a"],
        "items" => vec!["a", "a", "a", "c", "c[]"],
        "positions" | "quantities" | "values" | "propensities" if listed => vec!["list[].b"],
        "positions" | "quantities" | "values" | "propensities" => vec!["b"],
        "value" => vec!["b", "item.b"],
        _ => vec!["a", "item.a"],
    };
    let fits = prop::sample::select(paths).prop_map(Json::from);
    prop_oneof![20 => fits, 1 => field()].prop_map(move |field| (name.to_owned(), field))
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
        Just(json!(["a", "b", 1, "1"])),
        Just(json!([0.25, "", 2]))
    ];
    let some = prop::collection::btree_map(path(), values, 1..2)
        .prop_map(|m| m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Json>());
    prop_oneof![3 => Just(json!({})), 2 => some]
}

fn fields() -> impl Strategy<Value = Json> {
    any::<bool>().prop_flat_map(fields_of)
}

fn fields_of(listed: bool) -> impl Strategy<Value = Json> {
    let names = [
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
    ];
    let fields = names.map(|name| prop::option::weighted(0.4, fitting_field(name, listed)));
    let attributes = prop::collection::btree_map(prop::sample::select(vec!["x", "item.a", "item.b"]), field(), 0..3);
    (fields, attributes).prop_map(|(fields, attributes)| {
        let mut fields: Json = fields.into_iter().flatten().collect();
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
    let user =
        prop::sample::select(vec![json!({"field": "user"}), json!({"rowNumber": true}), json!({"field": "item.a"})]);
    let unit = prop::sample::select(vec!["s", "ms", "us", "ns"]);
    let events = prop::collection::vec(mapping(), 1..4);
    let drop = prop::option::weighted(0.2, when().prop_filter("all", |w| w != &json!({})));
    let id = prop::option::of(path());
    let common = (
        prop::option::of(field()),
        prop::option::of(field()),
        prop::option::of(prop::sample::select(vec!["list", "list", "list", "a.b"])),
    );
    (consent, user, unit, events, drop, id, common).prop_filter_map(
        "paths that cannot be",
        |(consent, user, unit, events, drop, id, (platform, session, each))| {
            let time = if each == Some("list") { "list[].ts" } else { "ts" };
            let mut source = json!({"eventTime": {"field": time, "unit": unit}, "events": events, "version": "v",
                "drop": drop.into_iter().collect::<Vec<_>>()});
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
