//! Which engine thread has which events partition: whoever asks looks here, and tasks come and go.

use std::sync::atomic::{AtomicUsize, Ordering};

const NOBODY: usize = usize::MAX;

/// By partition.
pub struct Owners(Vec<AtomicUsize>);

impl Owners {
    pub fn new(partitions: u32) -> Self {
        Self((0..partitions).map(|_| AtomicUsize::new(NOBODY)).collect())
    }

    /// `None`: it is not owned here.
    pub fn of(&self, partition: usize) -> Option<usize> {
        let thread = self.0.get(partition)?.load(Ordering::Acquire);
        (thread != NOBODY).then_some(thread)
    }

    pub fn set(&self, partition: u32, thread: usize) {
        if let Some(owner) = self.0.get(partition as usize) {
            owner.store(thread, Ordering::Release);
        }
    }

    /// The thread has it no more; another one may have it by now.
    pub fn clear(&self, partition: Option<u32>, thread: usize) {
        if let Some(owner) = partition.and_then(|partition| self.0.get(partition as usize)) {
            let _ = owner.compare_exchange(thread, NOBODY, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}
