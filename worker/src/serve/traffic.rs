//! What is counted of requests, for `/metrics`.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Requests by path, as declared: a user's id is no label.
#[derive(Clone, Debug)]
pub struct Traffic {
    answers: Family<Answer, Counter>,
    times: Family<Path, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    path: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Path {
    path: &'static str,
}

/// From an eighth of a millisecond to 8 s.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_125, 2.0, 17))
}

impl Default for Traffic {
    fn default() -> Self {
        Self { answers: Family::default(), times: Family::new_with_constructor(histogram) }
    }
}

impl Traffic {
    /// `took`: from the request's headers to its answer, the way of the body included.
    pub fn count(&self, path: &'static str, status: u16, took: Duration) {
        self.answers.get_or_create(&Answer { path, status }).inc();
        self.times.get_or_create(&Path { path }).observe(took.as_secs_f64());
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register("http_answers", "Requests answered, by path and status", self.answers.clone());
        let help = "Time from a request's headers to its answer";
        registry.register_with_unit("http_answer", help, Unit::Seconds, self.times.clone());
    }
}
