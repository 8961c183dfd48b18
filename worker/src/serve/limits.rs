//! How much may be asked: rates, requests under way, and the memory of bodies.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millrace_crds::spec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{BUSY, Problem, TOO_FREQUENT};

/// Bytes of a request's line and headers together.
pub const MAX_HEADER_BYTES: usize = 16 << 10;
/// Bytes of a path with its parameters: what remains is for the headers.
pub const MAX_URI_BYTES: usize = 8 << 10;
/// Decisions under way, over all requests.
const MAX_DECIDING: usize = 1_024;
/// Requests of other kinds under way, each.
const MAX_ACCEPTING: usize = 256;
const MAX_ADMIN: usize = 32;
/// Of a body beyond this, each KiB is counted, so that large ones cannot fill the memory together.
const FREE_BODY_BYTES: usize = 16 << 10;
/// Memory of all bodies beyond that, at least.
const BODIES_KIB: usize = 64 << 10;

/// How long others may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its headers; also of a TLS handshake.
    pub header: Duration,
    /// Of a whole body.
    pub body: Duration,
    /// Between two requests of a connection.
    pub idle: Duration,
    /// Without any byte of an answer taken.
    pub write: Duration,
    /// Until the engine has decided.
    pub decide: Duration,
    /// Until events or an erasure are durable.
    pub durable: Duration,
    /// After an answer to a request that was not read to its end.
    pub linger: Duration,
    /// For requests under way, when the server stops.
    pub stop: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            header: seconds(10),
            body: seconds(20),
            idle: seconds(75),
            write: seconds(10),
            decide: seconds(5),
            durable: seconds(30),
            linger: seconds(2),
            stop: seconds(10),
        }
    }
}

/// The limits of one server.
pub struct Limits {
    pub body_bytes: usize,
    pub timeouts: Timeouts,
    pub decisions: Bucket,
    pub events: Bucket,
    deciding: Arc<Semaphore>,
    accepting: Arc<Semaphore>,
    admin: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

impl Limits {
    pub fn new(limits: &spec::Limits, timeouts: Timeouts) -> Self {
        let body_bytes = limits.body_bytes as usize;
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            body_bytes,
            timeouts,
            decisions: Bucket::new(limits.decisions_per_second, "decisions"),
            events: Bucket::new(limits.events_per_second, "events"),
            deciding: semaphore(MAX_DECIDING),
            accepting: semaphore(MAX_ACCEPTING),
            admin: semaphore(MAX_ADMIN),
            bodies: semaphore(BODIES_KIB.max(4 * body_bytes / 1024)),
        }
    }
    /// Room for so many decisions.
    pub fn deciding(&self, decisions: usize) -> Result<OwnedSemaphorePermit, Problem> {
        room(&self.deciding, decisions, "decisions")
    }
    /// Room for a request with events.
    pub fn accepting(&self) -> Result<OwnedSemaphorePermit, Problem> {
        room(&self.accepting, 1, "requests with events")
    }
    /// Room for a request of the admin API.
    pub fn admin(&self) -> Result<OwnedSemaphorePermit, Problem> {
        room(&self.admin, 1, "requests to the admin API")
    }
    /// Room for the memory of one body.
    pub fn body(&self) -> BodyRoom {
        BodyRoom { bodies: Arc::clone(&self.bodies), held: None, kib: 0 }
    }
}

fn room(of: &Arc<Semaphore>, permits: usize, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
    let permits = u32::try_from(permits).unwrap_or(u32::MAX);
    Arc::clone(of).try_acquire_many_owned(permits).map_err(|_| {
        Problem::new(BUSY, format!("too many {what} are under way; come again")).retry_after(Duration::from_secs(1))
    })
}

/// What a body holds of the memory for all bodies, until it is dropped.
pub struct BodyRoom {
    bodies: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    kib: usize,
}

impl BodyRoom {
    /// Has room for so many bytes in total.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let kib = bytes.saturating_sub(FREE_BODY_BYTES).div_ceil(1024);
        if kib > self.kib {
            let more = room(&self.bodies, kib - self.kib, "large bodies")?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
            self.kib = kib;
        }
        Ok(())
    }
}

/// A rate with bursts of a second's worth: what is taken is paid back with time. A request that finds anything left is let
/// through whole, so that also one larger than the rate passes, and the next one waits the longer.
pub struct Bucket {
    per_second: f64,
    what: &'static str,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(per_second: u32, what: &'static str) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, what, state: Mutex::new((per_second, Instant::now())) }
    }

    /// Takes `n`, or says when there will be something again.
    pub fn take(&self, n: usize) -> Result<(), Problem> {
        self.take_at(n, Instant::now()).map_err(|wait| {
            let detail = format!("more than {} {} a second; come again later", self.per_second, self.what);
            Problem::new(TOO_FREQUENT, detail).with("limit", self.per_second as u64).retry_after(wait)
        })
    }

    fn take_at(&self, n: usize, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, before) = *state;
        let refilled = left + now.saturating_duration_since(before).as_secs_f64() * self.per_second;
        let left = refilled.min(self.per_second);
        *state = (left, now.max(before));
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / self.per_second));
        }
        state.0 -= n as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_seconds_worth_through_and_refills() {
        let bucket = Bucket::new(10, "events");
        let start = bucket.state.lock().unwrap().1;
        let at = |ms| start + Duration::from_millis(ms);
        assert!((0..10).all(|_| bucket.take_at(1, at(0)).is_ok()));
        assert_eq!(bucket.take_at(1, at(0)), Err(Duration::from_millis(100)));
        assert!(bucket.take_at(1, at(100)).is_ok() && bucket.take_at(1, at(150)).is_err());
        // A long pause fills no more than a second's worth.
        assert!((0..10).all(|_| bucket.take_at(1, at(60_000)).is_ok()) && bucket.take_at(1, at(60_000)).is_err());
    }

    #[test]
    fn what_is_larger_than_the_rate_is_paid_back() {
        let bucket = Bucket::new(10, "events");
        let start = bucket.state.lock().unwrap().1;
        assert!(bucket.take_at(100, start).is_ok());
        assert_eq!(bucket.take_at(1, start), Err(Duration::from_millis(9_100)));
        assert!(bucket.take_at(1, start + Duration::from_millis(9_100)).is_ok());
    }

    #[test]
    fn large_bodies_share_a_bounded_memory_and_small_ones_are_free() {
        let limits = Limits::new(&spec::Limits::default(), Timeouts::default());
        let mut large: Vec<BodyRoom> = (0..65).map(|_| limits.body()).collect();
        let granted = large.iter_mut().filter_map(|room| room.grow(1 << 20).ok()).count();
        assert_eq!(granted, 65, "1 MiB each, of which 16 KiB are free");
        let mut next = limits.body();
        assert!(next.grow(1 << 20).is_err() && next.grow(FREE_BODY_BYTES).is_ok());
        large.pop();
        assert!(next.grow(1 << 20).is_ok());
    }
}
