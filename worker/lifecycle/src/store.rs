//! The checkpoint store as it is seen from here: what is asked of it, and what it may answer.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Names one content of an object; another content has another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

impl Version {
    /// For stores that have no versions of their own: a digest.
    pub fn of(content: &[u8]) -> Self {
        Self(format!("{:032x}", xxh3_128(content)))
    }
}

/// How a write ended.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable, with this version.
    Done(Version),
    /// Nothing was written: the object is there already (`put`), or is not the expected one (`swap`).
    Conflict,
    /// Nothing was written.
    Failed(StoreError),
    /// It may have been written, or may be written later: read again before believing anything.
    Unknown(StoreError),
}

/// The store did not answer, or not as it should. Says nothing about what it holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint store failed at {key:?}: {cause}")]
pub struct StoreError {
    pub key: String,
    pub cause: String,
}

impl StoreError {
    pub fn new(key: &str, cause: impl ToString) -> Self {
        Self { key: key.to_owned(), cause: cause.to_string() }
    }
}

/// What was read, with its digest: whoever reads has the time for it, and whoever asked may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub version: Version,
    pub digest: Digest,
}

impl Object {
    /// Of a store that has no versions of its own.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { version: Version::of(&bytes), digest: Digest::of(&bytes), bytes }
    }
}

/// By which what was read of an object is known to be what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub size_bytes: u64,
    /// xxh3-64 of its bytes.
    pub digest: u64,
}

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self { size_bytes: bytes.len() as u64, digest: xxh3_64(bytes) }
    }
}

/// An object's key and size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub key: String,
    pub size_bytes: u64,
}

/// What is asked of the store. Keys are built by [`crate::keys`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The object as a whole.
    Get { key: String },
    /// The object is read as a whole, as `Get` does, and what is asked for is only its digest.
    Digest { key: String },
    /// Creates an object that is never changed.
    Put { key: String, bytes: Vec<u8> },
    /// Replaces an object if its version is the expected one; `None`: creates it if there is none.
    Swap { key: String, expected: Option<Version>, bytes: Vec<u8> },
    /// All objects whose key begins with `prefix`, by ascending key.
    List { prefix: String },
    /// Removes an object; it is no error if there is none.
    Delete { key: String },
}

impl Op {
    pub fn key(&self) -> &str {
        match self {
            Op::Get { key } | Op::Digest { key } | Op::Delete { key } => key,
            Op::Put { key, .. } | Op::Swap { key, .. } => key,
            Op::List { prefix } => prefix,
        }
    }
}

/// The store's answer, of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `None` only if the store answers that there is none.
    Got(Result<Option<Object>, StoreError>),
    /// Likewise.
    Digested(Result<Option<Digest>, StoreError>),
    /// To `Put` and `Swap`.
    Wrote(Outcome),
    Listed(Result<Vec<Listed>, StoreError>),
    Deleted(Result<(), StoreError>),
}

impl Answer {
    pub fn object(self) -> Result<Option<Object>, StoreError> {
        if let Answer::Got(got) = self { got } else { Err(self.of_another_kind()) }
    }
    pub fn digest(self) -> Result<Option<Digest>, StoreError> {
        if let Answer::Digested(digested) = self { digested } else { Err(self.of_another_kind()) }
    }
    pub fn outcome(self) -> Outcome {
        if let Answer::Wrote(outcome) = self { outcome } else { Outcome::Unknown(self.of_another_kind()) }
    }
    pub fn listed(self) -> Result<Vec<Listed>, StoreError> {
        if let Answer::Listed(listed) = self { listed } else { Err(self.of_another_kind()) }
    }
    pub fn deleted(self) -> Result<(), StoreError> {
        if let Answer::Deleted(deleted) = self { deleted } else { Err(self.of_another_kind()) }
    }

    fn of_another_kind(&self) -> StoreError {
        StoreError::new("", format!("it answered another question: {self:?}"))
    }
}

/// What a procedure wants: one more answer, or nothing more.
#[must_use]
#[derive(Debug)]
pub enum Next<P: Procedure> {
    Ask(P, Op),
    Done(P::Output),
}

/// A sequence of questions to the store, as data: whoever drives it asks them one by one and may stop at any of them, as
/// a crash would.
pub trait Procedure: Sized {
    type Output;
    fn answered(self, answer: Answer) -> Next<Self>;
}

impl<P: Procedure> Next<P> {
    /// Asks until there is nothing more to ask.
    pub fn run(self, mut ask: impl FnMut(Op) -> Answer) -> P::Output {
        let mut next = self;
        loop {
            match next {
                Next::Ask(procedure, op) => next = procedure.answered(ask(op)),
                Next::Done(output) => return output,
            }
        }
    }
}
