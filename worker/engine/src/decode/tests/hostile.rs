//! Nothing that arrives stops the decoder, and no identity leaves it.

use proptest::prelude::*;

use super::*;
use crate::decode::{MAX_ELEMENTS, MAX_RECORD_BYTES, MAX_SAMPLE_BYTES};

fn shop() -> PipelineSpec {
    spec(
        json!({"consent": {"event": "consent", "grantedIf": {"personal": true}}, "allowedAttributes": ["locale", "item.price"]}),
        json!({"eventId": {"field": "id", "dedupWithin": "1h"}, "version": "v", "session": "session", "platform": "client",
            "events": [{"name": "consent", "when": {"type": "consent"}},
                {"name": "click", "when": {"type": "click"}, "fields": {"items": "items[].sku", "decision": "d",
                    "basket": "basket", "value": "value", "placement": "slot",
                    "attributes": {"item.price": "items[].price"}}}]}),
    )
}

fn unrolled() -> PipelineSpec {
    spec(
        json!({}),
        json!({"each": "list", "eventTime": {"field": "list[].t"},
            "events": [{"name": "a", "fields": {"items": "list[].i", "placement": "list[].p"}}]}),
    )
}

/// Every record has one outcome, every element too.
fn outcomes(out: &Decoded) -> usize {
    let counts = out.counts;
    let mut elements: Vec<u32> = out.events.iter().map(|e| e.index >> 8).collect();
    elements.dedup();
    let counted = counts.unknown_type + counts.dropped + counts.unconsented + counts.empty;
    elements.len() + out.rejects.len() + counted as usize
}

fn outcome(out: &Decoded) -> Result<&'static str, Reason> {
    match (out.rejects.first(), out.counts) {
        (Some(reject), _) => Err(reject.reason),
        (None, counts) if counts.empty == 1 => Ok("empty"),
        (None, counts) if counts.unknown_type == 1 => Ok("unknown"),
        (None, counts) if counts.unconsented == 1 => Ok("unconsented"),
        _ => Ok("event"),
    }
}

fn check_samples(out: &Decoded) {
    for reject in &out.rejects {
        let sample = out.sample(reject);
        assert!(sample.len() <= MAX_SAMPLE_BYTES, "{} bytes", sample.len());
        assert!(sample.is_empty() || serde_json::from_str::<Json>(sample).is_ok_and(|s| s.is_object()), "{sample}");
    }
}

