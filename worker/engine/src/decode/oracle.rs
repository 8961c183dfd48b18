//! The naive decoder: a whole `serde_json::Value`, the spec read anew for each record, plain structs out. Shares no code
//! with the fast one but the pseudonyms and the names of reasons.

use millrace_crds::{
    scalar::Scalar,
    spec::{Convert, EventFields, EventMapping, FieldRef, FieldRule, OneOrMany, PipelineSpec, Source, TimeUnit, When},
};
use serde_json::Value as Json;

use super::{Counts, Place, Reason};
use crate::{
    event::{ConsentChange, Event, Value},
    names::Names,
    privacy::Pseudonymizer,
};

/// An attribute, as text that tells types apart.
type Attributes = Vec<(u16, String)>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlainItem {
    pub id: String,
    pub position: i32,
    /// Quantity, value and propensity by their bits.
    pub numbers: [u64; 3],
    pub attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlainEvent {
    pub index: u32,
    pub time: i64,
    pub user: u128,
    pub event_type: u8,
    pub consent: ConsentChange,
    /// Whether there is an event id, decision, session, basket.
    pub ids: [bool; 4],
    pub value: u64,
    pub texts: [String; 3],
    pub items: Vec<PlainItem>,
    pub attributes: Attributes,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub events: Vec<PlainEvent>,
    pub counts: Counts,
    pub rejects: Vec<(u32, Reason)>,
}

fn plain_attribute(value: Value<'_>) -> String {
    match value {
        Value::Number(n) => format!("number {n:?}"),
        Value::Text(text) => format!("text {text}"),
        Value::Bool(b) => format!("bool {b}"),
    }
}

/// What an encoded event says.
pub(super) fn plain(index: u32, event: &Event<'_>) -> PlainEvent {
    let head = &event.head;
    let items = event.items().map(|item| PlainItem {
        id: item.id.to_owned(),
        position: item.position,
        numbers: [item.quantity, item.value, item.propensity].map(f64::to_bits),
        attributes: item.attributes().map(|(id, v)| (id, plain_attribute(v))).collect(),
    });
    PlainEvent {
        index,
        time: head.time.0,
        user: head.user.0,
        event_type: head.event_type,
        consent: head.consent,
        ids: [head.id != 0, head.decision != 0, head.session != 0, head.basket != 0],
        value: head.value.to_bits(),
        texts: [event.placement, event.platform, event.currency].map(str::to_owned),
        items: items.collect(),
        attributes: event.attributes().map(|(id, v)| (id, plain_attribute(v))).collect(),
    }
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
enum Found {
    Missing,
    Wrong,
    One(Json),
    List(Vec<Found>),
}

pub(super) struct Oracle<'s> {
    pub spec: &'s PipelineSpec,
    pub source: &'s Source,
    pub names: &'s Names,
    pub by: &'s Pseudonymizer,
}

/// The record and the element of it.
#[derive(Clone, Copy)]
struct At<'j> {
    record: &'j Json,
    element: Option<&'j Json>,
    index: u32,
    place: Place,
}

/// The value at `steps`, each a key and whether `[]` follows.
fn walk(json: &Json, steps: &[(&str, bool)], in_list: bool) -> Found {
    let Some(((key, list), rest)) = steps.split_first() else {
        return match json {
            Json::Null => Found::Missing,
            Json::Object(_) => Found::Wrong,
            Json::Array(_) if in_list => Found::Wrong,
            Json::Array(values) => Found::List(values.iter().map(|v| walk(v, &[], true)).collect()),
            scalar => Found::One(scalar.clone()),
        };
    };
    let child = match json {
        Json::Null => return Found::Missing,
        Json::Object(fields) => match fields.get(*key) {
            None | Some(Json::Null) => return Found::Missing,
            Some(child) => child,
        },
        _ => return Found::Wrong,
    };
    match (list, child) {
        (false, child) => walk(child, rest, in_list),
        // At a path's end, `a[]` is `a`.
        (true, child) if rest.is_empty() => walk(child, &[], false),
        (true, Json::Array(values)) => Found::List(values.iter().map(|v| walk(v, rest, true)).collect()),
        (true, _) => Found::Wrong,
    }
}

fn steps(path: &str) -> Vec<(&str, bool)> {
    path.split('.').filter(|s| !s.is_empty()).map(|s| (s.trim_end_matches("[]"), s.ends_with("[]"))).collect()
}

