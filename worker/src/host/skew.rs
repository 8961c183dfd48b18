//! What ingest tasks tell each other: how far each origin has come, and how fast all of them may read.

use std::sync::{
    Mutex,
    atomic::{AtomicI64, AtomicU8, Ordering},
};
use std::time::Duration;

use millrace_engine::{event::Time, frame::OriginState};

/// Watermarks of all origins, shared by the engine threads. Reading an old value only makes a task wait longer.
pub struct Watermarks {
    origins: Vec<(AtomicI64, AtomicU8)>,
}

impl Watermarks {
    /// Origins do not count until they are published.
    pub fn new(origins: usize) -> Self {
        let idle = OriginState::Idle as u8;
        Self { origins: (0..origins).map(|_| (AtomicI64::new(i64::MIN), AtomicU8::new(idle))).collect() }
    }

    pub fn publish(&self, origin: usize, watermark: Time, state: OriginState) {
        let (time, of) = &self.origins[origin];
        time.store(watermark.0, Ordering::Release);
        of.store(state as u8, Ordering::Release);
    }

    /// The lowest watermark of the active origins; the far future if none is.
    pub fn lowest(&self) -> Time {
        let active =
            self.origins.iter().filter(|(_, state)| state.load(Ordering::Acquire) == OriginState::Active as u8);
        active.map(|(time, _)| Time(time.load(Ordering::Acquire))).min().unwrap_or(Time::MAX)
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
    fn what_is_not_read_is_left_for_others() {
        let pacer = Pacer::new(Some(1.0));
        pacer.give_back(1);
        assert_eq!(pacer.allow(256, Duration::ZERO), 1, "at its end: reads nothing");
        pacer.give_back(1);
        assert_eq!(pacer.allow(256, Duration::ZERO), 1, "the next one has it");
        assert_eq!(pacer.allow(256, Duration::ZERO), 0);
    }
}
