//! Frames: what tasks append to logs. One frame holds a section for each origin that its writer serves.
//!
//! Version 2, little-endian (version 1 is laid out alike, but knows neither control records nor the tail of examples):
//!
//! ```text
//! 0  "MLRF"   4  version u8   5  kind u8   6  0 u16   8  generation u32   12  sections u32   16  checksum u64
//! 24 sections: source u16, topic u16, partition u32, incarnation u32, epoch u64,
//!              from (u64, u32), to (u64, u32), watermark i64, highest i64, state u8, bytes u32, records
//! ```
//!
//! A section covers (from, to] of its origin for the frame's log partition, without holes. Its records are each led
//! by their length (u32), and stand in ascending sequence. The checksum is xxh3 of all but itself.

pub mod coverage;
pub mod outbox;

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{Seq, Time},
};

/// The format that this engine writes, and the newest that it reads.
pub const VERSION: u8 = 2;
const MAGIC: &[u8; 4] = b"MLRF";
const HEAD_BYTES: usize = 24;
const CHECKSUM_AT: usize = 16;
const SECTION_HEAD_BYTES: usize = 12 + 8 + 12 + 12 + 8 + 8 + 1 + 4;

/// Where records come from: a partition of a source's topic or, for examples, a partition of the events log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Place of the source in the spec.
    pub source: u16,
    /// Place of the topic within the source.
    pub topic: u16,
    pub partition: u32,
    /// Another one for a topic that was deleted and made again.
    pub incarnation: u32,
}

impl Origin {
    pub fn of_source(source: usize, partition: u32) -> Self {
        Self { source: source as u16, topic: 0, partition, incarnation: 0 }
    }
    /// The profile task of an events partition, as an origin of examples.
    pub fn of_profile(partition: u32) -> Self {
        Self { source: u16::MAX, topic: 0, partition, incarnation: 0 }
    }
}

/// What a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Events = 1,
    Examples = 2,
    DeadLetters = 3,
}

/// Whether more is expected of an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OriginState {
    #[default]
    Active = 0,
    /// Its end was confirmed for `idleAfter`: it holds nothing up until it has something again.
    Idle = 1,
    /// A finite source at its end.
    Ended = 2,
}

impl OriginState {
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        match r.u8("origin state")? {
            0 => Ok(Self::Active),
            1 => Ok(Self::Idle),
            2 => Ok(Self::Ended),
            _ => Err(r.corrupt("origin state")),
        }
    }
}

/// How far an origin has come, as a section tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// No record at or below it follows, except late ones.
    pub watermark: Time,
    /// Highest event time of the origin so far: what is left to release once it ended or all are idle.
    pub highest: Time,
    pub state: OriginState,
}

impl Default for Progress {
    fn default() -> Self {
        Self { watermark: Time::MIN, highest: Time::MIN, state: OriginState::Active }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionHead {
    pub origin: Origin,
    /// Of the writer: a reader drops what a stale writer still sends.
    pub epoch: u64,
    pub from: Seq,
    pub to: Seq,
    pub progress: Progress,
}

/// Why a frame is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of format version {found}; this engine reads up to {VERSION}: upgrade before going on")]
    Version { found: u8 },
    #[error("not a frame, or its bytes are damaged: checksum {found:016x}, computed {computed:016x}")]
    Checksum { found: u64, computed: u64 },
    #[error("a frame of another log: kind {found}, expected {expected:?}")]
    Kind { found: u8, expected: Kind },
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// A frame whose checksum was verified.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub generation: u32,
    sections: u32,
    bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    pub head: SectionHead,
    /// Where `records` begin within the frame.
    pub at: usize,
    pub records: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Verifies version, checksum and kind.
    pub fn read(bytes: &'a [u8], expected: Kind) -> Result<Self, FrameError> {
        let mut r = Reader::new(bytes);
        if r.take(4, "frame magic")? != MAGIC {
            return Err(FrameError::Corrupt(Corrupt { what: "frame magic", at: 0 }));
        }
        let version = r.u8("frame version")?;
        if !(1..=VERSION).contains(&version) {
            return Err(FrameError::Version { found: version });
        }
        let kind = r.u8("frame kind")?;
        r.u16("reserved")?;
        let generation = r.u32("generation")?;
        let sections = r.u32("section count")?;
        let found = r.u64("checksum")?;
        let computed = checksum(bytes);
        if found != computed {
            return Err(FrameError::Checksum { found, computed });
        }
        if kind != expected as u8 {
            return Err(FrameError::Kind { found: kind, expected });
        }
        Ok(Self { generation, sections, bytes })
    }

    /// Ends with the first damaged section.
    pub fn sections(&self) -> impl Iterator<Item = Result<Section<'a>, Corrupt>> + use<'a> {
        let mut r = Reader::new(self.bytes);
        let skipped = r.take(HEAD_BYTES, "frame head").map(|_| ());
        let mut left = if skipped.is_ok() { self.sections } else { 0 };
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let section = read_section(&mut r);
            if section.is_err() {
                left = 0; // the count may be damaged as well, and what follows cannot be found
            }
            Some(section)
        })
    }
}

