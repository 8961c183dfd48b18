//! A source of the spec, compiled: paths are slots, conditions and fields are ready to be looked at.

use millrace_crds::{
    names::ITEM_PREFIX,
    scalar::Scalar,
    spec::{EventFields, EventTime, FieldRef, Format, OneOrMany, PipelineSpec, Plus, Source, TimeUnit, When},
};

use super::{
    number, time,
    trie::{Trie, TrieBuilder},
    value::{Condition, Constant, Field},
};
use crate::{
    event::{AttributeId, EventType},
    names::Names,
};

use super::slots::Slot;

/// A source that cannot be compiled. `validate` says the same of a spec before it gets here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source `{source_name}`: {what} `{value}` {problem}")]
pub struct CompileError {
    pub source_name: String,
    /// Which part of the source.
    pub what: &'static str,
    pub value: String,
    pub problem: &'static str,
}

/// Who the user is.
pub(super) enum User {
    Field(Slot),
    /// Every record is a user of its own.
    Row,
    /// Items are no users.
    Nobody,
}

/// Where an item is in a record of a table.
pub(super) struct Item {
    pub id: Slot,
    /// In ascending id.
    pub attributes: Vec<(AttributeId, Field)>,
    /// Whether it may be shown; always, if nothing says so.
    pub available: Option<Slot>,
}

/// When an event happened.
pub(super) struct TimePlan {
    pub from: TimeFrom,
    pub unit: TimeUnit,
    pub plus_row: bool,
    /// In microseconds. Below: rejected.
    pub not_before: i64,
    /// In microseconds. Above: from the future.
    pub not_after: i64,
}

pub(super) enum TimeFrom {
    Field(Slot),
    /// Year, month, day, and on to hour, minute, second.
    Calendar(Vec<Slot>),
    /// Of a table: none, a record counts from when it is read.
    Nowhere,
}

/// Where an event's fields are, in one version.
#[derive(Default)]
pub(super) struct Fields {
    pub decision: Option<Field>,
    pub placement: Option<Field>,
    pub basket: Option<Field>,
    pub value: Option<Field>,
    pub currency: Option<Field>,
    pub items: Option<Field>,
    pub positions: Option<Field>,
    pub quantities: Option<Field>,
    pub values: Option<Field>,
    pub propensities: Option<Field>,
    /// In ascending id.
    pub attributes: Vec<(AttributeId, Field)>,
    /// In ascending id.
    pub item_attributes: Vec<(AttributeId, Field)>,
}

/// One entry of the source's `events`.
pub(super) struct Mapping {
    pub event_type: EventType,
    /// Tells apart the events that one record yields; does not change when other events are added to the spec.
    pub hash: u64,
    pub when: Vec<Condition>,
    /// Of the consent event: what grants.
    pub granted_if: Option<Vec<Condition>>,
    pub newest: Fields,
    /// Older versions, ascending.
    pub older: Vec<(f64, Fields)>,
}

impl Mapping {
    /// The fields of a version: those of the lowest listed version that is not below it. Without a number, and above all
    /// that are listed: the newest.
    pub(super) fn fields(&self, version: Option<f64>) -> &Fields {
        let listed = version.and_then(|version| self.older.iter().find(|(listed, _)| *listed >= version));
        listed.map_or(&self.newest, |(_, fields)| fields)
    }
}

pub(super) struct Plan {
    pub source: String,
    pub csv: bool,
    pub delimiter: u8,
    pub trie: Trie,
    /// CSV: whether each slot's column has to be there.
    pub required: Vec<bool>,
    pub drop: Vec<Vec<Condition>>,
    pub user: User,
    /// What a record itself has to say to be kept.
    pub consent: Vec<Condition>,
    pub time: TimePlan,
    /// And whether it is the element's own.
    pub event_id: Option<(Slot, bool)>,
    pub platform: Option<Field>,
    pub session: Option<Field>,
    pub version: Option<Field>,
    pub mappings: Vec<Mapping>,
    /// Of a table, instead of mappings.
    pub item: Option<Item>,
}

