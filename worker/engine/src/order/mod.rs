//! The event-time merge: records of all origins of one log partition, in the order (event time, origin, sequence),
//! each released once every origin's watermark has passed it.
//!
//! The order depends on the records alone, not on how they were cut into frames or which origin was read first.

mod calendar;

use std::sync::Arc;

use calendar::{Calendar, Entry};

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{Seq, Time},
    frame::{
        Frame, FrameError, Kind, Origin, OriginState, Progress,
        coverage::{Admission, Coverage, Gap},
        put_origin, read_origin,
    },
};

/// Why a log partition cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Gap(#[from] Gap),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

#[derive(Clone, Debug)]
struct OriginProgress {
    origin: Origin,
    coverage: Coverage,
    progress: Progress,
}

/// A record that came below the merged watermark, although its own origin took it to be on time.
#[derive(Clone, Debug)]
pub struct LateRecord {
    pub origin: Origin,
    pub bytes: Vec<u8>,
}

/// A record whose turn it is.
pub struct Released<'a> {
    pub time: Time,
    pub origin: Origin,
    pub seq: Seq,
    pub bytes: &'a [u8],
}

struct FrameSlot {
    bytes: Arc<[u8]>,
    waiting: u32,
}

/// The merge of one log partition.
pub struct Merge {
    kind: Kind,
    /// Ascending.
    origins: Vec<OriginProgress>,
    merged: Time,
    waiting: Calendar,
    frames: Vec<Option<FrameSlot>>,
    free_frames: Vec<u32>,
    /// The frame of the record released last, let go at the next release.
    spent: Option<u32>,
}

/// Where the event time stands in a record: behind its sequence, in events and in examples.
const TIME_AT: usize = 12;

fn time_of(record: &[u8]) -> Result<Time, Corrupt> {
    let mut r = Reader::new(record);
    r.take(TIME_AT, "record")?;
    Ok(Time(r.i64("record time")?))
}

impl Merge {
    /// Waits for all of `origins` from the start. Others join where the log first shows them.
    pub fn new(kind: Kind, origins: &[Origin]) -> Self {
        let mut sorted = origins.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let fresh = |origin| OriginProgress { origin, coverage: Coverage::default(), progress: Progress::default() };
        Self {
            kind,
            origins: sorted.into_iter().map(fresh).collect(),
            merged: Time::MIN,
            waiting: Calendar::default(),
            frames: Vec::new(),
            free_frames: Vec::new(),
            spent: None,
        }
    }

    /// Everything at or below has been released, or is ready to be.
    pub fn watermark(&self) -> Time {
        self.merged
    }
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
    pub fn all_ended(&self) -> bool {
        !self.origins.is_empty() && self.origins.iter().all(|o| o.progress.state == OriginState::Ended)
    }
    /// What a task that reads this merge is itself to its own readers.
    pub fn state(&self) -> OriginState {
        if self.all_ended() {
            OriginState::Ended
        } else if !self.origins.is_empty() && self.origins.iter().all(|o| o.progress.state != OriginState::Active) {
            OriginState::Idle
        } else {
            OriginState::Active
        }
    }

    /// Takes in a frame; afterwards `release` gives what has become ready. Call it only when `release` gave `None`.
    ///
    /// # Errors
    /// Damaged or newer frames, and gaps in an origin's coverage. The merge is then not to be used any more.
    pub fn accept(&mut self, bytes: &Arc<[u8]>) -> Result<Vec<LateRecord>, OrderError> {
        let frame = Frame::read(bytes, self.kind)?;
        let slot = self.reserve_frame(bytes);
        let mut late = Vec::new();
        for section in frame.sections() {
            let section = section?;
            let at = self.origin_index(section.head.origin);
            let restarted = section.head.epoch > self.origins[at].coverage.epoch;
            let Admission::Above(applied) = self.origins[at].coverage.admit(&section.head)? else { continue };
            let mut highest = Time::MIN;
            for record in section.records() {
                let record = record?;
                if record.seq <= applied {
                    continue;
                }
                let time = time_of(record.bytes)?;
                highest = highest.max(time);
                if time <= self.merged {
                    let origin = section.head.origin;
                    late.push(LateRecord { origin, bytes: record.bytes.to_vec() });
                    continue;
                }
                let (origin, seq, len) = (at as u16, record.seq, record.bytes.len() as u32);
                self.waiting.push(Entry { time, origin, seq, frame: slot, at: record.at as u32, len });
                self.hold(slot);
            }
            let mut told = section.head.progress;
            told.highest = told.highest.max(highest);
            self.advance(at, restarted || section.head.to >= self.origins[at].coverage.applied, &told);
        }
        self.let_go_if_unused(slot);
        self.merge_watermarks();
        Ok(late)
    }

    /// Index of the origin; one that was not known joins at the merged watermark.
    fn origin_index(&mut self, origin: Origin) -> usize {
        match self.origins.binary_search_by(|o| o.origin.cmp(&origin)) {
            Ok(at) => at,
            Err(at) => {
                let progress = Progress { watermark: self.merged, ..Progress::default() };
                self.origins.insert(at, OriginProgress { origin, coverage: Coverage::default(), progress });
                self.waiting.renumber_origins(at as u16);
                at
            }
        }
    }

