//! The ingest task: one partition of one source in, the events log (by user) and the dead-letter log out.
//!
//! Everything it decides depends on the partition's records alone, so a restart, or another read order of the
//! sources, repeats it exactly: lateness is judged against the highest event time *before* an event in its
//! partition, and what comes from the future moves no watermark.

pub mod generations;

use std::{collections::VecDeque, ops::Range};

use crate::{
    codec::{Corrupt, Put, Reader},
    dead_letter::{DeadLetter, FUTURE, LATE, UNREADABLE},
    decode::{Decoded, DecodedEvent, Decoder, MAX_MAPPINGS, Place, Reason, Reject},
    event::{ConsentChange, Pseudonym, Seq, Time},
    frame::{
        Origin, OriginState, Progress,
        outbox::{Handle, Outbox},
    },
};

/// What became of the records of one source partition, since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records of the source.
    pub read: u64,
    /// Events that they yielded, whatever became of them.
    pub events: u64,
    pub late: u64,
    pub future: u64,
    /// Not logged in, or refused.
    pub unconsented: u64,
    pub unknown_type: u64,
    pub dropped: u64,
    /// Records without anything to read.
    pub empty: u64,
    /// Attributes of a wrong shape, which counted as missing.
    pub ignored_attributes: u64,
    /// By reason, in the order of [`Reason::ALL`].
    pub rejected: [u64; Reason::ALL.len()],
    pub unreadable: u64,
}

impl Counts {
    /// All that are not by reason, in the order in which checkpoints hold them.
    fn plain(&mut self) -> [&mut u64; 10] {
        [
            &mut self.read,
            &mut self.events,
            &mut self.late,
            &mut self.future,
            &mut self.unconsented,
            &mut self.unknown_type,
            &mut self.dropped,
            &mut self.empty,
            &mut self.ignored_attributes,
            &mut self.unreadable,
        ]
    }
}

/// Where a partition has been read to, and all that later judgements depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Records read; the next one's offset is one more.
    pub offset: u64,
    /// Where the next record begins (files: bytes of the decompressed content).
    pub byte: u64,
    /// Highest believable event time so far.
    pub highest: Time,
    pub counts: Counts,
}

impl Default for Position {
    fn default() -> Self {
        Self { offset: 0, byte: 0, highest: Time::MIN, counts: Counts::default() }
    }
}

/// Of a table's partition: its records go to every events partition, and are never late. It holds everybody up until its
/// snapshot was read, and nobody afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct TablePlan {
    /// What begins before this byte was there when the pipeline was first started: it is older than any event.
    pub snapshot_bytes: u64,
}

/// How a source's records are judged.
#[derive(Clone, Debug)]
pub struct IngestPlan {
    pub max_out_of_orderness_micros: i64,
    pub max_skew_micros: i64,
    /// How far a time may lie above the record's receipt; without it, times are believed as far as the decoder does.
    pub max_ahead_micros: Option<i64>,
    /// Late events become dead letters; otherwise they are only counted.
    pub late_to_dead_letters: bool,
    pub partitions: u32,
    pub table: Option<TablePlan>,
}

/// An effect that is decided, and may have to wait for the other origins to come near.
struct Held {
    /// Of an event; a dead letter does not wait.
    time: Time,
    /// The partition's highest time once it is counted in.
    highest: Time,
    /// Place among the task's outputs: the events partitions, then the dead letters.
    output: usize,
    seq: Seq,
    bytes: Range<usize>,
}

