//! What ingest tasks tell each other: how far each origin has come, and how fast all of them may read.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering},
};
use std::time::Duration;

use millrace_engine::{event::Time, frame::OriginState};

/// Watermarks of all origins, shared by the engine threads. Reading an old value only makes a task wait longer.
pub struct Watermarks {
    origins: Vec<OfOrigin>,
}

struct OfOrigin {
    time: AtomicI64,
    state: AtomicU8,
    /// It is read by a task of this host, which knows best.
    is_here: AtomicBool,
}

impl OfOrigin {
    fn set(&self, watermark: Time, state: OriginState) {
        self.time.store(watermark.0, Ordering::Release);
        self.state.store(state as u8, Ordering::Release);
    }
}

impl Watermarks {
    /// Origins do not count until they are published.
    pub fn new(origins: usize) -> Self {
        let unknown = || OfOrigin {
            time: AtomicI64::new(i64::MIN),
            state: AtomicU8::new(OriginState::Idle as u8),
            is_here: AtomicBool::new(false),
        };
        Self { origins: (0..origins).map(|_| unknown()).collect() }
    }

    /// By the task that reads it here.
    pub fn publish(&self, origin: usize, watermark: Time, state: OriginState) {
        self.origins[origin].is_here.store(true, Ordering::Release);
        self.origins[origin].set(watermark, state);
    }

    /// It is not read here any more; others do not wait for it, unless it is heard of from elsewhere.
    pub fn let_go(&self, origin: usize) {
        let origin = &self.origins[origin];
        origin.state.store(OriginState::Idle as u8, Ordering::Release);
        origin.is_here.store(false, Ordering::Release);
    }

    /// From a log, to which somebody else told it.
    pub fn heard(&self, origin: usize, watermark: Time, state: OriginState) {
        let origin = &self.origins[origin];
        if !origin.is_here.load(Ordering::Acquire) {
            origin.set(watermark, state);
        }
    }

    /// The lowest watermark of the active origins; the far future if none is.
    pub fn lowest(&self) -> Time {
        let active =
            self.origins.iter().filter(|origin| origin.state.load(Ordering::Acquire) == OriginState::Active as u8);
        active.map(|origin| Time(origin.time.load(Ordering::Acquire))).min().unwrap_or(Time::MAX)
    }
}

/// Lets at most so many records a second pass, over all sources.
pub struct Pacer {
    per_second: Option<f64>,
    /// When records were last let pass, and how many more might have been.
    state: Mutex<(Duration, f64)>,
}

/// At most this much of a second may be caught up with at once.
const BURST_SECONDS: f64 = 0.05;

impl Pacer {
    pub fn new(per_second: Option<f64>) -> Self {
        Self { per_second, state: Mutex::default() }
    }

    /// How many of `wanted` records may be read now; `now` is the same clock for all who ask.
    pub fn allow(&self, wanted: usize, now: Duration) -> usize {
        let Some(rate) = self.per_second else { return wanted };
        let Ok(mut state) = self.state.lock() else { return wanted };
        let saved = state.1 + now.saturating_sub(state.0).as_secs_f64() * rate;
        let saved = saved.min((rate * BURST_SECONDS).max(1.0));
        let allowed = (saved as usize).min(wanted);
        *state = (state.0.max(now), saved - allowed as f64);
        allowed
    }

    /// What was allowed and not read is for others: a file at its end must not starve them.
    pub fn give_back(&self, unread: usize) {
        if self.per_second.is_some()
            && unread > 0
            && let Ok(mut state) = self.state.lock()
        {
            state.1 += unread as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_an_origin_knows_best() {
        let watermarks = Watermarks::new(2);
        assert_eq!(watermarks.lowest(), Time::MAX, "of nobody anything was heard");
        watermarks.publish(0, Time(50), OriginState::Active);
        watermarks.heard(1, Time(10), OriginState::Active);
        watermarks.heard(0, Time(20), OriginState::Active);
        assert_eq!(watermarks.lowest(), Time(10));
        watermarks.heard(1, Time(90), OriginState::Active);
        assert_eq!(watermarks.lowest(), Time(50), "its own task says so, not what the log said before");
        watermarks.let_go(0);
        assert_eq!(watermarks.lowest(), Time(90));
        watermarks.heard(0, Time(60), OriginState::Active);
        assert_eq!(watermarks.lowest(), Time(60));
        watermarks.heard(0, Time(60), OriginState::Idle);
        assert_eq!(watermarks.lowest(), Time(90));
    }

    #[test]
    fn what_is_not_read_is_left_for_others() {
        let pacer = Pacer::new(Some(1.0));
        pacer.give_back(1);
        assert_eq!(pacer.allow(256, Duration::ZERO), 1, "at its end: reads nothing");
        pacer.give_back(1);
        assert_eq!(pacer.allow(256, Duration::ZERO), 1, "the next one has it");
        assert_eq!(pacer.allow(256, Duration::ZERO), 0);
    }
}
