//! Who the user is, who agreed, and which attributes pass.

use std::collections::BTreeMap;

use super::{Check, MAX_ATTRIBUTES};
use crate::{
    names, paths,
    problem::{Path, Problem},
    spec::{Consent, Source},
};

/// Names with another meaning wherever an attribute may stand.
const RESERVED: [&str; 4] = ["item", "value", "placement", "platform"];
/// Longest name of an attribute.
const MAX_ATTRIBUTE_BYTES: usize = 200;

impl Check<'_> {
    pub(super) fn privacy(&mut self) {
        let (path, privacy) = (Path::of("spec.privacy"), &self.spec.privacy);
        let keys = &privacy.pseudonym_keys;
        let keys_path = path.key("pseudonymKeys");
        self.exactly_one(&keys_path, &[("file", keys.file.is_some()), ("secret", keys.secret.is_some())]);
        for (key, text) in
            [("file", keys.file.as_deref()), ("secret", keys.secret.as_deref()), ("active", Some(keys.active.as_str()))]
        {
            if text.is_some_and(str::is_empty) {
                self.wrong(&keys_path.key(key), "must not be empty");
            }
        }
        self.user(&path.key("user"));
        self.consent(&path.key("consent"), &privacy.consent);
        self.allowed_attributes(&path.key("allowedAttributes"));
    }

    fn user(&mut self, at: &Path) {
        let user = &self.spec.privacy.user;
        let by_row = user.row_number == Some(true);
        if user.row_number == Some(false) {
            self.push(Problem::new(&at.key("rowNumber"), "can only be true; leave it out otherwise").value("false"));
        } else if self.exactly_one(at, &[("field", user.field.is_some()), ("rowNumber", by_row)]) && by_row {
            self.files_only(&at.key("rowNumber"), "only records of files have a number");
        }
        if let Some(field) = &user.field {
            self.path_in_any_source(&at.key("field"), field);
        }
    }

    fn consent(&mut self, at: &Path, consent: &Consent) {
        let kinds = [
            ("event", consent.event.is_some()),
            ("field", consent.field.is_some()),
            ("assumed", consent.assumed.is_some()),
        ];
        self.exactly_one(at, &kinds);
        let granted_if = at.key("grantedIf");
        for path in consent.granted_if.keys() {
            self.path_in_any_source(&granted_if.key(path), path);
        }
        if let Some(event) = &consent.event {
            self.resolve_event(&at.key("event"), event);
        }
        if let Some(field) = &consent.field {
            self.path_in_any_source(&at.key("field"), field);
            for other in consent.granted_if.keys().filter(|key| *key != field) {
                let message = format!("with `field`, only the field `{field}` itself can grant");
                self.push(Problem::new(&granted_if.key(other), message).one_of(other, [field.as_str()]));
            }
        }
        if (consent.event.is_some() || consent.field.is_some()) && consent.granted_if.is_empty() {
            self.wrong(&granted_if, "must say which values grant consent; without it nobody would be kept");
        }
        if let Some(reason) = &consent.assumed {
            if reason.trim().is_empty() {
                self.wrong(&at.key("assumed"), "must give the reason for which consent may be assumed");
            }
            if !consent.granted_if.is_empty() {
                self.wrong(&granted_if, "is not looked at where consent is assumed");
            }
            self.files_only(&at.key("assumed"), "consent may be assumed for files only");
        }
    }

    fn files_only(&mut self, at: &Path, why: &str) {
        for source in self.spec.sources.iter().filter(|source| source.file.is_none() && !source.table) {
            self.wrong(at, format!("{why}; source `{}` is none", source.name));
        }
    }

    /// A path that one value stands at, in at least one source.
    fn path_in_any_source(&mut self, at: &Path, path: &str) {
        let lists = match paths::segments(path) {
            Ok(segments) => segments.iter().filter(|segment| segment.each).count(),
            Err(message) => return self.push(Problem::new(at, message).value(path)),
        };
        let in_element =
            |source: &Source| source.each.as_deref().is_some_and(|each| paths::within(path, each).is_some());
        if lists > usize::from(self.spec.sources.iter().any(in_element)) {
            self.push(Problem::new(at, format!("`{path}` is a list, but one value is needed here")).value(path));
        }
    }

    fn allowed_attributes(&mut self, at: &Path) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (i, pattern) in self.spec.privacy.allowed_attributes.iter().enumerate() {
            let here = at.index(i);
            if let Err(message) = names::check_pattern(pattern) {
                self.push(Problem::new(&here, format!("`{pattern}`: {message}")).value(pattern));
                continue;
            }
            let names = names::expand(pattern);
            let unnamed = names.iter().any(|name| name.is_empty() || name == names::ITEM_PREFIX);
            if unnamed || names.iter().any(|name| name.len() > MAX_ATTRIBUTE_BYTES) {
                let message = format!("`{pattern}` must be a name of 1 to {MAX_ATTRIBUTE_BYTES} bytes");
                self.push(Problem::new(&here, message).value(pattern));
            }
            if RESERVED.contains(&pattern.as_str()) {
                let message = format!(
                    "`{pattern}` already means something else where attributes are named; map it to another name"
                );
                self.push(Problem::new(&here, message).value(pattern));
            }
            let doubled =
                names.into_iter().filter_map(|name| seen.insert(name.clone(), i).map(|first| (name, first))).next();
            if let Some((name, first)) = doubled {
                let message = format!("`{name}` is in this list already, at {first}");
                self.push(Problem::new(&here, message).value(pattern));
            }
        }
        if seen.len() > MAX_ATTRIBUTES {
            let message = format!("{} attributes are allowed here, more than {MAX_ATTRIBUTES}", seen.len());
            self.wrong(at, message);
        }
    }
}
