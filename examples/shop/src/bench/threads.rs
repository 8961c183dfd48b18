//! Many worlds, a few threads. What comes out is the same with any number of them.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// Does `work` for each of the tasks on so many threads; `done` gets the results in the order of the tasks, each as soon
/// as it and all before it are there.
pub fn in_order<T: Sync, R: Send>(tasks: &[T], threads: usize, work: impl Fn(&T) -> R + Sync, mut done: impl FnMut(R)) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, tasks.len().max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some((n, task)) = {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    tasks.get(n).map(|task| (n, task))
                } {
                    // The receiver outlives this scope.
                    let _ = sender.send((n, work(task)));
                }
            });
        }
        drop(sender);
        let (mut waiting, mut wanted) = (BTreeMap::new(), 0);
        for (n, result) in receiver {
            waiting.insert(n, result);
            while let Some(result) = waiting.remove(&wanted) {
                done(result);
                wanted += 1;
            }
        }
    });
}
