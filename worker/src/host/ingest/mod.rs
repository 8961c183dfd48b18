//! An ingest task with what it reads, a file or a topic's partition: it reads records, has them judged, and remembers
//! where it was.

mod file;
mod kafka;
mod topic;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_engine::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointWriter, Extent, TaskKind},
    codec::Reader as Bytes,
    decode::Decoder,
    frame::{
        Origin, OriginState,
        outbox::{Handle, Outbox},
    },
    ingest::{Ingest, IngestPlan, Input, Position, generations::Generations},
};

use self::{
    file::{FileReader, KnownFile},
    kafka::{KafkaReader, KnownRecord},
    topic::TopicReader,
};
use super::{
    error::HostError,
    skew::{Pacer, Watermarks},
};
use crate::{
    kafka::{Fetcher, TopicPartition},
    log::{Log, LogPartition},
    source::partitions::Partition,
};

const POSITION: u8 = 1;
const FILE: u8 = 2;
// Absent where it was written before there were several.
const GENERATIONS: u8 = 3;
const RECORD: u8 = 4;

/// Where an ingest task stands, as its checkpoint says.
#[derive(Clone, Debug)]
pub struct Saved {
    pub position: Position,
    /// Absent for topics.
    file: Option<KnownFile>,
    /// Absent for all but topics of others.
    record: Option<KnownRecord>,
    generations: Generations,
}

impl Saved {
    /// `generation`: of the checkpoint, as the manifest says.
    pub fn restore(bytes: &[u8], generation: u32) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::read(bytes, TaskKind::Ingest)?;
        let position = Position::read(&mut Bytes::new(checkpoint.section(POSITION)?))?;
        let file = checkpoint.section(FILE).ok().map(|known| KnownFile::read(&mut Bytes::new(known))).transpose()?;
        let record =
            checkpoint.section(RECORD).ok().map(|known| KnownRecord::read(&mut Bytes::new(known))).transpose()?;
        let generations = match checkpoint.section(GENERATIONS) {
            Ok(listed) => Generations::read(&mut Bytes::new(listed))?,
            Err(_) => Generations::unlisted(generation),
        };
        Ok(Self { position, file, record, generations })
    }

    /// Of a partition that was first known in this generation, and has no checkpoint.
    pub fn beginning(generation: u32) -> Self {
        let generations = Generations::beginning(generation);
        Self { position: Position::default(), file: None, record: None, generations }
    }

    pub fn generations(&self) -> &Generations {
        &self.generations
    }
    /// The newest that it names.
    pub fn newest_generation(&self) -> u32 {
        self.generations.newest()
    }
    /// The generation under which the task goes on.
    pub fn generation(&self, place: &Place) -> u32 {
        self.generations.at(place.of_next(&self.position))
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
    Kafka(Arc<Fetcher>, TopicPartition),
}

impl Place {
    /// Where the record behind this position begins.
    fn of_next(&self, position: &Position) -> u64 {
        match self {
            Self::File(_) => position.byte,
            Self::Topic(..) | Self::Kafka(..) => position.offset + 1,
        }
    }
}

enum Reader {
    File(FileReader),
    Topic(TopicReader),
    Kafka(KafkaReader),
}

impl Reader {
    /// The next record, and where the one after it begins (files: the byte).
    fn next(&mut self) -> Result<Option<(Input<'_>, u64)>, HostError> {
        match self {
            Self::File(file) => Ok(file.next()),
            Self::Topic(topic) => Ok(topic.next()?.map(|input| (input, 0))),
            Self::Kafka(topic) => topic.next(),
        }
    }

    /// Likewise of what is being read: see [`Place::of_next`].
    fn place(&self, position: &Position) -> u64 {
        match self {
            Self::File(_) => position.byte,
            Self::Topic(_) | Self::Kafka(_) => position.offset + 1,
        }
    }

    /// The place behind all that was there at `asked`, once that is known.
    fn end_since(&self, asked: Instant) -> Result<Option<u64>, HostError> {
        match self {
            Self::File(file) => file.end().map(Some),
            Self::Topic(topic) => Ok(topic.end_since(asked)),
            Self::Kafka(topic) => Ok(topic.end_since(asked)),
        }
    }

