//! Each thing a spec can say, and what comes of it.

use super::*;
use crate::event::ConsentChange;

fn click(fields: Json) -> PipelineSpec {
    events(json!([{"name": "click", "fields": fields}]))
}

#[test]
fn an_event_with_everything() {
    let spec = spec(
        json!({"allowedAttributes": ["locale", "item.brand", "item.price", "n_{0..1}"]}),
        json!({
            "eventId": {"field": "id", "dedupWithin": "1h"},
            "platform": {"field": "client", "map": {"w": "web"}},
            "session": "ctx.session",
            "events": [{"name": "impression", "when": {"type": "shown", "ctx.ok": true}, "fields": {
                "decision": "d", "placement": {"field": "slot", "default": "home"}, "basket": "b", "value": "total",
                "currency": {"const": "EUR"}, "items": "shown[].sku", "positions": "shown[].pos",
                "quantities": "shown[].n", "values": "shown[].price", "propensities": "shown[].p",
                "attributes": {"item.price": "shown[].price", "locale": "ctx.locale"}}}],
        }),
    );
    let event = one(
        &spec,
        json!({
            "id": "e1", "ts": 1_700_000_000_000_i64, "type": "shown", "client": "w", "user": "u1", "d": "d1", "b": 12,
            "total": 9.5, "ctx": {"session": "s1", "ok": true, "locale": "de", "secret": [1, {"x": 2}]},
            "item": {"brand": "acme"}, "n_1": true, "not": "allowed",
            "shown": [{"sku": "a", "pos": 0, "n": 2, "price": 4.75, "p": 0.5}, {"sku": 7, "p": 1}],
        }),
    );
    assert_eq!((event.time, event.index), (1_700_000_000_000_000, 0));
    assert_eq!(event.user, pseudonymizer().user_of("u1").0);
    assert_eq!(event.ids, [true; 4]);
    assert_eq!(f64::from_bits(event.value), 9.5);
    assert_eq!(event.texts, ["home", "web", "EUR"]);
    assert_eq!(event.attributes, [(2, "text de".to_owned()), (4, "bool true".to_owned())]);
    assert_eq!((event.items[0].id.as_str(), event.items[0].position), ("a", 0));
    assert_eq!(event.items[0].numbers, [2.0, 4.75, 0.5].map(f64::to_bits));
    assert_eq!(event.items[0].attributes, [(0, "text acme".to_owned()), (1, "number 4.75".to_owned())]);
    assert_eq!((event.items[1].id.as_str(), event.items[1].position), ("7", -1));
    assert_eq!(event.items[1].numbers, [f64::NAN, f64::NAN, 1.0].map(f64::to_bits));
    assert_eq!(event.items[1].attributes, [(0, "text acme".to_owned())]);
}

#[test]
fn when_compares_type_and_value() {
    let spec = events(json!([
        {"name": "a", "when": {"x": 1}}, {"name": "b", "when": {"x": "1"}}, {"name": "c", "when": {"x": true}},
        {"name": "d", "when": {"x": [2, "two"], "y.z": false}}]));
    let which = |record: Json| -> Vec<u32> {
        let mut record = record;
        record["user"] = json!("u");
        record["ts"] = json!(1);
        decode(&spec, record).events.iter().map(|e| e.index).collect()
    };
    assert_eq!(which(json!({"x": 1})), [0]);
    assert_eq!(which(json!({"x": 1.0})), [0]);
    assert_eq!(which(json!({"x": "1"})), [1]);
    assert_eq!(which(json!({"x": true})), [2]);
    assert_eq!(which(json!({"x": "two", "y": {"z": false}})), [3]);
    for nothing in [json!({}), json!({"x": null}), json!({"x": [1]}), json!({"x": {"y": 1}}), json!({"x": 2})] {
        assert_eq!(which(nothing.clone()), [0; 0], "{nothing}");
    }
}

