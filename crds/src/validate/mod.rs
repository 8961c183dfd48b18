//! Whether a pipeline of the right shape makes sense: names resolve, combinations fit, numbers agree.
//!
//! Everything that is wrong is found at once. What passes becomes [`Validated`], which later code need not doubt.

mod checkpoints;
mod decisions;
mod experiments;
mod features;
mod fields;
mod kafka;
mod models;
mod privacy;
mod sources;
mod validated;

use std::collections::{BTreeMap, BTreeSet};

pub use validated::{Validated, spec_of_result_digest_text};

use crate::{
    names::{self, IMPRESSION},
    problem::{Path, Problem, Problems},
    read::Document,
    scalar::Span,
    spec::{EventFields, EventMapping, Impressions, PipelineSpec},
};

/// Names of events that one pipeline may have, over all sources.
const MAX_EVENT_NAMES: usize = 200;
/// Names of attributes that one pipeline may have, patterns expanded.
const MAX_ATTRIBUTES: usize = 65_000;

/// Checks everything about a pipeline that its schema cannot say.
pub fn validate(document: Document) -> Result<Validated, Problems> {
    let mut check = Check::new(&document);
    check.resource();
    check.checkpoints();
    check.ordering();
    check.privacy();
    check.kafka();
    check.sources();
    check.features();
    check.outcomes();
    check.models();
    check.catalog();
    check.policies();
    check.placements();
    check.experiments();
    check.serving();
    let problems = check.problems;
    if problems.is_empty() { Ok(Validated::new(document)) } else { Err(Problems::new(problems)) }
}

/// What the checks look names up in, and what they found.
struct Check<'a> {
    document: &'a Document,
    spec: &'a PipelineSpec,
    /// Mappings of each event, over all sources.
    events: BTreeMap<&'a str, Vec<&'a EventMapping>>,
    /// Decisions of some placement are impressions, which then have whatever an impression may have.
    decisions_are_impressions: bool,
    /// Allowed attributes, patterns expanded.
    attributes: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn new(document: &'a Document) -> Self {
        let spec = &document.spec;
        let mut events: BTreeMap<&str, Vec<&EventMapping>> = BTreeMap::new();
        for event in spec.sources.iter().flat_map(|source| &source.events) {
            events.entry(&event.name).or_default().push(event);
        }
        let decisions_are_impressions = spec.placements.iter().any(|p| p.impressions == Impressions::Decision);
        if decisions_are_impressions {
            events.entry(IMPRESSION).or_default();
        }
        let patterns = spec.privacy.allowed_attributes.iter().take(MAX_ATTRIBUTES);
        let attributes = patterns.filter(|p| names::check_pattern(p).is_ok()).flat_map(|p| names::expand(p)).collect();
        Self { document, spec, events, decisions_are_impressions, attributes, problems: Vec::new() }
    }

    fn push(&mut self, problem: Problem) {
        let place = self.place(&problem.path);
        self.problems.push(match place {
            Some(place) => problem.at(place),
            None => problem,
        });
    }

    /// The place of the path or of what it stands in.
    fn place(&self, path: &str) -> Option<(u32, u32)> {
        let mut path = path;
        loop {
            if let Some(place) = self.document.places.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn wrong(&mut self, path: &Path, message: impl Into<String>) {
        self.push(Problem::new(path, message));
    }

    /// Says that `name` is none of `known`, if so.
    fn resolve<'n>(&mut self, path: &Path, name: &str, what: &str, known: impl IntoIterator<Item = &'n str>) -> bool {
        let known: BTreeSet<&str> = known.into_iter().collect();
        if known.contains(name) {
            return true;
        }
        let nothing = if known.is_empty() { "; there are none" } else { "" };
        self.push(Problem::new(path, format!("`{name}` is not {what}{nothing}")).one_of(name, known));
        false
    }

    /// Says that `name` is no event, or that none of its mappings has `field`, if so.
    fn event_with(&mut self, path: &Path, name: &str, field: &str, has: fn(&EventFields) -> bool) {
        if self.resolve_event(path, name) && !self.any_mapping_has(name, has) {
            let message = format!("no mapping of event `{name}` has `{field}`");
            self.push(Problem::new(path, message).value(name));
        }
    }

    fn resolve_event(&mut self, path: &Path, name: &str) -> bool {
        let events: Vec<&'a str> = self.events.keys().copied().collect();
        self.resolve(path, name, "an event of any source", events)
    }

    fn resolve_attribute(&mut self, path: &Path, name: &str) -> bool {
        if self.attributes.contains(name) {
            return true;
        }
        let problem = Problem::new(path, format!("`{name}` is not in privacy.allowedAttributes"));
        let problem = problem.one_of(name, self.attributes.iter().map(String::as_str));
        self.push(problem);
        false
    }

    /// Each name once and well formed.
    fn names<'n>(&mut self, list: &Path, names: impl IntoIterator<Item = &'n str>, kind: NameKind) {
        let mut seen = BTreeSet::new();
        for (i, name) in names.into_iter().enumerate() {
            let path = list.index(i).key("name");
            self.name(&path, name, kind);
            if !seen.insert(name) {
                self.push(Problem::new(&path, format!("`{name}` stands here twice; names must be unique")).value(name));
            }
        }
    }

    fn name(&mut self, path: &Path, name: &str, kind: NameKind) {
        let (good, rule) = match kind {
            NameKind::Label => (names::is_dns_label(name), "at most 63 of a-z, 0-9 and dashes, no dash first or last"),
            NameKind::Identifier => {
                (names::is_identifier(name), "a letter and then at most 62 letters, digits, `_` or `-`")
            }
        };
        if !good {
            self.push(Problem::new(path, format!("`{name}` is not a name: {rule}")).value(name));
        }
    }

    /// Exactly one of these must be given.
    fn exactly_one(&mut self, path: &Path, given: &[(&str, bool)]) -> bool {
        let all: Vec<String> = given.iter().map(|(name, _)| format!("`{name}`")).collect();
        let named: Vec<String> = given.iter().filter(|(_, is)| *is).map(|(name, _)| format!("`{name}`")).collect();
        match named.as_slice() {
            [_] => return true,
            [] => self.wrong(path, format!("one of {} must be given", all.join(", "))),
            _ => self.wrong(path, format!("only one of {} may be given", named.join(", "))),
        }
        false
    }

    fn above_zero(&mut self, path: &Path, span: Option<Span>) {
        if span.is_some_and(|span| span.as_micros() == 0) {
            self.push(Problem::new(path, "must be longer than zero").value("0s"));
        }
    }

    fn resource(&mut self) {
        if !names::is_dns_label(&self.document.name) {
            self.name(&Path::of("metadata.name"), &self.document.name, NameKind::Label);
        }
    }

    fn ordering(&mut self) {
        let Some(max_skew) = self.spec.ordering.max_skew else { return };
        for source in &self.spec.sources {
            let bound = source.event_time.max_out_of_orderness;
            if max_skew <= bound {
                let message = format!(
                    "`{max_skew}` must be greater than every maxOutOfOrderness; that of source `{}` is {bound}",
                    source.name
                );
                self.push(Problem::new(&Path::of("spec.ordering.maxSkew"), message).value(&max_skew.to_string()));
            }
        }
    }
}

#[derive(Clone, Copy)]
enum NameKind {
    /// Becomes part of names of topics and metrics.
    Label,
    Identifier,
}
