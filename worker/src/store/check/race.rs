//! What many clients find out who want the same at once.

use std::{
    collections::BTreeMap,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{Fail, Ground, broken, done, refused};
use crate::store::{Digest, Outcome, Store, Version};

/// How one writer's try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    NotDone,
    Unknown,
}

/// All clients create the same objects.
pub(super) fn creation(ground: &Ground<'_>) -> Result<String, Fail> {
    let contents: Vec<Vec<u8>> = (0..ground.clients.len()).map(|i| format!("writer {i}").into_bytes()).collect();
    for number in 0..ground.effort.creations {
        let key = ground.key(format_args!("create-{number}"));
        one_of(ground, &key, &contents)?;
    }
    Ok(format!("{} objects, each wanted by {} writers", ground.effort.creations, ground.clients.len()))
}

/// Large ones are written in parts, and become an object with the last request.
pub(super) fn large_objects(ground: &Ground<'_>) -> Result<String, Fail> {
    let (key, bytes) = (ground.key("large"), ground.effort.large_bytes);
    let contents: [Vec<u8>; 2] = [3, 7].map(|seed| noise(seed, bytes));
    let winner = one_of(ground, &key, &contents)?;
    let (store, version) = (ground.client(2), Version("0".repeat(32)));
    refused(store.put(&key, &contents[1 - winner]), "creating a large object that is there")?;
    refused(store.swap(&key, Some(&version), &contents[1 - winner]), "replacing a version that never was")?;
    if store.digest(&key)? != Some(Digest::of(&contents[winner])) {
        return broken("a large object is not read as it was written");
    }
    Ok(format!("{} MiB, wanted by 2 writers", bytes >> 20))
}

/// Each content is put by another client, at the same moment. Whose it was.
fn one_of(ground: &Ground<'_>, key: &str, contents: &[Vec<u8>]) -> Result<usize, Fail> {
    let start = Barrier::new(contents.len());
    let write = |(i, content): (usize, &Vec<u8>)| {
        start.wait();
        ground.client(i).put(key, content)
    };
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = contents.iter().enumerate().map(|one| scope.spawn(move || write(one))).collect();
        threads.into_iter().map(joined).collect()
    });
    let found = ground.client(contents.len()).get(key)?.map(|object| object.bytes);
    let winner = found.as_ref().and_then(|found| contents.iter().position(|content| content == found));
    let mut unknown = None;
    for (i, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Done(_) if winner != Some(i) => {
                return broken(format!("writer {i} was told that it had created {key}, which was not what it wrote"));
            }
            Outcome::Conflict | Outcome::Failed(_) if winner == Some(i) => {
                return broken(format!("writer {i} was refused, but what it wrote was under {key}"));
            }
            Outcome::Done(_) | Outcome::Conflict => {}
            Outcome::Failed(error) | Outcome::Unknown(error) => unknown = Some(error),
        }
    }
    match (winner, found, unknown) {
        (Some(winner), ..) => Ok(winner),
        (None, Some(_), _) => broken(format!("what was under {key} was nothing that anybody wrote")),
        (None, None, Some(error)) => Err(error.into()),
        (None, None, None) => broken(format!("all who wanted to create {key} were refused")),
    }
}

/// All clients add a line to one object, each to the version that all have read. So the object tells its own history.
pub(super) fn succession(ground: &Ground<'_>) -> Result<String, Fail> {
    let key = ground.key("succession");
    done(ground.client(0).swap(&key, None, b""), "creating an object")?;
    let (writers, rounds) = (ground.clients.len(), ground.effort.updates);
    let race = Race { key: &key, rounds, meet: Barrier::new(writers), over: AtomicBool::new(false) };
    let fates: Vec<Result<Vec<Fate>, Fail>> = thread::scope(|scope| {
        let (race, clients) = (&race, ground.clients.iter().enumerate());
        let threads: Vec<_> = clients.map(|(i, store)| scope.spawn(move || race.run(*store, i))).collect();
        threads.into_iter().map(joined).collect()
    });
    let fates = fates.into_iter().collect::<Result<Vec<_>, Fail>>()?;
    let Some(object) = ground.client(1).get(&key)? else { return broken(format!("{key} is gone")) };
    agree(&lines(&object.bytes), &fates)?;
    if let Some(round) = (0..rounds).find(|round| fates.iter().all(|fates| fates[*round] == Fate::NotDone)) {
        return broken(format!("in round {round}, all who wanted to replace the newest version of {key} were refused"));
    }
    let done = fates.iter().flatten().filter(|fate| **fate == Fate::Done).count();
    Ok(format!("{done} updates, each wanted by {writers} writers, none lost or doubled"))
}

struct Race<'a> {
    key: &'a str,
    rounds: usize,
    /// All have read; all have written.
    meet: Barrier,
    /// Set by whoever cannot go on before all meet, so that all leave.
    over: AtomicBool,
}

impl Race<'_> {
    fn run(&self, store: &dyn Store, writer: usize) -> Result<Vec<Fate>, Fail> {
        let (mut fates, mut failed) = (Vec::with_capacity(self.rounds), None);
        for round in 0..self.rounds {
            let read = match (failed.take(), store.get(self.key)) {
                (None, Ok(Some(object))) => Ok(object),
                (None, Ok(None)) => broken(format!("{} is gone", self.key)),
                (Some(error), _) | (None, Err(error)) => Err(Fail::Store(error)),
            };
            if read.is_err() {
                self.over.store(true, Ordering::Relaxed);
            }
            self.meet.wait();
            let object = read?;
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let mut bytes = object.bytes;
            bytes.extend_from_slice(format!("{writer} {round}\n").as_bytes());
            let (fate, error) = match store.swap(self.key, Some(&object.version), &bytes) {
                Outcome::Done(_) => (Fate::Done, None),
                Outcome::Conflict => (Fate::NotDone, None),
                Outcome::Unknown(_) => (Fate::Unknown, None),
                Outcome::Failed(error) => (Fate::NotDone, Some(error)),
            };
            fates.push(fate);
            failed = error;
            self.meet.wait();
        }
        failed.map_or(Ok(fates), |error| Err(error.into()))
    }
}

/// How often each line, of a writer and its try, stands in the history.
fn lines(bytes: &[u8]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        *counts.entry(line.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// The history holds what was done, once, and nothing that was not.
fn agree(history: &BTreeMap<String, usize>, fates: &[Vec<Fate>]) -> Result<(), Fail> {
    let mut known = 0;
    for (writer, fates) in fates.iter().enumerate() {
        for (number, fate) in fates.iter().enumerate() {
            let found = history.get(&format!("{writer} {number}")).copied().unwrap_or_default();
            known += usize::from(found > 0);
            match (fate, found) {
                (Fate::Done, 1) | (Fate::NotDone, 0) | (Fate::Unknown, 0 | 1) => {}
                (Fate::Done, 0) => return broken(format!("update {number} of writer {writer} was done and then lost")),
                (Fate::NotDone, 1) => {
                    return broken(format!("update {number} of writer {writer} was refused and yet done"));
                }
                (_, times) => return broken(format!("update {number} of writer {writer} was done {times} times")),
            }
        }
    }
    if known == history.len() { Ok(()) } else { broken("the history holds what nobody wrote") }
}

/// Bytes that do not repeat in parts.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // Knuth's 64-bit linear congruential generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
}
