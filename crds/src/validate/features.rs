//! What is kept of users, sessions and items: one kind for each feature, with the options that fit it.

use super::{Check, NameKind};
use crate::{
    names::{self, IMPRESSION},
    problem::{Path, Problem},
    spec::{Bucket, EventFields, Feature, Names, Per},
};

/// A kind of feature and the options that it takes.
struct Rule {
    kind: &'static str,
    needs: &'static [&'static str],
    takes: &'static [&'static str],
}

/// Of a sliding window.
const DEFAULT_BUCKETS: u32 = 8;

const WINDOWED: &[&str] = &["window", "tumbling", "buckets", "bucket"];

const RULES: [Rule; 14] = [
    Rule { kind: "count", needs: &[], takes: &["by", "window", "tumbling", "buckets", "bucket"] },
    Rule { kind: "sum", needs: &["of"], takes: WINDOWED },
    Rule { kind: "mean", needs: &["of"], takes: WINDOWED },
    Rule { kind: "min", needs: &["of"], takes: WINDOWED },
    Rule { kind: "max", needs: &["of"], takes: WINDOWED },
    Rule { kind: "decayedSum", needs: &["halfLife"], takes: &["of", "bucket"] },
    Rule { kind: "last", needs: &["of"], takes: &["bucket"] },
    Rule { kind: "lastN", needs: &["of", "n"], takes: &[] },
    Rule { kind: "distinct", needs: &["of"], takes: &["bucket"] },
    Rule { kind: "ratio", needs: &[], takes: &["window", "tumbling", "buckets", "smoothing", "bucket"] },
    Rule { kind: "timeSince", needs: &[], takes: &["bucket"] },
    Rule { kind: "affinity", needs: &["by", "halfLife"], takes: &["keep", "bucket"] },
    Rule { kind: "anyOf", needs: &[], takes: &[] },
    Rule { kind: "attribute", needs: &[], takes: &["bucket"] },
];

/// Kinds that add numbers up or compare them.
const NUMERIC: [&str; 5] = ["sum", "mean", "min", "max", "decayedSum"];

/// The kinds that a feature gives, with the names that each holds.
fn kinds(feature: &Feature) -> Vec<(&'static str, Vec<&str>)> {
    let of_events = [
        ("count", &feature.count),
        ("sum", &feature.sum),
        ("mean", &feature.mean),
        ("min", &feature.min),
        ("max", &feature.max),
        ("decayedSum", &feature.decayed_sum),
        ("last", &feature.last),
        ("lastN", &feature.last_n),
        ("distinct", &feature.distinct),
        ("timeSince", &feature.time_since),
        ("affinity", &feature.affinity),
    ];
    let mut kinds: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for (kind, names) in of_events {
        if let Some(names) = names {
            kinds.push((kind, each_name(names)));
        }
    }
    if let Some(pair) = &feature.ratio {
        kinds.push(("ratio", pair.iter().map(String::as_str).collect()));
    }
    if let Some(attributes) = &feature.any_of {
        kinds.push(("anyOf", attributes.iter().map(String::as_str).collect()));
    }
    if let Some(attribute) = &feature.attribute {
        kinds.push(("attribute", vec![attribute]));
    }
    kinds
}

fn each_name(names: &Names) -> Vec<&str> {
    match names {
        Names::One(name) => vec![name],
        Names::Many(names) => names.iter().map(String::as_str).collect(),
    }
}

fn options(feature: &Feature) -> Vec<&'static str> {
    let given = [
        ("of", feature.of.is_some()),
        ("by", feature.by.is_some()),
        ("window", feature.window.is_some()),
        ("tumbling", feature.tumbling.is_some()),
        ("buckets", feature.buckets.is_some()),
        ("halfLife", feature.half_life.is_some()),
        ("n", feature.n.is_some()),
        ("keep", feature.keep.is_some()),
        ("smoothing", feature.smoothing.is_some()),
        ("bucket", feature.bucket.is_some()),
    ];
    given.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect()
}

