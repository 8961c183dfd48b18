//! From a record to its events, by the pipeline's mapping, and the verdict on each: late, future, or on time.

use std::collections::BTreeMap;

use millrace_crds::{
    scalar::Scalar,
    spec::{Convert, EventFields, EventMapping, EventTime, FieldRef, FieldRule, OneOrMany, PipelineSpec, Source, When},
};
use serde_json::Value;

use super::{Counts, OracleError, input::Raw, time};

/// What an event says of consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    None,
    Grant,
    Withdraw,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    pub id: String,
    pub position: i32,
    pub propensity: f64,
    pub attributes: BTreeMap<String, Value>,
}

/// An event with its raw identities.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Where it stands in the merge, in microseconds.
    pub time: i64,
    /// The time it stated itself.
    pub stated: i64,
    /// Number of its source, number of its file.
    pub origin: (usize, usize),
    pub row: u64,
    /// Which event of its row.
    pub index: u32,
    pub user: String,
    pub kind: String,
    pub consent: Consent,
    pub id: Option<String>,
    pub dedup_within: i64,
    pub decision: Option<String>,
    pub placement: String,
    pub platform: String,
    pub value: Option<f64>,
    pub items: Vec<Item>,
    pub attributes: BTreeMap<String, Value>,
}

/// A source's mapping, with what the whole pipeline says about it.
pub(super) struct Mapping<'a> {
    spec: &'a PipelineSpec,
    source: &'a Source,
    allowed: Vec<String>,
    not_before: i64,
    not_after: i64,
}

impl<'a> Mapping<'a> {
    /// `with_attributes`: they take most of the memory, and only feature values need them.
    pub fn new(spec: &'a PipelineSpec, source: &'a Source, with_attributes: bool) -> Result<Self, OracleError> {
        let bound = |text: &Option<String>, default: &str| {
            let text = text.as_deref().unwrap_or(default);
            let wrong = || OracleError::Pipeline { path: text.into(), message: "not a time".into() };
            time::parse_rfc3339(text).ok_or_else(wrong)
        };
        let allowed = spec.privacy.allowed_attributes.iter().filter(|_| with_attributes);
        Ok(Self {
            spec,
            source,
            allowed: allowed.flat_map(|pattern| expand(pattern)).collect(),
            not_before: bound(&source.event_time.not_before, "1970-01-01T00:00:00Z")?,
            not_after: bound(&source.event_time.not_after, "2100-01-01T00:00:00Z")?,
        })
    }
}

/// `a_{0..2}` stands for `a_0`, `a_1`, `a_2`.
pub(super) fn expand(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let Some((range, after)) = rest.split_once('}') else { return vec![pattern.to_owned()] };
    let Some((from, to)) = range.split_once("..") else { return vec![pattern.to_owned()] };
    match (from.parse::<u32>(), to.parse::<u32>()) {
        (Ok(from), Ok(to)) => (from..=to).map(|n| format!("{before}{n}{after}")).collect(),
        _ => vec![pattern.to_owned()],
    }
}

/// A record, or one element of its `each`, in which paths are looked up.
struct Record<'a> {
    whole: &'a Value,
    element: Option<(&'a str, &'a Value)>,
    csv: bool,
}

enum Found {
    One(Value),
    Many(Vec<Option<Value>>),
    /// The path leads through something that has no fields.
    Wrong,
}

