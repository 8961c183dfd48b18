//! An ingest task with what it reads, a file or a topic's partition: it reads records, has them judged, and remembers
//! where it was.

mod file;
mod topic;

use std::{path::PathBuf, sync::Arc, time::Duration};

use millrace_engine::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::Reader as Bytes,
    decode::Decoder,
    frame::{
        Origin, OriginState,
        outbox::{Handle, Outbox},
    },
    ingest::{Ingest, IngestPlan, Input, Position},
};

use self::{
    file::{FileReader, KnownFile},
    topic::TopicReader,
};
use super::{
    error::HostError,
    skew::{Pacer, Watermarks},
};
use crate::{
    log::{Log, LogPartition},
    source::partitions::Partition,
};

const POSITION: u8 = 1;
const FILE: u8 = 2;

/// Where an ingest task stands, as its checkpoint says.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    pub position: Position,
    /// Absent for topics.
    file: Option<KnownFile>,
}

impl Saved {
    pub fn restore(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::read(bytes, TaskKind::Ingest)?;
        let position = Position::read(&mut Bytes::new(checkpoint.section(POSITION)?))?;
        let file = checkpoint.section(FILE).ok().map(|known| KnownFile::read(&mut Bytes::new(known))).transpose()?;
        Ok(Self { position, file })
    }
}

/// What is shared by all ingest tasks of a host.
pub struct Shared {
    pub watermarks: Watermarks,
    pub pacer: Pacer,
}

impl Shared {
    /// `partitions`: those of each source.
    pub fn new(partitions: &[Vec<Partition>], max_rate: Option<f64>) -> Arc<Self> {
        let watermarks = Watermarks::new(partitions.iter().map(Vec::len).sum());
        Arc::new(Self { watermarks, pacer: Pacer::new(max_rate) })
    }
}

/// What a task reads.
pub enum Place {
    File(PathBuf),
    Topic(Arc<dyn Log>, LogPartition),
}

enum Reader {
    File(FileReader),
    Topic(TopicReader),
}

impl Reader {
    /// The next record, and where the one after it begins (files: the byte).
    fn next(&mut self) -> Result<Option<(Input<'_>, u64)>, HostError> {
        match self {
            Self::File(file) => Ok(file.next()),
            Self::Topic(topic) => Ok(topic.next()?.map(|input| (input, 0))),
        }
    }
}

/// One partition of a source being read.
pub struct IngestTask {
    /// Place among all origins of the host.
    number: usize,
    pub source_name: String,
    ingest: Ingest,
    reader: Reader,
    shared: Arc<Shared>,
    /// `Ended` when reading to the end; else when the end was first seen.
    finite: bool,
    idle_after: Duration,
    end_since: Option<Duration>,
    disorder: Option<Disorder>,
}

/// How a partition is to be read.
pub struct ReadPlan {
    pub number: usize,
    pub source_name: String,
    pub place: Place,
    pub origin: Origin,
    /// It ends, instead of becoming idle at its end.
    pub finite: bool,
    pub idle_after: Duration,
    pub read_order: Option<u64>,
}

/// Makes a task read now much, now little, now nothing: splitmix64 (Steele et al. 2014), seeded for each task.
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

impl IngestTask {
    pub fn open(
        plan: ReadPlan,
        ingest: IngestPlan,
        mut decoder: Decoder,
        at: Option<Saved>,
        shared: Arc<Shared>,
    ) -> Result<Self, HostError> {
        let position = at.map_or(Position::default(), |at| at.position);
        let reader = match plan.place {
            Place::File(path) => {
                let known = at.and_then(|at| at.file);
                let mut file = FileReader::open(&plan.source_name, path, position.byte, known, &mut decoder)?;
                if !plan.finite {
                    file.follow();
                }
                Reader::File(file)
            }
            Place::Topic(log, partition) => Reader::Topic(TopicReader::open(log, partition, position.offset)?),
        };
        let counted = if planted::is(planted::Bug::CounterAsSequence) { 0 } else { position.offset };
        let ingest = Ingest::new(ingest, plan.origin, decoder, Position { offset: counted, ..position });
        shared.watermarks.publish(plan.number, ingest.watermark(), OriginState::Active);
        Ok(Self {
            number: plan.number,
            source_name: plan.source_name,
            ingest,
            reader,
            shared,
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
        matches!(&self.reader, Reader::File(file) if file.is_broken())
    }
    /// The offset behind the last record, if that is known.
    pub fn end(&self, log: &dyn Log) -> Option<u64> {
        match &self.reader {
            Reader::File(_) => None,
            Reader::Topic(topic) => log.end(topic.partition()).ok(),
        }
    }

    /// Reads up to `budget` records. False: there was nothing to do. `now` never falls.
    pub fn step(&mut self, outbox: &mut Outbox, out: &Handle, budget: usize, now: Duration) -> Result<bool, HostError> {
        let lowest = self.shared.watermarks.lowest();
        if self.ingest.is_holding() && !self.ingest.release(lowest, outbox, out) {
            // Part of a record may have gone on, and the watermark with it: others wait for that.
            self.publish();
            return Ok(false);
        }
        let wanted = self.disorder.as_mut().map_or(budget, |disorder| disorder.next(budget));
        if wanted == 0 {
            return Ok(true);
        }
        let allowed = self.shared.pacer.allow(wanted, now);
        let mut read = 0;
        while read < allowed && (read == 0 || !outbox.is_full()) {
            let Some((input, next_byte)) = self.reader.next()? else { break };
            read += 1;
            self.ingest.read(input, next_byte, lowest, outbox, out);
            if self.ingest.is_holding() {
                self.publish();
                if !self.ingest.release(self.shared.watermarks.lowest(), outbox, out) {
                    break;
                }
            }
        }
        self.shared.pacer.give_back(allowed - read);
        if self.ingest.is_past_snapshot() && self.ingest.state() == OriginState::Active {
            self.ingest.at_end(OriginState::Idle, outbox, out);
        }
        if read > 0 {
            self.end_since = None;
        } else if allowed > 0 {
            self.at_end(outbox, out, now);
        }
        self.publish();
        Ok(read > 0)
    }

    fn at_end(&mut self, outbox: &mut Outbox, out: &Handle, now: Duration) {
        let since = *self.end_since.get_or_insert(now);
        if self.finite {
            self.ingest.at_end(OriginState::Ended, outbox, out);
        } else if now.saturating_sub(since) >= self.idle_after
            || planted::is(planted::Bug::IdleAtOnce)
            || self.ingest.is_of_table()
        {
            // A table holds nobody up once it was read to its end.
            self.ingest.at_end(OriginState::Idle, outbox, out);
        }
    }

    fn publish(&self) {
        self.shared.watermarks.publish(self.number, self.ingest.watermark(), self.ingest.state());
    }

    /// What a checkpoint saves.
    pub fn checkpoint(&mut self) -> Vec<u8> {
        let position = *self.ingest.committed();
        let mut w = CheckpointWriter::new(TaskKind::Ingest, Extent::Base);
        w.section(POSITION, |out| position.write(out));
        if let Reader::File(file) = &mut self.reader {
            w.section(FILE, |out| file.known_up_to(position.byte).write(out));
        }
        w.finish()
    }
}

impl Drop for IngestTask {
    /// It is not read here any more: others do not wait for it.
    fn drop(&mut self) {
        self.shared.watermarks.publish(self.number, self.ingest.watermark(), OriginState::Idle);
    }
}