#[test]
fn every_match_yields_an_event_in_declared_order_or_none_does() {
    let spec = events(json!([
        {"name": "impression", "fields": {"items": "item"}},
        {"name": "click", "when": {"click": 1}, "fields": {"items": "item", "positions": "pos"}},
        {"name": "click", "when": {"click": 1}}]));
    let outcome = decode(&spec, json!({"user": 5, "ts": 1, "item": "i", "click": 1}));
    assert_eq!(outcome.events.iter().map(|e| (e.index, e.event_type)).collect::<Vec<_>>(), [(0, 1), (1, 0), (2, 0)]);
    let rejected = decode(&spec, json!({"user": 5, "ts": 1, "item": "i", "click": 1, "pos": -4}));
    assert_eq!((rejected.events, rejected.rejects), (vec![], vec![(0, Reason::NumberOutOfRange)]));
}

#[test]
fn the_events_of_a_record_have_ids_of_their_own_and_retries_the_same() {
    let ids = |source: Json, record: Json| -> Vec<u128> {
        let out = decode_bytes(&spec(json!({}), source), record.to_string().as_bytes());
        out.events.iter().map(|e| Event::read(out.event_bytes(e)).unwrap().head.id).collect()
    };
    let id_of = |field: &str| json!({"each": "list", "eventId": {"field": field, "dedupWithin": "1h"}, "events": [{"name": "a"}, {"name": "b"}]});
    let whole = ids(id_of("id"), json!({"user": "u", "ts": 1, "id": 3, "list": [{}, {}]}));
    assert_eq!(whole.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    let own = |list: Json| ids(id_of("list[].id"), json!({"user": "u", "ts": 1, "list": list}));
    let (first, again) = (own(json!([{"id": "x"}, {"id": "y"}])), own(json!([{"id": "y"}])));
    assert_eq!(first[2..], again[..]);
    assert_ne!(first[..2], again[..]);
}

#[test]
fn drop_consent_and_login() {
    let by_field = spec(
        json!({"consent": {"field": "c.ads", "grantedIf": {"c.ads": "yes"}}}),
        json!({"drop": [{"bot": true}, {"env": ["test", "dev"]}], "events": [{"name": "a", "when": {"t": "a"}}]}),
    );
    let counted = |record: Json| {
        let outcome = decode(&by_field, record);
        assert!(outcome.rejects.is_empty());
        let counts = outcome.counts;
        (outcome.events.len(), counts.dropped, counts.unknown_type, counts.unconsented)
    };
    let granted = json!({"ads": "yes"});
    assert_eq!(counted(json!({"t": "a", "user": "u", "ts": 1, "c": granted})), (1, 0, 0, 0));
    assert_eq!(counted(json!({"t": "a", "user": "u", "ts": 1, "c": granted, "bot": true})), (0, 1, 0, 0));
    assert_eq!(counted(json!({"t": "a", "user": "u", "ts": 1, "c": granted, "env": "dev"})), (0, 1, 0, 0));
    assert_eq!(counted(json!({"t": "b", "user": "u", "ts": 1, "c": granted})), (0, 0, 1, 0));
    for user in [json!(null), json!("")] {
        assert_eq!(counted(json!({"t": "a", "user": user, "ts": 1, "c": granted})), (0, 0, 0, 1));
    }
    // Without consent not even a broken time is of interest.
    for consent in [json!({"ads": true}), json!({"ads": "no"}), json!({}), json!(null), json!("yes")] {
        assert_eq!(counted(json!({"t": "a", "user": "u", "ts": "?", "c": consent})), (0, 0, 0, 1));
    }
    let plain = spec(json!({"consent": {"field": "ok"}}), json!({"events": [{"name": "a"}]}));
    assert_eq!(decode(&plain, json!({"user": 1, "ts": 1, "ok": true})).events.len(), 1);
    assert_eq!(decode(&plain, json!({"user": 1, "ts": 1, "ok": 1})).counts.unconsented, 1);
}

#[test]
fn consent_events_grant_or_withdraw_whatever_else_they_hold() {
    let spec = spec(
        json!({"consent": {"event": "consent", "grantedIf": {"personal": true, "v": 2}}}),
        json!({"eventId": {"field": "id", "dedupWithin": "1h"}, "session": "s", "platform": "p",
            "events": [{"name": "consent", "when": {"t": "c"}, "fields": {"items": "i", "value": "n"}}, {"name": "click"}]}),
    );
    let changes = |record: Json| decode(&spec, record).events.iter().map(|e| e.consent).collect::<Vec<_>>();
    let (none, grant, withdraw) = (ConsentChange::None, ConsentChange::Grant, ConsentChange::Withdraw);
    assert_eq!(changes(json!({"t": "c", "user": "u", "ts": 1, "personal": true, "v": 2})), [grant, none]);
    assert_eq!(changes(json!({"t": "c", "user": "u", "ts": 1, "personal": true})), [withdraw, none]);
    assert_eq!(changes(json!({"t": "x", "user": "u", "ts": 1, "personal": true, "v": 2})), [none]);
    // The click is rejected, and with it a grant, but no withdrawal.
    let broken = json!({"t": "c", "user": "u", "ts": 1, "id": "", "s": {}, "p": [], "i": [""], "n": "x"});
    let outcome = decode(&spec, broken.clone());
    let event = &outcome.events[0];
    assert_eq!((outcome.events.len(), outcome.rejects.len()), (1, 1));
    assert_eq!((event.consent, event.ids, event.items.len()), (withdraw, [false; 4], 0));
    let mut granting = broken;
    granting["personal"] = json!(true);
    granting["v"] = json!(2);
    assert_eq!(reason(&spec, granting.clone()), Reason::EmptyId);
    // Where nothing else of the record is an event, nothing else rejects a grant either.
    let mut alone = spec.clone();
    alone.sources[0].events.truncate(1);
    assert_eq!(one(&alone, granting).consent, grant);
    assert_eq!(decode(&alone, json!({"t": "c", "ts": 1})).counts.unconsented, 1);
}

#[test]
fn each_unrolls_an_array() {
    let spec = spec(
        json!({"user": {"field": "session"}, "allowedAttributes": ["locale"]}),
        json!({"each": "p.events", "eventTime": {"field": "p.events[].ts"}, "drop": [{"p.events[].bot": true}],
            "events": [{"name": "click", "when": {"p.events[].type": "clicks"},
                "fields": {"items": "p.events[].aid", "placement": "place"}}]}),
    );
    let outcome = decode(
        &spec,
        json!({"p": {"events": [
        {"aid": 1, "ts": 10, "type": "clicks"}, {"aid": 2, "ts": "bad", "type": "clicks"}, {"type": "x"}, 5, null,
        {"bot": true}, {"ts": 20, "type": "clicks", "aid": "b"}, {"ts": 30, "type": "clicks"}]},
        "session": "s", "place": "home", "locale": "fr"}),
    );
    let got = outcome.events.iter().map(|e| (e.index >> 8, e.time, e.items.first().map(|i| i.id.as_str())));
    assert_eq!(got.collect::<Vec<_>>(), [(0, 10_000, Some("1")), (6, 20_000, Some("b")), (7, 30_000, None)]);
    assert!(outcome.events.iter().all(|e| e.texts[0] == "home" && e.attributes == [(0, "text fr".to_owned())]));
    assert_eq!(outcome.rejects, [(1, Reason::BadTime)]);
    assert_eq!((outcome.counts.unknown_type, outcome.counts.dropped), (3, 1));
    assert_eq!(decode(&spec, json!({"p": {"events": []}, "session": "s"})).counts.empty, 1);
    assert_eq!(reason(&spec, json!({"p": {}, "session": "s"})), Reason::MissingField);
    assert_eq!(reason(&spec, json!({"p": {"events": {}}})), Reason::WrongType);
    assert_eq!(reason(&spec, json!({"p": {"events": 1}})), Reason::WrongType);
    assert_eq!(reason(&spec, json!({"p": []})), Reason::WrongType);
}

#[test]
fn lists_have_the_items_length() {
    let spec = click(json!({"items": "i", "positions": "p", "values": "v[].x", "attributes": {}}));
    let with = |more: Json| {
        let mut record = json!({"user": 1, "ts": 1});
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record
    };
    let positions = |more| one(&spec, with(more)).items.iter().map(|i| i.position).collect::<Vec<_>>();
    assert_eq!(positions(json!({"i": "a", "p": 4})), [4]);
    assert_eq!(positions(json!({"i": ["a"], "p": 4})), [4]);
    assert_eq!(positions(json!({"i": "a", "p": [4]})), [4]);
    assert_eq!(positions(json!({"i": ["a", 2], "p": [4, null], "v": [{"x": 1}, {}]})), [4, -1]);
    assert_eq!(positions(json!({"p": [1, 2]})), [0; 0]);
    assert_eq!(positions(json!({"i": [], "p": []})), [0; 0]);
    for wrong in [
        json!({"i": ["a", "b"], "p": 4}),
        json!({"i": ["a", "b"], "p": [4]}),
        json!({"i": [], "p": [1]}),
        json!({"i": {"a": 1}}),
        json!({"i": [["a"]]}),
        json!({"i": ["a"], "p": {}}),
        json!({"i": [true]}),
        json!({"i": "a", "v": 7}),
        json!({"i": "a", "v": [7]}),
        json!({"i": "a", "p": "4"}),
    ] {
        assert_eq!(reason(&spec, with(wrong.clone())), Reason::WrongType, "{wrong}");
    }
    for wrong in [json!({"i": "a", "p": -1}), json!({"i": "a", "p": 1.5}), json!({"i": "a", "p": 3_000_000_000_u32})] {
        assert_eq!(reason(&spec, with(wrong.clone())), Reason::NumberOutOfRange, "{wrong}");
    }
    for wrong in [json!({"i": ""}), json!({"i": ["a", null]})] {
        assert_eq!(reason(&spec, with(wrong.clone())), Reason::EmptyId, "{wrong}");
    }
    let many = with(json!({"i": vec!["a"; super::super::MAX_ITEMS + 1]}));
    assert_eq!(reason(&spec, many), Reason::TooMany);
}

#[test]
fn fields_are_mapped_converted_and_defaulted() {
    let value = |rule: Json, found: Json| {
        let mut record = json!({"user": 1, "ts": 1});
        if found != json!("absent") {
            record["x"] = found;
        }
        let mut out = decode(&click(json!({"value": rule})), record);
        out.events.pop().map(|e| f64::from_bits(e.value))
    };
    let convert = json!({"field": "x", "convert": "number"});
    assert_eq!(value(convert.clone(), json!("1.5")), Some(1.5));
    assert_eq!(value(convert.clone(), json!(true)), Some(1.0));
    assert_eq!(value(convert.clone(), json!("NaN")), None);
    assert_eq!(value(convert, json!("")), None);
    assert_eq!(value(json!("x"), json!("1.5")), None);
    assert_eq!(value(json!({"field": "x", "default": 3}), json!("absent")), Some(3.0));
    assert_eq!(value(json!({"field": "x", "default": 3}), json!(null)), Some(3.0));
    assert_eq!(value(json!({"field": "x", "default": 3}), json!(4)), Some(4.0));
    assert_eq!(value(json!({"field": "x", "const": 5}), json!(4)), Some(5.0));
    let map = json!({"field": "x", "map": {"a": "7", "1": "8"}, "convert": "number", "default": 9});
    assert_eq!(value(map.clone(), json!("a")), Some(7.0));
    assert_eq!(value(map.clone(), json!(1)), Some(8.0));
    assert_eq!(value(map.clone(), json!("unlisted")), Some(9.0));
    assert_eq!(value(map, json!({})), None);
}

#[test]
fn attributes_are_typed_or_ignored_never_rejected() {
    let attribute = |rule: Json, found: Json| {
        let fields = json!({"attributes": {"x": rule}});
        let spec = spec(json!({"allowedAttributes": ["x"]}), json!({"events": [{"name": "a", "fields": fields}]}));
        let outcome = decode(&spec, json!({"user": 1, "ts": 1, "x": found}));
        let event = outcome.events.first().unwrap();
        (event.attributes.first().map(|a| a.1.clone()), outcome.counts.ignored_attributes)
    };
    let some = |text: &str| (Some(text.to_owned()), 0);
    assert_eq!(attribute(json!("x"), json!("12")), some("text 12"));
    assert_eq!(attribute(json!("x"), json!("")), some("text "));
    assert_eq!(attribute(json!("x"), json!(u64::MAX)), some("number 1.8446744073709552e19"));
    assert_eq!(attribute(json!({"field": "x", "convert": "text"}), json!(12.0)), some("text 12"));
    assert_eq!(attribute(json!({"field": "x", "convert": "boolean"}), json!("True")), some("bool true"));
    assert_eq!(attribute(json!({"field": "x", "convert": "boolean"}), json!(0)), some("bool false"));
    assert_eq!(attribute(json!("x"), json!(null)), (None, 0));
    for wrong in [json!({"a": 1}), json!([1, 2]), json!("x".repeat(256))] {
        assert_eq!(attribute(json!("x"), wrong.clone()), (None, 1), "{wrong}");
    }
    assert_eq!(attribute(json!("x"), json!("é".repeat(127))), some(&format!("text {}", "é".repeat(127))));
}

#[test]
fn versions() {
    let spec = spec(
        json!({}),
        json!({"version": "v", "events": [{"name": "a", "fields": {"placement": "new", "currency": "c"},
            "versions": {"1": {"placement": "first"}, "3": {"placement": "third", "currency": {"const": "x"}}}}]}),
    );
    let record = json!({"user": 1, "ts": 1, "new": "new", "first": "first", "third": "third", "c": "c"});
    for (version, placement, currency) in [
        (json!(0), "first", "c"),
        (json!(1), "first", "c"),
        (json!("1"), "first", "c"),
        (json!(2), "third", "x"),
        (json!(3.0), "third", "x"),
        (json!(4), "new", "c"),
        (json!(1e300), "new", "c"),
        (json!("four"), "new", "c"),
        (json!(null), "new", "c"),
        (json!([1]), "new", "c"),
    ] {
        let mut record = record.clone();
        record["v"] = version.clone();
        let texts = one(&spec, record).texts;
        assert_eq!((texts[0].as_str(), texts[2].as_str()), (placement, currency), "{version}");
    }
}

#[test]
fn times() {
    let time = |event_time: Json, record: Json| {
        let spec = spec(json!({}), json!({"eventTime": event_time, "events": [{"name": "a"}]}));
        let mut record = record;
        record["user"] = json!(1);
        let out = decode_bytes(&spec, record.to_string().as_bytes());
        match out.events.first() {
            Some(event) => Ok((event.stated.0, event.future)),
            None => Err(out.rejects[0].reason),
        }
    };
    let field = json!({"field": "t", "unit": "s", "notBefore": "2019-01-01T00:00:00Z", "notAfter": "2020-01-01 00:00"});
    let at = |t: Json| time(field.clone(), json!({ "t": t }));
    let start = 1_546_300_800_000_000;
    assert_eq!(at(json!(1_546_300_800)), Ok((start, false)));
    assert_eq!(at(json!("2019-01-01 01:00:00.5+01:00")), Ok((start + 500_000, false)));
    assert_eq!(at(json!("1546300800")), Ok((start, false)));
    assert_eq!(at(json!(1_577_836_800)), Ok((1_577_836_800_000_000, false)));
    assert_eq!(at(json!(1_577_836_800.5)), Ok((1_577_836_800_500_000, true)));
    assert_eq!(at(json!("9999-12-31T23:59:59Z")), Ok((253_402_300_799_000_000, true)));
    for (t, reason) in [
        (json!(1_546_300_799), Reason::TimeOutOfRange),
        (json!("0001-01-01T00:00:00Z"), Reason::TimeOutOfRange),
        (json!(u64::MAX), Reason::TimeOutOfRange),
        (json!(i64::MIN), Reason::TimeOutOfRange),
        (json!(-1e300), Reason::TimeOutOfRange),
        (json!("yesterday"), Reason::BadTime),
        (json!(""), Reason::BadTime),
        (json!(true), Reason::WrongType),
        (json!([1]), Reason::WrongType),
        (json!(null), Reason::MissingField),
    ] {
        assert_eq!(at(t.clone()), Err(reason), "{t}");
    }
    assert_eq!(time(json!({"field": "t"}), json!({"t": -1})), Err(Reason::TimeOutOfRange));
    assert_eq!(
        time(json!({"field": "t"}), json!({"t": "2100-01-01T00:00:00.000001Z"})),
        Ok((4_102_444_800_000_001, true))
    );
    let calendar = json!({"fields": ["y", "m", "d"], "plus": "rowNumber", "unit": "s"});
    let of = |y: Json, m: Json, d: Json| time(calendar.clone(), json!({"y": y, "m": m, "d": d}));
    assert_eq!(of(json!(2008), json!("4"), json!(1.0)), Ok((1_207_008_000_000_000 + 7_000_000, false)));
    assert_eq!(of(json!(2008), json!(13), json!(1)), Err(Reason::BadTime));
    assert_eq!(of(json!(2008), json!(1.5), json!(1)), Err(Reason::BadTime));
    assert_eq!(of(json!(2008), json!(null), json!(1)), Err(Reason::MissingField));
    let clock = json!({"fields": ["y", "m", "d", "h"]});
    assert_eq!(time(clock, json!({"y": 1970, "m": 1, "d": 2, "h": 3})), Ok(((24 + 3) * 3_600_000_000, false)));
}

#[test]
fn users_are_pseudonyms_of_ids_or_rows() {
    let spec_of_rows = spec(json!({"user": {"rowNumber": true}}), json!({"events": [{"name": "a"}]}));
    let by = pseudonymizer();
    assert_eq!(one(&spec_of_rows, json!({"ts": 1})).user, by.row_user("s", AT.partition, AT.row).0);
    let spec = events(json!([{"name": "a"}]));
    for user in [json!(12), json!(12.0), json!("12"), json!("\u{31}2")] {
        assert_eq!(one(&spec, json!({"ts": 1, "user": user})).user, by.user_of("12").0);
    }
    assert_eq!(reason(&spec, json!({"ts": 1, "user": true})), Reason::WrongType);
    assert_eq!(reason(&spec, json!({"ts": 1, "user": {"id": 1}})), Reason::WrongType);
    assert_eq!(reason(&spec, json!({"ts": 1, "user": "u".repeat(1_025)})), Reason::IdTooLong);
}

#[test]
fn of_equal_keys_the_last_counts() {
    let spec = click(json!({"placement": "a.b", "currency": "a.c", "items": "l[].x"}));
    let out = decode_bytes(
        &spec,
        br#"{"ts":1,"ts":2,"user":"u","a":{"b":"1","c":"2"},"a":{"b":"3"},
        "l":[{"x":1},{"x":2}],"l":[{"x":3,"x":4}]}"#,
    );
    let event = &plain(&out).events[0];
    assert_eq!((event.time, event.texts[0].as_str(), event.texts[2].as_str()), (2_000, "3", ""));
    assert_eq!(event.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["4"]);
}