/// What a record is to the task: its bytes, or why there are none.
pub enum Input<'a> {
    Record(&'a [u8]),
    /// It was decoded when it was received.
    Decoded {
        received: Time,
        decoded: &'a Decoded,
    },
    /// Its bytes, and where and when a log of others has it. `offset` counts from 1, and may leave some out.
    Stamped {
        offset: u64,
        received: Time,
        bytes: &'a [u8],
    },
    /// Longer than the limit; its length in bytes.
    TooLong(u64),
    /// The source cannot be read further. `cause` holds nothing of its content.
    Unreadable(&'a str),
}

/// Reads one source partition.
pub struct Ingest {
    plan: IngestPlan,
    origin: Origin,
    decoder: Decoder,
    decoded: Decoded,
    /// When the record in hand was received, if that is known.
    received: Option<Time>,
    /// It is of a table's snapshot.
    in_snapshot: bool,
    position: Position,
    /// Before the record whose events are held.
    committed: Position,
    held: VecDeque<Held>,
    held_bytes: Vec<u8>,
    state: OriginState,
    emitted: Seq,
}

/// Users are spread by the pseudonym's high bits; tables of users use the low ones.
pub fn partition_of(user: Pseudonym, partitions: u32) -> usize {
    (((user.0 >> 64) as u64 as u128 * u128::from(partitions)) >> 64) as usize
}

/// The sequence's offset within an encoded event or item: behind its length. At receipt it was not known yet.
const OFFSET_AT: usize = 4;
/// `time` within an encoded event or item: behind its length and sequence.
const TIME_AT: usize = 4 + 12;

impl Ingest {
    pub fn new(plan: IngestPlan, origin: Origin, decoder: Decoder, position: Position) -> Self {
        Self {
            plan,
            origin,
            decoder,
            decoded: Decoded::default(),
            received: None,
            in_snapshot: false,
            position,
            committed: position,
            held: VecDeque::new(),
            held_bytes: Vec::new(),
            state: OriginState::Active,
            emitted: Seq::end_of(position.offset),
        }
    }

    /// The next records are read by another generation of the pipeline. Only when nothing is held.
    pub fn configure(&mut self, plan: IngestPlan, decoder: Decoder) {
        debug_assert!(self.held.is_empty());
        (self.plan, self.decoder) = (plan, decoder);
    }

    pub fn position(&self) -> &Position {
        &self.position
    }
    /// What a checkpoint saves: the position before a record that is held.
    pub fn committed(&self) -> &Position {
        if planted::is(planted::Bug::HeldIsCommitted) { &self.position } else { &self.committed }
    }
    pub fn state(&self) -> OriginState {
        self.state
    }
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Has a table's snapshot been read?
    pub fn is_past_snapshot(&self) -> bool {
        self.plan.table.is_some_and(|table| self.position.byte >= table.snapshot_bytes)
    }
    pub fn is_of_table(&self) -> bool {
        self.plan.table.is_some()
    }

    /// No record at or below it follows. Counts in the first event that is held, and only that one.
    pub fn watermark(&self) -> Time {
        let held = self.held.front().filter(|_| !planted::is(planted::Bug::HeldMovesNothing));
        match held.map_or(self.position.highest, |held| held.highest) {
            Time::MIN => Time::MIN,
            highest => self.watermark_after(highest),
        }
    }
    fn watermark_after(&self, highest: Time) -> Time {
        match highest {
            Time::MIN => Time::MIN,
            highest => highest.minus(self.plan.max_out_of_orderness_micros).minus(1),
        }
    }

    /// Takes the next record; `next_byte` is where the one after it begins. Only when nothing is held.
    ///
    /// `lowest` is the lowest watermark of the active origins: events too far above it are held.
    pub fn read(&mut self, input: Input<'_>, next_byte: u64, lowest: Time, outbox: &mut Outbox, out: &Handle) {
        debug_assert!(self.held.is_empty());
        if !self.is_of_table() {
            self.state = OriginState::Active;
        }
        self.committed = self.position;
        self.in_snapshot = self.is_of_table() && !self.is_past_snapshot();
        let offset = match input {
            Input::Stamped { offset, .. } => offset,
            _ => self.position.offset + 1,
        };
        self.position.offset = offset;
        self.position.byte = next_byte;
        self.position.counts.read += 1;
        self.received = None;
        let mut own = std::mem::take(&mut self.decoded);
        own.clear();
        let mut decoded = &own;
        match input {
            Input::Record(bytes) => {
                self.decoder.decode(bytes, Place { partition: self.origin.partition, row: offset }, &mut own);
                decoded = &own;
            }
            Input::Stamped { received, bytes, .. } => {
                self.decoder.decode(bytes, Place { partition: self.origin.partition, row: offset }, &mut own);
                decoded = &own;
                self.received = Some(received);
            }
            Input::Decoded { received, decoded: given } => {
                decoded = given;
                self.received = Some(received);
            }
            Input::TooLong(len) => {
                self.position.counts.rejected[Reason::TooLong as usize] += 1;
                self.dead_letter(0, Reason::TooLong.name(), Time::MIN, &format!("{{\"bytes\":{len}}}"));
            }
            Input::Unreadable(cause) => {
                self.position.counts.unreadable += 1;
                self.dead_letter(0, UNREADABLE, Time::MIN, cause);
            }
        }
        self.count(decoded);
        self.judge_all(decoded);
        self.decoded = own;
        self.release(lowest, outbox, out);
    }

    /// Everything that the record yielded, in the order of its elements.
    fn judge_all(&mut self, decoded: &Decoded) {
        let mut rejects = decoded.rejects.iter().peekable();
        let mut unconsented = decoded.unconsented.iter().peekable();
        let mut events = decoded.events.iter().peekable();
        loop {
            let at = [
                events.peek().map(|e| e.index),
                rejects.peek().map(|r| index_of(r)),
                unconsented.peek().map(|(index, _)| *index),
            ];
            let Some(next) = at.into_iter().flatten().min() else { return };
            // An event first: a withdrawal that was saved from a rejected element has the reject's place.
            if let Some(event) = events.next_if(|e| e.index == next) {
                match self.is_of_table() {
                    true => self.item(event, &decoded.bytes),
                    false => self.judge(event, &decoded.bytes),
                }
            } else if let Some((index, time)) = unconsented.next_if(|(index, _)| *index == next) {
                self.pass_time(*index, *time);
            } else if let Some(reject) = rejects.next() {
                self.dead_letter(next, reject.reason.name(), Time::MIN, decoded.sample(reject));
            }
        }
    }

    /// Somebody unknown did something then: only the time counts.
    fn pass_time(&mut self, index: u32, time: Time) {
        if time > self.believed_until() {
            return;
        }
        let highest = self.highest().max(time);
        let (seq, at) = (Seq { offset: self.position.offset, index }, self.held_bytes.len());
        self.held.push_back(Held { time: Time::MIN, highest, output: 0, seq, bytes: at..at });
    }

    fn count(&mut self, decoded: &Decoded) {
        let is_of_table = self.is_of_table();
        let counts = &mut self.position.counts;
        counts.events += if is_of_table { 0 } else { decoded.events.len() as u64 };
        counts.unconsented += u64::from(decoded.counts.unconsented);
        counts.unknown_type += u64::from(decoded.counts.unknown_type);
        counts.dropped += u64::from(decoded.counts.dropped);
        counts.empty += u64::from(decoded.counts.empty);
        counts.ignored_attributes += u64::from(decoded.counts.ignored_attributes);
        for reject in &decoded.rejects {
            counts.rejected[reject.reason as usize] += 1;
        }
    }

    /// Is it late, from the future, or on time? What is on time is held until `release`.
    fn judge(&mut self, event: &DecodedEvent, bytes: &[u8]) {
        let highest = self.highest();
        let watermark = self.watermark_after(highest);
        let future = event.future || event.stated > self.believed_until();
        let late = !future && event.stated <= watermark && !planted::is(planted::Bug::LateAccepted);
        let mut time = event.stated;
        if late || future {
            // A withdrawal is never late nor from the future: it acts as soon as its origin allows.
            if event.consent != ConsentChange::Withdraw {
                let counts = &mut self.position.counts;
                *(if late { &mut counts.late } else { &mut counts.future }) += 1;
                if future || self.plan.late_to_dead_letters {
                    self.dead_letter(event.index, if late { LATE } else { FUTURE }, event.stated, "");
                }
                return;
            }
            time = watermark.plus(1);
        }
        let bytes = self.keep(event, bytes, time);
        let highest = if future { highest } else { highest.max(time) };
        let output = partition_of(event.user, self.plan.partitions);
        let seq = Seq { offset: self.position.offset, index: event.index };
        self.held.push_back(Held { time, highest, output, seq, bytes });
    }

    /// An item of a table goes everywhere, and waits for nobody.
    fn item(&mut self, item: &DecodedEvent, bytes: &[u8]) {
        if item.future || item.stated > self.believed_until() {
            self.position.counts.future += 1;
            return self.dead_letter(item.index, FUTURE, item.stated, "");
        }
        let time = match (self.in_snapshot, item.stated) {
            (true, _) => Time::MIN,
            (_, Time::MIN) => self.received.unwrap_or(Time::MIN),
            (_, stated) => stated,
        };
        let (bytes, highest) = (self.keep(item, bytes, time), self.highest());
        let seq = Seq { offset: self.position.offset, index: item.index };
        let held = |output| Held { time: Time::MIN, highest, output, seq, bytes: bytes.clone() };
        self.held.extend((0..self.plan.partitions as usize).map(held));
    }

    /// Copies an event or item, with its place in the partition and in the merge.
    fn keep(&mut self, event: &DecodedEvent, bytes: &[u8], time: Time) -> Range<usize> {
        let (start, offset) = (self.held_bytes.len(), self.position.offset);
        self.held_bytes.extend_from_slice(&bytes[event.bytes.0 as usize..event.bytes.1 as usize]);
        self.held_bytes[start + OFFSET_AT..start + OFFSET_AT + 8].copy_from_slice(&offset.to_le_bytes());
        self.held_bytes[start + TIME_AT..start + TIME_AT + 8].copy_from_slice(&time.0.to_le_bytes());
        start..self.held_bytes.len()
    }

    /// Later times are from the future: of the record in hand.
    fn believed_until(&self) -> Time {
        self.received.zip(self.plan.max_ahead_micros).map_or(Time::MAX, |(received, ahead)| received.plus(ahead))
    }

    /// With all that is held counted in.
    fn highest(&self) -> Time {
        self.held.back().map_or(self.position.highest, |held| held.highest)
    }

    /// Sends on what is held and no longer too far ahead. Returns whether nothing is held any more.
    pub fn release(&mut self, lowest: Time, outbox: &mut Outbox, out: &Handle) -> bool {
        let limit = lowest.plus(self.plan.max_skew_micros);
        while let Some(held) = self.held.front() {
            if held.time > limit {
                break;
            }
            let bytes = &self.held_bytes[held.bytes.clone()];
            // Empty: it only passes a time on.
            outbox.record(out, held.output, |records| records.put(bytes));
            self.position.highest = held.highest;
            self.emitted = held.seq;
            self.held.pop_front();
        }
        let done = self.held.is_empty();
        if done {
            self.held_bytes.clear();
            self.emitted = Seq::end_of(self.position.offset);
            self.committed = self.position;
        }
        self.advance(outbox, out);
        done
    }

    /// The source has no more for now: `Ended` for a finite one, `Idle` when that was confirmed for long enough.
    pub fn at_end(&mut self, state: OriginState, outbox: &mut Outbox, out: &Handle) {
        if self.held.is_empty() && self.state != state {
            self.state = state;
            self.advance(outbox, out);
        }
    }

    fn advance(&mut self, outbox: &mut Outbox, out: &Handle) {
        let progress = Progress { watermark: self.watermark(), highest: self.position.highest, state: self.state };
        outbox.advance(out, self.emitted, progress);
    }

    fn dead_letter(&mut self, index: u32, reason: &str, time: Time, sample: &str) {
        let seq = Seq { offset: self.position.offset, index };
        let (source, partition) = (self.origin.source, self.origin.partition);
        let letter = DeadLetter { seq, reason, source, partition, offset: seq.offset, time, sample };
        let (start, highest) = (self.held_bytes.len(), self.highest());
        letter.write(&mut self.held_bytes);
        let (output, bytes) = (self.plan.partitions as usize, start..self.held_bytes.len());
        self.held.push_back(Held { time: Time::MIN, highest, output, seq, bytes });
    }
}

/// Where the events of the rejected element would have stood.
fn index_of(reject: &Reject) -> u32 {
    reject.element * MAX_MAPPINGS as u32
}

impl Position {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.offset);
        out.put_u64(self.byte);
        out.put_i64(self.highest.0);
        let mut counts = self.counts;
        for n in counts.plain() {
            out.put_u64(*n);
        }
        out.put_u32(Reason::ALL.len() as u32);
        for (reason, n) in Reason::ALL.iter().zip(&counts.rejected) {
            out.put_str(reason.name());
            out.put_u64(*n);
        }
    }

    /// Reads what `write` wrote. Reasons go by name: another version may know others.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (offset, byte) = (r.u64("position")?, r.u64("byte position")?);
        let highest = Time(r.i64("highest time")?);
        let highest = if planted::is(planted::Bug::HighestForgotten) { Time::MIN } else { highest };
        let mut counts = Counts::default();
        for n in counts.plain() {
            *n = r.u64("count")?;
        }
        for _ in 0..r.count(12, "reasons")? {
            let (name, n) = (r.str("reason")?, r.u64("rejected")?);
            let at = Reason::ALL.iter().position(|reason| reason.name() == name).ok_or(r.corrupt("reason"))?;
            counts.rejected[at] += n;
        }
        Ok(Self { offset, byte, highest, counts })
    }
}

#[cfg(test)]
mod tests;
