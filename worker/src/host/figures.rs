//! How long decisions took, and the last of them: kept by the engine threads for whoever looks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millrace_engine::{control::Decision, decide::Reason, event::Pseudonym, learn::Standing};

use crate::overview::{DecisionFigures, ServingCopy};

/// Four buckets for each doubling, from a microsecond on: a quantile is off by at most 19 %.
const BUCKETS_A_DOUBLING: f64 = 4.0;
const BUCKETS: usize = 96;

/// Durations by size.
#[derive(Clone, Debug)]
struct Histogram {
    buckets: [u64; BUCKETS],
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0 }
    }
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let micros = (took.as_secs_f64() * 1e6).max(1.0);
        let bucket = (micros.log2() * BUCKETS_A_DOUBLING) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
    }

    fn merge(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, n)| *own += n);
        self.count += other.count;
    }

    /// Upper end of the bucket in which the quantile lies, in microseconds; 0 without any.
    fn quantile_micros(&self, quantile: f64) -> f64 {
        let wanted = (quantile * self.count as f64).ceil() as u64;
        let mut below = 0;
        for (bucket, n) in self.buckets.iter().enumerate() {
            below += n;
            if below >= wanted && wanted > 0 {
                return ((bucket + 1) as f64 / BUCKETS_A_DOUBLING).exp2();
            }
        }
        0.0
    }
}

/// A decision that was made a moment ago.
#[derive(Clone, Debug)]
pub struct Recent {
    /// As the caller got it.
    pub id: String,
    pub reason: Reason,
    pub decision: Decision,
    pub took: Duration,
}

/// So many of the last decisions are kept, at most one in [`RECENT_EVERY`], so that copying them costs nothing.
const RECENT: usize = 20;
const RECENT_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Inner {
    histogram: Histogram,
    recent: VecDeque<Arc<Recent>>,
    kept: Option<Instant>,
    /// By model.
    serving: BTreeMap<usize, ServingCopy>,
}

/// Of one engine thread.
#[derive(Debug, Default)]
pub struct Figures {
    inner: Mutex<Inner>,
}

impl Figures {
    pub fn add(&self, took: Duration, recent: impl FnOnce() -> Option<Recent>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.histogram.add(took);
        if inner.kept.is_some_and(|kept| kept.elapsed() < RECENT_EVERY) {
            return;
        }
        if let Some(recent) = recent() {
            inner.kept = Some(Instant::now());
            inner.recent.push_front(Arc::new(recent));
            inner.recent.truncate(RECENT);
        }
    }

    /// Nothing of this user is to be shown any more.
    pub fn forget(&self, user: Pseudonym) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.recent.retain(|recent| recent.decision.user != user);
    }

    /// A serving copy was brought up to date.
    pub fn serves(&self, model: usize, version: u64, standing: Standing) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.serving.insert(model, ServingCopy { version, standing, updated: Instant::now() });
    }

    /// Of each model the copy that is the furthest behind.
    pub fn serving(threads: &[Arc<Figures>]) -> BTreeMap<usize, ServingCopy> {
        let mut behind: BTreeMap<usize, ServingCopy> = BTreeMap::new();
        for figures in threads {
            for (model, copy) in &figures.inner.lock().unwrap_or_else(PoisonError::into_inner).serving {
                let kept = behind.entry(*model).or_insert(*copy);
                if copy.version < kept.version {
                    *kept = *copy;
                }
            }
        }
        behind
    }

    pub fn of_all(threads: &[Arc<Figures>]) -> DecisionFigures {
        let mut all = Histogram::default();
        threads.iter().for_each(|f| all.merge(&f.inner.lock().unwrap_or_else(PoisonError::into_inner).histogram));
        DecisionFigures {
            count: all.count,
            p50_micros: all.quantile_micros(0.5),
            p99_micros: all.quantile_micros(0.99),
        }
    }

    /// The last decisions of all threads, the newest first.
    pub fn recent(threads: &[Arc<Figures>]) -> Vec<Arc<Recent>> {
        let of = |f: &Arc<Figures>| f.inner.lock().unwrap_or_else(PoisonError::into_inner).recent.clone();
        let mut all: Vec<Arc<Recent>> = threads.iter().flat_map(of).collect();
        all.sort_by_key(|recent| std::cmp::Reverse(recent.decision.time));
        all.truncate(RECENT);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_that_is_behind_is_told() {
        let threads = [Arc::new(Figures::default()), Arc::new(Figures::default())];
        threads[0].serves(1, 70, Standing::Trusted);
        threads[1].serves(1, 60, Standing::FellBackToPrevious);
        let serving = Figures::serving(&threads);
        assert_eq!(serving.len(), 1);
        assert_eq!((serving[&1].version, serving[&1].standing), (60, Standing::FellBackToPrevious));
        assert_eq!(serving[&1].to_json()["fallBack"], "previous");
    }

    #[test]
    fn quantiles_are_near() {
        let figures = Arc::new(Figures::default());
        (1..=1000u64).for_each(|micros| figures.add(Duration::from_micros(micros), || None));
        let all = Figures::of_all(&[figures.clone(), figures]);
        assert_eq!(all.count, 2000);
        assert!((500.0..600.0).contains(&all.p50_micros), "{all:?}");
        assert!((990.0..1200.0).contains(&all.p99_micros), "{all:?}");
        assert_eq!(Figures::of_all(&[]).p99_micros, 0.0);
    }
}
