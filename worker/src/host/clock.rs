//! What people call the time: only ever written down, never decided by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_engine::event::Time;

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub fn unix_ms() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}

pub fn now() -> Time {
    Time(i64::try_from(since_1970().as_micros()).unwrap_or(i64::MAX))
}
