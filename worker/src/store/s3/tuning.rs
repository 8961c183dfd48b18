//! How long is waited, how often is tried, and what is large.

use std::time::Duration;

const MIB: u64 = 1 << 20;

/// What tests set smaller; the default is meant for everything else.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer, beside the time that its bytes take.
    pub answer: Duration,
    /// A transfer that is slower than this is given up.
    pub slowest_bytes_per_second: u64,
    /// How often one request is sent at most.
    pub tries: u32,
    /// No try begins later than this after the first.
    pub patience: Duration,
    /// Before the second try; doubles with each further one.
    pub pause: Duration,
    /// Larger objects are sent in parts.
    pub whole_bytes: usize,
    /// Size of a part; S3 takes none below 5 MiB but the last.
    pub part_bytes: usize,
    /// Parts on their way at once.
    pub parts_at_once: usize,
    /// Objects named by one answer to a listing.
    pub page_objects: i32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(20),
            slowest_bytes_per_second: MIB,
            tries: 5,
            patience: Duration::from_secs(40),
            pause: Duration::from_millis(100),
            whole_bytes: (64 * MIB) as usize,
            part_bytes: (16 * MIB) as usize,
            parts_at_once: 4,
            page_objects: 1000,
        }
    }
}

impl Tuning {
    /// How long a request may take that carries so many bytes, or whose answer does.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest_bytes_per_second.max(1))
    }
}
