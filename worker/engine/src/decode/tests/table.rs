//! Records of tables.

use super::*;
use crate::{
    catalog::{CatalogItem, ItemRecord, OwnedValue},
    decode::record,
    event::Time,
};

fn table(source: Json) -> PipelineSpec {
    let mut spec = spec(
        json!({"allowedAttributes": ["locale", "item.category", "item.price", "item.tags"]}),
        json!({"table": true, "eventTime": {}, "drop": [{"test": true}]}),
    );
    spec.sources[0].event_time = serde_json::from_value(source["eventTime"].clone()).unwrap_or_default();
    spec.sources[0].each = source["each"].as_str().map(str::to_owned);
    if source["csv"] == true {
        spec.sources[0].format = millrace_crds::spec::Format::Csv;
    }
    let catalog =
        json!({"source": "s", "item": "sku", "attributes": ["price", "category", "tags"], "available": "stock"});
    spec.catalog = serde_json::from_value(catalog).unwrap();
    spec
}

fn items(out: &Decoded) -> Vec<(Time, CatalogItem)> {
    assert!(out.items);
    let item = |event| {
        let record = ItemRecord::read(out.event_bytes(event)).unwrap();
        assert_eq!((record.time, record.seq.index, record.seq.offset), (event.stated, event.index, AT.row));
        (record.time, record.item())
    };
    out.events.iter().map(item).collect()
}

fn decode(spec: &PipelineSpec, record: &str) -> Decoded {
    let mut out = Decoded::default();
    decoder(spec).decode(record.as_bytes(), AT, &mut out);
    out
}

#[test]
fn a_record_is_an_item() {
    let spec = table(json!({}));
    let out =
        decode(&spec, r#"{"sku": 7, "price": 1.5, "category": "shoes", "stock": 3, "user": "secret", "other": 1}"#);
    // Names in order: item.category, item.price, item.tags, locale.
    let attributes = vec![(0, OwnedValue::Text("shoes".into())), (1, OwnedValue::Number(1.5))];
    assert_eq!(items(&out), [(Time::MIN, CatalogItem { id: "7".into(), attributes, available: true })]);
    assert_eq!(out.counts, Counts::default());
    for (stock, available) in
        [("true", true), ("false", false), ("0", false), ("0.5", true), ("-1", false), ("null", false)]
    {
        let out = decode(&spec, &format!(r#"{{"sku": "a", "stock": {stock}, "tags": [1]}}"#));
        assert_eq!(items(&out)[0].1, CatalogItem { id: "a".into(), attributes: vec![], available }, "{stock}");
        assert_eq!(out.counts.ignored_attributes, 1);
    }
    assert_eq!(decode(&spec, r#"{"sku": "a", "test": true}"#).counts.dropped, 1);
}

#[test]
fn what_is_no_item_is_rejected() {
    let spec = table(json!({}));
    let long = format!(r#"{{"sku": "{}"}}"#, "x".repeat(256));
    for (record, reason) in [
        (r#"{"price": 1}"#, Reason::MissingField),
        (r#"{"sku": ""}"#, Reason::EmptyId),
        (r#"{"sku": true}"#, Reason::WrongType),
        (&long, Reason::IdTooLong),
        (r#"{"sku": "a", "stock": "many"}"#, Reason::WrongType),
        ("{", Reason::Malformed),
    ] {
        let out = decode(&spec, record);
        assert_eq!((out.events.len(), out.rejects.len(), out.rejects[0].reason), (0, 1, reason), "{record}");
    }
    let timed = table(json!({"eventTime": {"field": "ts"}}));
    assert_eq!(decode(&timed, r#"{"sku": "a"}"#).rejects[0].reason, Reason::MissingField);
    assert_eq!(items(&decode(&timed, r#"{"sku": "a", "ts": 5}"#))[0].0, Time(5_000));
    assert!(decode(&timed, r#"{"sku": "a", "ts": "2101-01-01"}"#).events[0].future);
}

#[test]
fn tables_are_unrolled_and_come_as_csv() {
    let out = decode(&table(json!({"each": "list"})), r#"{"list": [{"sku": "a"}, {}], "sku": "b", "stock": 1}"#);
    assert_eq!(items(&out).len(), 2, "paths of the whole record: {out:?}");
    let csv = table(json!({"csv": true}));
    let mut decoder = decoder(&csv);
    decoder.header(b"sku,price,category,tags,stock,test").unwrap();
    let mut out = Decoded::default();
    decoder.decode(b"007,12,shoes,,TRUE,", AT, &mut out);
    let attributes = vec![(0, OwnedValue::Text("shoes".into())), (1, OwnedValue::Number(12.0))];
    assert_eq!(items(&out), [(Time::MIN, CatalogItem { id: "007".into(), attributes, available: true })]);
    assert!(super::decoder(&csv).header(b"sku,price,category,tags,test").is_err(), "the stock's column is not there");
}

#[test]
fn items_that_were_received_are_read_back() {
    let out = decode(&table(json!({})), r#"{"sku": "a", "price": 2, "stock": true}"#);
    let (mut bytes, mut read) = (Vec::new(), Decoded::default());
    record::write(&out, Time(9), &mut bytes);
    assert_eq!((record::read(&bytes, &mut read), &read), (Ok(Time(9)), &out));
    bytes[1] = 0;
    assert!(record::read(&bytes, &mut read).is_err(), "an item is no event");
}
