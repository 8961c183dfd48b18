//! Any bytes as a source record, JSON and CSV: an outcome at least, events that read back, samples that are short JSON.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use millrace_crds::spec::PipelineSpec;
use millrace_engine::{
    decode::{Decoded, Decoder, MAX_SAMPLE_BYTES, Place},
    event::Event,
    names::Names,
    privacy::{Key, Pseudonymizer},
};
use serde_json::{Value, json};

thread_local! {
    static DECODERS: RefCell<(Vec<Decoder>, Decoded)> = RefCell::new((decoders(), Decoded::default()));
}

fn decoders() -> Vec<Decoder> {
    let plain = json!({"name": "s", "format": "Json", "eventTime": {"field": "ts"}, "version": "v", "session": "session",
        "eventId": {"field": "id", "dedupWithin": "1h"}, "platform": {"field": "client", "map": {"w": "web"}},
        "drop": [{"bot": true}], "events": [
            {"name": "consent", "when": {"type": "consent"}},
            {"name": "click", "when": {"type": ["click", 1]}, "fields": {"items": "items[].sku", "positions": "items[].pos",
                "quantities": "n", "propensities": "p", "decision": "d", "basket": "b", "value": "value", "placement": "slot",
                "currency": {"field": "c", "default": "EUR", "convert": "text"},
                "attributes": {"item.price": "items[].price"}}, "versions": {"1": {"items": "items", "placement": "page"}}}]});
    let each = json!({"name": "s", "format": "Json", "each": "list", "eventTime": {"field": "list[].ts", "unit": "s"},
        "events": [{"name": "click", "fields": {"items": "list[].items[].sku", "placement": "slot", "value": "list[].n"}}]});
    let csv = json!({"name": "s", "format": "Csv", "eventTime": {"fields": ["y", "m", "d"], "plus": "rowNumber"},
        "events": [{"name": "click", "when": {"t": 1}, "fields": {"items": "i", "value": "n"}}]});
    [plain, each, csv].into_iter().map(decoder).collect()
}

fn decoder(source: Value) -> Decoder {
    let spec: PipelineSpec = serde_json::from_value(json!({
        "partitions": 1,
        "privacy": {"pseudonymKeys": {"active": "k"}, "user": {"field": "user"},
            "consent": {"event": "consent", "grantedIf": {"ok": true}}, "allowedAttributes": ["locale", "item.price"]},
        "sources": [source],
    }))
    .expect("the spec is right");
    let by = Pseudonymizer::new(&Key::new("k", [1; 16]));
    let mut decoder = Decoder::compile(&spec, &spec.sources[0], &Names::of(&spec), by).expect("compiles");
    if decoder.wants_header() {
        decoder.header(b"user,y,m,d,t,i,n,ok").expect("a header");
    }
    decoder
}

fuzz_target!(|record: &[u8]| {
    DECODERS.with_borrow_mut(|(decoders, out)| {
        for decoder in decoders {
            decoder.decode(record, Place { partition: 1, row: 1 }, out);
            let counts = out.counts;
            let counted = counts.unknown_type + counts.dropped + counts.unconsented + counts.empty;
            assert!(counted as usize + out.rejects.len() + out.events.len() > 0, "nothing came of it");
            for event in &out.events {
                Event::read(out.event_bytes(event)).expect("an event that reads back");
            }
            for reject in &out.rejects {
                let sample = out.sample(reject);
                assert!(sample.len() <= MAX_SAMPLE_BYTES);
                assert!(sample.is_empty() || serde_json::from_str::<Value>(sample).is_ok(), "{sample}");
            }
        }
    });
});
