//! Plain features, read by going through a user's whole history.

use std::collections::{BTreeMap, BTreeSet};

use millrace_crds::spec::{Bucket, Feature, Model, Names, Per, PipelineSpec};
use millrace_engine::event::category_of_text;
use serde_json::Value;

use super::mapping::{Event, Item, text_of};

/// A feature's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OracleValue {
    Missing,
    Number(f64),
    /// Hash of the category's text, or the number of a bucket.
    Category(u64),
    /// Not computed here.
    Unknown,
}

/// The model's columns that are plain enough to be computed here.
pub(super) fn columns(spec: &PipelineSpec, model: &Model) -> Vec<String> {
    let plain = |name: &&String| spec.features.get(*name).is_none_or(is_plain);
    model.features.iter().filter(plain).cloned().collect()
}

fn is_plain(f: &Feature) -> bool {
    let kinds = [&f.count, &f.sum, &f.mean, &f.min, &f.max, &f.last, &f.distinct, &f.time_since];
    f.per == Per::User && (kinds.iter().any(|kind| kind.is_some()) || f.any_of.is_some() || f.attribute.is_some())
}

/// Features of a user that need no candidate.
pub(super) fn profile(spec: &PipelineSpec, history: &[&Event], now: i64) -> BTreeMap<String, OracleValue> {
    let needs_none = |f: &Feature| is_plain(f) && f.by.is_none() && f.any_of.is_none() && f.attribute.is_none();
    let features = spec.features.iter().filter(|(_, f)| needs_none(f));
    features.map(|(name, f)| (name.clone(), bucketed(f, of_history(f, history, now, None)))).collect()
}

/// What a feature is read from: all that a user did before, and the candidate.
pub(super) struct Reading<'a, 'e> {
    pub spec: &'a PipelineSpec,
    pub history: &'a [&'e Event],
    pub now: i64,
    pub event: &'a Event,
    pub item: &'a Item,
}

impl Reading<'_, '_> {
    pub fn column(&self, name: &str) -> OracleValue {
        let text = |text: &str| if text.is_empty() { OracleValue::Missing } else { category(text) };
        match (name, self.spec.features.get(name)) {
            (_, Some(feature)) => bucketed(feature, self.feature(feature)),
            ("item", _) => text(&self.item.id),
            ("placement", _) => text(&self.event.placement),
            ("platform", _) => text(&self.event.platform),
            _ => self.attribute(name).map_or(OracleValue::Missing, as_value),
        }
    }

    fn attribute(&self, name: &str) -> Option<&Value> {
        self.item.attributes.get(name).or_else(|| self.event.attributes.get(name))
    }

    fn feature(&self, feature: &Feature) -> OracleValue {
        if let Some(names) = &feature.any_of {
            let any = names.iter().flat_map(|pattern| super::mapping::expand(pattern)).any(|name| {
                self.attribute(&name).is_some_and(|value| match value {
                    Value::Bool(b) => *b,
                    Value::Number(n) => n.as_f64().is_some_and(|n| n > 0.0),
                    Value::String(text) => !text.is_empty(),
                    _ => false,
                })
            });
            return OracleValue::Number(f64::from(u8::from(any)));
        }
        if let Some(name) = &feature.attribute {
            return self.attribute(name).map_or(OracleValue::Missing, as_value);
        }
        let wanted = match feature.by.as_deref() {
            None => None,
            Some("item") => Some(self.item.id.clone()),
            Some(name) => match self.attribute(name).and_then(text_of) {
                Some(text) => Some(text),
                None => return OracleValue::Missing,
            },
        };
        let by = feature.by.as_deref().zip(wanted.as_deref());
        of_history(feature, self.history, self.now, by)
    }
}

fn category(text: &str) -> OracleValue {
    OracleValue::Category(category_of_text(text))
}

fn as_value(value: &Value) -> OracleValue {
    match value {
        Value::Number(n) => n.as_f64().map_or(OracleValue::Missing, OracleValue::Number),
        other => text_of(other).map_or(OracleValue::Missing, |text| category(&text)),
    }
}

fn has(names: &Option<Names>, kind: &str) -> bool {
    match names {
        None => false,
        Some(Names::One(name)) => name == kind,
        Some(Names::Many(names)) => names.iter().any(|name| name == kind),
    }
}

/// The event's own value of a name, or one for each of its items. Empty text is none.
fn values_of(event: &Event, name: &str) -> Vec<Value> {
    let mut values = all_values_of(event, name);
    values.retain(|value| value.as_str() != Some(""));
    values
}