impl Record<'_> {
    fn find(&self, path: &str) -> Option<Found> {
        if self.csv {
            return self.whole.get(path).cloned().map(Found::One);
        }
        if let Some((each, element)) = self.element
            && let Some(rest) = path.strip_prefix(each).and_then(|rest| rest.strip_prefix("[]."))
        {
            return walk(element, rest);
        }
        walk(self.whole, path)
    }

    fn eval(&self, field: &FieldRef) -> Option<Found> {
        let rule = match field {
            FieldRef::Path(path) => return self.find(path),
            FieldRef::Full(rule) => rule,
        };
        if let Some(constant) = &rule.constant {
            return Some(Found::One(scalar(constant)));
        }
        match rule.field.as_ref().and_then(|path| self.find(path)) {
            Some(Found::Many(values)) => Some(Found::Many(values.into_iter().map(|v| translate(v, rule)).collect())),
            Some(Found::One(value)) => translate(Some(value), rule).map(Found::One),
            Some(Found::Wrong) => Some(Found::Wrong),
            None => translate(None, rule).map(Found::One),
        }
    }

    fn one(&self, field: Option<&FieldRef>) -> Option<Value> {
        match field.and_then(|field| self.eval(field))? {
            Found::One(value) => Some(value),
            Found::Many(_) | Found::Wrong => None,
        }
    }

    fn text(&self, field: Option<&FieldRef>) -> Option<String> {
        self.one(field).as_ref().and_then(text_of).filter(|text| !text.is_empty())
    }

    fn matches(&self, when: &When) -> bool {
        when.iter().all(|(path, wanted)| {
            let Some(Found::One(value)) = self.find(path) else { return false };
            let same = |wanted: &Scalar| equals(wanted, &value, self.csv);
            match wanted {
                OneOrMany::One(one) => same(one),
                OneOrMany::Many(many) => many.iter().any(same),
            }
        })
    }
}

/// `None`: missing.
fn walk(value: &Value, path: &str) -> Option<Found> {
    if !value.is_object() {
        return if value.is_null() { None } else { Some(Found::Wrong) };
    }
    let (segment, rest) = path.split_once('.').map_or((path, None), |(segment, rest)| (segment, Some(rest)));
    if let Some(name) = segment.strip_suffix("[]") {
        let value = value.get(name).filter(|value| !value.is_null())?;
        let Some(elements) = value.as_array() else { return Some(Found::Wrong) };
        let values = elements.iter().map(|element| match rest.map(|rest| walk(element, rest)) {
            None => Some(element.clone()),
            Some(Some(Found::One(value))) => Some(value),
            Some(_) => None,
        });
        return Some(Found::Many(values.collect()));
    }
    let value = value.get(segment)?;
    match rest {
        Some(rest) => walk(value, rest),
        None if value.is_null() => None,
        None => Some(Found::One(value.clone())),
    }
}

/// The same type and value. In CSV, where all is text: the same number, and `true` in any case.
fn equals(wanted: &Scalar, value: &Value, csv: bool) -> bool {
    match (wanted, value) {
        (Scalar::Text(wanted), Value::String(text)) => wanted == text,
        (Scalar::Bool(wanted), Value::Bool(b)) => wanted == b,
        (Scalar::Number(wanted), Value::Number(n)) => n.as_f64() == Some(*wanted),
        (Scalar::Number(wanted), Value::String(text)) if csv => text.parse() == Ok(*wanted),
        (Scalar::Bool(wanted), Value::String(text)) if csv => text.to_lowercase() == wanted.to_string(),
        _ => false,
    }
}

/// What an id may be. An empty one is `Some("")`.
fn id_of(value: &Value) -> Option<String> {
    if value.is_boolean() { None } else { text_of(value) }
}

/// A CSV cell as an attribute: what looks like a plain decimal number of at most 15 digits before the point is one.
fn inferred(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let plain = all_digits(whole) && all_digits(fraction) && whole.len() <= 15;
    if plain && (whole.len() == 1 || !whole.starts_with('0')) { text.parse().ok() } else { None }
}

fn scalar(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Bool(b) => Value::from(*b),
        Scalar::Number(n) => Value::from(*n),
        Scalar::Text(text) => Value::from(text.as_str()),
    }
}

/// Text as it is, whole numbers in decimal, booleans by name.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => match n.as_f64() {
            Some(x) if n.is_f64() && x.fract() == 0.0 && x.abs() < 9e15 => Some(format!("{x:.0}")),
            _ => Some(n.to_string()),
        },
        _ => None,
    }
}

/// A finite number, or text that is one.
fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|n: &f64| n.is_finite())
}

fn translate(value: Option<Value>, rule: &FieldRule) -> Option<Value> {
    let mut value = value.filter(|v| !v.is_null());
    if !rule.map.is_empty() {
        value = value.and_then(|v| text_of(&v)).and_then(|text| rule.map.get(&text)).map(|to| Value::from(to.as_str()));
    }
    value = value.and_then(|v| match rule.convert {
        None => Some(v),
        Some(Convert::Number) => number_of(&v).map(Value::from),
        Some(Convert::Text) => text_of(&v).map(Value::from),
        Some(Convert::Boolean) => match text_of(&v)?.as_str() {
            "true" => Some(Value::from(true)),
            "false" => Some(Value::from(false)),
            _ => None,
        },
    });
    value.or_else(|| rule.default.as_ref().map(scalar))
}

