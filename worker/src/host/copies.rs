//! Models of a fleet: what each has learned goes to a log of its own, from which every worker brings its serving copies up
//! to date, whoever owns the model. Deltas hold absolute values, so what comes twice does no harm; what comes from an owner that
//! was replaced is dropped by its epoch.
//!
//! A record, format version 1: version u16, epoch u64, part u32, parts u32, then this part's bytes of a
//! [`ServingDelta`], which has a checksum of its own; numbers are little-endian. A log begins with a full delta: once its owner
//! has read back another one, and nothing of a newer owner before it, what lies before is trimmed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use millrace_engine::{
    codec::{Corrupt, Put, Reader},
    learn::serving::ServingDelta,
};

use super::{desk::Request, logs, mailbox::Mailbox, thread::Control};
use crate::log::{Log, LogPartition, ReadError};

const VERSION: u16 = 1;
/// Of a record's bytes.
const PART_BYTES: usize = 8 << 20;
/// Parts of one delta: 16 GiB.
const MAX_PARTS: u32 = 2_048;
/// A full delta is due when those after the last one have twice its bytes, or this, if that is more ...
const FULL_EVERY_BYTES: usize = 16 << 20;
/// ... and after this time, if there was any: whoever has missed something goes on from there.
const FULL_EVERY: Duration = Duration::from_secs(300);
/// Between two looks at logs that had nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After a log could not be read or written.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 4 << 20;

/// What a model's log may be told next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wants {
    /// The last delta is still on its way.
    Nothing,
    Changes,
    /// A full delta: readers cannot go on from what is there, or have to read too much.
    All,
}

/// How engine threads hand over what their models have learned.
pub struct Shipping {
    models: Vec<OfModel>,
    errands: Mutex<Sender<Errand>>,
}

struct OfModel {
    /// See [`Wants`].
    wants: AtomicU8,
    /// Under which this host has shipped last.
    epoch: AtomicU64,
}

enum Errand {
    Ship { model: usize, epoch: u64, delta: ServingDelta },
    Trim { model: usize, before: u64 },
}

impl Shipping {
    /// Starts the thread that appends, which ends when all who may ship are gone. `models`: in the plan's order.
    pub fn start(log: Arc<dyn Log>, models: &[String]) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (errands, received) = channel();
        let of_model = |_| OfModel { wants: AtomicU8::new(Wants::Changes as u8), epoch: AtomicU64::new(0) };
        let shipping = Arc::new(Self { models: models.iter().map(of_model).collect(), errands: Mutex::new(errands) });
        let logs: Vec<LogPartition> = models.iter().map(|model| logs::models(model)).collect();
        let mut appending = Appending { log, sizes: vec![Sizes::default(); logs.len()], logs };
        let weak = Arc::downgrade(&shipping);
        let append = move || {
            while let Ok(errand) = received.recv() {
                match errand {
                    Errand::Ship { model, epoch, delta } => {
                        let wants = appending.append(model, epoch, &delta);
                        let Some(shipping) = weak.upgrade() else { return };
                        shipping.models[model].wants.store(wants as u8, Ordering::Release);
                    }
                    Errand::Trim { model, before } => appending.trim(model, before),
                }
            }
        };
        Ok((shipping, thread::Builder::new().name("models-log".into()).spawn(append)?))
    }

    pub fn wants(&self, model: usize) -> Wants {
        let wants = self.models[model].wants.load(Ordering::Acquire);
        [Wants::Nothing, Wants::Changes].into_iter().find(|known| *known as u8 == wants).unwrap_or(Wants::All)
    }

    pub fn ship(&self, model: usize, epoch: u64, delta: ServingDelta) {
        self.models[model].wants.store(Wants::Nothing as u8, Ordering::Release);
        self.models[model].epoch.store(epoch, Ordering::Release);
        self.send(Errand::Ship { model, epoch, delta });
    }

    /// A full delta was read whose owner is the newest that has told of the model: if that is this host, what lies before is
    /// not needed any more. Whoever only appends cannot know that: somebody newer may have come in between.
    fn full_was_read(&self, model: usize, epoch: u64, first_offset: u64) {
        if self.models[model].epoch.load(Ordering::Acquire) == epoch {
            self.send(Errand::Trim { model, before: first_offset });
        }
    }

    fn send(&self, errand: Errand) {
        // The thread ends only when the host does.
        let _ = self.errands.lock().unwrap_or_else(PoisonError::into_inner).send(errand);
    }
}

