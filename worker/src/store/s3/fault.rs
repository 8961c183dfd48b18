//! What an answer that is none, or an error, means for what was asked.
//!
//! Error codes: "Error responses", Amazon S3 API Reference; those of conditional writes: "How to prevent object overwrites
//! with conditional writes", Amazon S3 User Guide.

use std::{error::Error, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use hyper_util::client::legacy;

use super::error::{Refusal, Trouble};

/// Longer messages of a store are cut.
const MAX_MESSAGE_CHARS: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing was done, and it may well be done if it is asked again.
    NotYet,
    /// Nothing was done, and asking again helps nothing.
    None,
    /// It may have been done, or may be done later.
    Unclear,
}

/// Why a request did not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no such object.
    Missing,
    /// A write's condition did not hold. Nothing was written.
    Conflict,
    Failed(Effect, Trouble),
}

impl Fault {
    pub(super) fn may_be_done(&self) -> bool {
        matches!(self, Fault::Failed(Effect::Unclear, _))
    }

    pub(super) fn timed_out(after: Duration) -> Self {
        Fault::Failed(Effect::Unclear, Trouble::TimedOut { after })
    }

    /// The answer came, but is not what it should be.
    pub(super) fn unusable(what: impl Into<String>) -> Self {
        Fault::Failed(Effect::Unclear, Trouble::Unusable { what: what.into() })
    }

    /// Of a request before the one that writes: whatever it did, nothing was written.
    pub(super) fn before_the_write(self) -> Self {
        match self {
            Fault::Missing => Fault::Failed(Effect::None, Trouble::Missing),
            Fault::Conflict => Fault::Failed(Effect::None, Trouble::Conflict),
            Fault::Failed(_, trouble) => Fault::Failed(Effect::None, trouble),
        }
    }

    pub(super) fn into_trouble(self) -> Trouble {
        match self {
            Fault::Missing => Trouble::Missing,
            Fault::Conflict => Trouble::Conflict,
            Fault::Failed(_, trouble) => trouble,
        }
    }

    pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match &error {
            SdkError::ConstructionFailure(_) => {
                Fault::Failed(Effect::None, Trouble::Unasked { cause: innermost(&error) })
            }
            SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => Self::unanswered(&error),
            SdkError::ServiceError(answer) => Self::answered(answer.err(), answer.raw()),
            _ => Self::unusable(innermost(&error)),
        }
    }

    fn unanswered(error: &(dyn Error + 'static)) -> Self {
        let cause = innermost(error);
        let is_connect =
            |e: &(dyn Error + 'static)| e.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect);
        if chain(error).any(|e| e.is::<CredentialsError>()) {
            Fault::Failed(Effect::None, Trouble::NoCredentials { cause })
        } else if chain(error).any(is_connect) {
            Fault::Failed(Effect::NotYet, Trouble::Unreachable { cause })
        } else {
            Fault::Failed(Effect::Unclear, Trouble::Lost { cause })
        }
    }

    fn answered(error: &impl ProvideErrorMetadata, raw: &HttpResponse) -> Self {
        let status = raw.status().as_u16();
        let code = error.code().unwrap_or_default();
        let effect = match (code, status) {
            ("NoSuchKey", _) => return Fault::Missing,
            ("PreconditionFailed", _) | (_, 412) => return Fault::Conflict,
            // Another write of this object is under way; this one was refused.
            ("ConditionalRequestConflict" | "OperationAborted", _) | (_, 409) => Effect::NotYet,
            ("SlowDown" | "TooManyRequests" | "RequestLimitExceeded", _) | (_, 429) => Effect::NotYet,
            // The request came incomplete or damaged, and was dropped.
            ("RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentChecksumMismatch", 400) => Effect::NotYet,
            ("NotImplemented", _) => Effect::None,
            // Of an upload in parts: who ended it, and how?
            ("NoSuchUpload", _) => Effect::Unclear,
            (_, 300..500) => Effect::None,
            _ => Effect::Unclear,
        };
        let message =
            error.message().unwrap_or_default().trim_end_matches('.').chars().take(MAX_MESSAGE_CHARS).collect();
        let region = raw.headers().get("x-amz-bucket-region").map(str::to_owned);
        Fault::Failed(effect, Trouble::Answered(Refusal { status, code: code.to_owned(), message, region }))
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The cause behind all others, in words.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