/// Those of the lowest listed version that is not below the record's, where it has them, otherwise the newest's.
fn fields_of(mapping: &EventMapping, version: Option<f64>) -> EventFields {
    let newest = mapping.fields.clone();
    let listed = mapping.versions.iter().filter_map(|(number, fields)| Some((number.parse::<f64>().ok()?, fields)));
    let not_below = listed.filter(|(number, _)| version.is_some_and(|version| version <= *number));
    let Some((_, older)) = not_below.min_by(|a, b| a.0.total_cmp(&b.0)) else { return newest };
    let mut attributes = newest.attributes;
    attributes.extend(older.attributes.clone());
    EventFields {
        decision: older.decision.clone().or(newest.decision),
        placement: older.placement.clone().or(newest.placement),
        basket: older.basket.clone().or(newest.basket),
        value: older.value.clone().or(newest.value),
        currency: older.currency.clone().or(newest.currency),
        items: older.items.clone().or(newest.items),
        positions: older.positions.clone().or(newest.positions),
        quantities: older.quantities.clone().or(newest.quantities),
        values: older.values.clone().or(newest.values),
        propensities: older.propensities.clone().or(newest.propensities),
        attributes,
    }
}

/// Reads one partition in order.
pub(super) struct PartitionReader<'a> {
    mapping: &'a Mapping<'a>,
    origin: (usize, usize),
    counts: &'a mut Counts,
    events: &'a mut Vec<Event>,
    highest: Option<i64>,
}

impl<'a> PartitionReader<'a> {
    pub fn new(
        mapping: &'a Mapping<'a>,
        origin: (usize, usize),
        counts: &'a mut Counts,
        events: &'a mut Vec<Event>,
    ) -> Self {
        Self { mapping, origin, counts, events, highest: None }
    }

    pub fn record(&mut self, row: u64, raw: Raw) {
        self.counts.read += 1;
        let (whole, csv) = match raw {
            Raw::Malformed(reason) => return self.reject(reason),
            Raw::Blank => return self.skip("empty"),
            Raw::Json(value) => (value, false),
            Raw::Csv(value) => (value, true),
        };
        let Some(each) = self.mapping.source.each.as_deref() else {
            return self.element((row, 0), &Record { whole: &whole, element: None, csv });
        };
        match walk(&whole, each) {
            Some(Found::One(Value::Array(elements))) if elements.is_empty() => self.skip("empty"),
            Some(Found::One(Value::Array(elements))) => {
                for (n, element) in (0..).zip(&elements) {
                    self.element((row, n), &Record { whole: &whole, element: Some((each, element)), csv });
                }
            }
            _ => self.reject("no array"),
        }
    }

    fn reject(&mut self, reason: &str) {
        *self.counts.rejected.entry(reason.to_owned()).or_default() += 1;
    }

    fn skip(&mut self, reason: &str) {
        *self.counts.skipped.entry(reason.to_owned()).or_default() += 1;
    }

    /// `place`: row, and element within it.
    fn element(&mut self, place: (u64, u32), record: &Record<'_>) {
        let source = self.mapping.source;
        if source.drop.iter().any(|when| record.matches(when)) {
            return self.skip("dropped");
        }
        let matching: Vec<usize> =
            (0..source.events.len()).filter(|n| record.matches(&source.events[*n].when)).collect();
        if matching.is_empty() {
            return self.skip("unknown type");
        }
        let Ok(user) = self.user(place.0, record) else { return self.reject("user") };
        let time = self.event_time(place.0, record).filter(|time| *time >= self.mapping.not_before);
        if user.is_empty() {
            // Those who stay unknown move time on as well.
            self.highest = self.highest.max(time.filter(|time| *time <= self.mapping.not_after));
            self.counts.unconsented += 1;
            return;
        }
        let Some(time) = time else { return self.reject("time") };
        let made = matching.iter().map(|n| self.event(place, time, &user, record, *n)).collect::<Result<Vec<_>, _>>();
        match made {
            Ok(events) => events.into_iter().for_each(|event| self.judge(event)),
            Err(reason) => self.reject(reason),
        }
    }

