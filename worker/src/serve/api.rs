//! What requests ask and what is answered, as JSON.
//!
//! Requests are strict: unknown fields, wrong types and values beyond the limits are errors that name the field
//! ([`super::json`]), never its content. Every `expected …` below ends up in such an answer.

use std::{collections::BTreeMap, fmt};

use axum::body::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// Decisions of one request.
pub const MAX_BATCH: usize = 100;
/// Candidates, or ranked items, of one decision.
pub const MAX_CANDIDATES: usize = 1_000;
/// Attributes of the context, or of one candidate.
pub const MAX_ATTRIBUTES: usize = 256;
/// Items of one answer.
pub const MAX_COUNT: u32 = 100;
/// Records of one request.
pub const MAX_RECORDS: usize = 10_000;
/// Bytes of an item's id, a platform, a name or an attribute's text, as in events.
pub const MAX_TEXT_BYTES: usize = 255;
/// Bytes of a user's or session's id, as in events.
pub const MAX_IDENTITY_BYTES: usize = millrace_engine::privacy::MAX_RAW_ID_BYTES;

/// A user or a session as the caller names it. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(String);

impl Identity {
    /// `None` if it is empty or longer than [`MAX_IDENTITY_BYTES`].
    pub fn new(text: &str) -> Option<Self> {
        (1..=MAX_IDENTITY_BYTES).contains(&text.len()).then(|| Self(text.to_owned()))
    }
    /// For making a pseudonym of it, and for nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// `POST /v1/decisions`: what to show to a user, at a place, now.
/// Written without identities, for another worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with a `placement`")]
pub struct DecideRequest {
    /// Absent or empty: not logged in.
    #[serde(default, deserialize_with = "identity", skip_serializing)]
    pub user: Option<Identity>,
    #[serde(deserialize_with = "name")]
    pub placement: String,
    #[serde(default, deserialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(default, deserialize_with = "identity", skip_serializing)]
    pub session: Option<Identity>,
    /// The context: attributes of this decision.
    #[serde(default, deserialize_with = "attributes")]
    pub attributes: BTreeMap<String, Scalar>,
    /// `None`: those of the placement's catalog.
    #[serde(default, deserialize_with = "candidates", skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<Candidate>>,
    /// The caller's own order, for policies with `rankBy: request`.
    #[serde(default, deserialize_with = "ranking")]
    pub ranking: Vec<String>,
    /// Fewer items than the placement has slots.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Feature values with the answer. Only with the admin token.
    #[serde(default, deserialize_with = "boolean")]
    pub explain: bool,
}

/// An item that may be shown, with its attributes where the catalog does not have them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    pub id: String,
    pub attributes: BTreeMap<String, Scalar>,
}

/// An attribute's value. Null ones are absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    Text(String),
    /// Finite.
    Number(f64),
    Bool(bool),
}

/// What is shown, best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecideAnswer {
    /// To be sent as `decision` with the impressions and what follows from them.
    pub decision: String,
    pub placement: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub policy: String,
    /// Whether the user's profile was used.
    pub personalized: bool,
    /// Why it was, or was not.
    pub reason: String,
    pub models: Vec<UsedModel>,
    pub items: Vec<RankedItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedModel {
    pub name: String,
    /// Examples that it had learned.
    pub version: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankedItem {
    pub id: String,
    /// From 1.
    pub position: u32,
    /// Absent where items are not ranked by a score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Probability that this item came to this position, given those before it.
    pub propensity: f64,
    /// Standard error of a propensity that is estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propensity_error: Option<f64>,
    /// Feature values by model and feature: where `explain` was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<BTreeMap<String, BTreeMap<String, serde_json::Value>>>,
}

/// `POST /v1/events`, decoded no further than into its records.
#[derive(Clone)]
pub struct EventsRequest {
    /// Of a source of kind `http`. `None`: there is only one.
    pub source: Option<String>,
    /// One JSON text each, not checked yet.
    pub records: Vec<Bytes>,
}

/// What became of a request's records. All of `accepted` are durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Records that are kept, those without an event of interest included.
    pub accepted: u64,
    pub rejected: Vec<Rejected>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// From 0, in the request.
    pub index: u64,
    /// Without content of the record.
    pub reason: String,
}

