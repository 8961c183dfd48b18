//! The embedded log's bytes, version 1. Pure functions, pinned by golden tests.
//!
//! | what | bytes |
//! |---|---|
//! | key of a record | its offset, u64 **big-endian**, so that keys sort as offsets do |
//! | record | version u8 (1), checksum u64, the caller's bytes |
//! | checksum of a record | xxh3-64 over offset (u64) and bytes, seeded with the hash of the partition's name |
//! | segment's name | `LOG/PARTITION/BASE`, BASE the first offset in 20 digits |
//! | end mark | magic `MRLM`, version u16 (1), length of the body u32, body, xxh3-64 over all before it |
//! | body | sequence u64, count u32, then by ascending name: log (u32 length, UTF-8), partition u32, start u64, end u64, checksum of the last record u64 |

use std::collections::BTreeMap;

use millrace_engine::codec::{Corrupt, Put, Reader};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{FIRST_OFFSET, LogPartition};

const RECORD_VERSION: u8 = 1;
const RECORD_HEAD_BYTES: usize = 9;
const MARK_MAGIC: &[u8; 4] = b"MRLM";
pub const MARK_VERSION: u16 = 1;
/// Magic, version, length.
const MARK_HEAD_BYTES: usize = 10;
/// An entry with an empty name.
const MARK_ENTRY_BYTES: usize = 32;

pub fn record_key(offset: u64) -> [u8; 8] {
    offset.to_be_bytes()
}

pub fn offset_of_key(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Detects a changed bit, and a record that stands at another offset or in another partition than it was written to.
pub fn record_checksum(partition: &LogPartition, offset: u64, bytes: &[u8]) -> u64 {
    let mut hasher = Xxh3::with_seed(xxh3_64(partition.to_string().as_bytes()));
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.digest()
}

/// The stored form of a record, and its checksum.
pub fn encode_record(partition: &LogPartition, offset: u64, bytes: &[u8]) -> (Vec<u8>, u64) {
    let checksum = record_checksum(partition, offset, bytes);
    let mut stored = Vec::with_capacity(RECORD_HEAD_BYTES + bytes.len());
    stored.put_u8(RECORD_VERSION);
    stored.put_u64(checksum);
    stored.put(bytes);
    (stored, checksum)
}

/// The caller's bytes of a stored record, verified, and their checksum. The error says what is wrong.
pub fn decode_record<'a>(partition: &LogPartition, offset: u64, stored: &'a [u8]) -> Result<(&'a [u8], u64), String> {
    let mut reader = Reader::new(stored);
    let version = reader.u8("record version").map_err(|e| e.to_string())?;
    if version != RECORD_VERSION {
        return Err(format!("record format {version} is unknown; this program reads {RECORD_VERSION}"));
    }
    let expected = reader.u64("record checksum").map_err(|e| e.to_string())?;
    let bytes = &stored[RECORD_HEAD_BYTES..];
    if record_checksum(partition, offset, bytes) != expected {
        return Err("the record's checksum does not match".to_owned());
    }
    Ok((bytes, expected))
}

/// Names the segment of a partition that begins at offset `base`.
pub fn segment_name(partition: &LogPartition, base: u64) -> String {
    format!("{partition}/{base:020}")
}

/// The partition and first offset that [`segment_name`] wrote.
pub fn parse_segment_name(name: &str) -> Option<(LogPartition, u64)> {
    let mut parts = name.rsplitn(3, '/');
    let (base, partition, log) = (parts.next()?, parts.next()?, parts.next()?);
    let parsed = (LogPartition::new(log, partition.parse().ok()?), base.parse().ok()?);
    (segment_name(&parsed.0, parsed.1) == name).then_some(parsed)
}

/// What was durable when the mark was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkEntry {
    /// The oldest offset kept.
    pub start: u64,
    /// The offset after the last record.
    pub end: u64,
    /// Of the record at `end - 1`; 0 if there never was one.
    pub last_checksum: u64,
}

impl Default for MarkEntry {
    fn default() -> Self {
        Self { start: FIRST_OFFSET, end: FIRST_OFFSET, last_checksum: 0 }
    }
}

/// Where every partition ends. The one with the greater sequence is newer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub sequence: u64,
    pub partitions: BTreeMap<LogPartition, MarkEntry>,
}

