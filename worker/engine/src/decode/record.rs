//! A decoded record as bytes: what is kept of a record that was decoded when it was received, and read again later.
//!
//! Version 1, little-endian: version u8, 0 (events) or 1 (items of a table) u8, 0 u16, checksum u64 (xxh3 of all but itself), time of receipt i64, counts
//! (unknown type, dropped, unconsented, empty, ignored attributes; u32 each), elements of unknown users (u32; index u32,
//! time i64), rejects (u32; reason, element u32, sample), then the events or items to the end, each led by its length (u32). Texts
//! are led by theirs.

use super::{Decoded, DecodedEvent, MAX_ELEMENTS, Reason, Reject};
use crate::{
    catalog::ItemRecord,
    codec::{Corrupt, Put, Reader},
    event::{ConsentChange, Event, Head, Pseudonym, Time},
};

/// The format that this engine writes, and the newest that it reads.
pub const VERSION: u8 = 1;
const CHECKSUM_AT: usize = 4;
const BODY_AT: usize = CHECKSUM_AT + 8;

/// Why a record is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a received record of format version {found}; this engine reads up to {VERSION}: upgrade before going on")]
    Version { found: u8 },
    #[error("a received record is damaged: checksum {found:016x}, computed {computed:016x}")]
    Checksum { found: u64, computed: u64 },
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

fn checksum(bytes: &[u8]) -> u64 {
    let head = xxhash_rust::xxh3::xxh3_64(&bytes[..CHECKSUM_AT]);
    xxhash_rust::xxh3::xxh3_64_with_seed(&bytes[BODY_AT..], head)
}

/// Appends what a record yielded. `received`: when it came.
pub fn write(decoded: &Decoded, received: Time, out: &mut Vec<u8>) {
    let start = out.len();
    out.put(&[VERSION, u8::from(decoded.items), 0, 0]);
    out.put_u64(0);
    out.put_i64(received.0);
    let mut counts = decoded.counts;
    for n in counts.each() {
        out.put_u32(*n);
    }
    out.put_u32(decoded.unconsented.len() as u32);
    for (index, time) in &decoded.unconsented {
        out.put_u32(*index);
        out.put_i64(time.0);
    }
    out.put_u32(decoded.rejects.len() as u32);
    for reject in &decoded.rejects {
        out.put_str(reject.reason.name());
        out.put_u32(reject.element);
        out.put_str(decoded.sample(reject));
    }
    for event in &decoded.events {
        out.put(decoded.bytes.get(event.bytes.0 as usize..event.bytes.1 as usize).unwrap_or_default());
    }
    let sum = checksum(&out[start..]);
    out[start + CHECKSUM_AT..start + BODY_AT].copy_from_slice(&sum.to_le_bytes());
}

/// Reads what `write` wrote, into `out`, which is cleared first; gives the time of receipt. The events' sequences are as
/// they were at receipt, and none is from the future yet: that is judged against the receipt.
///
/// # Errors
/// Damaged bytes and newer versions. `out` then holds nothing of use.
pub fn read(bytes: &[u8], out: &mut Decoded) -> Result<Time, RecordError> {
    out.clear();
    let mut r = Reader::new(bytes);
    let version = r.u8("record version")?;
    if version != VERSION {
        return Err(RecordError::Version { found: version });
    }
    let kind = r.u8("record kind")?;
    r.u16("reserved")?;
    let found = r.u64("record checksum")?;
    let computed = checksum(bytes);
    if found != computed {
        return Err(RecordError::Checksum { found, computed });
    }
    out.items = match kind {
        0 => false,
        1 => true,
        _ => return Err(r.corrupt("record kind").into()),
    };
    let received = Time(r.i64("time of receipt")?);
    for n in out.counts.each() {
        *n = r.u32("count")?;
    }
    for _ in 0..r.count(12, "unconsented")? {
        out.unconsented.push((r.u32("index")?, Time(r.i64("time")?)));
    }
    for _ in 0..r.count(12, "rejects")? {
        read_reject(&mut r, out)?;
    }
    while !r.is_empty() {
        read_event(&mut r, out)?;
    }
    let ordered = out.events.is_sorted_by_key(|event| event.index)
        && out.rejects.is_sorted_by_key(|reject| reject.element)
        && out.unconsented.is_sorted_by_key(|(index, _)| *index);
    if ordered { Ok(received) } else { Err(r.corrupt("order of a record's elements").into()) }
}

