//! An ingest task with its file: reads records, judges them, and remembers where it was.

use std::{path::PathBuf, sync::Arc};

use millrace_engine::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::{Put, Reader},
    decode::Decoder,
    frame::{
        Origin, OriginState,
        outbox::{Handle, Outbox},
    },
    ingest::{Ingest, IngestPlan, Input, Position},
};

use super::{
    error::HostError,
    skew::{Pacer, Watermarks},
};
use crate::source::lines::{Fingerprint, Lines, Next, fingerprint};

const POSITION: u8 = 1;
const FILE: u8 = 2;

/// Where a file's ingest stands.
#[derive(Clone, Copy, Debug)]
pub struct FilePosition {
    pub position: Position,
    pub known: Fingerprint,
    /// Where the file's bytes broke, so that it is told only once.
    pub broken_at: Option<u64>,
}

impl FilePosition {
    pub fn restore(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::read(bytes, TaskKind::Ingest)?;
        let position = Position::read(&mut Reader::new(checkpoint.section(POSITION)?))?;
        let mut r = Reader::new(checkpoint.section(FILE)?);
        let known = Fingerprint { bytes: r.u64("fingerprint")?, hash: r.u64("fingerprint")? };
        let broken_at = Some(r.u64("broken at")?).filter(|at| *at != u64::MAX);
        Ok(Self { position, known, broken_at })
    }

    fn write(&self) -> Vec<u8> {
        let mut w = CheckpointWriter::new(TaskKind::Ingest, Extent::Base);
        w.section(POSITION, |out| self.position.write(out));
        w.section(FILE, |out| {
            out.put_u64(self.known.bytes);
            out.put_u64(self.known.hash);
            out.put_u64(self.broken_at.unwrap_or(u64::MAX));
        });
        w.finish()
    }
}

/// What is shared by all ingest tasks of a host.
pub struct Shared {
    pub watermarks: Watermarks,
    pub pacer: Pacer,
}

/// One file being read.
pub struct FileIngest {
    /// Place among all origins of the host.
    number: usize,
    pub source_name: String,
    path: PathBuf,
    ingest: Ingest,
    lines: Lines,
    shared: Arc<Shared>,
    known: Fingerprint,
    broken_at: Option<u64>,
    /// `Ended` when reading to the end; else when the end was first seen.
    finite: bool,
    idle_after: std::time::Duration,
    end_since: Option<std::time::Instant>,
    disorder: Option<Disorder>,
}

/// How a file is to be read.
pub struct FilePlan {
    pub number: usize,
    pub source_name: String,
    pub path: PathBuf,
    pub origin: Origin,
    pub has_header: bool,
    /// It ends, instead of becoming idle at its end.
    pub finite: bool,
    pub idle_after: std::time::Duration,
    pub read_order: Option<u64>,
}

/// Makes a task read now much, now little, now nothing: splitmix64 (Steele et al. 2014), seeded for each file.
struct Disorder {
    state: u64,
}

impl Disorder {
    /// How many records to read in this step, of at most `budget`.
    fn next(&mut self, budget: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let steps = [0, 0, 1, 7.min(budget), budget];
        steps[((z ^ (z >> 31)) % steps.len() as u64) as usize]
    }
}