struct Compiler<'s> {
    spec: &'s PipelineSpec,
    source: &'s Source,
    names: &'s Names,
    paths: TrieBuilder,
    required: Vec<bool>,
}

/// Compiles a source.
pub(super) fn compile(spec: &PipelineSpec, source: &Source, names: &Names) -> Result<Plan, CompileError> {
    let csv = source.format == Format::Csv;
    let problem = |what, value: &str, problem| error(source, what, value, problem);
    let each = source.each.as_deref();
    let paths = TrieBuilder::new(csv, each).map_err(|p| problem("each", each.unwrap_or_default(), p))?;
    let delimiter = match source.delimiter.as_deref().unwrap_or(",").as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => *byte,
        _ => return Err(problem("delimiter", source.delimiter.as_deref().unwrap_or_default(), "is not one character")),
    };
    let mut compiler = Compiler { spec, source, names, paths, required: Vec::new() };
    let user = compiler.user()?;
    let consent = compiler.consent()?;
    let time = compiler.time(&source.event_time)?;
    let event_id = match &source.event_id {
        Some(id) => Some((compiler.slot("eventId", &id.field, true)?, compiler.paths.is_of_element(&id.field))),
        None => None,
    };
    let platform = compiler.field("platform", source.platform.as_ref())?;
    let session = compiler.field("session", source.session.as_ref())?;
    let version = compiler.field("version", source.version.as_ref())?;
    let drop = source.drop.iter().map(|when| compiler.when("drop", when)).collect::<Result<_, _>>()?;
    let mappings = compiler.mappings()?;
    let item = compiler.item()?;
    let Compiler { paths, mut required, .. } = compiler;
    let trie = paths.build();
    required.resize(trie.slot_count(), false);
    let source = source.name.clone();
    Ok(Plan {
        source,
        csv,
        delimiter,
        trie,
        required,
        drop,
        user,
        consent,
        time,
        event_id,
        platform,
        session,
        version,
        mappings,
        item,
    })
}

fn error(source: &Source, what: &'static str, value: &str, problem: &'static str) -> CompileError {
    CompileError { source_name: source.name.clone(), what, value: value.to_owned(), problem }
}

