//! Threads that do what would keep an engine thread from its tasks: they ask the checkpoint store, make tasks from their
//! state, let go of large ones, and of what was read of the log.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use super::{error::HostError, station::Made, task::Task, wake::Wake};
use crate::{
    log::{Log, LogPartition},
    store::{Answer, Op, Store, checkpoint::Restored, keys::TaskId},
};

/// What is to be done; where there is news of it, it goes to whoever wanted it done.
pub enum Errand {
    Ask { id: u64, op: Op, tell: Sender<News> },
    Make { id: u64, task: TaskId, restored: Option<Restored>, tell: Sender<News> },
    LetGo(Task),
    Trim { partition: LogPartition, before: u64 },
}

pub enum News {
    Answered(u64, Answer),
    Made(u64, Result<Box<Made>, HostError>),
}

/// What errands are done with.
pub struct Tools {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub make: Box<MakeTask>,
    /// There is news.
    pub wake: Arc<Wake>,
    /// What was to be done will not be: nobody is to wait for it.
    pub failed: Box<dyn Fn() + Send + Sync>,
}

/// Makes a task as its checkpoint left it, or as it begins.
pub type MakeTask = dyn Fn(&TaskId, Option<&Restored>) -> Result<Made, HostError> + Send + Sync;

/// While one writes a gigabyte, others go on: a task asks one thing at a time, so tasks do not wait for each other.
const HANDS: usize = 4;

/// Starts the threads. They end when all senders are gone.
pub fn start(tools: Tools) -> std::io::Result<(Sender<Errand>, Vec<JoinHandle<()>>)> {
    let (errands, receiver) = channel();
    let (tools, receiver) = (Arc::new(tools), Arc::new(Mutex::new(receiver)));
    let hand = |number: usize| {
        let (tools, receiver) = (tools.clone(), receiver.clone());
        thread::Builder::new().name(format!("hand-{number}")).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tools.work(&receiver))) {
                (tools.failed)();
                tools.wake.all();
                resume_unwind(panic);
            }
        })
    };
    Ok((errands, (0..HANDS).map(hand).collect::<Result<_, _>>()?))
}

impl Tools {
    fn work(&self, errands: &Mutex<Receiver<Errand>>) {
        loop {
            let next = errands.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(errand) = next else { return };
            self.run(errand);
        }
    }

    fn run(&self, errand: Errand) {
        match errand {
            Errand::Ask { id, op, tell } => {
                self.tell(&tell, News::Answered(id, self.store.answer(&op)));
                if let Op::Put { bytes, .. } = op {
                    free(bytes);
                }
            }
            Errand::Make { id, task, restored, tell } => {
                let made = (self.make)(&task, restored.as_ref()).map(Box::new);
                self.tell(&tell, News::Made(id, made));
                if let Some(Restored { base, deltas, .. }) = restored {
                    deltas.into_iter().chain([base]).for_each(free);
                }
            }
            Errand::LetGo(task) => drop(task),
            Errand::Trim { partition, before } => {
                if let Err(error) = self.log.trim(&partition, before) {
                    // Too much kept does no harm; the next checkpoint tries again.
                    tracing::warn!(%partition, %error, "the log could not be trimmed");
                }
            }
        }
    }

    fn tell(&self, whom: &Sender<News>, news: News) {
        // Whoever wanted it may be gone by now.
        let _ = whom.send(news);
        self.wake.all();
    }
}

const FREED_AT_ONCE: usize = 8 << 20;

/// Little by little: while the system takes back a gigabyte at once, whoever else wants memory of it waits.
fn free(mut bytes: Vec<u8>) {
    while bytes.len() > FREED_AT_ONCE {
        bytes.truncate(bytes.len() - FREED_AT_ONCE);
        bytes.shrink_to_fit();
    }
}
