//! One thread asks the checkpoint store, so that no engine thread waits for it, and lets go of what was read of the log.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    log::{Log, LogPartition},
    store::{Answer, Op, Store},
};

/// What the thread does, one after the other.
pub enum Errand {
    /// The answer goes to whoever asked, with this number.
    Ask {
        id: u64,
        op: Op,
        reply: Sender<(u64, Answer)>,
    },
    Trim {
        partition: LogPartition,
        before: u64,
    },
}

/// Starts the thread. It ends when all senders are gone.
pub fn start(
    store: Arc<dyn Store>,
    log: Arc<dyn Log>,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> std::io::Result<(Sender<Errand>, JoinHandle<()>)> {
    let (errands, receiver) = channel();
    let run = move || work(store.as_ref(), log.as_ref(), wake.as_ref(), &receiver);
    Ok((errands, thread::Builder::new().name("store".into()).spawn(run)?))
}

fn work(store: &dyn Store, log: &dyn Log, wake: &(dyn Fn() + Send + Sync), errands: &Receiver<Errand>) {
    while let Ok(errand) = errands.recv() {
        match errand {
            Errand::Ask { id, op, reply } => {
                // Whoever asked may be gone by now.
                let _ = reply.send((id, store.answer(op)));
                wake();
            }
            Errand::Trim { partition, before } => {
                if let Err(error) = log.trim(&partition, before) {
                    // Too much kept does no harm; the next checkpoint tries again.
                    tracing::warn!(%partition, %error, "the log could not be trimmed");
                }
            }
        }
    }
}

pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
