//! What was there when a host started has to be read before decisions are personal: among it may be withdrawals and
//! erasures that were accepted by the process before.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use millrace_engine::{event::Seq, frame::coverage::Coverage};

use crate::log::{FIRST_OFFSET, Log, LogPartition};

/// How much is still to be read, or to be told, until everybody knows what was accepted before the start.
#[derive(Debug, Default)]
pub struct CatchUp {
    /// Topics that are not in the events log yet.
    topics: AtomicUsize,
    /// Events partitions that are not read to there yet.
    partitions: AtomicUsize,
    /// Threads that have not been told of every model.
    threads: AtomicUsize,
}

impl CatchUp {
    pub fn expect_topic(&self) {
        self.topics.fetch_add(1, Ordering::AcqRel);
    }
    pub fn expect_partition(&self) {
        self.partitions.fetch_add(1, Ordering::AcqRel);
    }
    pub fn expect_thread(&self) {
        self.threads.fetch_add(1, Ordering::AcqRel);
    }
    pub fn topic_is_read(&self) {
        self.topics.fetch_sub(1, Ordering::AcqRel);
    }
    pub fn partition_is_read(&self) {
        self.partitions.fetch_sub(1, Ordering::AcqRel);
    }
    pub fn thread_is_told(&self) {
        self.threads.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn has_topics(&self) -> bool {
        self.topics.load(Ordering::Acquire) == 0
    }
    /// May users be personalized?
    pub fn has_users(&self) -> bool {
        self.has_topics() && self.partitions.load(Ordering::Acquire) == 0
    }
    pub fn is_done(&self) -> bool {
        self.has_users() && self.threads.load(Ordering::Acquire) == 0
    }
}

/// Where a task is on its way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A topic of what is posted.
    Topic(UpTo),
    /// It has been; what came of it is in the log once this ticket is acknowledged, or nothing is on its way.
    Ticket(u64),
    /// An events partition; how far is known once all topics are in.
    Partition(UpTo),
    /// An events partition that came from another host; what was posted until then is to be in it as well.
    TakenOver(UpTo),
    No,
}

/// How far a log is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpTo {
    NotAsked,
    /// To its end as of then, or later.
    Asked(Instant),
    Offset(u64),
}

impl UpTo {
    /// Has a reader that has applied so much of an origin, whose input this is of, got there?
    pub fn is_covered(self, coverage: Option<Coverage>) -> bool {
        match self {
            Self::NotAsked | Self::Asked(_) => false,
            Self::Offset(end) if end <= FIRST_OFFSET => true,
            Self::Offset(end) => coverage.is_some_and(|coverage| coverage.applied >= Seq::end_of(end - 1)),
        }
    }

    /// Asks the log, or takes its answer.
    pub fn ask(self, log: &dyn Log, partition: &LogPartition) -> Self {
        let asked = match self {
            Self::NotAsked => Instant::now(),
            Self::Asked(asked) => asked,
            Self::Offset(_) => return self,
        };
        log.end_since(partition, asked).map_or(Self::Asked(asked), Self::Offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_covered_once_its_last_record_is() {
        let applied = |offset| Some(Coverage { epoch: 1, applied: Seq::end_of(offset) });
        assert!(!UpTo::NotAsked.is_covered(applied(9)));
        assert!(UpTo::Offset(FIRST_OFFSET).is_covered(None), "an empty one");
        let two = UpTo::Offset(3);
        assert_eq!(
            [None, applied(1), applied(2), applied(3)].map(|coverage| two.is_covered(coverage)),
            [false, false, true, true]
        );
    }
}