impl Mark {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u64(self.sequence);
        body.put_u32(self.partitions.len() as u32);
        for (partition, entry) in &self.partitions {
            body.put_str(&partition.log);
            body.put_u32(partition.partition);
            body.put_u64(entry.start);
            body.put_u64(entry.end);
            body.put_u64(entry.last_checksum);
        }
        let mut out = Vec::with_capacity(MARK_HEAD_BYTES + body.len() + 8);
        out.put(MARK_MAGIC);
        out.put_u16(MARK_VERSION);
        out.put_bytes(&body);
        let checksum = xxh3_64(&out);
        out.put_u64(checksum);
        out
    }

    /// Bytes after the mark are ignored: a shorter mark overwrites a longer one in place.
    pub fn decode(bytes: &[u8]) -> Result<Self, MarkError> {
        let mut reader = Reader::new(bytes);
        if reader.take(4, "magic")? != MARK_MAGIC {
            return Err(reader.corrupt("magic").into());
        }
        let version = reader.u16("version")?;
        let body = reader.bytes("body")?;
        let checksummed = reader.at();
        if reader.u64("checksum")? != xxh3_64(&bytes[..checksummed]) {
            return Err(reader.corrupt("checksum").into());
        }
        if version != MARK_VERSION {
            return Err(MarkError::Newer(version));
        }
        Ok(Self::decode_body(Reader::new(body))?)
    }

    fn decode_body(mut reader: Reader<'_>) -> Result<Self, Corrupt> {
        let sequence = reader.u64("sequence")?;
        let mut partitions = BTreeMap::new();
        for _ in 0..reader.count(MARK_ENTRY_BYTES, "count")? {
            let partition = LogPartition::new(reader.str("log")?, reader.u32("partition")?);
            let (start, end) = (reader.u64("start")?, reader.u64("end")?);
            partitions.insert(partition, MarkEntry { start, end, last_checksum: reader.u64("last checksum")? });
        }
        Ok(Self { sequence, partitions })
    }
}

/// Why a mark cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error("format {0} is unknown")]
    Newer(u16),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn example() -> Mark {
        let entry = MarkEntry { start: 2, end: 0x0102_0304, last_checksum: 0x1122_3344_5566_7788 };
        let partitions = [(LogPartition::new("events", 3), entry), (LogPartition::new("a", 0), MarkEntry::default())];
        Mark { sequence: 7, partitions: partitions.into() }
    }

    #[test]
    fn golden_record_version_1() {
        let (stored, checksum) = encode_record(&LogPartition::new("events", 3), 42, b"hello");
        assert_eq!(hex(&stored), GOLDEN_RECORD);
        assert_eq!(decode_record(&LogPartition::new("events", 3), 42, &stored), Ok((&b"hello"[..], checksum)));
    }

    #[test]
    fn golden_mark_version_1() {
        assert_eq!(hex(&example().encode()), GOLDEN_MARK);
        assert_eq!(Mark::decode(&example().encode()), Ok(example()));
    }

    const GOLDEN_RECORD: &str = "01fe28eccbf84ab2ba68656c6c6f";
    /// Head, sequence and count; the entry of `a/0`; the entry of `events/3`; checksum.
    const GOLDEN_MARK: &str = concat!(
        "4d524c4d",
        "0100",
        "53000000",
        "0700000000000000",
        "02000000",
        "010000006100000000010000000000000001000000000000000000000000000000",
        "060000006576656e747303000000020000000000000004030201000000008877665544332211",
        "fbb0835ecf1934d9"
    );

    #[test]
    fn golden_segment_name() {
        let partition = LogPartition::new("examples.a/b", 12);
        assert_eq!(segment_name(&partition, 5), "examples.a/b/12/00000000000000000005");
        assert_eq!(parse_segment_name("examples.a/b/12/00000000000000000005"), Some((partition, 5)));
        for bad in ["", "events", "events/0", "events/0/5", "events/x/00000000000000000005"] {
            assert_eq!(parse_segment_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_newer_mark_is_told_from_a_damaged_one() {
        let mut bytes = example().encode();
        bytes[4] = 2;
        assert!(matches!(Mark::decode(&bytes), Err(MarkError::Corrupt(_))));
        let end = bytes.len() - 8;
        let checksum = xxh3_64(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Mark::decode(&bytes), Err(MarkError::Newer(2)));
    }

    #[test]
    fn records_know_their_place() {
        let (stored, _) = encode_record(&LogPartition::new("events", 3), 42, b"hello");
        assert!(decode_record(&LogPartition::new("events", 3), 43, &stored).is_err());
        assert!(decode_record(&LogPartition::new("events", 2), 42, &stored).is_err());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let partition = LogPartition::new("events", 3);
        let (stored, _) = encode_record(&partition, 42, b"hello");
        for bit in 0..stored.len() * 8 {
            let mut bad = stored.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_record(&partition, 42, &bad).is_err(), "bit {bit}");
        }
        let mark = example().encode();
        for bit in 0..mark.len() * 8 {
            let mut bad = mark.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Mark::decode(&bad).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mark::decode(&bytes);
            let _ = Mark::decode_body(Reader::new(&bytes));
            let _ = decode_record(&LogPartition::new("events", 0), 1, &bytes);
        }
    }
}