#[test]
fn a_table_of_hostile_records() {
    let valid = r#"{"type":"click","user":"u","ts":1,"items":[{"sku":"a"}]"#;
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(200_000), "}".repeat(200_000));
    let table: Vec<(Vec<u8>, Result<&str, Reason>)> = vec![
        (b"".to_vec(), Ok("empty")),
        (b" \t\r\n".to_vec(), Ok("empty")),
        (b"\xef\xbb\xbf".to_vec(), Ok("empty")),
        (valid.into(), Err(Reason::Malformed)),
        (format!("{valid}}} x").into(), Err(Reason::Malformed)),
        (format!("{valid}}}{valid}}}").into(), Err(Reason::Malformed)),
        (b"{\"type\":\"click\",}".to_vec(), Err(Reason::Malformed)),
        (b"\x00\x01\x02".to_vec(), Err(Reason::Malformed)),
        (b"nul".to_vec(), Err(Reason::Malformed)),
        (b"{\"ts\":NaN}".to_vec(), Err(Reason::Malformed)),
        (b"{\"ts\":-Infinity}".to_vec(), Err(Reason::Malformed)),
        (b"{\"ts\":01}".to_vec(), Err(Reason::Malformed)),
        (b"{\"user\":\"\\ud800\"}".to_vec(), Err(Reason::Malformed)),
        (b"{\"user\":\"a\nb\"}".to_vec(), Err(Reason::Malformed)),
        (b"{\"user\":\"\xff\"}".to_vec(), Err(Reason::NotUtf8)),
        (b"\xff\xfe{\x00".to_vec(), Err(Reason::NotUtf8)),
        (b"{\"ts\":1e999}".to_vec(), Err(Reason::NumberOutOfRange)),
        (b"[]".to_vec(), Err(Reason::WrongType)),
        (b"null".to_vec(), Err(Reason::WrongType)),
        (b"\"text\"".to_vec(), Err(Reason::WrongType)),
        (b"17".to_vec(), Err(Reason::WrongType)),
        (b"{}".to_vec(), Ok("unknown")),
        (b"{\"type\":\"nothing known\"}".to_vec(), Ok("unknown")),
        (b"{\"type\":[\"click\"]}".to_vec(), Ok("unknown")),
        (b"{\"type\":\"click\"}".to_vec(), Ok("unconsented")),
        (vec![b'x'; 10 << 20], Err(Reason::TooLong)),
        (format!("{valid},\"x\":\"{}\"}}", "y".repeat(10 << 20)).into(), Err(Reason::TooLong)),
        (deep(200_000).into(), Err(Reason::TooDeep)),
        ("[".repeat(200_000).into(), Err(Reason::TooDeep)),
        (deep_objects.into(), Err(Reason::TooLong)),
        (format!("{valid},\"x\":{}}}", deep(200_000)).into(), Err(Reason::TooDeep)),
        (format!("{valid},\"items\":{}}}", deep(128)).into(), Err(Reason::TooDeep)),
        (format!("{valid},\"items\":{}}}", deep(127)).into(), Err(Reason::WrongType)),
        (format!("{valid},\"x\":\"{}\"}}", "[".repeat(500)).into(), Ok("event")),
        (format!("{valid},\"x\":[{}1]}}", "{\"a\":[]},".repeat(500)).into(), Ok("event")),
        (format!("{valid},\"x\":1e999}}").into(), Ok("event")),
        (format!("{valid},\"v\":99,\"id\":18446744073709551616}}").into(), Ok("event")),
        (format!("{valid},\"id\":\"\"}}").into(), Err(Reason::EmptyId)),
        (format!("{valid},\"id\":\"{}\"}}", "x".repeat(1_025)).into(), Err(Reason::IdTooLong)),
        (format!("{valid},\"session\":\"{}\"}}", "x".repeat(1_025)).into(), Err(Reason::IdTooLong)),
        (format!("{valid},\"items\":[{{\"sku\":\"{}\"}}]}}", "x".repeat(256)).into(), Err(Reason::IdTooLong)),
        (format!("{valid},\"slot\":\"{}\"}}", "x".repeat(256)).into(), Err(Reason::TextTooLong)),
        (format!("{valid},\"slot\":{{}}}}").into(), Err(Reason::WrongType)),
        (format!("{valid},\"d\":[]}}").into(), Err(Reason::WrongType)),
        (format!("{valid},\"value\":\"12\"}}").into(), Err(Reason::WrongType)),
        (format!("{valid},\"ts\":\"0000-00-00T00:00:00Z\"}}").into(), Err(Reason::BadTime)),
        (format!("{valid},\"ts\":\"0001-01-01T00:00:00Z\"}}").into(), Err(Reason::TimeOutOfRange)),
        (format!("{valid},\"ts\":\"9999-12-31T23:59:59Z\"}}").into(), Ok("event")),
    ];
    let spec = shop();
    // One decoder for all: nothing of a record stays behind.
    let (mut decoder, mut out) = (decoder(&spec), Decoded::default());
    for (record, expected) in table {
        decoder.decode(&record, AT, &mut out);
        let shown = String::from_utf8_lossy(&record[..record.len().min(90)]).into_owned();
        assert_eq!(outcomes(&out), 1, "{shown}: {out:?}");
        check_samples(&out);
        assert_eq!(outcome(&out), expected, "{shown}");
    }
}

#[test]
fn limits_on_what_one_record_becomes() {
    let many = format!("{{\"user\":\"u\",\"list\":[{}0]}}", "0,".repeat(MAX_ELEMENTS));
    assert_eq!(decode_bytes(&unrolled(), many.as_bytes()).rejects[0].reason, Reason::TooMany);
    let allowed = format!("{{\"user\":\"u\",\"list\":[{}0]}}", "0,".repeat(MAX_ELEMENTS - 1));
    let out = decode_bytes(&unrolled(), allowed.as_bytes());
    assert_eq!(outcomes(&out), MAX_ELEMENTS);
    assert!(out.samples.len() <= 16 * MAX_SAMPLE_BYTES);
    // A text of the whole record, once in each event, would make 60 MB of a record of half a megabyte.
    let spec = spec(
        json!({"allowedAttributes": ["n_{0..9}"]}),
        json!({"each": "list", "events": [{"name": "a", "fields": {"items": "items",
            "attributes": {"n_0": "x", "n_1": "x", "n_2": "x", "n_3": "x"}}}]}),
    );
    let list = "0,".repeat(50_000);
    let record = format!("{{\"user\":1,\"ts\":1,\"x\":\"{}\",\"list\":[{list}0]}}", "x".repeat(250));
    let out = decode_bytes(&spec, record.as_bytes());
    assert!(out.bytes.len() <= 16 << 20);
    assert_eq!(outcomes(&out), 50_001);
    assert_eq!(out.rejects.last().unwrap().reason, Reason::TooLong);
    assert!(MAX_RECORD_BYTES > record.len());
}

#[test]
fn items_with_too_many_attributes_are_rejected() {
    let spec = spec(
        json!({"allowedAttributes": ["item.n_{0..299}"]}),
        json!({"events": [{"name": "a", "fields": {"items": "items"}}]}),
    );
    let texts: serde_json::Map<String, Json> = (0..300).map(|i| (format!("n_{i}"), json!("x".repeat(255)))).collect();
    assert_eq!(reason(&spec, json!({"user": 1, "ts": 1, "items": "a", "item": texts})), Reason::TooLong);
    let few: serde_json::Map<String, Json> = (0..200).map(|i| (format!("n_{i}"), json!("x".repeat(255)))).collect();
    assert_eq!(one(&spec, json!({"user": 1, "ts": 1, "items": "a", "item": few})).items[0].attributes.len(), 200);
    assert_eq!(reason(&spec, json!({"user": 1, "ts": 1, "items": vec!["a"; 100], "item": few})), Reason::TooLong);
}

