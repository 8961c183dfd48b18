//! The pipeline's names as small numbers, fixed when the pipeline is compiled.

use std::collections::BTreeSet;

use millrace_crds::spec::{Impressions, PipelineSpec};

use crate::event::{AttributeId, EventType};

pub use millrace_crds::names::{IMPRESSION, expand};

/// Sorted names; a name's index is its number. Depends on the spec only, never on data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub events: Vec<String>,
    pub attributes: Vec<String>,
}

impl Names {
    /// The spec must be validated: at most 255 events and 65,535 attributes.
    pub fn of(spec: &PipelineSpec) -> Self {
        let named = spec.sources.iter().flat_map(|s| &s.events).map(|e| e.name.as_str());
        // Decisions may be impressions where no source has any.
        let decides = spec.placements.iter().any(|p| p.impressions == Impressions::Decision);
        let events: BTreeSet<&str> = named.chain(decides.then_some(IMPRESSION)).collect();
        let attributes: BTreeSet<String> =
            spec.privacy.allowed_attributes.iter().flat_map(|pattern| expand(pattern)).collect();
        Self { events: events.into_iter().map(str::to_owned).collect(), attributes: attributes.into_iter().collect() }
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
