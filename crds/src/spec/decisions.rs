//! What is decided: candidates, policies, placements, experiments, and who may ask.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Names;
use crate::{scalar::Span, schema};

/// The items that there are: a table source whose records are items. Their attributes are also those of items in
/// events that do not say them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Catalog {
    /// A source with `table: true`.
    pub source: String,
    /// Path of the item's id.
    pub item: String,
    /// Fields of the record that become the attributes `item.NAME`, which must be allowed.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub attributes: Vec<String>,
    /// Path of a boolean, or of a number above zero: whether the item may be shown. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
}

/// How candidates are ranked: exactly one of `rankBy` and `score`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["rankBy", "score"])))]
pub struct Policy {
    /// A feature `per: item`, highest first; or `request`: the order in which the caller names the items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_by: Option<String>,
    /// Models with their weights: the sum of weight times predicted probability, highest first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub score: BTreeMap<String, f64>,
    /// Absent: greedy, the best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explore: Option<Explore>,
    /// No candidate's propensity in a slot is below this (or below one in the number of candidates): the rest is
    /// shared out evenly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub min_propensity: Option<f64>,
}

/// How other than the best candidates get shown: exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["epsilonGreedy", "softmax", "thompson"])))]
pub struct Explore {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_greedy: Option<EpsilonGreedy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softmax: Option<Softmax>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thompson: Option<Thompson>,
}

/// With probability `epsilon` a slot shows any of the remaining candidates, all alike, else the best of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EpsilonGreedy {
    #[schemars(range(min = 0, max = 1))]
    pub epsilon: f64,
    #[serde(default)]
    pub slots: ExploredSlots,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExploredSlots {
    /// Each slot for itself.
    #[default]
    All,
    /// Only the last slot.
    Last,
}

/// A slot shows a remaining candidate with a probability proportional to exp(score / temperature) (Plackett-Luce).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Softmax {
    /// In units of the score, above zero.
    #[schemars(range(min = 0, max = 1000))]
    pub temperature: f64,
}

/// A slot shows the best of scores drawn from what the models believe (Thompson sampling).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Thompson {
    /// Draws by which propensities are estimated.
    #[schemars(range(min = 10, max = 10000))]
    pub samples: u32,
}

impl Default for Thompson {
    fn default() -> Self {
        Self { samples: 200 }
    }
}

/// A place where content is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    pub name: String,
    pub candidates: Candidates,
    /// Items of a decision; a request may ask for fewer.
    #[schemars(range(min = 1, max = 100))]
    pub slots: u32,
    /// A policy without personal features (`rankBy`), or `RequestOrder`: for users without login or consent, in
    /// `mode: Default`, and where a model fell back.
    pub default: String,
    /// The policy where no experiment says another. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(default)]
    pub exclude: Exclude,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub impressions: Impressions,
    /// How long after a decision its impression may come. Default 10 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose_within: Option<Span>,
}

/// What may be shown: exactly one of `catalog` and `fromRequest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["catalog", "fromRequest"])))]
pub struct Candidates {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<CatalogCandidates>,
    /// So many items that the request names, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub from_request: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CatalogCandidates {
    /// Every item that is available.
    Available,
}

/// What is not shown to a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Exclude {
    /// Items of this user's last 16 bought items that are not older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bought_within: Option<Span>,
    /// The event that means bought. Default `order`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    #[default]
    Personalize,
    /// Everybody gets the default content: the switch of a bad day.
    Default,
}

/// What counts as shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Impressions {
    /// Impression events that name the decision.
    #[default]
    Event,
    /// The decision itself: for places that send no impressions.
    Decision,
}