struct Appending {
    log: Arc<dyn Log>,
    logs: Vec<LogPartition>,
    /// By model.
    sizes: Vec<Sizes>,
}

#[derive(Clone, Copy, Default)]
struct Sizes {
    full_bytes: usize,
    full_at: Option<Instant>,
    bytes_since: usize,
}

impl Appending {
    fn append(&mut self, model: usize, epoch: u64, delta: &ServingDelta) -> Wants {
        let partition = &self.logs[model];
        let records = encode(epoch, delta.bytes()).into_iter().map(|record| (partition.clone(), record));
        if let Err(error) = self.log.append(&records.collect::<Vec<_>>()) {
            tracing::warn!(%partition, %error, "what a model has learned is not told to the fleet; it is tried again");
            thread::sleep(TRY_AGAIN_AFTER);
            return Wants::All;
        }
        let (sizes, bytes) = (&mut self.sizes[model], delta.bytes().len());
        if delta.is_full() {
            *sizes = Sizes { full_bytes: bytes, full_at: Some(Instant::now()), bytes_since: 0 };
        } else {
            sizes.bytes_since += bytes;
        }
        let is_much = sizes.bytes_since > FULL_EVERY_BYTES.max(2 * sizes.full_bytes);
        let is_old = sizes.bytes_since > 0 && sizes.full_at.is_none_or(|at| at.elapsed() > FULL_EVERY);
        if is_much || is_old { Wants::All } else { Wants::Changes }
    }

    fn trim(&self, model: usize, before: u64) {
        let partition = &self.logs[model];
        if let Err(error) = self.log.trim(partition, before) {
            // Too much kept does no harm.
            tracing::warn!(%partition, %error, "the log could not be trimmed");
        }
    }
}

/// The records of a delta.
fn encode(epoch: u64, delta: &[u8]) -> Vec<Vec<u8>> {
    let chunks: Vec<&[u8]> = delta.chunks(PART_BYTES).collect();
    let record = |(part, bytes): (usize, &&[u8])| {
        let mut record = Vec::with_capacity(18 + bytes.len());
        record.put_u16(VERSION);
        record.put_u64(epoch);
        record.put_u32(part as u32);
        record.put_u32(chunks.len() as u32);
        record.extend_from_slice(bytes);
        record
    };
    chunks.iter().enumerate().map(record).collect()
}

/// Puts deltas together from their records.
#[derive(Default)]
struct Assembly {
    epoch: u64,
    /// Parts of the next delta that are here.
    parts: u32,
    /// Of the first of them.
    offset: u64,
    bytes: Vec<u8>,
}

impl Assembly {
    /// A delta, if this was its last record. Records of an owner that was replaced are none.
    fn add(&mut self, offset: u64, record: &[u8]) -> Result<Option<ServingDelta>, Corrupt> {
        let mut r = Reader::new(record);
        if r.u16("version")? != VERSION {
            return Err(Corrupt { what: "version of a model's record (this program reads version 1)", at: 0 });
        }
        let (epoch, part, parts) = (r.u64("epoch")?, r.u32("part")?, r.u32("parts")?);
        if part >= parts || parts > MAX_PARTS {
            return Err(r.corrupt("part"));
        }
        if epoch < self.epoch {
            return Ok(None);
        }
        if epoch > self.epoch || part == 0 {
            *self = Self { epoch, offset, ..Self::default() };
        }
        // Its beginning is missing: what an append that failed has left.
        if part != self.parts {
            return Ok(None);
        }
        self.parts += 1;
        self.bytes.extend_from_slice(&record[record.len() - r.remaining()..]);
        if self.parts < parts {
            return Ok(None);
        }
        self.parts = 0;
        ServingDelta::read(std::mem::take(&mut self.bytes)).map(Some)
    }
}

/// Follows the logs of all models for the engine threads.
struct Follower {
    log: Arc<dyn Log>,
    shipping: Arc<Shipping>,
    mailboxes: Vec<Arc<Mailbox<Request>>>,
    models: Vec<Followed>,
}

struct Followed {
    partition: LogPartition,
    /// `None`: from the beginning.
    next: Option<u64>,
    assembly: Assembly,
    is_failing: bool,
}

