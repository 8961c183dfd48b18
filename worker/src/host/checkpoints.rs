//! One thread owns the lineages of all tasks: it claims them and writes their checkpoints, each once all effects up
//! to it are durable, and lets go of what no retained checkpoint needs.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
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
    store::{
        Store,
        checkpoint::{self, Claimant, LineageError, Owner, Restored, State},
        keys::TaskId,
        manifest::Position,
        run,
    },
};

/// A task's state at a log offset, to be saved once `ticket` is durable.
pub struct Job {
    pub task: TaskId,
    pub extent: Extent,
    pub bytes: Vec<u8>,
    /// Of the pipeline as the task knows it; an ingest task knows only the last one.
    pub generation: Option<u32>,
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
    pub written: Mutex<Written>,
}

/// The checkpoints of a task that this run wrote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub count: u64,
    /// Of the newest one.
    pub at_unix_ms: i64,
    pub bytes: usize,
    pub is_base: bool,
}

/// A task that is ours now.
pub struct Claim {
    pub epoch: u64,
    pub restored: Option<Restored>,
    pub progress: Arc<Progress>,
}

enum Request {
    Claim { task: TaskId, reads: Option<LogPartition>, reply: Sender<Result<Claim, LineageError>> },
    Save(Job),
}

/// Asks the thread. It ends when all of these are gone.
#[derive(Clone)]
pub struct Checkpoints {
    requests: Sender<Request>,
}

/// What the thread works with.
pub struct Keeper {
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub claimant: Claimant,
    pub retain_ms: i64,
    pub generation: u32,
    pub spec_digest: u64,
    /// Nothing more becomes durable: do not wait for it.
    pub abandoned: Arc<AtomicBool>,
}

impl Checkpoints {
    pub fn start(keeper: Keeper) -> std::io::Result<(Self, JoinHandle<Result<(), HostError>>)> {
        let (requests, receiver) = channel();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| keeper.run(&receiver)));
            if !matches!(result, Ok(Ok(()))) {
                // Nobody is to wait for checkpoints any more.
                keeper.abandoned.store(true, Ordering::Release);
            }
            result.unwrap_or_else(|panic| resume_unwind(panic))
        };
        let thread = thread::Builder::new().name("checkpoints".into()).spawn(run)?;
        Ok((Self { requests }, thread))
    }

    /// Takes a task over and loads its newest checkpoint. `reads`: the log partition that is trimmed after it.
    pub fn claim(&self, task: &TaskId, reads: Option<LogPartition>) -> Result<Claim, HostError> {
        let (reply, answer) = channel();
        let gone = || HostError::Thread("checkpoints".into());
        self.requests.send(Request::Claim { task: task.clone(), reads, reply }).map_err(|_| gone())?;
        let claimed = answer.recv().map_err(|_| gone())?;
        let claimed = claimed.map_err(|cause| HostError::Lineage { task: task.to_string(), cause })?;
        for problem in claimed.restored.iter().flat_map(|r| &r.damaged) {
            tracing::warn!(%task, %problem, "went back to an earlier checkpoint");
        }
        Ok(claimed)
    }

    /// False: the thread has ended, and says why to whoever joins it.
    pub fn save(&self, job: Job) -> bool {
        self.requests.send(Request::Save(job)).is_ok()
    }
}

/// A task's lineage, and the log partition it reads, if that is one of ours.
struct Kept {
    owner: Owner,
    reads: Option<LogPartition>,
    progress: Arc<Progress>,
}

