//! What is tried again, and when.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use super::{
    Bucket,
    fault::{Effect, Fault},
};

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What it does to do something twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twice {
    /// It makes no difference.
    Same,
    /// It must not be done twice: a write whose first try was done unseen finds its own content in the way.
    Never,
}

impl Bucket {
    /// One request, and the time it may take with so many bytes.
    pub(super) async fn request<T, E>(
        &self,
        bytes: u64,
        answer: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let time = self.tuning.time_for(bytes);
        match tokio::time::timeout(time, answer).await {
            Ok(answer) => answer.map_err(Fault::of),
            Err(_) => Err(Fault::timed_out(time)),
        }
    }

    /// Tries again, with pauses, what has certainly done nothing, or what may be done twice.
    pub(super) async fn try_again<T, F>(&self, twice: Twice, mut attempt: impl FnMut() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let (began, mut pause) = (Instant::now(), self.tuning.pause);
        for number in 1..self.tuning.tries {
            match attempt().await {
                Err(Fault::Failed(effect, trouble))
                    if began.elapsed() < self.tuning.patience
                        && (effect == Effect::NotYet || (effect == Effect::Unclear && twice == Twice::Same)) =>
                {
                    tracing::debug!(place = self.place, number, %trouble, "a request is tried again");
                }
                ended => return ended,
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        attempt().await
    }
}

/// Half of it up to all of it, so that those who were refused together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) as u32;
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}