    /// Is there nothing more? No, if that is only not known.
    fn is_at_end(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Topic(topic) => topic.is_at_end(),
            Self::Kafka(topic) => topic.is_at_end(),
        }
    }
}

/// How records are read, from one generation on.
pub struct Reading {
    pub generation: u32,
    pub plan: IngestPlan,
    pub decoder: Decoder,
}

/// One partition of a source being read.
pub struct IngestTask {
    /// Place among all origins of the host.
    number: usize,
    pub source_name: String,
    ingest: Ingest,
    reader: Reader,
    /// Under which generation the next record is read, unless a switch comes before it.
    generation: u32,
    generations: Generations,
    /// Of later generations, ascending.
    ahead: VecDeque<Reading>,
    /// Since then readers drop what others still tell of the partition.
    introduced: Option<Instant>,
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
    /// `first`: how records are read from `at` on; `ahead`: of all later generations, ascending.
    pub fn open(
        plan: ReadPlan,
        mut first: Reading,
        mut ahead: VecDeque<Reading>,
        at: Saved,
        shared: Arc<Shared>,
    ) -> Result<Self, HostError> {
        let position = at.position;
        let reader = match plan.place {
            Place::File(path) => {
                let decoders = std::iter::once(&mut first).chain(&mut ahead).map(|reading| &mut reading.decoder);
                let mut file = FileReader::open(&plan.source_name, path, position.byte, at.file, decoders)?;
                if !plan.finite {
                    file.follow();
                }
                Reader::File(file)
            }
            Place::Topic(log, partition) => Reader::Topic(TopicReader::open(log, partition, position.offset)?),
            Place::Kafka(fetcher, partition) => {
                Reader::Kafka(KafkaReader::open(fetcher, partition, position.offset, at.record)?)
            }
        };
        let counted = if planted::is(planted::Bug::CounterAsSequence) { 0 } else { position.offset };
        let ingest = Ingest::new(first.plan, plan.origin, first.decoder, Position { offset: counted, ..position });
        shared.watermarks.publish(plan.number, ingest.watermark(), OriginState::Active);
        Ok(Self {
            number: plan.number,
            source_name: plan.source_name,
            ingest,
            reader,
            generation: first.generation,
            generations: at.generations,
            ahead,
            introduced: None,
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
    /// The newest generation of which it is known from where on records are read under it.
    pub fn generation(&self) -> u32 {
        self.generations.newest()
    }
    /// The newest one that it knows how to read records under.
    pub fn knows_until(&self) -> u32 {
        self.ahead.back().map_or(self.generation, |reading| reading.generation)
    }
    /// How records are read under generations that are new; ascending.
    pub fn learn(&mut self, mut readings: VecDeque<Reading>) -> Result<(), HostError> {
        if let Reader::File(file) = &self.reader {
            file.tell_header(&self.source_name, readings.iter_mut().map(|reading| &mut reading.decoder))?;
        }
        self.ahead.append(&mut readings);
        Ok(())
    }
    /// See [`Generations::owned`].
    pub fn owned(&mut self, is_quiet: bool, oldest: Option<u32>) {
        self.generations.owned(is_quiet, oldest);
    }
    /// The first frames of this owner are acknowledged in every output.
    pub fn introduced(&mut self) {
        self.introduced = Some(Instant::now());
    }
    /// See [`Generations::saved`].
    pub fn saved(&mut self, oldest: Option<u32>) {
        self.generations.saved(oldest);
        if let Reader::Kafka(topic) = &self.reader {
            topic.tell_group(self.ingest.committed().offset);
        }
    }
    /// Nothing more is read before that.
    pub fn wants_checkpoint(&self) -> bool {
        self.generations.wants_checkpoint()
    }
    pub fn is_broken(&self) -> bool {
        matches!(&self.reader, Reader::File(file) if file.is_broken())
    }
    /// Where what is posted is kept, if it is read there.
    pub fn posted(&self) -> Option<&LogPartition> {
        match &self.reader {
            Reader::File(_) | Reader::Kafka(_) => None,
            Reader::Topic(topic) => Some(topic.partition()),
        }
    }
    /// The offset behind the last record, as far as it is known.
    pub fn known_end(&self) -> Option<u64> {
        match &self.reader {
            Reader::File(_) => None,
            Reader::Topic(topic) => topic.known_end(),
            Reader::Kafka(topic) => topic.known_end(),
        }
    }

    /// Reads up to `budget` records. False: there was nothing to do. `now` never falls.
    pub fn step(&mut self, outbox: &mut Outbox, out: &Handle, budget: usize, now: Duration) -> Result<bool, HostError> {
        self.decide()?;
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
        let mut may_read = true;
        while read < allowed && (read == 0 || !outbox.is_full()) {
            may_read = self.go_over();
            if !may_read {
                break;
            }
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
        } else if !self.reader.is_at_end() {
            // A broker that cannot be reached has not said that there is nothing more.
            self.end_since = None;
        } else if allowed > 0 && may_read {
            self.at_end(outbox, out, now);
        }
        self.publish();
        Ok(read > 0)
    }

    /// From where on the newest generation counts, once nobody else can tell of records.
    fn decide(&mut self) -> Result<(), HostError> {
        if let Some(introduced) = self.introduced
            && !self.generations.knows_ceiling()
            && let Some(end) = self.reader.end_since(introduced)?
        {
            self.generations.ends_at(end);
        }
        let newest = self.knows_until();
        if newest > self.generations.newest() {
            let next = self.reader.place(self.ingest.position());
            if self.generations.decide(newest, next) {
                tracing::info!(
                    source = self.source_name,
                    generation = newest,
                    "records are read under the changed pipeline once this is saved"
                );
            }
        }
        Ok(())
    }

    /// Takes the generation of the next record. False: its switch is not saved yet.
    fn go_over(&mut self) -> bool {
        let place = self.reader.place(self.ingest.position());
        let generation = self.generations.at(place);
        if !self.generations.may_read(place) {
            return false;
        }
        while self.generation < generation
            && let Some(Reading { generation, plan, decoder }) = self.ahead.pop_front()
        {
            self.ingest.configure(plan, decoder);
            self.generation = generation;
        }
        true
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
        match &mut self.reader {
            Reader::File(file) => w.section(FILE, |out| file.known_up_to(position.byte).write(out)),
            Reader::Kafka(topic) => w.section(RECORD, |out| topic.known_at(position.offset).write(out)),
            Reader::Topic(_) => {}
        }
        let (saved, next) = (self.reader.place(&position), self.reader.place(self.ingest.position()));
        w.section(GENERATIONS, |out| self.generations.write(saved, next, out));
        w.finish()
    }
}

impl Drop for IngestTask {
    /// It is not read here any more: others do not wait for it.
    fn drop(&mut self) {
        self.shared.watermarks.let_go(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As checkpoints were written before sources could change.
    #[test]
    fn a_checkpoint_without_generations_goes_on_under_its_manifests() {
        let position = Position { offset: 7, byte: 90, ..Position::default() };
        let mut w = CheckpointWriter::new(TaskKind::Ingest, Extent::Base);
        w.section(POSITION, |out| position.write(out));
        w.section(FILE, |out| KnownFile::default().write(out));
        let saved = Saved::restore(&w.finish(), 3).unwrap();
        assert_eq!((saved.position, saved.generation(&Place::File("f".into()))), (position, 3));
        assert_eq!(saved.generations, Generations::unlisted(3));
    }

    #[test]
    fn damaged_generations_are_an_error() {
        let mut w = CheckpointWriter::new(TaskKind::Ingest, Extent::Base);
        w.section(POSITION, |out| Position::default().write(out));
        w.section(GENERATIONS, |out| out.push(1));
        assert!(Saved::restore(&w.finish(), 1).is_err());
    }
}
