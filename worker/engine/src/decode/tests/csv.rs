//! CSV sources.

use super::*;

fn shop() -> PipelineSpec {
    spec(
        json!({"user": {"field": "session ID"}, "allowedAttributes": ["colour", "item.price", "code", "absent"]}),
        json!({"format": "Csv", "delimiter": ";", "drop": [{"bot": true}],
            "eventTime": {"fields": ["year", "month", "day"], "plus": "rowNumber", "unit": "s"},
            "events": [{"name": "click", "when": {"page": [1, 2]}, "fields": {"items": "model", "values": "price",
                "positions": "location", "attributes": {"item.price": "price", "code": {"field": "code", "convert": "text"}}}}]}),
    )
}

const HEADER: &str = "year;month;day;session ID;page;model;price;location;colour;code;bot;other";

fn decode_line(spec: &PipelineSpec, header: &str, line: &str) -> oracle::Outcome {
    let mut decoder = decoder(spec);
    assert!(decoder.wants_header());
    decoder.header(header.as_bytes()).unwrap();
    let mut out = Decoded::default();
    decoder.decode(line.as_bytes(), AT, &mut out);
    plain(&out)
}

#[test]
fn a_line_is_an_event() {
    let outcome = decode_line(&shop(), HEADER, "2008;4;1;17;1;\"A;\"\"13\";28.50;5;007;12;;x\r\n");
    let event = &outcome.events[0];
    assert_eq!(event.time, 1_207_008_000_000_000 + 7_000_000);
    assert_eq!(event.user, pseudonymizer().user_of("17").0);
    assert_eq!((event.items[0].id.as_str(), event.items[0].position), ("A;\"13", 5));
    assert_eq!(f64::from_bits(event.items[0].numbers[1]), 28.5);
    // Names in order: absent, code, colour, item.price.
    assert_eq!(event.items[0].attributes, [(3, "number 28.5".to_owned())]);
    assert_eq!(event.attributes, [(1, "text 12".to_owned()), (2, "text 007".to_owned())]);
}

#[test]
fn lines_that_are_none() {
    let counted = |line: &str| {
        let outcome = decode_line(&shop(), HEADER, line);
        let counts = outcome.counts;
        let reason = outcome.rejects.first().map(|r| r.1);
        (reason, counts.empty, counts.unconsented, counts.dropped, counts.unknown_type)
    };
    assert_eq!(counted(" \r\n"), (None, 1, 0, 0, 0));
    assert_eq!(counted("2008;4;1;;1;a;1;1;;;;"), (None, 0, 1, 0, 0));
    assert_eq!(counted("2008;4;1;5;1;a;1;1;;;TRUE;"), (None, 0, 0, 1, 0));
    assert_eq!(counted("2008;4;1;5;3;a;1;1;;;;"), (None, 0, 0, 0, 1));
    let rejected = |line: &str| counted(line).0.unwrap();
    assert_eq!(rejected("2008;4;1;5;1;a;1;1;;;"), Reason::Malformed);
    assert_eq!(rejected("2008;4;1;5;1;a;1;1;;;;;"), Reason::Malformed);
    assert_eq!(rejected("2008;4;1;5;1;\"a;1;1;;;;"), Reason::Malformed);
    assert_eq!(rejected("2008;2;30;5;1;a;1;1;;;;"), Reason::BadTime);
    assert_eq!(rejected("2008;x;1;5;1;a;1;1;;;;"), Reason::WrongType);
    assert_eq!(rejected("2008;NaN;1;5;1;a;1;1;;;;"), Reason::NumberOutOfRange);
    assert_eq!(rejected("2008;;1;5;1;a;1;1;;;;"), Reason::MissingField);
    for price in ["NaN", "inf", "-Infinity", "1e999"] {
        assert_eq!(rejected(&format!("2008;4;1;5;1;a;{price};1;;;;")), Reason::NumberOutOfRange);
    }
    assert_eq!(rejected("2008;4;1;5;1;a;cheap;1;;;;"), Reason::WrongType);
}

#[test]
fn without_a_header_nothing_is_read() {
    let mut decoder = decoder(&shop());
    let mut out = Decoded::default();
    decoder.decode(b"2008;4;1", AT, &mut out);
    assert_eq!(out.rejects[0].reason, Reason::Malformed);
    let error = decoder.header(b"Year;month;day").unwrap_err().to_string();
    assert!(error.contains("`year` (did you mean `Year`?)") && error.contains("`model`"), "{error}");
    // Attributes that only have their default path, and fields with a default, need no column.
    assert!(!error.contains("absent") && !error.contains("colour"), "{error}");
}

#[test]
fn columns_are_whole_names() {
    let spec = spec(
        json!({"allowedAttributes": ["item.a[].b"]}),
        json!({"format": "Csv", "events": [{"name": "x", "fields": {"items": "i.d", "placement": {"field": "no", "default": "p"}}}]}),
    );
    let outcome = decode_line(&spec, "user,ts,i.d,item.a[].b", "u,2020-01-01 00:00:00.5,x,1.50");
    let event = &outcome.events[0];
    assert_eq!((event.time, event.texts[0].as_str()), (1_577_836_800_500_000, "p"));
    assert_eq!((event.items[0].id.as_str(), event.items[0].attributes[0].1.as_str()), ("x", "number 1.5"));
}