    /// `is_news`: it tells of the origin's state as it is now, not of what is repeated after a restart.
    fn advance(&mut self, at: usize, is_news: bool, told: &Progress) {
        let own = &mut self.origins[at].progress;
        own.watermark = own.watermark.max(told.watermark);
        own.highest = own.highest.max(told.highest);
        if is_news {
            own.state = told.state;
        }
    }

    fn merge_watermarks(&mut self) {
        let active = self.origins.iter().filter(|o| o.progress.state == OriginState::Active);
        let merged = match active.map(|o| o.progress.watermark).min() {
            Some(lowest) => lowest,
            // Nothing more is expected for now: everything seen is released.
            None => self.origins.iter().map(|o| o.progress.highest).max().unwrap_or(Time::MIN),
        };
        self.merged = self.merged.max(merged);
    }

    /// The time of the next record that is ready.
    pub fn peek(&mut self) -> Option<Time> {
        self.waiting.peek().filter(|time| *time <= self.merged)
    }

    /// The next record that is ready, in order.
    pub fn release(&mut self) -> Option<Released<'_>> {
        if let Some(frame) = self.spent.take() {
            self.release_frame(frame);
        }
        self.peek()?;
        let entry = self.waiting.pop()?;
        self.spent = Some(entry.frame);
        let slot = self.frames[entry.frame as usize].as_ref()?;
        let bytes = &slot.bytes[entry.at as usize..(entry.at + entry.len) as usize];
        let origin = self.origins[usize::from(entry.origin)].origin;
        Some(Released { time: entry.time, origin, seq: entry.seq, bytes })
    }

    /// The next records, roughly: only good for reading ahead. Those that are not ready yet may be among them.
    pub fn upcoming(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.upcoming().filter_map(|entry| self.bytes_of(entry))
    }

    /// All records that still wait, in order: what serving overlays on a profile, and what a checkpoint saves.
    pub fn waiting_records(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.sorted().into_iter().filter_map(|entry| self.bytes_of(&entry))
    }

    fn bytes_of(&self, entry: &Entry) -> Option<&[u8]> {
        let slot = self.frames[entry.frame as usize].as_ref()?;
        slot.bytes.get(entry.at as usize..(entry.at + entry.len) as usize)
    }

    fn reserve_frame(&mut self, bytes: &Arc<[u8]>) -> u32 {
        let slot = Some(FrameSlot { bytes: bytes.clone(), waiting: 0 });
        match self.free_frames.pop() {
            Some(free) => {
                self.frames[free as usize] = slot;
                free
            }
            None => {
                self.frames.push(slot);
                (self.frames.len() - 1) as u32
            }
        }
    }
    fn hold(&mut self, frame: u32) {
        if let Some(slot) = &mut self.frames[frame as usize] {
            slot.waiting += 1;
        }
    }
    fn release_frame(&mut self, frame: u32) {
        if let Some(slot) = &mut self.frames[frame as usize] {
            slot.waiting -= 1;
        }
        self.let_go_if_unused(frame);
    }
    fn let_go_if_unused(&mut self, frame: u32) {
        if self.frames[frame as usize].as_ref().is_some_and(|slot| slot.waiting == 0) {
            self.frames[frame as usize] = None;
            self.free_frames.push(frame);
        }
    }

    /// Origins' progress, the merged watermark and all waiting records.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind as u8);
        out.put_i64(self.merged.0);
        out.put_u32(self.origins.len() as u32);
        for o in &self.origins {
            put_origin(out, &o.origin);
            o.coverage.write(out);
            out.put_i64(o.progress.watermark.0);
            out.put_i64(o.progress.highest.0);
            out.put_u8(o.progress.state as u8);
        }
        let entries = self.waiting.sorted();
        out.put_u32(entries.len() as u32);
        for entry in &entries {
            out.put_u16(entry.origin);
            out.put_bytes(self.bytes_of(entry).unwrap_or_default());
        }
    }

    /// Reads what `write` wrote.
    pub fn read(kind: Kind, r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut merge = Self::new(kind, &[]);
        if r.u8("merge kind")? != kind as u8 {
            return Err(r.corrupt("merge kind"));
        }
        merge.merged = Time(r.i64("merged watermark")?);
        for _ in 0..r.count(49, "origins")? {
            let (origin, coverage) = (read_origin(r)?, Coverage::read(r)?);
            let (watermark, highest) = (Time(r.i64("watermark")?), Time(r.i64("highest time")?));
            let state = OriginState::read(r)?;
            merge.origins.push(OriginProgress { origin, coverage, progress: Progress { watermark, highest, state } });
        }
        let mut bytes = Vec::new();
        let mut entries = Vec::new();
        for _ in 0..r.count(6, "waiting records")? {
            let origin = r.u16("waiting origin")?;
            let record = r.bytes("waiting record")?;
            if usize::from(origin) >= merge.origins.len() {
                return Err(r.corrupt("waiting origin"));
            }
            let seq = crate::frame::read_seq(&mut Reader::new(record))?;
            let at = u32::try_from(bytes.len()).map_err(|_| r.corrupt("more than 4 GiB of waiting records"))?;
            let len = record.len() as u32;
            entries.push(Entry { time: time_of(record)?, origin, seq, frame: 0, at, len });
            bytes.extend_from_slice(record);
        }
        let frame = merge.reserve_frame(&Arc::from(bytes));
        for entry in entries {
            merge.waiting.push(entry);
            merge.hold(frame);
        }
        merge.let_go_if_unused(frame);
        Ok(merge)
    }
}

#[cfg(test)]
mod tests;