/// The checksum as it stands in a frame, by which a manifest names the frame before its offset. 0 if too short.
pub fn stored_checksum(bytes: &[u8]) -> u64 {
    let mut r = Reader::new(bytes);
    r.take(CHECKSUM_AT, "frame head").and_then(|_| r.u64("checksum")).unwrap_or(0)
}

fn checksum(bytes: &[u8]) -> u64 {
    let head = xxhash_rust::xxh3::xxh3_64(&bytes[..CHECKSUM_AT]);
    xxhash_rust::xxh3::xxh3_64_with_seed(&bytes[HEAD_BYTES..], head)
}

fn read_section<'a>(r: &mut Reader<'a>) -> Result<Section<'a>, Corrupt> {
    let origin = read_origin(r)?;
    let epoch = r.u64("epoch")?;
    let (from, to) = (read_seq(r)?, read_seq(r)?);
    let (watermark, highest) = (Time(r.i64("watermark")?), Time(r.i64("highest time")?));
    let state = OriginState::read(r)?;
    let len = r.u32("section length")? as usize;
    let at = r.at();
    let records = r.take(len, "section")?;
    let head = SectionHead { origin, epoch, from, to, progress: Progress { watermark, highest, state } };
    Ok(Section { head, at, records })
}

pub fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    out.put_u16(origin.source);
    out.put_u16(origin.topic);
    out.put_u32(origin.partition);
    out.put_u32(origin.incarnation);
}

pub fn read_origin(r: &mut Reader<'_>) -> Result<Origin, Corrupt> {
    Ok(Origin {
        source: r.u16("origin source")?,
        topic: r.u16("origin topic")?,
        partition: r.u32("origin partition")?,
        incarnation: r.u32("origin incarnation")?,
    })
}

pub fn put_seq(out: &mut Vec<u8>, seq: Seq) {
    out.put_u64(seq.offset);
    out.put_u32(seq.index);
}

pub fn read_seq(r: &mut Reader<'_>) -> Result<Seq, Corrupt> {
    Ok(Seq { offset: r.u64("sequence offset")?, index: r.u32("sequence index")? })
}

impl<'a> Section<'a> {
    /// The records in order: (sequence, byte range within the frame). All encodings begin with their sequence.
    pub fn records(&self) -> Records<'a> {
        Records { reader: Reader::new(self.records), base: self.at }
    }
}

pub struct Records<'a> {
    reader: Reader<'a>,
    base: usize,
}

/// A record of a section and where it lies within the frame.
pub struct RawRecord<'a> {
    pub seq: Seq,
    pub at: usize,
    pub bytes: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RawRecord<'a>, Corrupt>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let record = (|| {
            let len = self.reader.u32("record length")? as usize;
            let at = self.base + self.reader.at();
            let bytes = self.reader.take(len, "record")?;
            let seq = read_seq(&mut Reader::new(bytes))?;
            Ok(RawRecord { seq, at, bytes })
        })();
        if record.is_err() {
            self.reader = Reader::new(&[]); // nothing after a damaged record can be found
        }
        Some(record)
    }
}

/// Writes a frame: sections one by one, then `finish`.
pub struct FrameWriter {
    bytes: Vec<u8>,
    sections: u32,
}

