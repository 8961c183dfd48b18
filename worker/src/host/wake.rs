//! Who wakes engine threads. They look around every few milliseconds by themselves, all at once, and do then what has come
//! together meanwhile: that costs far less than a look for every frame that became durable. Only while somebody waits for it
//! do they hear of each.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
};

#[derive(Default)]
pub struct Wake(Mutex<Vec<(Thread, Arc<Awaits>)>>);

/// Does an engine thread want to know at once what has become durable?
#[derive(Default)]
pub struct Awaits(AtomicBool);

impl Awaits {
    /// True: it is so from now on, and was not before. What has become durable meanwhile has woken nobody.
    pub fn begin(&self, awaits: bool) -> bool {
        !self.0.swap(awaits, Ordering::SeqCst) && awaits
    }
}

impl Wake {
    fn lock(&self) -> MutexGuard<'_, Vec<(Thread, Arc<Awaits>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, thread: Thread, awaits: Arc<Awaits>) {
        self.lock().push((thread, awaits));
    }

    pub fn all(&self) {
        self.lock().iter().for_each(|(thread, _)| thread.unpark());
    }

    /// Something has become durable.
    pub fn awaiting(&self) {
        let threads = self.lock();
        threads.iter().filter(|(_, awaits)| awaits.0.load(Ordering::SeqCst)).for_each(|(thread, _)| thread.unpark());
    }
}