fn read_reject(r: &mut Reader<'_>, out: &mut Decoded) -> Result<(), Corrupt> {
    let name = r.str("reason")?;
    let reason = Reason::ALL.iter().find(|reason| reason.name() == name).ok_or(r.corrupt("reason"))?;
    let element = r.u32("element")?;
    if element as usize >= MAX_ELEMENTS {
        return Err(r.corrupt("element"));
    }
    let start = out.samples.len() as u32;
    out.samples.push_str(r.str("sample")?);
    out.rejects.push(Reject { reason: *reason, element, sample: (start, out.samples.len() as u32) });
    Ok(())
}

fn read_event(r: &mut Reader<'_>, out: &mut Decoded) -> Result<(), Corrupt> {
    let bytes = r.bytes("event")?;
    let start = out.bytes.len() as u32;
    out.bytes.put_bytes(bytes);
    let (future, bytes_at) = (false, (start, out.bytes.len() as u32));
    out.events.push(if out.items {
        let item = ItemRecord::read(bytes)?;
        let (user, consent) = (Pseudonym::default(), ConsentChange::None);
        DecodedEvent { index: item.seq.index, stated: item.time, future, user, consent, bytes: bytes_at }
    } else {
        let Head { seq, stated, user, consent, .. } = Event::read(bytes)?.head;
        DecodedEvent { index: seq.index, stated, future, user, consent, bytes: bytes_at }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{super::tests, *};
    use crate::decode::Place;

    const RECEIVED: Time = Time(1_700_000_000_000_000);
    const AT: Place = Place { partition: 0, row: 0 };

    /// Elements of every outcome: an event, a reject, somebody unknown, an unknown type, a wrong attribute.
    fn decoded() -> Decoded {
        let spec = tests::spec(
            json!({"allowedAttributes": ["locale", "item.price"]}),
            json!({
                "each": "e",
                "eventTime": {"field": "e[].ts"},
                "events": [{
                    "name": "click",
                    "when": {"e[].type": "click"},
                    "fields": {"items": "e[].sku", "attributes": {"item.price": "e[].price", "locale": "e[].lang"}},
                }],
            }),
        );
        let spec = {
            let mut spec = spec;
            spec.privacy.user.field = Some("e[].user".into());
            spec
        };
        let record = json!({"e": [
            {"type": "click", "user": "u1", "ts": 1_700_000_000_000i64, "sku": "a", "price": 1.5, "lang": {}},
            {"type": "click", "user": "u1", "ts": "never", "sku": "a"},
            {"type": "click", "ts": 1_700_000_000_001i64, "sku": "a"},
            {"type": "else"},
            {"type": "click", "user": "u2", "ts": 1_700_000_000_002i64, "sku": "Grüße"},
        ]});
        let mut decoded = Decoded::default();
        tests::decoder(&spec).decode(record.to_string().as_bytes(), AT, &mut decoded);
        assert_eq!((decoded.events.len(), decoded.rejects.len(), decoded.unconsented.len()), (2, 1, 1));
        assert_eq!((decoded.counts.unknown_type, decoded.counts.ignored_attributes), (1, 1));
        decoded
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&decoded(), RECEIVED, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let mut back = decoded();
        assert_eq!(read(&written(), &mut back), Ok(RECEIVED));
        assert_eq!(back, decoded());
    }

    /// Records that lie in topics must stay readable: these bytes never change.
    #[test]
    fn golden_version_1() {
        let hex: String = written().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("record_v1.hex").trim());
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let (good, mut out) = (written(), Decoded::default());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad, &mut out).is_err(), "bit {bit}");
        }
        (0..good.len()).for_each(|len| assert!(read(&good[..len], &mut out).is_err(), "{len} bytes"));
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = written();
        bytes[0] = 2;
        assert_eq!(read(&bytes, &mut Decoded::default()), Err(RecordError::Version { found: 2 }));
    }

    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.len() >= BODY_AT {
            bytes[0] = VERSION;
            let sum = checksum(&bytes);
            bytes[CHECKSUM_AT..BODY_AT].copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), fix: bool) {
            let _ = read(&if fix { with_checksum(bytes) } else { bytes }, &mut Decoded::default());
        }

        /// What passes the checksum and is wrong all the same is an error or, read, can be written again.
        #[test]
        fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
            let mut bytes = written();
            for (at, byte) in changes {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            let (bytes, mut out) = (with_checksum(bytes), Decoded::default());
            if let Ok(received) = read(&bytes, &mut out) {
                let mut again = Vec::new();
                write(&out, received, &mut again);
                prop_assert_eq!(read(&again, &mut Decoded::default()), Ok(received));
            }
        }
    }
}