/// Variants compared on users. Who gets which: a hash of the salt and the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Experiment {
    pub name: String,
    /// A placement is in one experiment at most.
    #[schemars(length(min = 1, max = 32))]
    pub placements: Vec<String>,
    #[serde(default)]
    pub unit: Unit,
    /// Another salt is another assignment. Default: the experiment's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    pub variants: BTreeMap<String, Variant>,
    /// The variant that the others are compared with.
    #[serde(default = "control")]
    pub control: String,
    #[schemars(length(min = 1, max = 8))]
    pub metrics: Vec<Metric>,
    /// The outcome that counts as a click for `ctr`. Default `click`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click: Option<String>,
    /// The event whose `value` is revenue. Default `order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Probability that an interval holds the truth at all times together. Default .95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.5, max = 0.9999))]
    pub confidence: Option<f64>,
}

fn control() -> String {
    "control".into()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    #[default]
    User,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variant {
    /// Share of the users, relative to the other variants'.
    #[schemars(range(min = 1, max = 10000))]
    pub weight: u32,
    pub policy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    /// Clicked of exposed items.
    Ctr,
    /// Revenue of all users, over their number.
    RevenuePerUser,
    /// Revenue over the number of orders.
    RevenuePerBasket,
}

/// Who may ask, and how much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Serving {
    pub tokens: Tokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    pub limits: Limits,
}

/// A bearer token for each API. One that has none is open, which is refused on other than loopback addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tokens {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decisions: Option<SecretText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<SecretText>,
    /// Profiles, erasure, status and the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SecretText>,
}

/// Exactly one of `file` (local runs, beside the pipeline's file) and `secret` (in a cluster).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = schema::one_of(&["file", "secret"])))]
pub struct SecretText {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKey>,
}

/// A key of a Secret of the pipeline's namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    pub name: String,
    pub key: String,
}

/// PEM files: of the certificate chain and of its private key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    pub certificate: SecretText,
    pub key: SecretText,
}

/// More than this is answered with an error that says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub body_bytes: u32,
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: u32,
    #[schemars(range(min = 1, max = 10_000_000))]
    pub decisions_per_second: u32,
    #[schemars(range(min = 1, max = 10_000_000))]
    pub events_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 1 << 20, connections: 1024, decisions_per_second: 10_000, events_per_second: 50_000 }
    }
}

/// Whose examples a model learns from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrainOn {
    /// Names of variants, of any experiment, or `All`.
    pub variants: Names,
}

/// Clicks and misses of each item, as a Beta distribution (Thompson 1933; Chapelle and Li 2011).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BetaBernoulli {
    /// Examples' worth of the ratio of all items that an item begins with.
    #[schemars(range(min = 0, max = 1000000))]
    pub prior_examples: f64,
    /// An item's counts halve over so many of its own examples. Absent: they never do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub half_life_examples: Option<f64>,
}

impl Default for BetaBernoulli {
    fn default() -> Self {
        Self { prior_examples: 50.0, half_life_examples: None }
    }
}

/// What is watched of a model and what is done when it drifts. Watched are the examples that it may learn from, as it
/// predicted them before; of its first 10,000, predictions are not judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drift {
    pub answer: DriftAnswer,
    /// Observed over predicted positives may be off by this share without alarm, and must be within it for a drift to be over.
    #[schemars(range(min = 0, max = 2))]
    pub tolerance: f64,
    /// Mean number of examples between two false alarms, at least: of predictions, and of features.
    #[schemars(range(min = 1000))]
    pub run_length_examples: f64,
    /// Population stability index of a feature's distribution over 10,000 examples that is worth an alarm. Such alarms are
    /// only told, whatever `answer` says.
    #[schemars(range(min = 0, max = 10))]
    pub psi: f64,
}

impl Default for Drift {
    fn default() -> Self {
        Self { answer: DriftAnswer::Alert, tolerance: 0.2, run_length_examples: 1e6, psi: 0.2 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DriftAnswer {
    /// Only told: page, metrics, log.
    #[default]
    Alert,
    /// Accumulators are cut to a quarter once for each alarm, so that what comes counts more; weights stay.
    ForgetFaster,
    /// The placement's default content until the model is calibrated again: over 1,000 examples and 100 positives.
    FallBackToDefault,
    /// The weights of before the drift until the model predicts better than they do: over 10,000 examples.
    FallBackToPrevious,
}
