//! What is kept of users, sessions and items.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Span;

/// One feature. Exactly one of the fields from `count` to `attribute` says what it is.
///
/// Events are given by name, one or a list. `of` and `by` are `value`, `item`, or an allowed attribute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Feature {
    /// Whose it is. Default: user.
    pub per: Per,
    /// Number of these events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Names>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<Names>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Names>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Names>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Names>,
    /// A sum whose terms halve every `halfLife` (of `of`, or of 1 for each event).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decayed_sum: Option<Names>,
    /// The value of `of` in the last of these events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Names>,
    /// The last `n` values of `of`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_n: Option<Names>,
    /// Number of distinct values of `of`: exact to 32, then HyperLogLog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<Names>,
    /// `[part, whole]`: count of the one over count of the other, smoothed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<[String; 2]>,
    /// Seconds since the last of these events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_since: Option<Names>,
    /// Share of these events, decayed by `halfLife`, that had the candidate's value of `by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Names>,
    /// 1 if any of these allowed attributes is a number above zero, `true`, or text that is not empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_of: Option<Vec<String>>,
    /// The value of this allowed attribute itself, for `bucket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,

    /// What is summed, kept or told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Kept apart for each value of this (`count` without `window`, `affinity`); read for the candidate's value of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Only what is younger than this (count, sum, mean, min, max, ratio).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    /// The window starts anew at its multiples instead of sliding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tumbling: Option<bool>,
    /// Buckets of a sliding window: it moves in steps of `window / buckets`. Default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub buckets: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_life: Option<Span>,
    /// For `lastN`. At most 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub n: Option<u32>,
    /// For `affinity`: so many values of `by` are kept, each 8 bytes of a profile; a further one takes the lightest one's
    /// place. Default 8, at most 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub keep: Option<u32>,
    /// For `ratio`: so many events of the prior are added. Per item the prior is the ratio of all items, per user and
    /// session 0. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub smoothing: Option<f64>,
    /// Makes a category of the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Bucket>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Names {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    #[default]
    User,
    Session,
    /// Kept by the model task, over the model's own examples (`count` and `ratio` of its outcome and `impression`).
    Item,
    /// Likewise, over all items.
    Global,
}

/// At most one of `bounds` and `log2`; `max` alone keeps whole numbers apart up to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bucket {
    /// Ascending; the bucket of x is the number of bounds that are not above it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub bounds: Vec<f64>,
    /// floor(log2 * log2(x)): so many buckets for each doubling. Numbers below 1 are in bucket 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub log2: Option<f64>,
    /// The last bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub max: Option<u32>,
}