fn number_of(json: &Json) -> Option<f64> {
    json.as_f64()
}

fn text_of_number(json: &Json) -> String {
    match (json.as_i64(), json.as_u64(), json.as_f64()) {
        (Some(n), _, _) => n.to_string(),
        (_, Some(n), _) => n.to_string(),
        (_, _, Some(0.0)) => "0".to_owned(),
        (_, _, Some(n)) if n.to_string().len() <= 40 => n.to_string(),
        (_, _, Some(n)) => format!("{n:e}"),
        _ => String::new(),
    }
}

fn text_of(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        Json::Bool(b) => b.to_string(),
        number => text_of_number(number),
    }
}

fn scalar_json(scalar: &Scalar) -> Json {
    match scalar {
        Scalar::Bool(b) => Json::from(*b),
        Scalar::Number(n) if n.fract() == 0.0 && n.abs() < 1e18 => Json::from(*n as i64),
        Scalar::Number(n) => Json::from(*n),
        Scalar::Text(text) => Json::from(text.as_str()),
    }
}

fn scalar_equals(scalar: &Scalar, found: &Found) -> bool {
    match (scalar, found) {
        (Scalar::Bool(a), Found::One(Json::Bool(b))) => a == b,
        (Scalar::Number(a), Found::One(json @ Json::Number(_))) => Some(*a) == number_of(json),
        (Scalar::Text(a), Found::One(Json::String(b))) => a == b,
        _ => false,
    }
}

fn rule(field: &FieldRef) -> FieldRule {
    match field {
        FieldRef::Path(path) => FieldRule { field: Some(path.clone()), ..FieldRule::default() },
        FieldRef::Full(rule) => rule.clone(),
    }
}

/// Map, convert, default.
fn apply(rule: &FieldRule, found: Found) -> Found {
    let mapped = match found {
        Found::One(json) if !rule.map.is_empty() => {
            rule.map.get(&text_of(&json)).map_or(Found::Missing, |to| Found::One(Json::from(to.as_str())))
        }
        other => other,
    };
    let converted = match (rule.convert, mapped) {
        (Some(Convert::Number), Found::One(Json::String(text))) => {
            let number = serde_json::from_str::<Json>(&text).ok().filter(|_| !text.contains(' '));
            number.filter(Json::is_number).map_or(Found::Wrong, Found::One)
        }
        (Some(Convert::Number), Found::One(Json::Bool(b))) => Found::One(Json::from(i64::from(b))),
        (Some(Convert::Boolean), Found::One(Json::String(text))) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Found::One(Json::from(true)),
            "false" | "0" => Found::One(Json::from(false)),
            _ => Found::Wrong,
        },
        (Some(Convert::Boolean), Found::One(json @ Json::Number(_))) => match json.as_i64() {
            Some(n @ 0..=1) => Found::One(Json::from(n == 1)),
            _ => Found::Wrong,
        },
        (Some(Convert::Text), Found::One(json @ Json::Bool(_))) => Found::One(Json::from(text_of(&json))),
        (_, other) => other,
    };
    match (converted, &rule.default) {
        (Found::Missing, Some(Scalar::Bool(b))) if rule.convert == Some(Convert::Text) => {
            Found::One(Json::from(b.to_string()))
        }
        (Found::Missing, Some(default)) => Found::One(scalar_json(default)),
        (other, _) => other,
    }
}