impl Check<'_> {
    pub(super) fn features(&mut self) {
        let path = Path::of("spec.features");
        for (name, feature) in &self.spec.features {
            let at = path.key(name);
            self.name(&at, name, NameKind::Identifier);
            if self.attributes.contains(name) || ["item", "placement", "platform"].contains(&name.as_str()) {
                let message = format!("`{name}` means something else in a model's features already");
                self.push(Problem::new(&at, message).value(name));
            }
            self.feature(&at, feature);
        }
    }

    fn feature(&mut self, at: &Path, feature: &Feature) {
        let kinds = kinds(feature);
        let (kind, names) = match kinds.as_slice() {
            [(kind, names)] => (*kind, names.as_slice()),
            [] => {
                let all: Vec<&str> = RULES.iter().map(|rule| rule.kind).collect();
                return self.wrong(at, format!("must say what it is, by one of {}", all.join(", ")));
            }
            several => {
                let all: Vec<&str> = several.iter().map(|(kind, _)| *kind).collect();
                return self.wrong(at, format!("is one thing only, not {}", all.join(" and ")));
            }
        };
        self.named(at, kind, names);
        self.options(at, kind, feature);
        self.of_and_by(at, kind, names, feature);
        self.window(at, feature);
        if let Some(bucket) = &feature.bucket {
            self.bucket(&at.key("bucket"), bucket);
        }
        self.per(at, kind, names, feature);
    }

    /// The events, or the attributes, that it is made from.
    fn named(&mut self, at: &Path, kind: &str, names: &[&str]) {
        let here = at.key(kind);
        match kind {
            "attribute" => {
                names.iter().for_each(|name| {
                    self.resolve_attribute(&here, name);
                });
            }
            "anyOf" => {
                for (i, pattern) in names.iter().enumerate() {
                    self.attribute_pattern(&here.index(i), pattern);
                }
                if names.is_empty() {
                    self.wrong(&here, "must name at least one attribute");
                }
            }
            _ => {
                for (i, name) in names.iter().enumerate() {
                    let here = if names.len() == 1 { here.clone() } else { here.index(i) };
                    self.resolve_event(&here, name);
                    if names[..i].contains(name) {
                        self.push(Problem::new(&here, format!("`{name}` stands here twice")).value(name));
                    }
                }
            }
        }
    }

    /// A pattern all of whose names are allowed attributes. One message is enough for eighty names.
    fn attribute_pattern(&mut self, at: &Path, pattern: &str) {
        if let Err(message) = names::check_pattern(pattern) {
            return self.push(Problem::new(at, format!("`{pattern}`: {message}")).value(pattern));
        }
        let unknown = names::expand(pattern).into_iter().find(|name| !self.attributes.contains(name));
        if let Some(name) = unknown {
            self.resolve_attribute(at, &name);
        }
    }

    fn options(&mut self, at: &Path, kind: &str, feature: &Feature) {
        let Some(rule) = RULES.iter().find(|rule| rule.kind == kind) else { return };
        let given = options(feature);
        for option in given.iter().filter(|o| !rule.takes.contains(o) && !rule.needs.contains(o)) {
            let allowed: Vec<&str> = rule.needs.iter().chain(rule.takes).copied().collect();
            let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            self.wrong(&at.key(option), format!("`{option}` does not go with `{kind}`, which takes {allowed}"));
        }
        for option in rule.needs.iter().filter(|option| !given.contains(option)) {
            self.wrong(&at.key(option), format!("is missing; `{kind}` needs `{option}`"));
        }
        self.above_zero(&at.key("window"), feature.window);
        self.above_zero(&at.key("halfLife"), feature.half_life);
    }

    /// `of` and `by` are `value`, `item` or an allowed attribute, and the events must have it.
    fn of_and_by(&mut self, at: &Path, kind: &str, events: &[&str], feature: &Feature) {
        for (key, name) in [("of", &feature.of), ("by", &feature.by)] {
            let Some(name) = name.as_deref() else { continue };
            let here = at.key(key);
            let has: fn(&EventFields) -> bool = match (key, name) {
                ("by", "value") => {
                    self.push(
                        Problem::new(&here, "a candidate has no `value`; use `item` or an attribute").value(name),
                    );
                    continue;
                }
                ("of", "item") if NUMERIC.contains(&kind) => {
                    self.push(Problem::new(&here, format!("`item` is no number, which `{kind}` needs")).value(name));
                    continue;
                }
                (_, "value") => |fields| fields.value.is_some(),
                (_, "item") => |fields| fields.items.is_some(),
                _ => {
                    if !self.attributes.contains(name) {
                        let known = self.attributes.iter().map(String::as_str).chain(["item", "value"]);
                        let message = format!("`{name}` is not in privacy.allowedAttributes, nor `value` or `item`");
                        let problem = Problem::new(&here, message).one_of(name, known);
                        self.push(problem);
                    }
                    continue;
                }
            };
            let without: Vec<&&str> = events.iter().filter(|event| !self.any_mapping_has(event, has)).collect();
            for event in without {
                self.push(Problem::new(&here, format!("no mapping of event `{event}` has it")).value(name));
            }
        }
    }

    /// Whether the event is unknown (said elsewhere), or any of its mappings has such fields, in any version.
    pub(super) fn any_mapping_has(&self, event: &str, has: fn(&EventFields) -> bool) -> bool {
        if self.decisions_are_impressions && event == IMPRESSION {
            return true;
        }
        self.events.get(event).is_none_or(|mappings| {
            mappings.iter().any(|mapping| has(&mapping.fields) || mapping.versions.values().any(has))
        })
    }

    fn window(&mut self, at: &Path, feature: &Feature) {
        let tumbling = feature.tumbling == Some(true);
        if let (Some(window), Some(_)) = (feature.window, &feature.by) {
            self.push(Problem::new(&at.key("window"), "does not go with `by`").value(&window.to_string()));
        }
        let least_micros = if tumbling { 1 } else { i64::from(feature.buckets.unwrap_or(DEFAULT_BUCKETS)) };
        if let Some(window) = feature.window.filter(|w| (1..least_micros).contains(&w.as_micros())) {
            let message = format!("`{window}` cannot be cut into {least_micros} buckets");
            self.push(Problem::new(&at.key("window"), message).value(&window.to_string()));
        }
        if feature.window.is_none() {
            for (key, given) in [("tumbling", tumbling), ("buckets", feature.buckets.is_some())] {
                if given {
                    self.wrong(&at.key(key), format!("`{key}` is about a `window`, which is not given"));
                }
            }
        } else if tumbling && feature.buckets.is_some() {
            self.wrong(&at.key("buckets"), "a tumbling window has no buckets");
        }
    }

    fn bucket(&mut self, at: &Path, bucket: &Bucket) {
        if !bucket.bounds.is_empty() && bucket.log2.is_some() {
            self.wrong(at, "only one of `bounds` and `log2` may be given");
        }
        if bucket.bounds.is_empty() && bucket.log2.is_none() && bucket.max.is_none() {
            self.wrong(at, "one of `bounds`, `log2` and `max` must be given");
        }
        if !bucket.bounds.is_sorted_by(|a, b| a < b) {
            self.wrong(&at.key("bounds"), "must ascend, each greater than the one before");
        }
        if bucket.log2.is_some_and(|log2| log2 <= 0.0) {
            self.push(Problem::new(&at.key("log2"), "must be above zero").value("0"));
        }
    }

    fn per(&mut self, at: &Path, kind: &str, names: &[&str], feature: &Feature) {
        let of_the_impression = matches!(kind, "anyOf" | "attribute");
        match feature.per {
            Per::User => {}
            _ if of_the_impression => {
                self.wrong(&at.key("per"), format!("`{kind}` is of the impression itself; leave `per` out"));
            }
            Per::Session => {
                if self.spec.sources.iter().all(|source| source.session.is_none()) {
                    self.wrong(&at.key("per"), "no source says where the session is; give its `session`");
                }
            }
            Per::Item | Per::Global => self.kept_by_models(at, kind, names, feature),
        }
    }

    /// Statistics over a model's examples know impressions and the model's outcome only.
    fn kept_by_models(&mut self, at: &Path, kind: &str, names: &[&str], feature: &Feature) {
        let per = if feature.per == Per::Item { "item" } else { "global" };
        let outcomes: Vec<&str> = self.spec.outcomes.values().map(|outcome| outcome.event.as_str()).collect();
        let allowed = match (kind, names) {
            ("ratio", [part, whole]) => *whole == IMPRESSION && outcomes.contains(part),
            ("count", [event]) => *event == IMPRESSION || outcomes.contains(event),
            _ => false,
        };
        if !allowed {
            let kept = format!("a `count` of an outcome's event or of `{IMPRESSION}`, or a `ratio` of the two");
            let message = format!("per {per}, only {kept}, can be kept");
            self.wrong(&at.key(kind), message);
        }
        if feature.by.is_some() {
            self.wrong(&at.key("by"), format!("is not for features per {per}"));
        }
    }
}

/// The outcome's event that a feature per item or global needs in the model that uses it.
pub(super) fn outcome_event_needed(feature: &Feature) -> Option<&str> {
    if !matches!(feature.per, Per::Item | Per::Global) {
        return None;
    }
    let counted = feature.count.as_ref().and_then(|names| each_name(names).first().copied());
    feature.ratio.as_ref().map(|[part, _]| part.as_str()).or(counted).filter(|event| *event != IMPRESSION)
}