impl FrameWriter {
    pub fn new(kind: Kind, generation: u32, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + HEAD_BYTES);
        bytes.put(MAGIC);
        bytes.put(&[VERSION, kind as u8, 0, 0]);
        bytes.put_u32(generation);
        bytes.put_u32(0);
        bytes.put_u64(0);
        Self { bytes, sections: 0 }
    }

    /// `records`: each led by its length, in ascending sequence, all within (from, to].
    pub fn section(&mut self, head: &SectionHead, records: &[u8]) {
        self.bytes.reserve(SECTION_HEAD_BYTES + records.len());
        put_origin(&mut self.bytes, &head.origin);
        self.bytes.put_u64(head.epoch);
        put_seq(&mut self.bytes, head.from);
        put_seq(&mut self.bytes, head.to);
        self.bytes.put_i64(head.progress.watermark.0);
        self.bytes.put_i64(head.progress.highest.0);
        self.bytes.put_u8(head.progress.state as u8);
        self.bytes.put_bytes(records);
        self.sections += 1;
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[12..16].copy_from_slice(&self.sections.to_le_bytes());
        let sum = checksum(&self.bytes);
        self.bytes[CHECKSUM_AT..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(partition: u32) -> SectionHead {
        SectionHead {
            origin: Origin::of_source(3, partition),
            epoch: 7,
            from: Seq { offset: 4, index: 1 },
            to: Seq { offset: 9, index: u32::MAX },
            progress: Progress { watermark: Time(-5), highest: Time(1_000), state: OriginState::Idle },
        }
    }

    fn sample() -> Vec<u8> {
        let mut record = Vec::new();
        record.put_u32(15);
        put_seq(&mut record, Seq { offset: 9, index: 2 });
        record.put(b"abc");
        let mut w = FrameWriter::new(Kind::Events, 1, 100);
        w.section(&head(0), &record);
        w.section(&head(1), &[]);
        w.finish()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample();
        let frame = Frame::read(&bytes, Kind::Events).unwrap();
        let sections: Vec<_> = frame.sections().map(Result::unwrap).collect();
        assert_eq!(sections.len(), 2);
        assert_eq!((sections[0].head, sections[1].head), (head(0), head(1)));
        let record = sections[0].records().next().unwrap().unwrap();
        assert_eq!(record.seq, Seq { offset: 9, index: 2 });
        assert_eq!(&bytes[record.at..record.at + 15], record.bytes);
        assert!(sections[1].records().next().is_none());
    }

    /// Frames that lie in logs must stay readable: these bytes never change.
    #[test]
    fn golden_version_2() {
        let hex: String = sample().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("golden_v2.hex").trim());
    }

    #[test]
    fn version_1_is_still_read() {
        let golden = include_str!("golden_v1.hex").trim();
        let byte = |at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..golden.len()).step_by(2).map(byte).collect();
        assert_eq!(bytes[4], 1);
        let frame = Frame::read(&bytes, Kind::Events).unwrap();
        let sections: Vec<_> = frame.sections().map(Result::unwrap).collect();
        assert_eq!((sections[0].head, sections[1].head), (head(0), head(1)));
        assert_eq!(&sections[0].records().next().unwrap().unwrap().bytes[12..], b"abc");
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let good = sample();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&bad, Kind::Events).is_err(), "bit {bit}");
        }
    }

    /// The fuzzer's: four billion sections in an empty frame were as many errors.
    #[test]
    fn a_damaged_section_is_the_last() {
        let mut bytes = FrameWriter::new(Kind::Events, 1, 0).finish();
        bytes[12..16].fill(0xff);
        let sum = checksum(&bytes);
        bytes[CHECKSUM_AT..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        let frame = Frame::read(&bytes, Kind::Events).unwrap();
        assert_eq!(frame.sections().take(2).count(), 1);
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = sample();
        bytes[4] = 3;
        assert_eq!(Frame::read(&bytes, Kind::Events).unwrap_err(), FrameError::Version { found: 3 });
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), fix: bool) {
            if fix && bytes.len() >= HEAD_BYTES {
                bytes[..5].copy_from_slice(b"MLRF\x01");
                bytes[5] = 1;
                let sum = checksum(&bytes);
                bytes[CHECKSUM_AT..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
            }
            if let Ok(frame) = Frame::read(&bytes, Kind::Events) {
                for section in frame.sections().take(100).flatten() {
                    for record in section.records() {
                        if record.is_err() { break; }
                    }
                }
            }
        }
    }
}
