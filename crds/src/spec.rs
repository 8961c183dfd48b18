//! The `spec` of a `PersonalizationPipeline`, `v1alpha1`, as users write it.
//!
//! These are plain data: names are not resolved yet and combinations may still be wrong. [`crate::validate`]
//! says whether they are right; later code takes them as `Validated`. Bounds that are not given here come from
//! [`crate::schema`], so that every list, mapping and text has one.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    resource::PipelineStatus,
    scalar::{Scalar, Span},
    schema,
};

mod checkpoints;
mod decisions;
mod features;
mod kafka;

pub use checkpoints::*;
pub use decisions::*;
pub use features::*;
pub use kafka::*;

/// What to read, what to keep of it, what to learn from it.
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(group = "millrace.dev", version = "v1alpha1", kind = "PersonalizationPipeline", namespaced)]
#[kube(shortname = "mrp", status = "PipelineStatus", doc = "Events in, personalization out.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = schema::tidy)]
pub struct PipelineSpec {
    /// Partitions of the events log; users are spread over them. Immutable.
    #[schemars(range(min = 1, max = 4096))]
    #[schemars(extend("x-kubernetes-validations" = schema::immutable()))]
    pub partitions: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Kafka>,
    #[serde(default)]
    pub checkpoints: Checkpoints,
    #[serde(default)]
    pub ordering: Ordering,
    pub privacy: Privacy,
    #[schemars(length(min = 1, max = 32))]
    pub sources: Vec<Source>,
    /// What is kept of each user, session or item, by name.
    #[serde(default)]
    pub features: BTreeMap<String, Feature>,
    /// What an impression waits for, by name.
    #[serde(default)]
    pub outcomes: BTreeMap<String, Outcome>,
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub models: Vec<Model>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<Catalog>,
    /// How candidates are ranked, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, Policy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub placements: Vec<Placement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub experiments: Vec<Experiment>,
    #[serde(default)]
    pub serving: Serving,
}

/// How far apart in event time the sources may be read.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ordering {
    /// A record further than this above the lowest watermark waits. Greater than every `maxOutOfOrderness`.
    /// Default: 1 h, or twice the greatest `maxOutOfOrderness` where that is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_skew: Option<Span>,
}

/// Who may be known, and by what.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Privacy {
    pub pseudonym_keys: PseudonymKeys,
    pub user: UserId,
    pub consent: Consent,
    /// The only attributes of events and items (`item.…`) that pass. `name_{0..79}` stands for 80 names.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub allowed_attributes: Vec<String>,
}

/// Where the keys of the pseudonyms are: exactly one of `file` (local runs) and `secret` (in a cluster).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["file", "secret"])))]
pub struct PseudonymKeys {
    /// A YAML file of key ids with 32 hexadecimal digits each, beside the pipeline's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A Secret of the pipeline's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The id of the key in use.
    pub active: String,
}

/// Where the user is: exactly one of `field` and `rowNumber`. A record without it is not logged in.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["field", "rowNumber"])))]
pub struct UserId {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Every record is a user of its own (files only; for logs without users).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_number: Option<bool>,
}

/// Who agreed: exactly one of `event`, `field` and `assumed`. Without consent nothing is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["event", "field", "assumed"])))]
pub struct Consent {
    /// Consent comes as events of this name; `grantedIf` tells a grant from a withdrawal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Every record says it itself: kept if `grantedIf` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Fields and their values, all of which must match. With `field`, only of that field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub granted_if: BTreeMap<String, Scalar>,
    /// Files only: why everybody in them may be taken to have agreed. Shown by `explain` and the summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<String>,
}

/// One stream of records, read in partitions: exactly one of `file`, `http` and `kafka`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["file", "http", "kafka"])))]
pub struct Source {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSource>,
    /// Its records are items of the catalog instead of events.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub table: bool,
    pub format: Format,
    /// CSV only; one character. Default `,`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// Unrolls the array at this path: each element is read as a record of its own, in which `PATH[].x` is a
    /// field of the element and any other path one of the whole record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// Not needed for a table: its records then count from when they are read.
    #[serde(default)]
    pub event_time: EventTime,
    /// A source whose end was confirmed this long is idle and holds nothing up. Default 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<FieldRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<FieldRef>,
    /// Where the record's version is. Without it every record is of the newest mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<FieldRef>,
    /// Records that match one of these are skipped and counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub drop: Vec<When>,
    /// How events are recognized. Every one that matches a record gives an event, in this order.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub events: Vec<EventMapping>,
}

impl Source {
    /// How far an event's time may lie above the time of its record's receipt. `None`: that is not known (files).
    pub fn max_ahead(&self) -> Option<Span> {
        self.file.is_none().then(|| self.event_time.max_ahead.unwrap_or(Span::seconds(300)))
    }
}

/// Files: a file, a folder or a pattern. Each file is a partition. `.gz` is decompressed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSource {
    pub path: String,
}

/// `POST /v1/events`: what is accepted goes to a topic of so many partitions first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpSource {
    /// Cannot be changed later.
    #[schemars(range(min = 1, max = 64))]
    pub partitions: u32,
}