impl Oracle<'_> {
    fn find(&self, at: At<'_>, path: &str) -> Found {
        let inner = self.source.each.as_ref().and_then(|each| path.strip_prefix(&format!("{each}[]")));
        match (inner, at.element) {
            (Some(rest), Some(element)) => walk(element, &steps(rest), false),
            _ => walk(at.record, &steps(path), false),
        }
    }

    fn read(&self, at: At<'_>, field: &Option<FieldRef>) -> Found {
        let Some(field) = field else { return Found::Missing };
        let rule = rule(field);
        if let Some(constant) = &rule.constant {
            return Found::One(scalar_json(constant));
        }
        match self.find(at, rule.field.as_deref().unwrap_or_default()) {
            Found::List(list) => Found::List(list.into_iter().map(|found| apply(&rule, found)).collect()),
            found => apply(&rule, found),
        }
    }

    fn matches(&self, at: At<'_>, when: &When) -> bool {
        when.iter().all(|(path, values)| {
            let found = self.find(at, path);
            match values {
                OneOrMany::One(value) => scalar_equals(value, &found),
                OneOrMany::Many(values) => values.iter().any(|value| scalar_equals(value, &found)),
            }
        })
    }

    fn granted(&self, at: At<'_>) -> bool {
        self.spec.privacy.consent.granted_if.iter().all(|(path, value)| scalar_equals(value, &self.find(at, path)))
    }

    pub(super) fn decode(&self, record: &str, place: Place) -> Outcome {
        let mut out = Outcome::default();
        let json: Json = match serde_json::from_str(record) {
            Ok(json) => json,
            Err(_) => {
                out.rejects.push((0, Reason::Malformed));
                return out;
            }
        };
        if !json.is_object() {
            out.rejects.push((0, Reason::WrongType));
            return out;
        }
        let Some(each) = &self.source.each else {
            self.element(At { record: &json, element: None, index: 0, place }, &mut out);
            return out;
        };
        let array = each.split('.').try_fold(&json, |json, key| match json {
            Json::Null => Err(Reason::MissingField),
            Json::Object(fields) => fields.get(key).filter(|v| !v.is_null()).ok_or(Reason::MissingField),
            _ => Err(Reason::WrongType),
        });
        match array {
            Ok(Json::Array(elements)) => {
                out.counts.empty += u32::from(elements.is_empty());
                for (index, element) in elements.iter().enumerate() {
                    let index = index as u32;
                    self.element(At { record: &json, element: Some(element), index, place }, &mut out);
                }
            }
            Ok(_) => out.rejects.push((0, Reason::WrongType)),
            Err(reason) => out.rejects.push((0, reason)),
        }
        out
    }

    fn element(&self, at: At<'_>, out: &mut Outcome) {
        if self.source.drop.iter().any(|when| self.matches(at, when)) {
            out.counts.dropped += 1;
            return;
        }
        let matched = self.source.events.iter().enumerate().filter(|(_, m)| self.matches(at, &m.when));
        let matched: Vec<(usize, &EventMapping)> = matched.collect();
        if matched.is_empty() {
            out.counts.unknown_type += 1;
            return;
        }
        match self.events(at, &matched, &mut out.counts) {
            Ok(Some(events)) => out.events.extend(events),
            Ok(None) => out.counts.unconsented += 1,
            Err(reason) => {
                out.rejects.push((at.index, reason));
                // Withdrawals stand.
                let consents: Vec<_> = matched.into_iter().filter(|m| self.is_consent(m.1)).collect();
                if let (false, false, Ok(Some(events))) =
                    (consents.is_empty(), self.granted(at), self.events(at, &consents, &mut out.counts))
                {
                    out.events.extend(events);
                }
            }
        }
    }

    fn is_consent(&self, mapping: &EventMapping) -> bool {
        self.spec.privacy.consent.event.as_ref() == Some(&mapping.name)
    }

    fn events(
        &self,
        at: At<'_>,
        matched: &[(usize, &EventMapping)],
        counts: &mut Counts,
    ) -> Result<Option<Vec<PlainEvent>>, Reason> {
        let privacy = &self.spec.privacy;
        let user = match &privacy.user.field {
            None => self.by.row_user(&self.source.name, at.place.partition, at.place.row),
            Some(path) => match id(self.find(at, path))? {
                None => return Ok(None),
                Some(id) if id.is_empty() => return Ok(None),
                Some(id) if id.len() > 1024 => return Err(Reason::IdTooLong),
                Some(id) => self.by.user_of(&id),
            },
        };
        if privacy.consent.field.is_some() && !self.granted(at) {
            return Ok(None);
        }
        let time = self.time(at)?;
        let version = match self.read(at, &self.source.version) {
            Found::One(Json::String(text)) => text.parse().ok(),
            Found::One(json) => number_of(&json),
            _ => None,
        };
        let mut ignored = 0;
        let mut events = Vec::new();
        for (n, mapping) in matched {
            let mut event = PlainEvent {
                index: at.index * 256 + *n as u32,
                time,
                user: user.0,
                event_type: self.names.event(&mapping.name).unwrap(),
                consent: ConsentChange::None,
                ids: [false; 4],
                value: f64::NAN.to_bits(),
                texts: Default::default(),
                items: Vec::new(),
                attributes: Vec::new(),
            };
            let event_id = self.has_event_id(at);
            if self.is_consent(mapping) {
                event.consent = if self.granted(at) { ConsentChange::Grant } else { ConsentChange::Withdraw };
                event.ids[0] = event_id.unwrap_or(false);
            } else {
                let fields = versioned(mapping, version);
                if let Some(value) = number(self.read(at, &fields.value))? {
                    event.value = value.to_bits();
                }
                event.ids = [
                    event_id?,
                    has_id(self.read(at, &fields.decision))?,
                    has_id(self.read(at, &self.source.session))?,
                    has_id(self.read(at, &fields.basket))?,
                ];
                event.texts = [
                    text(self.read(at, &fields.placement))?,
                    text(self.read(at, &self.source.platform))?,
                    text(self.read(at, &fields.currency))?,
                ];
                event.items = self.items(at, &fields, &mut ignored)?;
                event.attributes = self.attributes(at, &fields, None, &mut ignored);
            }
            events.push(event);
        }
        counts.ignored_attributes += ignored;
        Ok(Some(events))
    }

    fn has_event_id(&self, at: At<'_>) -> Result<bool, Reason> {
        match id(self.source.event_id.as_ref().map_or(Found::Missing, |e| self.find(at, &e.field)))? {
            Some(id) if id.is_empty() => Err(Reason::EmptyId),
            Some(id) if id.len() > 1024 => Err(Reason::IdTooLong),
            id => Ok(id.is_some()),
        }
    }

    fn time(&self, at: At<'_>) -> Result<i64, Reason> {
        let spec = &self.source.event_time;
        let path = spec.field.as_deref().unwrap_or_default();
        let scale = |n: f64| match spec.unit {
            TimeUnit::S => n * 1e6,
            TimeUnit::Ms => n * 1e3,
            TimeUnit::Us => n,
            TimeUnit::Ns => n / 1e3,
        };
        let found = match self.find(at, path) {
            Found::One(Json::String(text)) => match serde_json::from_str::<Json>(&text) {
                Ok(number @ Json::Number(_)) => Found::One(number),
                _ => Found::One(Json::String(text)),
            },
            other => other,
        };
        let micros = match found {
            Found::Missing => return Err(Reason::MissingField),
            Found::One(Json::Number(n)) => match n.as_i64() {
                Some(n) => match spec.unit {
                    TimeUnit::S => i128::from(n) * 1_000_000,
                    TimeUnit::Ms => i128::from(n) * 1_000,
                    TimeUnit::Us => i128::from(n),
                    TimeUnit::Ns => i128::from(n).div_euclid(1_000),
                },
                None => scale(n.as_f64().unwrap()).round() as i128,
            },
            Found::One(Json::String(text)) => {
                let time: jiff::Timestamp = text.parse().map_err(|_| Reason::BadTime)?;
                time.as_nanosecond().div_euclid(1_000)
            }
            _ => return Err(Reason::WrongType),
        };
        i64::try_from(micros).ok().filter(|t| *t >= 0).ok_or(Reason::TimeOutOfRange)
    }

    fn items(&self, at: At<'_>, fields: &EventFields, ignored: &mut u32) -> Result<Vec<PlainItem>, Reason> {
        let ids = match self.read(at, &fields.items) {
            Found::Missing => return Ok(Vec::new()),
            Found::Wrong => return Err(Reason::WrongType),
            Found::List(list) => list,
            one => vec![one],
        };
        let column = |field| match self.read(at, field) {
            Found::Missing => Ok(vec![Found::Missing; ids.len()]),
            Found::List(list) if list.len() == ids.len() => Ok(list),
            one @ Found::One(_) if ids.len() == 1 => Ok(vec![one]),
            _ => Err(Reason::WrongType),
        };
        let columns = [&fields.positions, &fields.quantities, &fields.values, &fields.propensities].map(column);
        let [positions, quantities, values, propensities] = columns;
        let (positions, quantities, values, propensities) = (positions?, quantities?, values?, propensities?);
        let mut items = Vec::new();
        for (i, found) in ids.iter().enumerate() {
            let id = id(found.clone())?.filter(|id| !id.is_empty()).ok_or(Reason::EmptyId)?;
            if id.len() > 255 {
                return Err(Reason::IdTooLong);
            }
            let position = match number(positions[i].clone())? {
                None => -1,
                Some(p) if p >= 0.0 && p.fract() == 0.0 && p <= f64::from(i32::MAX) => p as i32,
                Some(_) => return Err(Reason::NumberOutOfRange),
            };
            let quantity = number(quantities[i].clone())?.unwrap_or(f64::NAN);
            let value = number(values[i].clone())?.unwrap_or(f64::NAN);
            let propensity = number(propensities[i].clone())?.unwrap_or(f64::NAN);
            if propensity <= 0.0 || propensity > 1.0 {
                return Err(Reason::NumberOutOfRange);
            }
            let numbers = [quantity, value, propensity].map(f64::to_bits);
            let attributes = self.attributes(at, fields, Some((i, ids.len())), ignored);
            items.push(PlainItem { id, position, numbers, attributes });
        }
        Ok(items)
    }

    fn attributes(
        &self,
        at: At<'_>,
        fields: &EventFields,
        item: Option<(usize, usize)>,
        ignored: &mut u32,
    ) -> Attributes {
        let mut attributes = Vec::new();
        for (number, name) in self.names.attributes.iter().enumerate() {
            if name.starts_with("item.") != item.is_some() {
                continue;
            }
            let field = fields.attributes.get(name).cloned().unwrap_or(FieldRef::Path(name.clone()));
            let as_text = rule(&field).convert == Some(Convert::Text);
            let found = match (self.read(at, &Some(field)), item) {
                (Found::List(list), Some((i, len))) if list.len() == len => list[i].clone(),
                (found, _) => found,
            };
            let value = match found {
                Found::Missing => continue,
                Found::One(Json::Bool(b)) => format!("bool {b}"),
                Found::One(Json::String(text)) if text.len() <= 255 => format!("text {text}"),
                Found::One(json @ Json::Number(_)) if as_text => format!("text {}", text_of(&json)),
                Found::One(json @ Json::Number(_)) => format!("number {:?}", number_of(&json).unwrap()),
                _ => {
                    *ignored += 1;
                    continue;
                }
            };
            attributes.push((number as u16, value));
        }
        attributes
    }
}

