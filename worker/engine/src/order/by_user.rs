//! Waiting records by user: what serving overlays on a profile.
//!
//! A user's records are linked in the order in which they were read, apart from that those that change consent are linked
//! by themselves: they all count, however many others wait.

use hashbrown::{HashTable, hash_table};

use super::calendar::Entry;
use crate::event::{ConsentChange, Event, Pseudonym};

const NONE: u32 = u32::MAX;

/// Linked from the first read to the last.
#[derive(Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
}

const EMPTY: Chain = Chain { first: NONE, last: NONE };

struct User {
    pseudonym: Pseudonym,
    /// Those that change consent, and the others.
    chains: [Chain; 2],
}

struct Node {
    entry: Entry,
    before: u32,
    after: u32,
}

#[derive(Default)]
pub struct ByUser {
    /// Only looked up.
    users: HashTable<User>,
    nodes: Vec<Node>,
    free: Vec<u32>,
}

/// Pseudonyms are keyed hashes already.
fn hash(user: Pseudonym) -> u64 {
    user.0 as u64
}

/// The user, and which of the chains it belongs to.
fn place(bytes: &[u8]) -> Option<(Pseudonym, usize)> {
    let (user, consent) = Event::user_and_consent(bytes)?;
    Some((user, usize::from(consent == ConsentChange::None as u8)))
}

impl ByUser {
    pub fn add(&mut self, entry: &Entry, bytes: &[u8]) {
        let Some((user, which)) = place(bytes) else { return };
        let new = || User { pseudonym: user, chains: [EMPTY; 2] };
        let found = self.users.entry(hash(user), |u| u.pseudonym == user, |u| hash(u.pseudonym));
        let chain = &mut found.or_insert_with(new).into_mut().chains[which];
        let node = Node { entry: *entry, before: chain.last, after: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        match chain.last {
            NONE => chain.first = at,
            last => self.nodes[last as usize].after = at,
        }
        chain.last = at;
    }

    /// Records are mostly removed in the order in which they were added.
    pub fn remove(&mut self, entry: &Entry, bytes: &[u8]) {
        let Some((user, which)) = place(bytes) else { return };
        let found = self.users.entry(hash(user), |u| u.pseudonym == user, |u| hash(u.pseudonym));
        let hash_table::Entry::Occupied(mut found) = found else { return };
        let chain = &mut found.get_mut().chains[which];
        let mut at = chain.first;
        while at != NONE {
            let Node { entry: held, before, after } = self.nodes[at as usize];
            if (held.frame, held.at) == (entry.frame, entry.at) {
                match before {
                    NONE => chain.first = after,
                    before => self.nodes[before as usize].after = after,
                }
                match after {
                    NONE => chain.last = before,
                    after => self.nodes[after as usize].before = before,
                }
                self.free.push(at);
                break;
            }
            at = after;
        }
        if found.get().chains.iter().all(|chain| chain.first == NONE) {
            found.remove();
        }
    }

    /// See [`super::Merge::waiting_of`].
    pub fn of(&self, user: Pseudonym, most: usize) -> Option<Vec<Entry>> {
        let Some(found) = self.users.find(hash(user), |u| u.pseudonym == user) else { return Some(Vec::new()) };
        let [consent, others] = found.chains.map(|chain| self.newest_first(chain));
        let mut entries: Vec<Entry> = consent.take(most + 1).collect();
        if entries.len() > most {
            return None;
        }
        entries.extend(others.take(most));
        entries.sort_unstable();
        Some(entries)
    }

    fn newest_first(&self, chain: Chain) -> impl Iterator<Item = Entry> {
        let node = |at: u32| self.nodes.get(at as usize);
        std::iter::successors(node(chain.last), move |n| node(n.before)).map(|n| n.entry)
    }

    /// As [`super::calendar::Calendar::renumber_origins`].
    pub fn renumber_origins(&mut self, at: u16) {
        self.nodes.iter_mut().for_each(|n| n.entry.origin += u16::from(n.entry.origin >= at));
    }
}
