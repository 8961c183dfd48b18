//! Paths into records, and rules about what stands there.

use super::Check;
use crate::{
    paths,
    problem::{Path, Problem},
    spec::{EventFields, FieldRef, Format, Source, When},
};

/// What a path may lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    ToOne,
    ToList,
}

impl Check<'_> {
    /// A path into records of this source.
    pub(super) fn path(&mut self, at: &Path, path: &str, source: &Source, leads: Leads) {
        if let Some(message) = wrong_path(path, source, leads) {
            self.push(Problem::new(at, message).value(path));
        }
    }

    pub(super) fn field(&mut self, at: &Path, field: &FieldRef, source: &Source, leads: Leads) {
        let rule = match field {
            FieldRef::Path(path) => return self.path(at, path, source, leads),
            FieldRef::Full(rule) => rule,
        };
        let given = [("field", rule.field.is_some()), ("const", rule.constant.is_some())];
        if !self.exactly_one(at, &given) {
            return;
        }
        if let Some(path) = &rule.field {
            return self.path(&at.key("field"), path, source, leads);
        }
        let unused =
            [("default", rule.default.is_some()), ("map", !rule.map.is_empty()), ("convert", rule.convert.is_some())];
        for (key, _) in unused.iter().filter(|(_, given)| *given) {
            self.wrong(&at.key(key), format!("`{key}` goes with `field`; a `const` is used always"));
        }
    }

    pub(super) fn optional_field(&mut self, at: &Path, field: &Option<FieldRef>, source: &Source, leads: Leads) {
        if let Some(field) = field {
            self.field(at, field, source, leads);
        }
    }

    /// Conditions on records of this source.
    pub(super) fn when(&mut self, at: &Path, when: &When, source: &Source) {
        for path in when.keys() {
            self.path(&at.key(path), path, source, Leads::ToOne);
        }
    }

    pub(super) fn event_fields(&mut self, at: &Path, fields: &EventFields, source: &Source) {
        let one = [
            ("decision", &fields.decision),
            ("placement", &fields.placement),
            ("basket", &fields.basket),
            ("value", &fields.value),
            ("currency", &fields.currency),
        ];
        for (key, field) in one {
            self.optional_field(&at.key(key), field, source, Leads::ToOne);
        }
        let of_items = [
            ("items", &fields.items),
            ("positions", &fields.positions),
            ("quantities", &fields.quantities),
            ("values", &fields.values),
            ("propensities", &fields.propensities),
        ];
        for (key, field) in of_items {
            self.optional_field(&at.key(key), field, source, Leads::ToList);
        }
        let item_attributes = fields.attributes.iter().filter(|(name, _)| is_of_item(name));
        let beside_items: Vec<(Path, &FieldRef)> = of_items[1..]
            .iter()
            .filter_map(|(key, field)| Some((at.key(key), field.as_ref()?)))
            .chain(item_attributes.map(|(name, field)| (at.key("attributes").key(name), field)))
            .collect();
        self.same_array(fields, &beside_items, source);
        for (name, field) in &fields.attributes {
            let here = at.key("attributes").key(name);
            self.resolve_attribute(&here, name);
            self.field(&here, field, source, if is_of_item(name) { Leads::ToList } else { Leads::ToOne });
        }
    }

    /// Lists beside `items` must come from the same array, or the n-th would belong to another item.
    fn same_array(&mut self, fields: &EventFields, beside_items: &[(Path, &FieldRef)], source: &Source) {
        let Some(items) = fields.items.as_ref().and_then(path_of) else { return };
        let array = array_of(items, source);
        for (at, path) in beside_items.iter().filter_map(|(at, field)| Some((at, path_of(field)?))) {
            match (array_of(path, source), array) {
                (Some(other), Some(array)) if other != array => {
                    let message = format!("`{path}` is not of the array of the items, `{array}[]`");
                    self.push(Problem::new(at, message).value(path));
                }
                (Some(_), None) => {
                    let message = format!("`{path}` is a list, but `items` is one item, at `{items}`");
                    self.push(Problem::new(at, message).value(path));
                }
                _ => {}
            }
        }
    }
}

fn is_of_item(name: &str) -> bool {
    name.starts_with(crate::names::ITEM_PREFIX)
}

fn path_of(field: &FieldRef) -> Option<&str> {
    match field {
        FieldRef::Path(path) => Some(path),
        FieldRef::Full(rule) => rule.field.as_deref(),
    }
}

/// What is before the `[]` that makes a path a list, if it is one.
fn array_of<'p>(path: &'p str, source: &Source) -> Option<&'p str> {
    let within_element = source.each.as_deref().and_then(|each| paths::within(path, each));
    let (rest, before) = match within_element {
        Some(rest) => (rest, path.len() - rest.len()),
        None => (path, 0),
    };
    let end = rest.find("[].").or_else(|| rest.ends_with("[]").then(|| rest.len() - 2))?;
    Some(&path[..before + end])
}

fn wrong_path(path: &str, source: &Source, leads: Leads) -> Option<String> {
    let whole = match paths::segments(path) {
        Ok(segments) => segments,
        Err(message) => return Some(message),
    };
    let lists = whole.iter().filter(|segment| segment.each).count();
    if source.format == Format::Csv {
        return (lists > 0).then(|| format!("`{path}` has `[]`, but CSV has no lists"));
    }
    let in_element = source.each.as_deref().is_some_and(|each| paths::within(path, each).is_some());
    let lists = lists - usize::from(in_element);
    match (leads, lists) {
        (_, 0) | (Leads::ToList, 1) => None,
        (Leads::ToOne, _) => Some(format!("`{path}` is a list, but one value is needed here")),
        (Leads::ToList, _) => Some(format!("`{path}` has `[]` twice; lists in lists are not read")),
    }
}