fn versioned(mapping: &EventMapping, version: Option<f64>) -> EventFields {
    let mut fields = mapping.fields.clone();
    let mut listed: Vec<(f64, &EventFields)> =
        mapping.versions.iter().map(|(number, fields)| (number.parse().unwrap(), fields)).collect();
    listed.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, older)) = version.and_then(|v| listed.into_iter().find(|(number, _)| *number >= v)) {
        // By way of JSON, where what is not given is not there.
        let mut all = serde_json::to_value(&fields).unwrap();
        for (name, value) in serde_json::to_value(older).unwrap().as_object().unwrap() {
            match (name.as_str(), all.get_mut(name)) {
                ("attributes", Some(Json::Object(attributes))) => {
                    attributes.extend(value.as_object().unwrap().clone());
                }
                _ => all[name] = value.clone(),
            }
        }
        fields = serde_json::from_value(all).unwrap();
    }
    fields
}

fn id(found: Found) -> Result<Option<String>, Reason> {
    match found {
        Found::Missing => Ok(None),
        Found::One(Json::Bool(_)) | Found::Wrong | Found::List(_) => Err(Reason::WrongType),
        Found::One(json) => Ok(Some(text_of(&json))),
    }
}

fn has_id(found: Found) -> Result<bool, Reason> {
    match id(found)? {
        Some(id) if id.len() > 1024 => Err(Reason::IdTooLong),
        id => Ok(id.is_some_and(|id| !id.is_empty())),
    }
}

fn text(found: Found) -> Result<String, Reason> {
    match found {
        Found::Missing => Ok(String::new()),
        Found::One(json) if text_of(&json).len() <= 255 => Ok(text_of(&json)),
        Found::One(_) => Err(Reason::TextTooLong),
        Found::Wrong | Found::List(_) => Err(Reason::WrongType),
    }
}

fn number(found: Found) -> Result<Option<f64>, Reason> {
    match found {
        Found::Missing => Ok(None),
        Found::One(json @ Json::Number(_)) => Ok(number_of(&json)),
        _ => Err(Reason::WrongType),
    }
}
