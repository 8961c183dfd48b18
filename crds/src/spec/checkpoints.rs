//! How often state is saved, how long it is kept, and where.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{scalar::Span, schema};

/// How often state is saved, how long it is kept, and where.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Kept in a bucket of S3, or of another store that speaks its protocol. Default: in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// Time between two checkpoints of a task.
    pub interval: Span,
    /// How long checkpoints, and the log behind them, are kept. The newest two are always kept.
    pub retain: Span,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { s3: None, interval: Span::seconds(30), retain: Span::hours(48) }
    }
}

/// A place in an object store. Credentials are not written here: they come from where the AWS SDK looks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3 {
    #[schemars(length(min = 3, max = 63))]
    #[schemars(extend("x-kubernetes-validations" = schema::bucket()))]
    pub bucket: String,
    /// What all keys begin with, followed by a `/`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[schemars(extend("x-kubernetes-validations" = schema::key_prefix()))]
    pub prefix: Option<String>,
    /// Default: what the environment says; beside an `endpoint`, `us-east-1` where that says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[schemars(extend("x-kubernetes-validations" = schema::region()))]
    pub region: Option<String>,
    /// An `http://` or `https://` URL. Default: that of AWS, for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 500))]
    #[schemars(extend("x-kubernetes-validations" = schema::endpoint()))]
    pub endpoint: Option<String>,
    /// The bucket stands in the path of a URL instead of its host name, as many stores other than AWS need it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_style: bool,
}

impl S3 {
    /// What every key begins with: nothing, or the prefix with one `/` at its end.
    pub fn key_prefix(&self) -> String {
        let prefix = self.prefix.as_deref().unwrap_or_default().trim_end_matches('/');
        if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
    }
}

/// Such as `s3://bucket/prefix/ at https://host`; the same place is always written alike.
impl fmt::Display for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key_prefix())?;
        match (&self.endpoint, &self.region) {
            (Some(endpoint), _) => write!(f, " at {}", endpoint.trim_end_matches('/')),
            (None, Some(region)) => write!(f, " in {region}"),
            (None, None) => Ok(()),
        }
    }
}
