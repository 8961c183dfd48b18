//! The pipeline's names as small numbers, fixed when the pipeline is compiled.

use std::collections::BTreeSet;

use millrace_crds::spec::PipelineSpec;

use crate::event::{AttributeId, EventType};

/// The event that opens joins.
pub const IMPRESSION: &str = "impression";

/// Sorted names; a name's index is its number. Depends on the spec only, never on data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub events: Vec<String>,
    pub attributes: Vec<String>,
}

impl Names {
    /// The spec must be validated: at most 255 events and 65,535 attributes.
    pub fn of(spec: &PipelineSpec) -> Self {
        let events: BTreeSet<&String> = spec.sources.iter().flat_map(|s| &s.events).map(|e| &e.name).collect();
        let attributes: BTreeSet<String> =
            spec.privacy.allowed_attributes.iter().flat_map(|pattern| expand(pattern)).collect();
        Self { events: events.into_iter().cloned().collect(), attributes: attributes.into_iter().collect() }
    }
    pub fn event(&self, name: &str) -> Option<EventType> {
        self.events.binary_search_by(|n| n.as_str().cmp(name)).ok().map(|i| i as EventType)
    }
    pub fn attribute(&self, name: &str) -> Option<AttributeId> {
        self.attributes.binary_search_by(|n| n.as_str().cmp(name)).ok().map(|i| i as AttributeId)
    }
    /// Attributes named `item.…` belong to each item, all others to the event.
    pub fn is_of_item(name: &str) -> bool {
        name.starts_with("item.")
    }
}

/// `a_{0..2}` becomes `a_0`, `a_1`, `a_2`; a name without braces becomes itself. At most 1,000 names.
pub fn expand(pattern: &str) -> Vec<String> {
    let parts = pattern.split_once('{').and_then(|(before, rest)| {
        let (range, after) = rest.split_once('}')?;
        let (from, to) = range.split_once("..")?;
        Some((before, from.parse::<u32>().ok()?, to.parse::<u32>().ok()?, after))
    });
    match parts {
        Some((before, from, to, after)) => (from..=to).take(1_000).map(|n| format!("{before}{n}{after}")).collect(),
        None => vec![pattern.to_owned()],
    }
}
