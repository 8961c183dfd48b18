//! How far the origins have come that other workers read: by the section headers of one events partition, since every
//! origin's watermark reaches every partition. So ingest holds back here what is far ahead of sources that are read there.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_engine::frame::{Frame, Kind, Origin};

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
        let mut next = None;
        while !control.stop.load(Ordering::Acquire) {
            match step(&elsewhere, &mut next, &numbers, &shared) {
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

/// Whether there was anything.
fn step(
    elsewhere: &Elsewhere,
    next: &mut Option<u64>,
    numbers: &BTreeMap<Origin, usize>,
    shared: &Shared,
) -> Result<bool, ReadError> {
    let from = match *next {
        Some(from) => from,
        None => (elsewhere.end)()?.saturating_sub(BACK_RECORDS).max(FIRST_OFFSET),
    };
    *next = Some(from);
    let records = match (elsewhere.read)(from) {
        Err(ReadError::Trimmed { oldest, .. }) => {
            *next = Some(oldest);
            return Ok(true);
        }
        records => records?,
    };
    for (offset, bytes) in &records {
        *next = Some(offset + 1);
        // Those that cannot be read are the task's matter.
        let Ok(frame) = Frame::read(bytes, Kind::Events) else { continue };
        for section in frame.sections().map_while(Result::ok) {
            if let Some(number) = numbers.get(&section.head.origin) {
                shared.watermarks.heard(*number, section.head.progress.watermark, section.head.progress.state);
            }
        }
    }
    Ok(!records.is_empty())
}

#[cfg(test)]
mod tests {
    use millrace_engine::{
        event::{Seq, Time},
        frame::{FrameWriter, OriginState, Progress, SectionHead},
    };

    use super::*;
    use crate::log::{Log, LogPartition, memory::MemoryLog};

    fn frame(origin: Origin, watermark: i64, state: OriginState) -> Vec<u8> {
        let progress = Progress { watermark: Time(watermark), highest: Time(watermark), state };
        let mut frame = FrameWriter::new(Kind::Events, 1, 100);
        frame.section(&SectionHead { origin, epoch: 1, from: Seq::START, to: Seq::START, progress }, &[]);
        frame.finish()
    }

    #[test]
    fn what_others_tell_in_their_frames_is_heard() {
        let (log, partition) = (Arc::new(MemoryLog::default()), LogPartition::new("events", 0));
        let (end, read, at, from) = (log.clone(), log.clone(), partition.clone(), partition.clone());
        let elsewhere = Elsewhere {
            end: Box::new(move || end.end(&at)),
            read: Box::new(move |offset| read.read(&from, offset, 1_000)),
        };
        let (here, there) = (Origin::of_source(0, 0), Origin::of_source(0, 1));
        let numbers = BTreeMap::from([(here, 0), (there, 1)]);
        let shared = Shared::new(&[], None);
        let shared =
            Arc::new(Shared { watermarks: super::super::skew::Watermarks::new(2), ..Arc::into_inner(shared).unwrap() });
        shared.watermarks.publish(0, Time(70), OriginState::Active);
        let mut next = None;
        let mut hear = |frames: &[Vec<u8>]| {
            for frame in frames {
                log.append(&[(partition.clone(), frame.clone())]).unwrap();
            }
            while step(&elsewhere, &mut next, &numbers, &shared).unwrap() {}
            shared.watermarks.lowest()
        };
        assert_eq!(hear(&[]), Time(70));
        assert_eq!(hear(&[frame(there, 30, OriginState::Active), frame(here, 10, OriginState::Active)]), Time(30));
        // Of an origin that this worker does not know, and what is no frame.
        assert_eq!(hear(&[frame(Origin::of_source(7, 0), 5, OriginState::Active), b"?".to_vec()]), Time(30));
        assert_eq!(hear(&[frame(there, 60, OriginState::Active)]), Time(60));
        assert_eq!(hear(&[frame(there, 60, OriginState::Idle)]), Time(70));
        let mut late = None;
        shared.watermarks.heard(1, Time(0), OriginState::Active);
        while step(&elsewhere, &mut late, &numbers, &shared).unwrap() {}
        assert_eq!(shared.watermarks.lowest(), Time(70), "whoever comes later hears the newest");
    }
}
