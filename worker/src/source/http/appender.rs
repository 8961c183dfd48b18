//! One thread appends what requests hand over: those that wait while the disk is busy are appended together, and each
//! is answered when all of them are durable.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use crate::log::{AppendError, Log, LogPartition};

type Appends = Vec<(LogPartition, Vec<u8>)>;

/// Why a batch is not known to be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAppended {
    /// Nothing was appended.
    #[error("too much is waiting to be appended; try again soon")]
    Busy,
    /// Nothing was appended, or that is not known: retries are recognized by their event ids.
    #[error("{0}")]
    Failed(String),
    /// The process ends.
    #[error("nothing is appended any more")]
    Stopped,
}

struct Waiting {
    appends: Appends,
    bytes: usize,
    done: oneshot::Sender<Result<(), NotAppended>>,
}

/// Requests that may wait, and their bytes.
const QUEUE_REQUESTS: usize = 4_096;
const QUEUE_BYTES: usize = 64 << 20;
/// Appended at once, about.
const JOINED_BYTES: usize = 8 << 20;

#[derive(Clone)]
pub(super) struct Appender {
    queue: SyncSender<Waiting>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Appender {
    /// The thread ends when all clones are gone, or with the first error, of which `failed` hears.
    pub(super) fn start(
        log: Arc<dyn Log>,
        wake: Arc<dyn Fn() + Send + Sync>,
        failed: impl Fn() + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, receiver) = sync_channel(QUEUE_REQUESTS);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let bytes = waiting_bytes.clone();
        let run = move || {
            if let Err(error) = append_all(log.as_ref(), &receiver, &bytes, wake.as_ref()) {
                tracing::error!(%error, "what is posted can no longer be kept");
                failed();
            }
        };
        let thread = thread::Builder::new().name("http-appender".into()).spawn(run)?;
        Ok((Self { queue, waiting_bytes }, thread))
    }

    pub(super) async fn append(&self, appends: Appends) -> Result<(), NotAppended> {
        if appends.is_empty() {
            return Ok(());
        }
        let bytes: usize = appends.iter().map(|(_, record)| record.len()).sum();
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        let (done, answer) = oneshot::channel();
        // One request always fits, however long it is.
        let sent = match before > 0 && before + bytes > QUEUE_BYTES {
            true => Err(NotAppended::Busy),
            false => self.queue.try_send(Waiting { appends, bytes, done }).map_err(|refused| match refused {
                TrySendError::Full(_) => NotAppended::Busy,
                TrySendError::Disconnected(_) => NotAppended::Stopped,
            }),
        };
        if let Err(refused) = sent {
            self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(refused);
        }
        answer.await.unwrap_or(Err(NotAppended::Stopped))
    }
}

fn append_all(
    log: &dyn Log,
    queue: &Receiver<Waiting>,
    waiting_bytes: &AtomicUsize,
    wake: &(dyn Fn() + Send + Sync),
) -> Result<(), AppendError> {
    while let Ok(first) = queue.recv() {
        let mut bytes = first.bytes;
        let mut appends = first.appends;
        let mut answers = vec![first.done];
        while bytes < JOINED_BYTES
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.bytes;
            appends.extend(next.appends);
            answers.push(next.done);
        }
        let appended = log.append(&appends);
        waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
        let answer = appended.as_ref().map(|_| ()).map_err(|error| NotAppended::Failed(error.to_string()));
        for done in answers {
            // Whoever asked may be gone by now.
            let _ = done.send(answer.clone());
        }
        appended?;
        wake();
    }
    Ok(())
}
