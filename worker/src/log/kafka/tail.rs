//! The newest records of our own topics, from their acknowledgement until they are read: what this process has appended, it
//! need not fetch back. Only offsets without a hole are kept; where others append too, everything is fetched.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::kafka::TopicPartition;

/// Of all partitions.
const KEPT_BYTES: usize = 64 << 20;
/// Since somebody else appended. Going back and forth between records kept and fetched would cost more than it saves.
const ALONE_FOR: Duration = Duration::from_secs(1);
/// What nobody reads is not kept.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// What is known of the records from an offset on.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// They have to be fetched, if there are any.
    Unknown,
    /// All that this process has appended is before that offset, but for records that are under way; and nobody else has
    /// appended anything since its first.
    Nothing { under_way: usize },
    /// In order, without a hole.
    Records(Vec<Vec<u8>>),
    /// Records before that offset were lost: the partition was seen to end there.
    Lost { end: i64 },
}

#[derive(Default)]
pub struct Tails {
    partitions: Mutex<HashMap<TopicPartition, Arc<Mutex<Tail>>>>,
    bytes: AtomicUsize,
}

/// Records of one partition.
struct Tail {
    /// Kafka's offset of the first of them.
    start: i64,
    /// Behind the last record of ours.
    acknowledged: i64,
    records: VecDeque<Vec<u8>>,
    /// Records of ours that brokers have not answered for yet.
    under_way: usize,
    alone_since: Option<Instant>,
    read_at: Instant,
    /// The lowest offset that was given to two records.
    lost: Option<i64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tail {
    fn at(start: i64, now: Instant) -> Self {
        Self {
            start,
            acknowledged: 0,
            records: VecDeque::new(),
            under_way: 0,
            alone_since: None,
            read_at: now,
            lost: None,
        }
    }

    fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }

    fn is_alone(&self, now: Instant) -> bool {
        self.alone_since.is_none_or(|since| now.saturating_duration_since(since) >= ALONE_FOR)
    }

    /// Forgets records before `start`. Gives their bytes.
    fn begin_at(&mut self, start: i64) -> usize {
        let gone = (start - self.start).clamp(0, self.records.len() as i64) as usize;
        self.start = start;
        self.records.drain(..gone).map(|record| record.len()).sum()
    }
}

impl Tails {
    fn of(&self, partition: &TopicPartition) -> Option<Arc<Mutex<Tail>>> {
        lock(&self.partitions).get(partition).cloned()
    }

    /// A record of ours is sent.
    pub fn sent(&self, partition: &TopicPartition) {
        if let Some(tail) = self.of(partition) {
            lock(&tail).under_way += 1;
        }
    }

    /// It may be there or not; what follows is not sent.
    pub fn not_acknowledged(&self, partition: &TopicPartition) {
        if let Some(tail) = self.of(partition) {
            let mut tail = lock(&tail);
            tail.under_way = tail.under_way.saturating_sub(1);
        }
    }

    /// A record of ours was acknowledged, behind all of ours that were before. Offsets that are not known are negative.
    pub fn acknowledged(&self, partition: &TopicPartition, offset: i64, record: &[u8], now: Instant) {
        let Some(tail) = self.of(partition) else { return };
        let mut tail = lock(&tail);
        tail.under_way = tail.under_way.saturating_sub(1);
        let end = tail.end();
        if (0..tail.acknowledged).contains(&offset) {
            tail.lost = Some(tail.lost.map_or(offset, |lost| lost.min(offset)));
        }
        if offset < end || (tail.acknowledged > 0 && offset != tail.acknowledged) {
            // Between are records of others. Before our first one, nobody knows whose they are: they are fetched.
            tail.alone_since = Some(now);
        }
        tail.acknowledged = offset + 1;
        let is_read = now.saturating_duration_since(tail.read_at) < READ_WITHIN;
        if offset != end || !is_read || !tail.is_alone(now) {
            let gone = tail.begin_at(end);
            tail.start = offset + 1;
            self.bytes.fetch_sub(gone, Ordering::Relaxed);
            return;
        }
        tail.records.push_back(record.to_vec());
        let mut bytes = self.bytes.fetch_add(record.len(), Ordering::Relaxed) + record.len();
        while bytes > KEPT_BYTES && !tail.records.is_empty() {
            let next = tail.start + 1;
            let gone = tail.begin_at(next);
            bytes = self.bytes.fetch_sub(gone, Ordering::Relaxed) - gone;
        }
    }

    /// Records from Kafka's offset `from` on, about `max_bytes` of them. Neither they nor what is before are kept any longer.
    pub fn read(&self, partition: &TopicPartition, from: i64, max_bytes: usize, now: Instant) -> Kept {
        let tail = {
            let mut partitions = lock(&self.partitions);
            match partitions.get(partition) {
                Some(tail) => tail.clone(),
                None => {
                    partitions.insert(partition.clone(), Arc::new(Mutex::new(Tail::at(from, now))));
                    return Kept::Unknown;
                }
            }
        };
        let mut tail = lock(&tail);
        tail.read_at = now;
        match tail.lost {
            Some(lost) if from > lost => return Kept::Lost { end: lost },
            // Who begins before it reads what is there now.
            _ => tail.lost = None,
        }
        if from < tail.start || from > tail.end() || !tail.is_alone(now) {
            return Kept::Unknown;
        }
        let gone = tail.begin_at(from);
        self.bytes.fetch_sub(gone, Ordering::Relaxed);
        let (mut bytes, mut records) = (0, Vec::new());
        while bytes < max_bytes.max(1)
            && let Some(record) = tail.records.pop_front()
        {
            bytes += record.len().max(1);
            records.push(record);
        }
        tail.start += records.len() as i64;
        self.bytes.fetch_sub(records.iter().map(Vec::len).sum(), Ordering::Relaxed);
        match records.is_empty() {
            false => Kept::Records(records),
            true if tail.alone_since.is_none() => Kept::Nothing { under_way: tail.under_way },
            true => Kept::Unknown,
        }
    }