impl FileIngest {
    pub fn open(
        plan: FilePlan,
        ingest: IngestPlan,
        mut decoder: Decoder,
        at: Option<FilePosition>,
        shared: Arc<Shared>,
    ) -> Result<Self, HostError> {
        let known = at.map(|at| at.known);
        let mut lines = Lines::open(&plan.path, 0, known)?;
        if plan.has_header {
            let cause = match lines.advance() {
                Next::Record(header) => decoder.header(lines.record(header)).err().map(|e| e.to_string()),
                Next::End => Some("there is no header line".into()),
                Next::TooLong(_) => Some("its header line is too long".into()),
                Next::Broken(cause) => Some(cause),
            };
            if let Some(cause) = cause {
                let file = plan.path.display().to_string();
                return Err(HostError::Header { source_name: plan.source_name, file, cause });
            }
        }
        let position = at.map_or(Position::default(), |at| at.position);
        if position.byte > lines.byte() {
            lines = Lines::open(&plan.path, position.byte, None)?;
        }
        if !plan.finite {
            lines.follow();
        }
        let ingest = Ingest::new(ingest, plan.origin, decoder, position);
        shared.watermarks.publish(plan.number, ingest.watermark(), OriginState::Active);
        Ok(Self {
            number: plan.number,
            source_name: plan.source_name,
            path: plan.path,
            ingest,
            lines,
            shared,
            known: known.unwrap_or_default(),
            broken_at: at.and_then(|at| at.broken_at),
            finite: plan.finite,
            idle_after: plan.idle_after,
            end_since: None,
            disorder: plan.read_order.map(|seed| Disorder { state: seed ^ (plan.number as u64) << 32 }),
        })
    }

    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }
    pub fn is_broken(&self) -> bool {
        self.broken_at.is_some()
    }

    /// Reads up to `budget` records. False: there was nothing to do.
    pub fn step(&mut self, outbox: &mut Outbox, out: &Handle, budget: usize) -> bool {
        let lowest = self.shared.watermarks.lowest();
        if self.ingest.is_holding() && !self.ingest.release(lowest, outbox, out) {
            // Part of a record may have gone on, and the watermark with it: others wait for that.
            self.publish();
            return false;
        }
        let wanted = self.disorder.as_mut().map_or(budget, |disorder| disorder.next(budget));
        if wanted == 0 {
            return true;
        }
        let allowed = self.shared.pacer.allow(wanted);
        let mut read = 0;
        while read < allowed && (read == 0 || !outbox.is_full()) {
            let next = self.lines.advance();
            let next_byte = self.lines.byte();
            let input = match &next {
                Next::Record(range) => Input::Record(self.lines.record(range.clone())),
                Next::TooLong(len) => Input::TooLong(*len),
                Next::Broken(cause) if self.broken_at.is_none() => Input::Unreadable(cause),
                Next::Broken(_) | Next::End => break,
            };
            read += 1;
            self.ingest.read(input, next_byte, lowest, outbox, out);
            if matches!(next, Next::Broken(_)) {
                self.broken_at = Some(next_byte);
            }
            if self.ingest.is_holding() {
                self.publish();
                if !self.ingest.release(self.shared.watermarks.lowest(), outbox, out) {
                    break;
                }
            }
        }
        self.shared.pacer.give_back(allowed - read);
        if read > 0 {
            self.end_since = None;
        } else if allowed > 0 {
            self.at_end(outbox, out);
        }
        self.publish();
        read > 0
    }

    fn at_end(&mut self, outbox: &mut Outbox, out: &Handle) {
        let since = *self.end_since.get_or_insert_with(std::time::Instant::now);
        if self.finite {
            self.ingest.at_end(OriginState::Ended, outbox, out);
        } else if since.elapsed() >= self.idle_after {
            self.ingest.at_end(OriginState::Idle, outbox, out);
        }
    }

    fn publish(&self) {
        self.shared.watermarks.publish(self.number, self.ingest.watermark(), self.ingest.state());
    }

    /// What a checkpoint saves.
    pub fn checkpoint(&mut self) -> Result<Vec<u8>, HostError> {
        let position = *self.ingest.committed();
        if self.known.bytes < 4096 && position.byte > self.known.bytes {
            match fingerprint(&self.path, position.byte) {
                Ok(known) => self.known = known,
                // It is open and can still be read to its end.
                Err(error) => tracing::warn!(%error, "a file that is being read was removed or renamed"),
            }
        }
        Ok(FilePosition { position, known: self.known, broken_at: self.broken_at }.write())
    }
}
