//! One thread writes checkpoints: it waits until all effects up to one are durable, writes it, and lets go of what no
//! retained checkpoint needs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use millrace_engine::checkpoint::Extent;

use super::error::HostError;
use crate::{
    log::{Log, LogPartition},
    store::{checkpoint::{Lineage, State}, manifest::Position},
};

/// A task's state at a log offset, to be saved once `ticket` is durable.
pub struct Job {
    pub task: usize,
    pub extent: Extent,
    pub bytes: Vec<u8>,
    /// Offset of the next record that the task will read.
    pub log_offset: u64,
    pub frame_checksum: u64,
    pub ticket: u64,
    /// The task is given up in order.
    pub last: bool,
    pub acknowledged: Arc<AtomicU64>,
}

/// What the engine thread and the checkpoint thread share of one task.
#[derive(Default)]
pub struct Progress {
    /// A checkpoint is on its way.
    pub pending: AtomicBool,
    pub wants_base: AtomicBool,
    pub written: AtomicU64,
}

/// A task's lineage, and the log partition it reads, if that is one of ours.
pub struct Kept {
    pub name: String,
    pub lineage: Lineage,
    pub spec_digest: u64,
    pub reads: Option<LogPartition>,
    pub progress: Arc<Progress>,
}

/// How long checkpoints are kept.
#[derive(Clone, Copy)]
pub struct Retention {
    pub retain_ms: i64,
}

/// Starts the thread. It ends when all senders are gone, when `abandoned` is set (nothing more becomes durable), or
/// with the first error.
pub fn start(
    log: Arc<dyn Log>,
    kept: BTreeMap<usize, Kept>,
    retention: Retention,
    abandoned: Arc<AtomicBool>,
) -> std::io::Result<(Sender<Job>, JoinHandle<Result<(), HostError>>)> {
    let (sender, receiver) = channel();
    let run = move || save_all(log.as_ref(), kept, retention, &receiver, &abandoned);
    Ok((sender, thread::Builder::new().name("checkpoints".into()).spawn(run)?))
}

fn save_all(
    log: &dyn Log,
    mut kept: BTreeMap<usize, Kept>,
    retention: Retention,
    jobs: &Receiver<Job>,
    abandoned: &AtomicBool,
) -> Result<(), HostError> {
    while let Ok(job) = jobs.recv() {
        while job.acknowledged.load(Ordering::Acquire) < job.ticket {
            if abandoned.load(Ordering::Acquire) {
                return Ok(());
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        if let Some(kept) = kept.get_mut(&job.task) {
            save(log, kept, retention, job)?;
        }
    }
    Ok(())
}

fn save(log: &dyn Log, kept: &mut Kept, retention: Retention, job: Job) -> Result<(), HostError> {
    let failed = |cause| HostError::Lineage { task: kept.name.clone(), cause };
    let now = unix_ms();
    let state = match job.extent {
        Extent::Base => State::Base(job.bytes),
        Extent::Changes => State::Delta(job.bytes),
    };
    let position = Position {
        log_offset: job.log_offset,
        frame_checksum: job.frame_checksum,
        generation: super::GENERATION,
        spec_digest: kept.spec_digest,
        written_at_unix_ms: now,
    };
    if job.last {
        kept.lineage.release(&state, position).map_err(failed)?;
    } else {
        kept.lineage.commit(&state, position).map_err(failed)?;
    }
    kept.lineage.collect_garbage(now, retention.retain_ms).map_err(failed)?;
    if let Some(partition) = &kept.reads
        && let Err(error) = log.trim(partition, kept.lineage.oldest_retained_offset())
    {
        // Too much kept does no harm; the next checkpoint tries again.
        tracing::warn!(%partition, %error, "the log could not be trimmed");
    }
    kept.progress.wants_base.store(kept.lineage.wants_base(), Ordering::Release);
    kept.progress.written.fetch_add(1, Ordering::AcqRel);
    kept.progress.pending.store(false, Ordering::Release);
    Ok(())
}

pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