    /// Records before this offset are deleted.
    pub fn trim(&self, partition: &TopicPartition, before: i64) {
        let Some(tail) = self.of(partition) else { return };
        let mut tail = lock(&tail);
        let before = before.min(tail.end());
        if before > tail.start {
            let gone = tail.begin_at(before);
            self.bytes.fetch_sub(gone, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Fixture {
        tails: Tails,
        partition: TopicPartition,
        now: Instant,
    }

    impl Fixture {
        /// Read up to `from`.
        fn at(from: i64) -> Self {
            let new = Self { tails: Tails::default(), partition: TopicPartition::new("t", 0), now: Instant::now() };
            assert_eq!(new.read(from), Kept::Unknown, "the first time");
            new
        }
        fn append(&self, offsets: impl IntoIterator<Item = i64>) {
            for offset in offsets {
                self.tails.acknowledged(&self.partition, offset, &[offset as u8], self.now);
            }
        }
        fn read(&self, from: i64) -> Kept {
            self.tails.read(&self.partition, from, 2, self.now)
        }
        fn bytes(&self) -> usize {
            self.tails.bytes.load(Ordering::Relaxed)
        }
    }

    const NOTHING: Kept = Kept::Nothing { under_way: 0 };

    fn records(of: &[u8]) -> Kept {
        Kept::Records(of.iter().map(|n| vec![*n]).collect())
    }

    #[test]
    fn what_was_appended_is_given_once_it_is_acknowledged() {
        let tails = Fixture::at(7);
        assert_eq!(tails.read(7), NOTHING);
        (0..4).for_each(|_| tails.tails.sent(&tails.partition));
        tails.tails.not_acknowledged(&tails.partition);
        assert_eq!(tails.read(7), Kept::Nothing { under_way: 3 });
        tails.append([7, 8, 9]);
        assert_eq!(tails.read(7), records(&[7, 8]));
        assert_eq!((tails.read(9), tails.bytes()), (records(&[9]), 0));
        assert_eq!((tails.read(10), tails.bytes()), (NOTHING, 0));
        assert_eq!(tails.read(9), Kept::Unknown, "again");
        assert_eq!(tails.read(11), Kept::Unknown, "somebody else's");
    }

    #[test]
    fn what_was_appended_before_anybody_read_is_fetched_once() {
        let tails = Fixture::at(0);
        tails.append([2]);
        assert_eq!((tails.read(0), tails.read(2)), (Kept::Unknown, Kept::Unknown));
        assert_eq!(tails.read(3), NOTHING);
        tails.append([3]);
        assert_eq!(tails.read(3), records(&[3]));
    }

    #[test]
    fn where_others_append_it_is_fetched() {
        let mut tails = Fixture::at(0);
        tails.append([0, 1, 3, 4]);
        assert_eq!((tails.read(0), tails.bytes()), (Kept::Unknown, 0));
        assert_eq!(tails.read(5), Kept::Unknown, "more of theirs may be there");
        tails.now += SECOND;
        assert_eq!(tails.read(5), Kept::Unknown, "and may be again");
        tails.append([5, 7, 8]);
        assert_eq!((tails.read(5), tails.read(7), tails.bytes()), (Kept::Unknown, Kept::Unknown, 0));
        tails.append([-1]);
        tails.now += SECOND;
        assert_eq!((tails.read(0), tails.read(9)), (Kept::Unknown, Kept::Unknown), "its offset is not known");
        tails.append([9, 10]);
        assert_eq!(tails.read(9), Kept::Unknown, "those begin behind a hole");
        tails.now += SECOND;
        assert_eq!(tails.read(11), Kept::Unknown);
        tails.append([11]);
        assert_eq!(tails.read(11), records(&[11]), "alone for a while");
    }

    #[test]
    fn a_partition_that_was_cut_off_is_told_of() {
        let tails = Fixture::at(0);
        tails.append(0..6);
        assert_eq!(tails.read(4), records(&[4, 5]));
        tails.append(3..9);
        assert_eq!(tails.read(6), Kept::Lost { end: 3 });
        assert_eq!(tails.read(3), Kept::Unknown);
        let tails = Fixture::at(9);
        tails.append(0..9);
        assert_eq!(tails.read(9), Kept::Unknown, "it never reached there");
    }

    #[test]
    fn what_was_deleted_is_not_kept() {
        let tails = Fixture::at(0);
        tails.append(0..4);
        tails.tails.trim(&tails.partition, 2);
        assert_eq!((tails.read(1), tails.bytes()), (Kept::Unknown, 2));
        tails.tails.trim(&tails.partition, 9);
        assert_eq!((tails.read(3), tails.read(4)), (Kept::Unknown, NOTHING));
        tails.append([4]);
        assert_eq!(tails.read(4), records(&[4]));
    }

    #[test]
    fn it_is_bounded() {
        let mut tails = Fixture::at(0);
        let record = vec![0; KEPT_BYTES / 4];
        for offset in 0..6 {
            tails.tails.acknowledged(&tails.partition, offset, &record, tails.now);
        }
        assert_eq!((tails.bytes(), tails.read(1)), (KEPT_BYTES, Kept::Unknown));
        assert_eq!(tails.read(2), Kept::Records(vec![record]));
        tails.now += READ_WITHIN;
        tails.append([6]);
        assert_eq!((tails.bytes(), tails.read(2)), (0, Kept::Unknown), "nobody read");
    }
}
