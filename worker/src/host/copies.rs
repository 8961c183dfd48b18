//! Models of a fleet: what each has learned goes to a log of its own, from which every worker brings its serving copies up
//! to date, whoever owns the model. Deltas hold absolute values, so what comes twice, or from an owner that was replaced
//! without knowing it, does no harm.
//!
//! A record, format version 1: version u16, epoch u64, part u32, parts u32, then this part's bytes of a
//! [`ServingDelta`], which has a checksum of its own; numbers are little-endian. A log begins with a full delta: once another
//! full one is durable, what lies before is trimmed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_engine::{
    codec::{Corrupt, Put, Reader},
    learn::serving::ServingDelta,
};

use super::{desk::Request, logs, mailbox::Mailbox, thread::Control};
use crate::log::{AppendError, Log, LogPartition, ReadError};

const VERSION: u16 = 1;
/// Of a record's bytes.
const PART_BYTES: usize = 8 << 20;
/// Parts of one delta: 16 GiB.
const MAX_PARTS: u32 = 2_048;
/// A full delta is due when those after the last one have twice its bytes, or this, if that is more.
const FULL_EVERY_BYTES: usize = 16 << 20;
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
    /// By model: see [`Wants`].
    wants: Vec<AtomicU8>,
    shipments: Mutex<Sender<Shipment>>,
}

struct Shipment {
    model: usize,
    epoch: u64,
    delta: ServingDelta,
}

impl Shipping {
    /// Starts the thread that appends, which ends when all who may ship are gone. `models`: in the plan's order.
    pub fn start(log: Arc<dyn Log>, models: &[String]) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (shipments, received) = channel();
        let wants = models.iter().map(|_| AtomicU8::new(Wants::Changes as u8)).collect();
        let shipping = Arc::new(Self { wants, shipments: Mutex::new(shipments) });
        let (weak, logs) = (Arc::downgrade(&shipping), models.iter().map(|model| logs::models(model)).collect());
        let append = move || {
            let mut appending = Appending { log, logs, sizes: Vec::new() };
            appending.sizes.resize(appending.logs.len(), Sizes::default());
            while let Ok(shipment) = received.recv() {
                let model = shipment.model;
                let wants = appending.append(shipment);
                let Some(shipping) = weak.upgrade() else { return };
                shipping.wants[model].store(wants as u8, Ordering::Release);
            }
        };
        Ok((shipping, thread::Builder::new().name("models-log".into()).spawn(append)?))
    }

    pub fn wants(&self, model: usize) -> Wants {
        let wants = self.wants[model].load(Ordering::Acquire);
        [Wants::Nothing, Wants::Changes].into_iter().find(|known| *known as u8 == wants).unwrap_or(Wants::All)
    }

    pub fn ship(&self, model: usize, epoch: u64, delta: ServingDelta) {
        self.wants[model].store(Wants::Nothing as u8, Ordering::Release);
        let shipments = self.shipments.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread ends only when the host does.
        let _ = shipments.send(Shipment { model, epoch, delta });
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
    bytes_since: usize,
}

impl Appending {
    fn append(&mut self, Shipment { model, epoch, delta }: Shipment) -> Wants {
        let partition = &self.logs[model];
        let records = encode(epoch, delta.bytes()).into_iter().map(|record| (partition.clone(), record));
        match self.log.append(&records.collect::<Vec<_>>()) {
            Ok(offsets) => {
                let sizes = &mut self.sizes[model];
                if delta.is_full() {
                    *sizes = Sizes { full_bytes: delta.bytes().len(), bytes_since: 0 };
                    self.trim(model, offsets.first().copied().unwrap_or(0));
                } else {
                    sizes.bytes_since += delta.bytes().len();
                }
                let Sizes { full_bytes, bytes_since } = self.sizes[model];
                if bytes_since > FULL_EVERY_BYTES.max(2 * full_bytes) { Wants::All } else { Wants::Changes }
            }
            Err(error) => {
                self.tell(partition, &error);
                thread::sleep(TRY_AGAIN_AFTER);
                Wants::All
            }
        }
    }

    fn tell(&self, partition: &LogPartition, error: &AppendError) {
        tracing::warn!(%partition, %error, "what a model has learned could not be told to the fleet; it is tried again");
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
    bytes: Vec<u8>,
}

impl Assembly {
    /// A delta, if this was its last record. Records of an owner that was replaced are none.
    fn add(&mut self, record: &[u8]) -> Result<Option<ServingDelta>, Corrupt> {
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
            *self = Self { epoch, ..Self::default() };
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
    mailboxes: Vec<Arc<Mailbox<Request>>>,
    models: Vec<Followed>,
}

struct Followed {
    partition: LogPartition,
    /// `None`: from the beginning.
    next: Option<u64>,
    assembly: Assembly,
}

/// Starts the thread that reads, until the host stops.
pub fn follow(
    log: Arc<dyn Log>,
    models: &[String],
    mailboxes: Vec<Arc<Mailbox<Request>>>,
    control: Arc<Control>,
) -> std::io::Result<JoinHandle<()>> {
    let followed =
        |model: &String| Followed { partition: logs::models(model), next: None, assembly: Assembly::default() };
    let mut follower = Follower { log, mailboxes, models: models.iter().map(followed).collect() };
    let run = move || {
        while !control.is_stopping() {
            let pause = match follower.step() {
                Ok(true) => continue,
                Ok(false) => LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "models of other workers cannot be followed; it is tried again");
                    TRY_AGAIN_AFTER
                }
            };
            thread::sleep(pause);
        }
    };
    thread::Builder::new().name("models-follower".into()).spawn(run)
}

impl Follower {
    /// Whether there was anything.
    fn step(&mut self) -> Result<bool, ReadError> {
        let mut any = false;
        for (model, followed) in self.models.iter_mut().enumerate() {
            any |= followed.step(self.log.as_ref(), |delta| {
                let delta = Arc::new(delta);
                let tell = |mailbox: &Arc<Mailbox<Request>>| {
                    mailbox.tell(Request::Learned { model, delta: delta.clone() });
                };
                self.mailboxes.iter().for_each(tell);
            })?;
        }
        Ok(any)
    }
}

impl Followed {
    fn step(&mut self, log: &dyn Log, mut each: impl FnMut(ServingDelta)) -> Result<bool, ReadError> {
        let next = match self.next {
            Some(next) => next,
            None => log.start(&self.partition)?,
        };
        self.next = Some(next);
        let records = match log.read(&self.partition, next, READ_BYTES) {
            Err(ReadError::Trimmed { .. }) => {
                // It begins with a full delta.
                (self.next, self.assembly.parts) = (None, 0);
                return Ok(true);
            }
            records => records?,
        };
        for (offset, record) in &records {
            self.next = Some(offset + 1);
            match self.assembly.add(record) {
                Ok(Some(delta)) => each(delta),
                Ok(None) => {}
                Err(error) => {
                    let partition = &self.partition;
                    tracing::error!(%partition, offset, %error, "a model's delta cannot be read; the next full one can");
                }
            }
        }
        Ok(!records.is_empty())
    }
}

impl Control {
    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_record_version_1() {
        assert_eq!(encode(7, &[9, 8]), [[1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 8].to_vec()]);
    }
}
