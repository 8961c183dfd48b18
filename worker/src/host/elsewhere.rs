//! How far the origins have come that other workers read: by the section headers of one events partition, since every
//! origin's watermark reaches every partition. So ingest holds back here what is far ahead of sources that are read there.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use millrace_engine::{
    event::Time,
    frame::{Frame, Kind, Origin, OriginState, SectionHead},
};

use super::{ingest::Shared, thread::Control};
use crate::log::{FIRST_OFFSET, ReadError, Record};

/// One events partition, read apart from the task that it belongs to.
pub struct Elsewhere {
    /// Offset of its next record.
    pub end: Box<dyn Fn() -> Result<u64, ReadError> + Send + Sync>,
    /// What is here now from an offset on.
    pub read: Box<dyn Fn(u64) -> Result<Vec<Record>, ReadError> + Send + Sync>,
}

/// Records before the end in which origins that are quiet just then have told of themselves, most likely. Of whom nothing was
/// heard, nobody waits for.
const BACK_RECORDS: u64 = 256;
/// An origin of which nothing is heard for so long is not waited for: perhaps nobody can read it. If it is only quiet, more
/// events than usual wait in memory; nothing else depends on it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Between two looks when there was nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Starts the thread that reads, until the host stops. `numbers`: of the pipeline's origins, in their order.
pub fn hear(
    elsewhere: Elsewhere,
    numbers: BTreeMap<Origin, usize>,
    shared: Arc<Shared>,
    control: Arc<Control>,
) -> std::io::Result<JoinHandle<()>> {
    let run = move || {
        let mut hearing = Hearing { elsewhere, numbers, shared, next: None, told: BTreeMap::new() };
        while !control.stop.load(Ordering::Acquire) {
            match hearing.step(Instant::now()) {
                Ok(true) => {}
                Ok(false) => thread::sleep(LOOK_EVERY),
                Err(error) => {
                    tracing::warn!(%error, "how far other workers' sources have come is not heard; it is tried again");
                    thread::sleep(TRY_AGAIN_AFTER);
                }
            }
        }
    };
    thread::Builder::new().name("elsewhere".into()).spawn(run)
}

struct Hearing {
    elsewhere: Elsewhere,
    numbers: BTreeMap<Origin, usize>,
    shared: Arc<Shared>,
    next: Option<u64>,
    /// By origin's number.
    told: BTreeMap<usize, Told>,
}

/// What the newest owner of an origin has told.
struct Told {
    epoch: u64,
    /// Never falls: an owner that begins says that it knows nothing yet.
    watermark: Time,
    at: Instant,
}

impl Hearing {
    /// Whether there was anything.
    fn step(&mut self, now: Instant) -> Result<bool, ReadError> {
        let from = match self.next {
            Some(from) => from,
            None => (self.elsewhere.end)()?.saturating_sub(BACK_RECORDS).max(FIRST_OFFSET),
        };
        self.next = Some(from);
        let records = match (self.elsewhere.read)(from) {
            Err(ReadError::Trimmed { oldest, .. }) => {
                self.next = Some(oldest);
                return Ok(true);
            }
            records => records?,
        };
        for (offset, bytes) in &records {
            self.next = Some(offset + 1);
            // Those that cannot be read are the task's matter.
            let Ok(frame) = Frame::read(bytes, Kind::Events) else { continue };
            frame.sections().map_while(Result::ok).for_each(|section| self.heard(&section.head, now));
        }
        self.forget(now);
        Ok(!records.is_empty())
    }

    fn heard(&mut self, head: &SectionHead, now: Instant) {
        let Some(number) = self.numbers.get(&head.origin) else { return };
        let told = self.told.entry(*number).or_insert(Told { epoch: 0, watermark: Time::MIN, at: now });
        if head.epoch < told.epoch {
            return;
        }
        *told = Told { epoch: head.epoch, watermark: told.watermark.max(head.progress.watermark), at: now };
        if told.watermark > Time::MIN {
            self.shared.watermarks.heard(*number, told.watermark, head.progress.state);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.told.retain(|number, told| {
            let is_known = now.saturating_duration_since(told.at) < FORGOTTEN_AFTER;
            if !is_known {
                self.shared.watermarks.heard(*number, told.watermark, OriginState::Idle);
            }
            is_known
        });
    }
}

#[cfg(test)]
mod tests {
    use millrace_engine::{
        event::Seq,
        frame::{FrameWriter, Progress},
    };

    use super::*;
    use crate::{
        host::skew::Watermarks,
        log::{Log, LogPartition, memory::MemoryLog},
    };

