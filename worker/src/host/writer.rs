//! One thread appends what the engine threads hand over: batches are joined while the disk is busy, so that a slow
//! disk makes bigger writes, and a full queue makes the engine threads wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::wake::Wake;
use crate::log::{AppendError, Log, LogPartition};

/// What one engine thread appends at once.
pub struct Batch {
    pub appends: Vec<(LogPartition, Vec<u8>)>,
    /// Rises with every batch of the thread.
    pub ticket: u64,
    /// Where the ticket is put once the batch is durable.
    pub acknowledged: Arc<AtomicU64>,
}

impl Batch {
    pub fn bytes(&self) -> usize {
        self.appends.iter().map(|(_, frame)| frame.len()).sum()
    }
}

/// Ends with what stopped it.
type WriterThread = JoinHandle<Result<(), AppendError>>;

const QUEUE_BATCHES: usize = 8;
const JOINED_BYTES: usize = 8 << 20;
/// How much later than the first a batch comes that goes with it.
const TOGETHER_WITHIN: Duration = Duration::from_millis(1);

/// Starts the thread. It ends when all senders are gone, or with the first error.
pub fn start(
    log: Arc<dyn Log>,
    wake: Arc<Wake>,
    failed: impl Fn() + Send + 'static,
) -> std::io::Result<(SyncSender<Batch>, WriterThread)> {
    let (sender, receiver) = sync_channel(QUEUE_BATCHES);
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(|| write(log.as_ref(), &receiver, &wake)));
        if !matches!(result, Ok(Ok(()))) {
            failed();
            wake.all();
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    };
    Ok((sender, thread::Builder::new().name("log-writer".into()).spawn(run)?))
}

fn write(log: &dyn Log, batches: &Receiver<Batch>, wake: &Wake) -> Result<(), AppendError> {
    while let Ok(first) = batches.recv() {
        let mut bytes: usize = first.appends.iter().map(|(_, b)| b.len()).sum();
        let mut appends = first.appends;
        let mut tickets = vec![(first.acknowledged, first.ticket)];
        // All threads cut at once.
        let until = Instant::now() + TOGETHER_WITHIN;
        while bytes < JOINED_BYTES
            && let Ok(batch) =
                batches.try_recv().or_else(|_| batches.recv_timeout(until.saturating_duration_since(Instant::now())))
        {
            bytes += batch.appends.iter().map(|(_, b)| b.len()).sum::<usize>();
            appends.extend(batch.appends);
            tickets.push((batch.acknowledged, batch.ticket));
        }
        log.append(&appends)?;
        for (acknowledged, ticket) in tickets {
            acknowledged.fetch_max(ticket, Ordering::AcqRel);
        }
        wake.awaiting();
    }
    Ok(())
}