#[test]
fn what_cannot_be_compiled_is_told() {
    let problem = |source: Json| {
        let spec = spec(json!({}), source);
        let error = Decoder::compile(&spec, &spec.sources[0], &Names::of(&spec), pseudonymizer()).err().unwrap();
        (error.what, error.value)
    };
    let field = |path: &str| json!({"events": [{"name": "a", "fields": {"items": path}}]});
    for path in ["", "a..b", ".a", "a[", "a[0].b", "[].a", "a[].b[].c", "a[][]"] {
        assert_eq!(problem(field(path)), ("items", path.to_owned()));
    }
    assert_eq!(problem(field(&["a"; 33].join("."))).0, "items");
    assert_eq!(problem(json!({"each": "a[]"})), ("each", "a[]".to_owned()));
    assert_eq!(problem(json!({"each": "a", "format": "Csv"})), ("each", "a".to_owned()));
    assert_eq!(problem(json!({"each": "ts"})), ("eventTime", "ts".to_owned()));
    assert_eq!(problem(json!({"delimiter": ";;", "format": "Csv"})), ("delimiter", ";;".to_owned()));
    assert_eq!(problem(json!({"eventTime": {"fields": ["a", "b"]}})).0, "eventTime");
    assert_eq!(problem(json!({"eventTime": {"field": "a", "notBefore": "soon"}})).1, "soon");
    assert_eq!(problem(json!({"events": [{"name": "a", "versions": {"one": {}}}]})), ("version", "one".to_owned()));
    assert_eq!(problem(json!({"platform": {"default": "x"}})).0, "platform");
}