impl Default for HttpSource {
    fn default() -> Self {
        Self { partitions: 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// With a header line.
    Csv,
}

/// When an event happened. Exactly one of `field` and `fields`; for a table at most one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::at_most_one_of(&["field", "fields"])))]
pub struct EventTime {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Year, month and day, and on to hour, minute and second if there are more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    pub fields: Vec<String>,
    /// Added to `fields`: the record's number within its file, in `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plus: Option<Plus>,
    /// Unit of a number. Text is read as RFC 3339 (with a space or a T, UTC if it names no zone). Default `ms`.
    #[serde(default)]
    pub unit: TimeUnit,
    /// A record is late when it is more than this below the highest event time before it in its partition.
    #[serde(default)]
    pub max_out_of_orderness: Span,
    /// HTTP and Kafka: how far an event's time may lie above the time of its receipt (Kafka: the record's timestamp).
    /// Default 5 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ahead: Option<Span>,
    /// Files: the bounds of believable event times (RFC 3339). Above: from the future. Below: rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    #[serde(default)]
    pub late: LatePolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Plus {
    RowNumber,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    S,
    #[default]
    Ms,
    Us,
    Ns,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LatePolicy {
    /// To the dead-letter log, and counted.
    #[default]
    DeadLetter,
    /// Only counted.
    Drop,
}

/// Client retries carry the same id; the first in event-time order counts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventId {
    pub field: String,
    pub dedup_within: Span,
}

/// Where a value is: a path (`a.b`, `a[].b`), or a path with what to do about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldRef {
    Path(String),
    Full(FieldRule),
}

/// Exactly one of `field` and `const`; `default`, `map` and `convert` go with `field`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Used where the record has no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Scalar>,
    /// Used always.
    #[serde(default, rename = "const", skip_serializing_if = "Option::is_none")]
    pub constant: Option<Scalar>,
    /// Translates text; a value that is not listed counts as missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub map: BTreeMap<String, String>,
    /// Reads text as this type (`"12"` as a number, `"true"` as a boolean), or a number as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convert: Option<Convert>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Convert {
    Number,
    Text,
    Boolean,
}

/// Equality on fields, all of which must hold. A list means one of its values. `{}` matches everything.
pub type When = BTreeMap<String, OneOrMany>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(Scalar),
    Many(Vec<Scalar>),
}

/// One event type: how it is recognized and where its fields are.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventMapping {
    /// `impression` is the one that joins open for.
    pub name: String,
    #[serde(default)]
    pub when: When,
    #[serde(default)]
    pub fields: EventFields,
    /// What differs in an older version, by its number. The fields above are the newest version's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, EventFields>,
}

/// Where an event's fields are. Lists come from paths with `[]`, all from the same array.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EventFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<FieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<FieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basket: Option<FieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<FieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<FieldRef>,
    /// Ids of the items (one, or a list).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<FieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<FieldRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantities: Option<FieldRef>,
    /// Price or revenue of each item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<FieldRef>,
    /// The probability with which each item was shown there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propensities: Option<FieldRef>,
    /// Where allowed attributes are; one that is not listed is looked for under its own name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, FieldRef>,
}

/// What an impression waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    pub event: String,
    pub join: Join,
    /// Counted from the impression's event time.
    pub within: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Join {
    /// The same decision id or, where the outcome has none, the same item.
    Decision,
    /// The same item.
    Item,
    /// Any later event of the user, never one of the impression's own record.
    User,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    pub name: String,
    pub outcome: String,
    /// Names of features, of allowed attributes, `item`, `placement`, `platform`.
    #[schemars(length(min = 1, max = 1000))]
    pub features: Vec<String>,
    /// Products of two or three of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 3)))]
    pub crosses: Vec<Vec<String>>,
    #[serde(default)]
    pub position: Position,
    #[serde(default)]
    pub learner: Learner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_on: Option<TrainOn>,
    /// Scores and is validated, but learns no more: a switch of a bad day.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// What is done with the position an item was shown at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Position {
    #[default]
    Ignore,
    /// A feature in training, constant when serving.
    TrainOnly,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Learner {
    pub ftrl: Ftrl,
    /// Instead of `ftrl`: each item for itself; `features` may then be only `[item]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_bernoulli: Option<BetaBernoulli>,
}

/// FTRL-proximal logistic regression (McMahan et al. 2013).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ftrl {
    /// Learning rate, above zero.
    #[schemars(range(min = 0, max = 100))]
    pub alpha: f64,
    #[schemars(range(min = 0, max = 1000))]
    pub beta: f64,
    #[schemars(range(min = 0, max = 1000000))]
    pub l1: f64,
    #[schemars(range(min = 0, max = 1000000))]
    pub l2: f64,
    /// 2^bits weights.
    #[schemars(range(min = 6, max = 26))]
    pub bits: u32,
    /// Accumulators halve over so many examples, so that the model can forget. Absent: they never do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub half_life_examples: Option<f64>,
}

impl Default for Ftrl {
    fn default() -> Self {
        Self { alpha: 0.1, beta: 1.0, l1: 1.0, l2: 1.0, bits: 18, half_life_examples: None }
    }
}