impl Followed {
    fn new(model: &str) -> Self {
        Self { partition: logs::models(model), next: None, assembly: Assembly::default(), is_failing: false }
    }
}

/// Starts the thread that reads, until the host stops.
pub fn follow(
    log: Arc<dyn Log>,
    models: &[String],
    shipping: Arc<Shipping>,
    mailboxes: Vec<Arc<Mailbox<Request>>>,
    control: Arc<Control>,
) -> std::io::Result<JoinHandle<()>> {
    let models = models.iter().map(|model| Followed::new(model)).collect();
    let mut follower = Follower { log, shipping, mailboxes, models };
    let run = move || {
        while !control.stop.load(Ordering::Acquire) {
            match follower.step() {
                Looked::Something => {}
                Looked::Nothing => thread::sleep(LOOK_EVERY),
                Looked::Failing => thread::sleep(TRY_AGAIN_AFTER),
            }
        }
    };
    thread::Builder::new().name("models-follower".into()).spawn(run)
}

enum Looked {
    Something,
    Nothing,
    /// Some log cannot be read just now.
    Failing,
}

impl Follower {
    fn step(&mut self) -> Looked {
        let Self { log, shipping, mailboxes, models } = self;
        let (mut any, mut failing) = (false, false);
        for (model, followed) in models.iter_mut().enumerate() {
            let stepped = followed.step(log.as_ref(), |epoch, offset, delta| {
                if delta.is_full() {
                    shipping.full_was_read(model, epoch, offset);
                }
                let delta = Arc::new(delta);
                let learned = || Request::Learned { model, delta: delta.clone() };
                mailboxes.iter().for_each(|mailbox| mailbox.tell(learned()));
            });
            any |= matches!(stepped, Ok(true));
            failing |= stepped.is_err();
            followed.tell_of(stepped.err());
        }
        match (any, failing) {
            (true, _) => Looked::Something,
            (false, true) => Looked::Failing,
            (false, false) => Looked::Nothing,
        }
    }
}

impl Followed {
    /// Gives the deltas that are here now, each with its epoch and the offset of its first record. Whether there was anything.
    fn step(&mut self, log: &dyn Log, mut each: impl FnMut(u64, u64, ServingDelta)) -> Result<bool, ReadError> {
        let next = match self.next {
            Some(next) => next,
            None => log.start(&self.partition)?,
        };
        self.next = Some(next);
        let records = match log.read(&self.partition, next, READ_BYTES) {
            // It begins with a full delta.
            Err(error @ (ReadError::Trimmed { .. } | ReadError::BeyondEnd { .. } | ReadError::Damaged { .. })) => {
                (self.next, self.assembly.parts) = (None, 0);
                return if matches!(error, ReadError::Trimmed { .. }) { Ok(true) } else { Err(error) };
            }
            records => records?,
        };
        for (offset, record) in &records {
            self.next = Some(offset + 1);
            match self.assembly.add(*offset, record) {
                Ok(Some(delta)) => each(self.assembly.epoch, self.assembly.offset, delta),
                Ok(None) => {}
                Err(error) => {
                    let partition = &self.partition;
                    tracing::error!(%partition, offset, %error, "a model's delta cannot be read; the next full one can");
                }
            }
        }
        Ok(!records.is_empty())
    }

    /// Once, when it begins to fail.
    fn tell_of(&mut self, error: Option<ReadError>) {
        if let Some(error) = error.as_ref().filter(|_| !self.is_failing) {
            tracing::warn!(%error, "a model of the fleet cannot be followed; it is tried again");
        }
        self.is_failing = error.is_some();
    }
}

#[cfg(test)]
mod tests {
    use millrace_engine::plan::Plan;

    use super::*;
    use crate::log::memory::MemoryLog;

    #[test]
    fn golden_record_version_1() {
        assert_eq!(encode(7, &[9, 8]), [[1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 8].to_vec()]);
    }

    /// Full ones: of a model that has learned nothing, but that many have to be made for.
    fn full() -> ServingDelta {
        let yaml = include_str!("../../../examples/tour/pipeline.yaml");
        let plan = Plan::compile(millrace_crds::load(yaml).unwrap().spec()).unwrap();
        millrace_engine::model::ModelTask::new(&plan, 0).serving_delta()
    }