impl<'de> Deserialize<'de> for Candidate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Item {
            #[serde(deserialize_with = "name")]
            id: String,
            #[serde(default, deserialize_with = "attributes")]
            attributes: BTreeMap<String, Scalar>,
        }
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Candidate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an item's id of 1 to {MAX_TEXT_BYTES} bytes, or an object with an `id`")
            }
            fn visit_str<E: Error>(self, id: &str) -> Result<Candidate, E> {
                let fits = (1..=MAX_TEXT_BYTES).contains(&id.len());
                let id = fits.then(|| id.to_owned()).ok_or_else(|| E::invalid_length(id.len(), &self))?;
                Ok(Candidate { id, attributes: BTreeMap::new() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Candidate, A::Error> {
                let Item { id, attributes } = Item::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Candidate { id, attributes })
            }
        }
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// Text of a bounded length.
struct Text {
    least: usize,
    most: usize,
}

impl Visitor<'_> for Text {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text of {} to {} bytes", self.least, self.most)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        let fits = (self.least..=self.most).contains(&text.len());
        fits.then(|| text.to_owned()).ok_or_else(|| E::invalid_length(text.len(), &self))
    }
}

/// What is read by `V`, or null.
struct Nullable<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Nullable<V> {
    type Value = Option<V::Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)?;
        f.write_str(", or null")
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        self.0.visit_bool(value).map(Some)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.0.visit_i64(value).map(Some)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.0.visit_u64(value).map(Some)
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        self.0.visit_f64(value).map(Some)
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.0.visit_str(value).map(Some)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.0.visit_seq(seq).map(Some)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.visit_map(map).map(Some)
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text { least: 1, most: MAX_TEXT_BYTES })
}

fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = deserializer.deserialize_any(Nullable(Text { least: 0, most: MAX_TEXT_BYTES }))?;
    Ok(text.filter(|text| !text.is_empty()))
}

fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Identity>, D::Error> {
    let text = deserializer.deserialize_any(Nullable(Text { least: 0, most: MAX_IDENTITY_BYTES }))?;
    Ok(text.filter(|text| !text.is_empty()).map(Identity))
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    struct Count;
    impl Visitor<'_> for Count {
        type Value = u32;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from 1 to {MAX_COUNT}")
        }
        fn visit_u64<E: Error>(self, n: u64) -> Result<u32, E> {
            let count = u32::try_from(n).ok().filter(|n| (1..=MAX_COUNT).contains(n));
            count.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(n), &self))
        }
        // 2.0 is a whole number in JSON.
        fn visit_f64<E: Error>(self, n: f64) -> Result<u32, E> {
            let is_count = n.fract() == 0.0 && (1.0..=f64::from(MAX_COUNT)).contains(&n);
            is_count.then_some(n as u32).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Float(n), &self))
        }
    }
    deserializer.deserialize_any(Nullable(Count))
}

fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Boolean;
    impl Visitor<'_> for Boolean {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }
        fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }
    }
    Ok(deserializer.deserialize_any(Nullable(Boolean))?.unwrap_or(false))
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text of at most {MAX_TEXT_BYTES} bytes, a number or a boolean")
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        let fits = text.len() <= MAX_TEXT_BYTES;
        fits.then(|| Scalar::Text(text.to_owned())).ok_or_else(|| E::invalid_length(text.len(), &self))
    }
}

/// One value of an object of attributes: `None` for null.
struct Attribute(Option<Scalar>);

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nullable(ScalarVisitor)).map(Self)
    }
}

fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Scalar>, D::Error> {
    struct Attributes;
    impl<'de> Visitor<'de> for Attributes {
        type Value = BTreeMap<String, Scalar>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an object of at most {MAX_ATTRIBUTES} attributes with names of at most {MAX_TEXT_BYTES} bytes")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut attributes = BTreeMap::new();
            for n in 0.. {
                let Some((name, Attribute(value))) = map.next_entry::<String, Attribute>()? else { break };
                if n == MAX_ATTRIBUTES || name.len() > MAX_TEXT_BYTES {
                    return Err(A::Error::invalid_length(n, &self));
                }
                // Of equal names the last counts, as in events.
                match value {
                    Some(value) => attributes.insert(name, value),
                    None => attributes.remove(&name),
                };
            }
            Ok(attributes)
        }
    }
    Ok(deserializer.deserialize_any(Nullable(Attributes))?.unwrap_or_default())
}

/// A list of at most `MAX` elements: the rest is not even read.
pub(super) struct AtMost<T, const MAX: usize>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> AtMost<T, MAX> {
    pub(super) fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
    type Value = Vec<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

fn candidates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Candidate>>, D::Error> {
    deserializer.deserialize_any(Nullable(AtMost::<Candidate, MAX_CANDIDATES>::new()))
}

fn ranking<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Id(String);
    impl<'de> Deserialize<'de> for Id {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            name(deserializer).map(Self)
        }
    }
    let list = deserializer.deserialize_any(Nullable(AtMost::<Id, MAX_CANDIDATES>::new()))?;
    Ok(list.unwrap_or_default().into_iter().map(|Id(id)| id).collect())
}