    /// Empty: nobody, or somebody who refuses. `Err`: nothing that an id may be.
    fn user(&self, row: u64, record: &Record<'_>) -> Result<String, ()> {
        let privacy = &self.mapping.spec.privacy;
        let user = match &privacy.user.field {
            None => format!("{}/{}/{row}", self.origin.0, self.origin.1),
            Some(field) => match record.find(field) {
                None => String::new(),
                Some(Found::One(value)) => id_of(&value).ok_or(())?,
                Some(Found::Many(_) | Found::Wrong) => return Err(()),
            },
        };
        let consent = &privacy.consent;
        let Some(field) = &consent.field else { return Ok(user) };
        let says_so = equals(
            &Scalar::Bool(true),
            &record.one(Some(&FieldRef::Path(field.clone()))).unwrap_or_default(),
            record.csv,
        );
        let kept = granted(record, &consent.granted_if) && (consent.granted_if.contains_key(field) || says_so);
        Ok(if kept { user } else { String::new() })
    }

    fn event_time(&self, row: u64, record: &Record<'_>) -> Option<i64> {
        let EventTime { field, fields, plus, unit, .. } = &self.mapping.source.event_time;
        if let Some(field) = field {
            let Some(Found::One(value)) = record.find(field) else { return None };
            return match value {
                Value::Number(n) if n.is_i64() => time::from_whole(n.as_i64()?, *unit),
                Value::Number(n) => time::from_number(n.as_f64()?, *unit),
                Value::String(text) => {
                    time::parse_rfc3339(&text).or_else(|| time::from_whole(text.parse().ok()?, *unit))
                }
                _ => None,
            };
        }
        let mut parts = Vec::new();
        for field in fields {
            let Some(Found::One(value)) = record.find(field) else { return None };
            parts.push(number_of(&value).filter(|n| n.fract() == 0.0)? as i64);
        }
        let added = if plus.is_some() { time::from_whole(row as i64, *unit)? } else { 0 };
        Some(time::compose(&parts)? + added)
    }

