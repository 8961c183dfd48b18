//! What went wrong with a store, for people: what, where, and what to do about it. Holds no secrets.

use std::{borrow::Cow, fmt, time::Duration};

/// The store cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{place}: no region is known; set spec.checkpoints.s3.region or AWS_REGION")]
    NoRegion { place: String },
    #[error("cannot start threads for the checkpoint store: {cause}")]
    Threads { cause: String },
}

/// What went wrong with a request, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {trouble}")]
pub struct S3Error {
    /// Such as `s3://bucket/prefix/ at https://host`.
    pub place: String,
    pub trouble: Trouble,
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("there is no such object")]
    Missing,
    #[error("another write came first")]
    Conflict,
    #[error("no connection could be made ({cause}); check the endpoint and the network, and that the store runs")]
    Unreachable { cause: String },
    #[error(
        "no credentials ({cause}); give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, as a profile, or as the role of this machine or pod"
    )]
    NoCredentials { cause: String },
    #[error("no answer within {} ms", after.as_millis())]
    TimedOut { after: Duration },
    #[error("the connection was lost before there was an answer ({cause})")]
    Lost { cause: String },
    /// Also: a body that is short, or whose checksum is wrong.
    #[error("its answer cannot be used: {what}")]
    Unusable { what: String },
    #[error("the request cannot be made: {cause}")]
    Unasked { cause: String },
    #[error("{0}")]
    Answered(Refusal),
}

/// An answer with an error in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// Empty if the answer has none.
    pub code: String,
    pub message: String,
    /// Where the bucket is, if the answer says so.
    pub region: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, message, .. } = self;
        write!(f, "it answered {status}")?;
        for text in [code, message] {
            if !text.is_empty() {
                write!(f, " {text}")?;
            }
        }
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl Refusal {
    /// What to do about it.
    fn advice(&self) -> Option<Cow<'static, str>> {
        let advice = match (self.code.as_str(), self.status) {
            ("NoSuchBucket", _) => "create the bucket, or correct spec.checkpoints.s3.bucket",
            // The last one is versitygw's.
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "XAdminUserNotFound", _) => {
                "the store does not know these credentials: check them"
            }
            ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken", _) => {
                "the credentials have expired: renew them"
            }
            ("RequestTimeTooSkewed" | "RequestExpired", _) => "the clock of this machine is wrong: set it",
            (
                "PermanentRedirect"
                | "TemporaryRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
                _,
            )
            | (_, 301 | 307) => {
                let is_in = self.region.as_ref().map_or(Cow::from("another region"), |region| region.into());
                return Some(format!("the bucket is in {is_in}: correct spec.checkpoints.s3.region").into());
            }
            ("NotImplemented", _) | (_, 501) => "this store lacks what checkpoints need: see `millrace store check`",
            ("SlowDown", _) | (_, 429) => "it is asked too often: it will be tried again later",
            (_, 403) => {
                "allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its keys and s3:ListBucket \
                 on the bucket (without that, an object that is not there is answered so too)"
            }
            _ => return None,
        };
        Some(advice.into())
    }
}
