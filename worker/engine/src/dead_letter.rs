//! What could not be used, and why, as the dead-letter log holds it. Never holds an identity or a value of the record.

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{Seq, Time},
    frame::{put_seq, read_seq},
};

/// The stable reasons besides those of `decode`.
pub const LATE: &str = "late";
pub const FUTURE: &str = "future";
/// The source's bytes ended or broke where they should not have.
pub const UNREADABLE: &str = "unreadable";

/// One dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Its place in the log of its writer.
    pub seq: Seq,
    pub reason: &'a str,
    /// Place of the source in the spec.
    pub source: u16,
    pub partition: u32,
    /// The record's offset within the source's partition (files: row number from 1).
    pub offset: u64,
    /// [`Time::MIN`] if it is not known.
    pub time: Time,
    /// What a person needs to find the cause, redacted.
    pub sample: &'a str,
}

impl<'a> DeadLetter<'a> {
    /// Appends it, led by its length (u32).
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32(0);
        put_seq(out, self.seq);
        out.put_u16(self.source);
        out.put_u32(self.partition);
        out.put_u64(self.offset);
        out.put_i64(self.time.0);
        out.put_str(self.reason);
        out.put_str(self.sample);
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Reads one, without the length before it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let mut r = Reader::new(bytes);
        let seq = read_seq(&mut r)?;
        let (source, partition, offset) = (r.u16("source")?, r.u32("partition")?, r.u64("offset")?);
        let time = Time(r.i64("time")?);
        Ok(Self { seq, reason: r.str("reason")?, source, partition, offset, time, sample: r.str("sample")? })
    }
}