fn all_values_of(event: &Event, name: &str) -> Vec<Value> {
    match name {
        "value" => event.value.map(Value::from).into_iter().collect(),
        "item" => event.items.iter().map(|item| Value::from(item.id.as_str())).collect(),
        _ if name.starts_with("item.") => event.items.iter().filter_map(|i| i.attributes.get(name).cloned()).collect(),
        _ => event.attributes.get(name).cloned().into_iter().collect(),
    }
}

fn in_window(feature: &Feature, at: i64, now: i64) -> bool {
    let Some(window) = feature.window else { return true };
    let window = window.as_micros();
    if feature.tumbling == Some(true) {
        return at.div_euclid(window) == now.div_euclid(window);
    }
    let buckets = i64::from(feature.buckets.unwrap_or(8));
    let step = (window / buckets).max(1);
    now.div_euclid(step) - at.div_euclid(step) < buckets
}

/// So many categories are counted apart; which ones are forgotten beyond that is not the oracle's to say.
const MAX_CATEGORIES: usize = 16;

fn categories(events: &[&Event], name: &str) -> usize {
    events.iter().flat_map(|e| values_of(e, name)).filter_map(|v| text_of(&v)).collect::<BTreeSet<_>>().len()
}

fn of_history(f: &Feature, history: &[&Event], now: i64, by: Option<(&str, &str)>) -> OracleValue {
    let kinds = [&f.count, &f.sum, &f.mean, &f.min, &f.max, &f.last, &f.distinct, &f.time_since];
    let counts = |e: &&&Event| kinds.iter().any(|kind| has(kind, &e.kind)) && in_window(f, e.time, now);
    let events: Vec<&Event> = history.iter().filter(counts).copied().collect();
    let times_by = |event: &Event| match by {
        None => 1,
        Some((name, wanted)) => values_of(event, name).iter().filter(|v| text_of(v).as_deref() == Some(wanted)).count(),
    };
    if let Some((name, _)) = by
        && categories(&events, name) > MAX_CATEGORIES
    {
        return OracleValue::Unknown;
    }
    if f.count.is_some() {
        return OracleValue::Number(events.iter().map(|event| times_by(event)).sum::<usize>() as f64);
    }
    if f.time_since.is_some() {
        let last = events.iter().rev().find(|event| times_by(event) > 0);
        return last.map_or(OracleValue::Missing, |last| OracleValue::Number((now - last.time) as f64 / 1e6));
    }
    if by.is_some() {
        return OracleValue::Unknown;
    }
    let of = f.of.as_deref().unwrap_or("value");
    let all: Vec<Value> = events.iter().flat_map(|event| values_of(event, of)).collect();
    if f.last.is_some() {
        return all.last().map_or(OracleValue::Missing, as_value);
    }
    if f.distinct.is_some() {
        let distinct: BTreeSet<String> = all.iter().filter_map(text_of).collect();
        return if distinct.len() > 32 { OracleValue::Unknown } else { OracleValue::Number(distinct.len() as f64) };
    }
    let numbers: Vec<f64> = all.iter().filter_map(Value::as_f64).collect();
    of_numbers(f, &numbers)
}

fn of_numbers(f: &Feature, numbers: &[f64]) -> OracleValue {
    let sum: f64 = numbers.iter().sum();
    if f.sum.is_some() {
        return OracleValue::Number(sum);
    }
    if numbers.is_empty() {
        return OracleValue::Missing;
    }
    OracleValue::Number(if f.mean.is_some() {
        sum / numbers.len() as f64
    } else if f.min.is_some() {
        numbers.iter().copied().fold(f64::INFINITY, f64::min)
    } else {
        numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    })
}

fn bucketed(feature: &Feature, value: OracleValue) -> OracleValue {
    match (&feature.bucket, value) {
        (Some(bucket), OracleValue::Number(x)) => OracleValue::Category(bucket_of(bucket, x)),
        (_, value) => value,
    }
}

/// 1 for the first bucket: 0 is no category.
fn bucket_of(bucket: &Bucket, x: f64) -> u64 {
    let n = if !bucket.bounds.is_empty() {
        bucket.bounds.iter().filter(|bound| **bound <= x).count() as f64
    } else {
        match bucket.log2 {
            Some(_) if x < 1.0 => 0.0,
            Some(log2) => (log2 * x.log2()).floor(),
            None => x.floor(),
        }
    };
    let max = bucket.max.map_or(f64::INFINITY, f64::from);
    1 + n.max(0.0).min(max) as u64
}