#[test]
fn samples_tell_types_and_lengths_and_nothing_else() {
    let out = decode_bytes(
        &shop(),
        br#"{"type":"click","user":"IDMARK","ts":[1,2],"d":17,"IDMARKED":{"x":"IDMARK"},"v":null}"#,
    );
    let sample = out.sample(&out.rejects[0]);
    let expected = json!({"at": "ts", "found": {"user": "<text 6>", "ts": "<list 2>", "type": "<text 5>", "d": "<number 2>"},
        "leftOut": 0, "otherFields": 1, "bytes": 85});
    assert_eq!(serde_json::from_str::<Json>(sample).unwrap(), expected);
    let out = decode_bytes(&shop(), br#"{"user":"IDMARK","x":tru}"#);
    assert_eq!(out.sample(&out.rejects[0]), r#"{"bytes":25,"error":"syntax","column":25}"#);
    let fields: Vec<String> = (0..60).map(|i| format!("{i}\"{}", "long".repeat(30))).collect();
    let spec = events(json!([{"name": "a", "when": fields.iter().map(|f| (f.clone(), json!(1))).collect::<Json>()},
        {"name": "b"}]));
    let mut record: Json = fields.iter().map(|f| (f.clone(), json!("IDMARK"))).collect();
    record["user"] = json!(1);
    let out = decode_bytes(&spec, record.to_string().as_bytes());
    check_samples(&out);
    assert!(out.sample(&out.rejects[0]).contains("\"leftOut\":5"), "{}", out.samples);
}

/// A record that is valid, with identities wherever some can be.
const MARKED: &str = r#"{"type":"click","user":"IDMARK-u","ts":1700000000000,"id":"IDMARK-e","session":"IDMARK-s","d":"IDMARK-d",
"basket":"IDMARK-b","client":"web","slot":"home","value":1.5,"v":2,"email":"IDMARK@x.y","\u0049DMARK":["IDMARK",{"a":"IDMARK"}],
"items":[{"sku":"a1","price":3,"note":"IDMARK"},{"sku":"b2"}],"locale":"de"}"#;

fn marked(bytes: &[u8]) -> bool {
    bytes.windows(6).any(|w| w.eq_ignore_ascii_case(b"IDMARK"))
}

fn no_identity_in(out: &Decoded) {
    assert!(!marked(&out.bytes) && !marked(out.samples.as_bytes()));
    assert!(!marked(format!("{out:?}").as_bytes()));
    check_samples(out);
    plain(out);
}

#[test]
fn the_marked_record_is_an_event_without_its_identities() {
    let out = decode_bytes(&shop(), MARKED.as_bytes());
    assert_eq!((out.events.len(), out.rejects.len()), (1, 0));
    no_identity_in(&out);
    assert_eq!(plain(&out).events[0].ids, [true; 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_have_one_outcome(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let out = decode_bytes(&shop(), &bytes);
        prop_assert_eq!(outcomes(&out), 1);
        no_identity_in(&out);
    }

    #[test]
    fn mutated_records_have_one_outcome_and_keep_identities_in(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize,
            prop::sample::select(vec!["", "{", "}", "[", "]", "\"", ",", ":", "\\", "null", "1e999", "-", "\u{0}", "[[", "\"x\":"])), 1..5)
    ) {
        let mut record = MARKED.as_bytes().to_vec();
        for (at, len, with) in cuts {
            let at = at.index(record.len());
            let end = (at + len).min(record.len());
            record.splice(at..end, with.bytes());
            record.push(b' ');
        }
        let out = decode_bytes(&shop(), &record);
        prop_assert_eq!(outcomes(&out), 1);
        // A mutation may cut a mark's own quotes, so that it lands in an item's id or a placement: those pass.
        if out.events.is_empty() {
            no_identity_in(&out);
        }
    }

    #[test]
    fn values_swapped_between_fields_keep_identities_in(
        swaps in prop::collection::vec((0..8usize, prop::sample::select(vec![
            json!({"IDMARK": "IDMARK"}), json!(["IDMARK"]), json!([["IDMARK"]]), json!([{"IDMARK": 1}]), json!(true), json!(null),
            json!(-1), json!(1e300), json!("")])), 1..5)
    ) {
        let mut record: Json = serde_json::from_str(MARKED).unwrap();
        let fields = ["user", "ts", "id", "session", "d", "basket", "value", "v"];
        for (field, value) in swaps {
            record[fields[field]] = value;
        }
        let out = decode_bytes(&shop(), record.to_string().as_bytes());
        prop_assert_eq!(outcomes(&out), 1);
        no_identity_in(&out);
    }
}