impl Keeper {
    fn run(&self, requests: &Receiver<Request>) -> Result<(), HostError> {
        let mut tasks: BTreeMap<TaskId, Kept> = BTreeMap::new();
        while let Ok(request) = requests.recv() {
            match request {
                Request::Claim { task, reads, reply } => {
                    let claimed = checkpoint::claim(self.store.as_ref(), &task, &self.claimant);
                    let claimed = claimed.map(|(owner, restored)| {
                        let progress = Arc::new(Progress::default());
                        progress.wants_base.store(owner.wants_base(), Ordering::Release);
                        let claim = Claim { epoch: owner.epoch(), restored, progress: progress.clone() };
                        tasks.insert(task, Kept { owner, reads, progress });
                        claim
                    });
                    // Whoever asked may be gone by now.
                    let _ = reply.send(claimed);
                }
                Request::Save(job) => {
                    if !self.wait_until_durable(&job) {
                        return Ok(());
                    }
                    if let Some(kept) = tasks.remove(&job.task) {
                        tasks.insert(job.task.clone(), self.save(kept, job)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn wait_until_durable(&self, job: &Job) -> bool {
        while job.acknowledged.load(Ordering::Acquire) < job.ticket {
            if self.abandoned.load(Ordering::Acquire) {
                return false;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        true
    }

    fn save(&self, kept: Kept, job: Job) -> Result<Kept, HostError> {
        let Kept { owner, reads, progress } = kept;
        let failed = |cause| HostError::Lineage { task: job.task.to_string(), cause };
        let (bytes, is_base) = (job.bytes.len(), job.extent == Extent::Base);
        let state = match job.extent {
            Extent::Base => State::Base(job.bytes),
            Extent::Changes => State::Delta(job.bytes),
        };
        let now = unix_ms();
        let position = Position {
            log_offset: job.log_offset,
            frame_checksum: job.frame_checksum,
            generation: job.generation.unwrap_or(self.generation),
            spec_digest: self.spec_digest,
            written_at_unix_ms: now,
        };
        let save = if job.last { Owner::release } else { Owner::save };
        let (owner, saved) = run(self.store.as_ref(), save(owner, state, position));
        saved.map_err(failed)?;
        // A position in a source is worth nothing once there is a newer one; state is, while its log is kept.
        let retain_ms = if reads.is_some() { self.retain_ms } else { 0 };
        let (owner, collected) = run(self.store.as_ref(), owner.collect(now, retain_ms));
        collected.map_err(failed)?;
        if let Some(partition) = &reads
            && let Err(error) = self.log.trim(partition, owner.trimmable_offset())
        {
            // Too much kept does no harm; the next checkpoint tries again.
            tracing::warn!(%partition, %error, "the log could not be trimmed");
        }
        progress.wants_base.store(owner.wants_base(), Ordering::Release);
        if let Ok(mut written) = progress.written.lock() {
            *written = Written { count: written.count + 1, at_unix_ms: now, bytes, is_base };
        }
        progress.pending.store(false, Ordering::Release);
        Ok(Kept { owner, reads, progress })
    }
}

pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::memory::MemoryLog,
        store::{Listed, Object, Outcome, StoreError, Version, keys::TaskKind, memory::MemoryStore},
    };

    /// Takes manifests, and no file.
    struct Full(MemoryStore);

    impl Store for Full {
        fn put(&self, key: &str, _: &[u8]) -> Outcome {
            Outcome::Failed(StoreError::new(key, "full"))
        }
        fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
            self.0.get(key)
        }
        fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
            self.0.list(prefix)
        }
        fn delete(&self, key: &str) -> Result<(), StoreError> {
            self.0.delete(key)
        }
        fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome {
            self.0.swap(key, expected, bytes)
        }
    }

    #[test]
    fn whoever_waits_for_a_checkpoint_that_failed_is_told() {
        let abandoned = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            log: Arc::new(MemoryLog::default()),
            store: Arc::new(Full(MemoryStore::default())),
            claimant: Claimant { pipeline: "p".into(), owner: "o".into(), engine_version: 1 },
            retain_ms: 0,
            generation: 1,
            spec_digest: 0,
            abandoned: abandoned.clone(),
        };
        let (checkpoints, thread) = Checkpoints::start(keeper).unwrap();
        let task = TaskId::new(TaskKind::Model, "m");
        let claim = checkpoints.claim(&task, None).unwrap();
        let (log_offset, frame_checksum, ticket, last, acknowledged) = (1, 0, 0, false, Arc::default());
        let (extent, bytes) = (Extent::Base, vec![1]);
        claim.progress.pending.store(true, Ordering::Release);
        let generation = None;
        let job = Job { task, extent, bytes, generation, log_offset, frame_checksum, ticket, last, acknowledged };
        assert!(checkpoints.save(job));
        assert!(matches!(thread.join().unwrap(), Err(HostError::Lineage { .. })));
        assert!(abandoned.load(Ordering::Acquire) && claim.progress.pending.load(Ordering::Acquire));
    }
}