    fn frame(origin: Origin, epoch: u64, watermark: Time, state: OriginState) -> Vec<u8> {
        let progress = Progress { watermark, highest: watermark, state };
        let mut frame = FrameWriter::new(Kind::Events, 1, 100);
        frame.section(&SectionHead { origin, epoch, from: Seq::START, to: Seq::START, progress }, &[]);
        frame.finish()
    }

    const HERE: Origin = Origin { source: 0, topic: 0, partition: 0, incarnation: 0 };
    const THERE: Origin = Origin { source: 0, topic: 0, partition: 1, incarnation: 0 };

    struct World {
        log: Arc<MemoryLog>,
        hearing: Hearing,
        now: Instant,
    }

    fn hearing(log: &Arc<MemoryLog>, shared: Arc<Shared>) -> Hearing {
        let partition = LogPartition::new("events", 0);
        let (end, read, at) = (log.clone(), log.clone(), partition.clone());
        let elsewhere = Elsewhere {
            end: Box::new(move || end.end(&at)),
            read: Box::new(move |offset| read.read(&partition, offset, 1_000)),
        };
        Hearing {
            elsewhere,
            numbers: BTreeMap::from([(HERE, 0), (THERE, 1)]),
            shared,
            next: None,
            told: BTreeMap::new(),
        }
    }

    impl World {
        fn new() -> Self {
            let shared = Arc::into_inner(Shared::new(&[], None)).unwrap();
            let shared = Arc::new(Shared { watermarks: Watermarks::new(2), ..shared });
            shared.watermarks.publish(0, Time(70), OriginState::Active);
            let log = Arc::new(MemoryLog::default());
            Self { hearing: hearing(&log, shared), log, now: Instant::now() }
        }

        /// The lowest watermark after this frame.
        fn hear(&mut self, frame: Vec<u8>) -> Time {
            self.log.append(&[(LogPartition::new("events", 0), frame)]).unwrap();
            self.lowest()
        }

        fn lowest(&mut self) -> Time {
            while self.hearing.step(self.now).unwrap() {}
            self.hearing.shared.watermarks.lowest()
        }
    }

    #[test]
    fn what_others_tell_in_their_frames_is_heard() {
        let mut world = World::new();
        assert_eq!(world.lowest(), Time(70));
        assert_eq!(world.hear(frame(THERE, 1, Time(30), OriginState::Active)), Time(30));
        assert_eq!(world.hear(frame(HERE, 1, Time(10), OriginState::Active)), Time(30), "it is read here");
        assert_eq!(world.hear(frame(Origin::of_source(7, 0), 1, Time(5), OriginState::Active)), Time(30), "unknown");
        assert_eq!(world.hear(b"?".to_vec()), Time(30), "no frame");
        assert_eq!(world.hear(frame(THERE, 1, Time(60), OriginState::Active)), Time(60));
        assert_eq!(world.hear(frame(THERE, 1, Time(60), OriginState::Idle)), Time(70));
        let mut late = hearing(&world.log, world.hearing.shared.clone());
        world.hearing.shared.watermarks.heard(1, Time(0), OriginState::Active);
        while late.step(world.now).unwrap() {}
        assert_eq!(world.hearing.shared.watermarks.lowest(), Time(70), "whoever comes later hears the newest");
    }

    #[test]
    fn an_owner_that_begins_holds_nobody_up_and_a_former_one_is_not_heard() {
        let mut world = World::new();
        assert_eq!(
            world.hear(frame(THERE, 1, Time::MIN, OriginState::Active)),
            Time(70),
            "it has not read anything yet"
        );
        assert_eq!(world.hear(frame(THERE, 1, Time(40), OriginState::Active)), Time(40));
        assert_eq!(world.hear(frame(THERE, 2, Time::MIN, OriginState::Active)), Time(40), "its successor begins");
        assert_eq!(world.hear(frame(THERE, 2, Time(50), OriginState::Active)), Time(50));
        assert_eq!(world.hear(frame(THERE, 1, Time(45), OriginState::Active)), Time(50));
    }

    #[test]
    fn an_origin_of_which_nothing_is_heard_any_more_is_not_waited_for() {
        let mut world = World::new();
        assert_eq!(world.hear(frame(THERE, 1, Time(30), OriginState::Active)), Time(30));
        world.now += FORGOTTEN_AFTER;
        assert_eq!(world.lowest(), Time(70));
        assert_eq!(world.hear(frame(THERE, 1, Time(35), OriginState::Active)), Time(35), "it was only quiet");
    }
}
