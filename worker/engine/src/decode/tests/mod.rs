//! Tests of the decoder as a whole.

mod behaviour;
mod csv;
mod hostile;
mod random;
mod table;

use millrace_crds::spec::PipelineSpec;
use serde_json::{Value as Json, json};

use super::{Counts, Decoded, Decoder, Place, Reason, oracle};
use crate::{
    event::Event,
    names::Names,
    privacy::{Key, Pseudonymizer},
};

pub(super) const AT: Place = Place { partition: 3, row: 7 };

pub(super) fn pseudonymizer() -> Pseudonymizer {
    Pseudonymizer::new(&Key::new("test", [9; 16]))
}

/// A spec of one source. `privacy` and `source` are laid over the plainest ones.
pub(super) fn spec(privacy: Json, source: Json) -> PipelineSpec {
    let mut spec = json!({
        "partitions": 1,
        "privacy": {"pseudonymKeys": {"active": "test"}, "user": {"field": "user"}, "consent": {"assumed": "a test"}},
        "sources": [{"name": "s", "format": "Json", "eventTime": {"field": "ts"}, "events": []}],
    });
    spec["privacy"].as_object_mut().unwrap().extend(privacy.as_object().unwrap().clone());
    spec["sources"][0].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// A source with events alone.
pub(super) fn events(events: Json) -> PipelineSpec {
    spec(json!({}), json!({ "events": events }))
}

pub(super) fn decoder(spec: &PipelineSpec) -> Decoder {
    Decoder::compile(spec, &spec.sources[0], &Names::of(spec), pseudonymizer()).unwrap()
}

/// What was decoded, read back.
pub(super) fn plain(out: &Decoded) -> oracle::Outcome {
    let events = out.events.iter().map(|event| {
        let read = Event::read(out.event_bytes(event)).unwrap();
        assert_eq!((read.head.user, read.head.stated), (event.user, event.stated));
        assert_eq!((read.head.consent, read.head.time), (event.consent, event.stated));
        assert_eq!((read.head.seq.offset, read.head.seq.index), (AT.row, event.index));
        let length = &out.bytes[event.bytes.0 as usize..event.bytes.0 as usize + 4];
        assert_eq!(length, ((event.bytes.1 - event.bytes.0 - 4).to_le_bytes()));
        oracle::plain(event.index, &read)
    });
    oracle::Outcome {
        events: events.collect(),
        counts: out.counts,
        rejects: out.rejects.iter().map(|reject| (reject.element, reject.reason)).collect(),
    }
}

pub(super) fn decode_bytes(spec: &PipelineSpec, record: &[u8]) -> Decoded {
    let mut out = Decoded::default();
    decoder(spec).decode(record, AT, &mut out);
    out
}

pub(super) fn decode(spec: &PipelineSpec, record: Json) -> oracle::Outcome {
    plain(&decode_bytes(spec, record.to_string().as_bytes()))
}

/// The only event of a record.
pub(super) fn one(spec: &PipelineSpec, record: Json) -> oracle::PlainEvent {
    let mut outcome = decode(spec, record);
    assert_eq!((outcome.events.len(), outcome.rejects.len()), (1, 0), "{outcome:?}");
    outcome.events.remove(0)
}

/// The only reject of a record that yields nothing else.
pub(super) fn reason(spec: &PipelineSpec, record: Json) -> Reason {
    let outcome = decode(spec, record);
    assert_eq!((outcome.events.len(), outcome.rejects.len(), outcome.counts), (0, 1, Counts::default()), "{outcome:?}");
    outcome.rejects[0].1
}