    fn event(
        &self,
        (row, element): (u64, u32),
        time: i64,
        user: &str,
        record: &Record<'_>,
        nth: usize,
    ) -> Result<Event, &'static str> {
        let Mapping { spec, source, .. } = self.mapping;
        let mapping = &source.events[nth];
        let version = record.one(source.version.as_ref()).as_ref().and_then(number_of);
        let fields = fields_of(mapping, version);
        let consent = match &spec.privacy.consent.event {
            Some(name) if *name == mapping.name => {
                if granted(record, &spec.privacy.consent.granted_if) {
                    Consent::Grant
                } else {
                    Consent::Withdraw
                }
            }
            _ => Consent::None,
        };
        let mut event = Event {
            time,
            stated: time,
            origin: self.origin,
            row,
            index: element * 256 + nth as u32,
            user: user.to_owned(),
            kind: mapping.name.clone(),
            consent,
            id: None,
            dedup_within: 0,
            decision: record.text(fields.decision.as_ref()),
            placement: record.text(fields.placement.as_ref()).unwrap_or_default(),
            platform: record.text(source.platform.as_ref()).unwrap_or_default(),
            value: record.one(fields.value.as_ref()).as_ref().and_then(number_of),
            items: Vec::new(),
            attributes: self.attributes(record, &fields),
        };
        // Of a consent event only user and time count.
        if consent == Consent::None {
            event.items = self.items(record, &fields)?;
            if let Some(id) = &source.event_id {
                event.id = self.event_id(record, &id.field, element)?;
                event.dedup_within = id.dedup_within.as_micros();
            }
        }
        Ok(event)
    }

    /// With the element, unless each element has an id of its own.
    fn event_id(&self, record: &Record<'_>, path: &str, element: u32) -> Result<Option<String>, &'static str> {
        let Some(found) = record.find(path) else { return Ok(None) };
        let id = match found {
            Found::One(value) => id_of(&value).filter(|id| !id.is_empty()),
            Found::Many(_) | Found::Wrong => None,
        };
        let own = self.mapping.source.each.as_ref().is_some_and(|each| path.starts_with(&format!("{each}[].")));
        id.map(|id| Some(format!("{id}/{}", if own { 0 } else { element }))).ok_or("event id")
    }

    fn items(&self, record: &Record<'_>, fields: &EventFields) -> Result<Vec<Item>, &'static str> {
        let list = |field: &FieldRef| match record.eval(field) {
            Some(Found::Many(values)) => values,
            Some(Found::One(Value::Array(values))) => values.into_iter().map(Some).collect(),
            Some(Found::One(value)) => vec![Some(value)],
            Some(Found::Wrong) => vec![None],
            None => Vec::new(),
        };
        let at = |field: &Option<FieldRef>, n: usize| -> Option<f64> {
            list(field.as_ref()?).get(n)?.as_ref().and_then(number_of)
        };
        let ids = fields.items.as_ref().map(list).unwrap_or_default();
        let item = |(n, id): (usize, &Option<Value>)| {
            Ok(Item {
                id: id.as_ref().and_then(id_of).filter(|id| !id.is_empty()).ok_or("item")?,
                position: at(&fields.positions, n).map_or(-1, |p| p as i32),
                propensity: at(&fields.propensities, n).unwrap_or(f64::NAN),
                attributes: BTreeMap::new(),
            })
        };
        let mut items: Vec<Item> = ids.iter().enumerate().map(item).collect::<Result<_, &'static str>>()?;
        for name in self.mapping.allowed.iter().filter(|name| name.starts_with("item.")) {
            let own = FieldRef::Path(name.clone());
            let field = fields.attributes.get(name).unwrap_or(&own);
            let found = record.eval(field);
            for (n, item) in items.iter_mut().enumerate() {
                let value = match &found {
                    Some(Found::Many(values)) => values.get(n).cloned().flatten(),
                    Some(Found::One(value)) => Some(value.clone()),
                    Some(Found::Wrong) | None => None,
                };
                if let Some(value) = value.and_then(|v| attribute(v, field, record.csv)) {
                    item.attributes.insert(name.clone(), value);
                }
            }
        }
        Ok(items)
    }

    fn attributes(&self, record: &Record<'_>, fields: &EventFields) -> BTreeMap<String, Value> {
        let of_event = self.mapping.allowed.iter().filter(|name| !name.starts_with("item."));
        of_event
            .filter_map(|name| {
                let own = FieldRef::Path(name.clone());
                let field = fields.attributes.get(name).unwrap_or(&own);
                let Some(Found::One(value)) = record.eval(field) else { return None };
                Some((name.clone(), attribute(value, field, record.csv)?))
            })
            .collect()
    }

    fn judge(&mut self, mut event: Event) {
        let out_of_orderness = self.mapping.source.event_time.max_out_of_orderness.as_micros();
        let on_time_from = self.highest.map_or(i64::MIN, |highest| highest - out_of_orderness);
        let future = event.stated > self.mapping.not_after;
        let late = event.stated < on_time_from;
        if !future {
            self.highest = self.highest.max(Some(event.stated));
        }
        if (future || late) && event.consent == Consent::Withdraw {
            event.time = on_time_from;
            self.events.push(event);
        } else if future {
            self.counts.future += 1;
        } else if late {
            self.counts.late += 1;
        } else {
            self.events.push(event);
        }
    }
}

/// A value that an attribute may have: text of at most 255 bytes, a number, a boolean.
fn attribute(value: Value, field: &FieldRef, csv: bool) -> Option<Value> {
    let plain = match field {
        FieldRef::Path(_) => true,
        FieldRef::Full(rule) => rule.convert.is_none() && rule.map.is_empty(),
    };
    match &value {
        Value::String(text) if text.len() > 255 => None,
        Value::String(text) if csv && plain => Some(inferred(text).map_or(value, Value::from)),
        _ => text_of(&value).is_some().then_some(value),
    }
}

fn granted(record: &Record<'_>, wanted: &BTreeMap<String, Scalar>) -> bool {
    let when: When = wanted.iter().map(|(path, value)| (path.clone(), OneOrMany::One(value.clone()))).collect();
    record.matches(&when)
}