    fn append(log: &MemoryLog, epoch: u64, delta: &[u8], chunk_bytes: usize) {
        let chunks: Vec<&[u8]> = delta.chunks(chunk_bytes).collect();
        for (part, chunk) in chunks.iter().enumerate() {
            // As `encode` makes them, but of smaller parts.
            let mut record = encode(epoch, chunk).remove(0);
            record[10..14].copy_from_slice(&(part as u32).to_le_bytes());
            record[14..18].copy_from_slice(&(chunks.len() as u32).to_le_bytes());
            log.append(&[(logs::models("m"), record)]).unwrap();
        }
    }

    fn read(log: &MemoryLog, followed: &mut Followed) -> Vec<(u64, u64)> {
        let mut read = Vec::new();
        while followed.step(log, |epoch, offset, _| read.push((epoch, offset))).unwrap() {}
        read
    }

    #[test]
    fn deltas_are_put_together_and_those_of_former_owners_dropped() {
        let (log, delta, mut followed) = (MemoryLog::default(), full(), Followed::new("m"));
        let bytes = delta.bytes();
        let half = bytes.len().div_ceil(2);
        append(&log, 3, bytes, half);
        assert_eq!(read(&log, &mut followed), [(3, 1)]);
        // A first part whose second never came, then all of it again.
        append(&log, 3, bytes, half);
        log.append(&[(logs::models("m"), log.read(&logs::models("m"), 1, 1).unwrap()[0].1.clone())]).unwrap();
        append(&log, 3, bytes, half);
        assert_eq!(read(&log, &mut followed), [(3, 3), (3, 6)]);
        // Somebody newer, and then what the former owner still had on its way.
        append(&log, 5, bytes, half);
        append(&log, 3, bytes, half);
        append(&log, 5, bytes, 1 << 20);
        assert_eq!(read(&log, &mut followed), [(5, 8), (5, 12)]);
        log.append(&[(logs::models("m"), b"??".to_vec())]).unwrap();
        append(&log, 5, bytes, half);
        assert_eq!(read(&log, &mut followed), [(5, 14)], "what cannot be read is skipped");
        let mut late = Followed::new("m");
        log.trim(&logs::models("m"), 8).unwrap();
        assert_eq!(read(&log, &mut late), [(5, 8), (5, 12), (5, 14)]);
    }

    #[test]
    fn what_was_trimmed_meanwhile_is_read_from_its_new_beginning() {
        let (log, delta, mut followed) = (MemoryLog::default(), full(), Followed::new("m"));
        append(&log, 1, delta.bytes(), 1 << 20);
        assert_eq!(read(&log, &mut followed), [(1, 1)]);
        (0..3).for_each(|_| append(&log, 1, delta.bytes(), 1 << 20));
        log.trim(&logs::models("m"), 4).unwrap();
        assert_eq!(read(&log, &mut followed), [(1, 4)]);
    }

    #[test]
    fn only_the_newest_owner_trims_and_only_what_lies_before_its_own() {
        let log = Arc::new(MemoryLog::default());
        let (shipping, thread) = Shipping::start(log.clone(), &["m".to_owned()]).unwrap();
        let partition = logs::models("m");
        let wait_for = |holds: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !holds() {
                assert!(Instant::now() < deadline);
                thread::yield_now();
            }
        };
        shipping.ship(0, 3, full());
        wait_for(&|| shipping.wants(0) == Wants::Changes);
        // Of a newer owner, elsewhere; then a late one of ours.
        append(&log, 4, full().bytes(), 1 << 20);
        shipping.ship(0, 3, full());
        wait_for(&|| shipping.wants(0) == Wants::Changes);
        let mut follower = Follower {
            log: log.clone(),
            shipping: shipping.clone(),
            mailboxes: Vec::new(),
            models: vec![Followed::new("m")],
        };
        while matches!(follower.step(), Looked::Something) {}
        shipping.ship(0, 5, full());
        wait_for(&|| shipping.wants(0) == Wants::Changes);
        assert_eq!(log.start(&partition), Ok(1), "the newest that was read is not ours");
        while matches!(follower.step(), Looked::Something) {}
        wait_for(&|| log.start(&partition) == Ok(4));
        drop((follower, shipping));
        thread.join().unwrap();
    }
}
