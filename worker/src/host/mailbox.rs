//! What others ask of an engine thread: it alone touches the state of its tasks, and looks here between two slices.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
};

/// Requests that may wait for one thread. More are refused at once: a queue that only grows helps nobody.
const MOST_WAITING: usize = 1024;

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait already: try again soon.
    Busy,
    /// The thread has ended, or is about to.
    Closed,
}

/// A bounded queue that wakes its thread.
pub struct Mailbox<T> {
    queue: Mutex<VecDeque<T>>,
    /// Spares the engine thread the lock while there is nothing.
    has_mail: AtomicBool,
    closed: AtomicBool,
    thread: OnceLock<Thread>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            has_mail: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }
}

impl<T> Mailbox<T> {
    /// Whom to wake from now on.
    pub fn belongs_to(&self, thread: Thread) {
        // There is one thread for each mailbox, which is told once.
        let _ = self.thread.set(thread);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request from outside; refused when too many wait.
    pub fn ask(&self, request: T) -> Result<(), Refused> {
        let mut queue = self.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Refused::Closed);
        }
        if queue.len() >= MOST_WAITING {
            return Err(Refused::Busy);
        }
        queue.push_back(request);
        drop(queue);
        self.wake();
        Ok(())
    }

    /// News from another engine thread: never refused, or what it says would be lost.
    pub fn tell(&self, news: T) {
        self.lock().push_back(news);
        self.wake();
    }

    fn wake(&self) {
        self.has_mail.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// All that waits, in order.
    pub fn take(&self) -> VecDeque<T> {
        match self.has_mail.swap(false, Ordering::AcqRel) {
            true => std::mem::take(&mut *self.lock()),
            false => VecDeque::new(),
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nothing more is taken. What still waits is dropped, and so whoever asked is told.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_refuses_requests_and_takes_news() {
        let mailbox = Mailbox::default();
        (0..MOST_WAITING).for_each(|n| mailbox.ask(n).unwrap());
        assert_eq!(mailbox.ask(0), Err(Refused::Busy));
        mailbox.tell(MOST_WAITING);
        let all: Vec<usize> = mailbox.take().into();
        assert_eq!(all, (0..=MOST_WAITING).collect::<Vec<_>>());
        assert!(mailbox.take().is_empty());
        mailbox.ask(7).unwrap();
        mailbox.close();
        assert_eq!((mailbox.ask(8), mailbox.take().len()), (Err(Refused::Closed), 0));
    }
}