impl Compiler<'_> {
    fn slot(&mut self, what: &'static str, path: &str, required: bool) -> Result<Slot, CompileError> {
        let slot = self.paths.slot(path).map_err(|problem| error(self.source, what, path, problem))?;
        if self.required.len() <= slot as usize {
            self.required.resize(slot as usize + 1, false);
        }
        self.required[slot as usize] |= required;
        Ok(slot)
    }

    fn user(&mut self) -> Result<User, CompileError> {
        let user = &self.spec.privacy.user;
        if self.source.table {
            return Ok(User::Nobody);
        }
        match (&user.field, user.row_number) {
            (Some(path), None | Some(false)) => Ok(User::Field(self.slot("user", path, true)?)),
            (None, Some(true)) => Ok(User::Row),
            _ => Err(error(self.source, "user", "", "needs exactly one of `field` and `rowNumber: true`")),
        }
    }

    /// `consent.field` has to be there and to be one of the values of `grantedIf` or, without any, true.
    fn consent(&mut self) -> Result<Vec<Condition>, CompileError> {
        let consent = &self.spec.privacy.consent;
        let Some(path) = consent.field.as_ref().filter(|_| !self.source.table) else { return Ok(Vec::new()) };
        let mut conditions = self.granted_if()?;
        if !consent.granted_if.contains_key(path) {
            conditions.push(Condition { slot: self.slot("consent", path, true)?, any: vec![Constant::Bool(true)] });
        }
        Ok(conditions)
    }

    fn granted_if(&mut self) -> Result<Vec<Condition>, CompileError> {
        let mut conditions = Vec::new();
        for (path, value) in &self.spec.privacy.consent.granted_if {
            let slot = self.slot("consent", path, true)?;
            conditions.push(Condition { slot, any: vec![constant(value)] });
        }
        Ok(conditions)
    }

    fn when(&mut self, what: &'static str, when: &When) -> Result<Vec<Condition>, CompileError> {
        let mut conditions = Vec::new();
        for (path, values) in when {
            let any = match values {
                OneOrMany::One(value) => vec![constant(value)],
                OneOrMany::Many(values) => values.iter().map(constant).collect(),
            };
            conditions.push(Condition { slot: self.slot(what, path, true)?, any });
        }
        Ok(conditions)
    }

    fn time(&mut self, spec: &EventTime) -> Result<TimePlan, CompileError> {
        let from = match (&spec.field, spec.fields.len()) {
            (Some(path), 0) => TimeFrom::Field(self.slot("eventTime", path, true)?),
            (None, 3..=6) => {
                let slots = spec.fields.iter().map(|path| self.slot("eventTime", path, true));
                TimeFrom::Calendar(slots.collect::<Result<_, _>>()?)
            }
            (None, 0) if self.source.table => TimeFrom::Nowhere,
            _ => return Err(error(self.source, "eventTime", "", "needs `field`, or three to six `fields`")),
        };
        let bound = |text: &Option<String>, default: &'static str| {
            let text = text.as_deref().unwrap_or(default);
            time::of_text(text, spec.unit).ok_or_else(|| error(self.source, "eventTime", text, "is not a time"))
        };
        let not_before = bound(&spec.not_before, super::NOT_BEFORE)?;
        let not_after = bound(&spec.not_after, super::NOT_AFTER)?;
        let plus_row = spec.plus == Some(Plus::RowNumber);
        Ok(TimePlan { from, unit: spec.unit, plus_row, not_before, not_after })
    }

    fn field(&mut self, what: &'static str, field: Option<&FieldRef>) -> Result<Option<Field>, CompileError> {
        field.map(|field| self.field_of(what, field, true)).transpose()
    }

    fn field_of(&mut self, what: &'static str, field: &FieldRef, required: bool) -> Result<Field, CompileError> {
        let rule = match field {
            FieldRef::Path(path) => return Ok(Field::of_slot(self.slot(what, path, required)?)),
            FieldRef::Full(rule) => rule,
        };
        let (slot, constant_value) = match (&rule.field, &rule.constant) {
            (_, Some(value)) => (None, Some(constant(value))),
            (Some(path), None) => (Some(self.slot(what, path, required && rule.default.is_none())?), None),
            (None, None) => return Err(error(self.source, what, "", "needs `field` or `const`")),
        };
        Ok(Field {
            slot,
            otherwise: constant_value.or(rule.default.as_ref().map(constant)),
            map: rule.map.iter().map(|(from, to)| (from.clone(), to.clone())).collect(),
            convert: rule.convert,
        })
    }

    fn mappings(&mut self) -> Result<Vec<Mapping>, CompileError> {
        let mut mappings: Vec<Mapping> = Vec::new();
        for spec in &self.source.events {
            let problem = |problem| error(self.source, "event", &spec.name, problem);
            let event_type =
                self.names.event(&spec.name).ok_or_else(|| problem("is not among the pipeline's events"))?;
            let nth = mappings.iter().filter(|m| m.event_type == event_type).count() as u64;
            if mappings.len() >= super::MAX_MAPPINGS {
                return Err(problem("is one event too many"));
            }
            let when = self.when("when", &spec.when)?;
            let is_consent = self.spec.privacy.consent.event.as_ref() == Some(&spec.name);
            let granted_if = if is_consent { Some(self.granted_if()?) } else { None };
            // Of several versions, a CSV file has the columns of one.
            let required = spec.versions.is_empty();
            let newest = self.fields(&spec.fields, required)?;
            let mut older = Vec::new();
            for (number, changed) in &spec.versions {
                let not_a_number = || error(self.source, "version", number, "is not a number");
                let number = number::strict(number).ok_or_else(not_a_number)?;
                older.push((number, self.fields(&overlay(&spec.fields, changed), false)?));
            }
            older.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(spec.name.as_bytes(), nth);
            mappings.push(Mapping { event_type, hash, when, granted_if, newest, older });
        }
        Ok(mappings)
    }

    fn item(&mut self) -> Result<Option<Item>, CompileError> {
        if !self.source.table {
            return Ok(None);
        }
        let problem = |problem| error(self.source, "table", "", problem);
        let catalog = self.spec.catalog.as_ref().filter(|catalog| catalog.source == self.source.name);
        let catalog = catalog.ok_or_else(|| problem("is read by no catalog"))?;
        let mut attributes = Vec::new();
        for path in &catalog.attributes {
            let name = format!("{ITEM_PREFIX}{path}");
            let id = self.names.attribute(&name).ok_or_else(|| problem("has an attribute that is not allowed"))?;
            attributes.push((id, Field::of_slot(self.slot("catalog", path, true)?)));
        }
        attributes.sort_by_key(|(id, _)| *id);
        let available = match &catalog.available {
            Some(path) => Some(self.slot("catalog", path, true)?),
            None => None,
        };
        Ok(Some(Item { id: self.slot("catalog", &catalog.item, true)?, attributes, available }))
    }

    fn fields(&mut self, spec: &EventFields, required: bool) -> Result<Fields, CompileError> {
        let mut get = |what, field: &Option<FieldRef>| {
            field.as_ref().map(|field| self.field_of(what, field, required)).transpose()
        };
        let mut fields = Fields {
            decision: get("decision", &spec.decision)?,
            placement: get("placement", &spec.placement)?,
            basket: get("basket", &spec.basket)?,
            value: get("value", &spec.value)?,
            currency: get("currency", &spec.currency)?,
            items: get("items", &spec.items)?,
            positions: get("positions", &spec.positions)?,
            quantities: get("quantities", &spec.quantities)?,
            values: get("values", &spec.values)?,
            propensities: get("propensities", &spec.propensities)?,
            attributes: Vec::new(),
            item_attributes: Vec::new(),
        };
        for (id, name) in self.names.attributes.iter().enumerate() {
            let field = match spec.attributes.get(name) {
                Some(field) => self.field_of("attribute", field, required)?,
                None => Field::of_slot(self.slot("attribute", name, false)?),
            };
            let list = if Names::is_of_item(name) { &mut fields.item_attributes } else { &mut fields.attributes };
            list.push((id as AttributeId, field));
        }
        Ok(fields)
    }
}

/// What an older version changes, over what it does not.
fn overlay(newest: &EventFields, changed: &EventFields) -> EventFields {
    let over = |changed: &Option<FieldRef>, newest: &Option<FieldRef>| changed.as_ref().or(newest.as_ref()).cloned();
    let mut attributes = newest.attributes.clone();
    attributes.extend(changed.attributes.iter().map(|(name, field)| (name.clone(), field.clone())));
    EventFields {
        decision: over(&changed.decision, &newest.decision),
        placement: over(&changed.placement, &newest.placement),
        basket: over(&changed.basket, &newest.basket),
        value: over(&changed.value, &newest.value),
        currency: over(&changed.currency, &newest.currency),
        items: over(&changed.items, &newest.items),
        positions: over(&changed.positions, &newest.positions),
        quantities: over(&changed.quantities, &newest.quantities),
        values: over(&changed.values, &newest.values),
        propensities: over(&changed.propensities, &newest.propensities),
        attributes,
    }
}

fn constant(scalar: &Scalar) -> Constant {
    match scalar {
        Scalar::Bool(b) => Constant::Bool(*b),
        Scalar::Number(n) => Constant::Number(*n),
        Scalar::Text(text) => Constant::Text(text.clone()),
    }
}
