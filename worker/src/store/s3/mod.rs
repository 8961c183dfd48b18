//! Checkpoints in a bucket of S3, or of another store that speaks its protocol (`docs/s3.md`).
//!
//! Every write has a condition: `If-None-Match: *` creates, `If-Match` replaces the content of one ETag. A version is an
//! ETag. `connect` makes the client; `read` and `write` are the requests, `multipart` the writes of large objects;
//! `again` says what is tried again, `fault` what an answer that is none means, `error` what people are told of it.

mod again;
mod connect;
mod error;
mod fault;
mod multipart;
mod read;
#[cfg(test)]
mod tests;
mod tuning;
mod write;

use std::{future::Future, panic, thread};

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_sdk_s3::Client;
use millrace_crds::spec::S3;
use tokio::runtime::{Builder, Handle, Runtime};

pub use error::{OpenError, S3Error, Trouble};
pub use tuning::Tuning;

use super::{Digest, Listed, Object, Outcome, Store, StoreError, Version, check_key};
use fault::Fault;
use write::Condition;

/// Threads that keep connections going while nobody waits for an answer.
const THREADS: usize = 2;

/// A place in a bucket. Called from any thread: each call waits for its answer.
pub struct S3Store {
    bucket: Bucket,
    handle: Handle,
    /// None only while it is dropped.
    runtime: Option<Runtime>,
}

/// What requests need to know.
struct Bucket {
    client: Client,
    name: String,
    /// What every key begins with: nothing, or it ends with `/`.
    prefix: String,
    /// For messages.
    place: String,
    tuning: Tuning,
}

impl S3Store {
    /// With the credentials that the AWS SDK finds: of the environment, a profile, a web identity, a container or an
    /// instance. Asks the store nothing yet.
    ///
    /// # Errors
    /// No region is known, or threads cannot be started.
    pub fn open(place: &S3, tuning: Tuning) -> Result<Self, OpenError> {
        Self::open_in(place, tuning, aws_config::defaults(BehaviorVersion::latest()))
    }

    fn open_in(place: &S3, tuning: Tuning, environment: ConfigLoader) -> Result<Self, OpenError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|cause| OpenError::Threads { cause: cause.to_string() })?;
        let handle = runtime.handle().clone();
        let client = wait(&handle, connect::client(place, tuning.connect, environment))?;
        let bucket =
            Bucket { client, name: place.bucket.clone(), prefix: place.key_prefix(), place: place.to_string(), tuning };
        Ok(Self { bucket, handle, runtime: Some(runtime) })
    }

    /// Such as `s3://bucket/prefix/ at https://host`.
    pub fn place(&self) -> &str {
        &self.bucket.place
    }

    fn ask<T: Send>(&self, key: &str, work: impl Future<Output = Result<T, Fault>> + Send) -> Result<T, StoreError> {
        wait(&self.handle, work).map_err(|fault| self.bucket.error(key, fault))
    }

    fn write(&self, key: &str, condition: Condition<'_>, bytes: &[u8]) -> Outcome {
        if let Err(error) = check_key(key) {
            return Outcome::Failed(error);
        }
        match wait(&self.handle, self.bucket.write(key, condition, bytes)) {
            Ok(version) => Outcome::Done(version),
            Err(Fault::Conflict | Fault::Missing) => Outcome::Conflict,
            Err(fault) if fault.may_be_done() => Outcome::Unknown(self.bucket.error(key, fault)),
            Err(fault) => Outcome::Failed(self.bucket.error(key, fault)),
        }
    }
}

impl Bucket {
    /// The only place where the prefix is put before a key.
    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn error(&self, key: &str, fault: Fault) -> StoreError {
        StoreError::new(key, S3Error { place: self.place.clone(), trouble: fault.into_trouble() })
    }
}

/// Waits in this thread. A thread that drives tasks must not wait for one, so that another one does.
fn wait<T: Send>(handle: &Handle, work: impl Future<Output = T> + Send) -> T {
    if Handle::try_current().is_err() {
        return handle.block_on(work);
    }
    let waited = thread::scope(|scope| scope.spawn(|| handle.block_on(work)).join());
    waited.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

impl Store for S3Store {
    fn put(&self, key: &str, bytes: &[u8]) -> Outcome {
        self.write(key, Condition::None, bytes)
    }

    fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        check_key(key)?;
        self.ask(key, self.bucket.get(key))
    }

    fn digest(&self, key: &str) -> Result<Option<Digest>, StoreError> {
        check_key(key)?;
        self.ask(key, self.bucket.digest(key))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.ask(prefix, self.bucket.list(prefix))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        self.ask(key, self.bucket.delete(key))
    }

    fn swap(&self, key: &str, expected: Option<&Version>, bytes: &[u8]) -> Outcome {
        self.write(key, expected.map_or(Condition::None, Condition::Version), bytes)
    }
}

/// May happen in any thread, also in one that drives tasks.
impl Drop for S3Store {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
