//! The event-time merge: records of all origins of one log partition, in the order (event time, origin, sequence),
//! each released once every origin's watermark has passed it.
//!
//! The order depends on the records alone, not on how they were cut into frames or which origin was read first.
//! Control records stand outside: they are handed on when their frame is read, and hold nothing up.

mod by_user;
mod calendar;
mod image;

use std::sync::Arc;

use by_user::ByUser;
use calendar::{Calendar, Entry};
pub use image::MergeImage;

use crate::{
    codec::{Corrupt, Reader},
    control::ControlError,
    event::{Pseudonym, Seq, Time},
    frame::{
        Frame, FrameError, Kind, Origin, OriginState, Progress, Section,
        coverage::{Admission, Coverage, Gap},
        read_origin,
    },
    plan::ConfigureError,
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
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
}

#[derive(Clone, Debug)]
struct OriginProgress {
    origin: Origin,
    coverage: Coverage,
    progress: Progress,
}

/// A record that does not wait for its turn.
#[derive(Clone, Debug)]
pub struct OwnRecord {
    pub origin: Origin,
    pub bytes: Vec<u8>,
}

/// What a frame held besides records that wait.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Below the merged watermark, although their own origins took them to be on time.
    pub late: Vec<OwnRecord>,
    /// Control records in their order.
    pub control: Vec<OwnRecord>,
    /// What was [`Taken::Apart`], in its order.
    pub apart: Vec<OwnRecord>,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It waits for its turn, or is late.
    InTurn,
    /// It is dropped; its time counts all the same.
    Dropped,
    /// It is handed on as it is read, and its time moves nothing.
    Apart,
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
    /// Waiting records by user, where somebody asks for them.
    by_user: Option<Box<ByUser>>,
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
            by_user: None,
        }
    }

    /// What of an origin's records has been taken in. `None`: nothing was ever heard of it.
    pub fn coverage_of(&self, origin: Origin) -> Option<Coverage> {
        let at = self.origins.binary_search_by(|o| o.origin.cmp(&origin)).ok()?;
        Some(self.origins[at].coverage)
    }

    /// Everything at or below has been released, or is ready to be.
    pub fn watermark(&self) -> Time {
        self.merged
    }
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
    pub fn all_ended(&self) -> bool {
        self.all_sources(|state| state == OriginState::Ended)
    }
    /// Is there any, and does this hold for all?
    fn all_sources(&self, holds: impl Fn(OriginState) -> bool) -> bool {
        self.sources().next().is_some() && self.sources().all(|o| holds(o.progress.state))
    }
    /// The origins that watermarks are of.
    fn sources(&self) -> impl Iterator<Item = &OriginProgress> {
        self.origins.iter().filter(|o| !o.origin.is_control())
    }
    /// What a task that reads this merge is itself to its own readers.
    pub fn state(&self) -> OriginState {
        if self.all_ended() {
            OriginState::Ended
        } else if self.all_sources(|state| state != OriginState::Active) {
            OriginState::Idle
        } else {
            OriginState::Active
        }
    }

    /// Takes in a frame; afterwards `release` gives what has become ready. Call it only when `release` gave `None`.
    ///
    /// # Errors
    /// Damaged or newer frames, and gaps in an origin's coverage. The merge is then not to be used any more.
    pub fn accept(&mut self, bytes: &Arc<[u8]>) -> Result<Accepted, OrderError> {
        self.accept_by(bytes, |_, _| Taken::InTurn)
    }

    /// Likewise; `taken` says what becomes of each record of a source.
    pub fn accept_by(
        &mut self,
        bytes: &Arc<[u8]>,
        mut taken: impl FnMut(Origin, &[u8]) -> Taken,
    ) -> Result<Accepted, OrderError> {
        let frame = Frame::read(bytes, self.kind)?;
        let slot = self.reserve_frame(bytes);
        let mut accepted = Accepted::default();
        for section in frame.sections() {
            self.accept_section(slot, &section?, &mut taken, &mut accepted)?;
        }
        self.let_go_if_unused(slot);
        self.merge_watermarks();
        Ok(accepted)
    }

    fn accept_section(
        &mut self,
        slot: u32,
        section: &Section<'_>,
        taken: &mut impl FnMut(Origin, &[u8]) -> Taken,
        accepted: &mut Accepted,
    ) -> Result<(), OrderError> {
        let (head, at) = (&section.head, self.origin_index(section.head.origin));
        let restarted = head.epoch > self.origins[at].coverage.epoch;
        let Admission::Above(applied) = self.origins[at].coverage.admit(head)? else { return Ok(()) };
        let mut highest = Time::MIN;
        for record in section.records() {
            let record = record?;
            if record.seq <= applied {
                continue;
            }
            if head.origin.is_control() {
                accepted.control.push(OwnRecord { origin: head.origin, bytes: record.bytes.to_vec() });
                continue;
            }
            let taken = taken(head.origin, record.bytes);
            if taken == Taken::Apart {
                accepted.apart.push(OwnRecord { origin: head.origin, bytes: record.bytes.to_vec() });
                continue;
            }
            let time = time_of(record.bytes)?;
            highest = highest.max(time);
            if taken == Taken::Dropped {
                continue;
            }
            let header = planted::is(planted::Bug::LatenessByFrameHeader);
            if time <= if header { self.merged.max(head.progress.watermark) } else { self.merged } {
                accepted.late.push(OwnRecord { origin: head.origin, bytes: record.bytes.to_vec() });
                continue;
            }
            let (origin, seq, len) = (at as u16, record.seq, record.bytes.len() as u32);
            self.wait(Entry { time, origin, seq, frame: slot, at: record.at as u32, len }, record.bytes);
        }
        let mut told = head.progress;
        told.highest = told.highest.max(highest);
        self.advance(at, restarted || head.to >= self.origins[at].coverage.applied, &told);
        Ok(())
    }

    /// `bytes`: the record's.
    fn wait(&mut self, entry: Entry, bytes: &[u8]) {
        self.waiting.push(entry);
        self.hold(entry.frame);
        if let Some(by_user) = &mut self.by_user {
            by_user.add(&entry, bytes);
        }
    }

    /// A record that no frame holds: it waits like any other, and is released with the watermark that passes it, or when
    /// all sources have ended. `origin` is a control origin, which holds nothing up.
    pub fn insert(&mut self, origin: Origin, record: &[u8]) -> Result<(), Corrupt> {
        let (seq, time) = (crate::frame::read_seq(&mut Reader::new(record))?, time_of(record)?);
        let (at, frame) = (self.origin_index(origin) as u16, self.reserve_frame(&Arc::from(record)));
        self.wait(Entry { time, origin: at, seq, frame, at: 0, len: record.len() as u32 }, record);
        Ok(())
    }

    /// Keeps an index of the waiting records by user from here on. Only of events.
    pub fn index_users(&mut self) {
        let mut by_user = ByUser::default();
        for entry in self.waiting.sorted() {
            by_user.add(&entry, self.bytes_of(&entry).unwrap_or_default());
        }
        self.by_user = Some(Box::new(by_user));
    }

    /// The user's waiting records in the order in which they will be released: all that change consent, and of the others
    /// the `most` read last. `None` if more than `most` change consent, or without `index_users`.
    pub fn waiting_of(&self, user: Pseudonym, most: usize) -> Option<Vec<(Origin, &[u8])>> {
        let records = self.by_user.as_ref()?.of(user, most)?;
        let origin = |entry: &Entry| self.origins[usize::from(entry.origin)].origin;
        Some(records.into_iter().filter_map(|entry| Some((origin(&entry), self.bytes_of(&entry)?))).collect())
    }

    /// Drops the waiting records that are not to `keep`. Not while one is released.
    pub fn retain(&mut self, mut keep: impl FnMut(Origin, &[u8]) -> bool) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut dropped = Vec::new();
        waiting.retain(|entry| {
            let origin = self.origins[usize::from(entry.origin)].origin;
            let kept = self.bytes_of(entry).is_none_or(|bytes| keep(origin, bytes));
            if !kept {
                dropped.push(*entry);
            }
            kept
        });
        self.waiting = waiting;
        for entry in &dropped {
            self.forget_user_of(entry);
            self.release_frame(entry.frame);
        }
    }

    fn forget_user_of(&mut self, entry: &Entry) {
        let Some(mut by_user) = self.by_user.take() else { return };
        by_user.remove(entry, self.bytes_of(entry).unwrap_or_default());
        self.by_user = Some(by_user);
    }

    /// Index of the origin; one that was not known joins at the merged watermark.
    fn origin_index(&mut self, origin: Origin) -> usize {
        match self.origins.binary_search_by(|o| o.origin.cmp(&origin)) {
            Ok(at) => at,
            Err(at) => {
                let progress = Progress { watermark: self.merged, ..Progress::default() };
                self.origins.insert(at, OriginProgress { origin, coverage: Coverage::default(), progress });
                self.waiting.renumber_origins(at as u16);
                if let Some(by_user) = &mut self.by_user {
                    by_user.renumber_origins(at as u16);
                }
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
        let active = self.sources().filter(|o| o.progress.state == OriginState::Active);
        let merged = match active.map(|o| o.progress.watermark).min() {
            Some(lowest) => lowest,
            // Nothing more is expected for now: everything seen is released.
            None => self.sources().map(|o| o.progress.highest).max().unwrap_or(Time::MIN),
        };
        self.merged = self.merged.max(merged);
    }

    /// The time of the next record that is ready.
    pub fn peek(&mut self) -> Option<Time> {
        self.waiting.peek().filter(|time| *time <= self.merged || self.all_ended())
    }

    /// The next record that is ready, in order.
    pub fn release(&mut self) -> Option<Released<'_>> {
        if let Some(frame) = self.spent.take() {
            self.release_frame(frame);
        }
        self.peek()?;
        let entry = self.waiting.pop()?;
        self.forget_user_of(&entry);
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
        let mut all = usize::MAX;
        self.image().write(&mut all, out);
    }

    /// Reads what [`MergeImage::write`] wrote.
    pub fn read(kind: Kind, r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut merge = Self::new(kind, &[]);
        if r.u8("merge kind")? != kind as u8 {
            return Err(r.corrupt("merge kind"));
        }
        merge.merged = Time(r.i64("merged watermark")?);
        if planted::is(planted::Bug::WatermarksForgotten) {
            merge.merged = Time::MIN;
        }
        for _ in 0..r.count(49, "origins")? {
            let (origin, coverage) = (read_origin(r)?, Coverage::read(r)?);
            let (watermark, highest) = (Time(r.i64("watermark")?), Time(r.i64("highest time")?));
            let state = OriginState::read(r)?;
            let watermark = if planted::is(planted::Bug::WatermarksForgotten) { Time::MIN } else { watermark };
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
