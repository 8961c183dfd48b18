//! What may be shown in a decision.
//!
//! Of the catalog: every item that is available. A catalog of more than [`MAX_CANDIDATES`] would cost milliseconds to
//! score, so a decision takes the best by the rank of the placement's default policy, ordered anew once a second at most,
//! and [`DRAWN`] of the others, drawn by its seed, so that each has a chance. Propensities are then given those candidates.
//!
//! Of the request: the items that it names, each once, the first time it is named. One that the catalog does not know is
//! kept, since the caller vouches for it; one that the catalog knows and that is not available is not. What the request says of an
//! item's attributes goes before what the catalog says.
//!
//! Of either, what the user bought within the placement's time is left out, except from default content, which is the
//! same for everybody.

use std::{collections::BTreeSet, ops::Range};

use super::{Candidate, DecideError, Request, policy::Rank, rng::Rng, rules::Source};
use crate::{
    catalog::{Catalog, CatalogItem},
    control::TEXT_BYTES_MAX,
    event::{AttributeId, Time, Value, put_attribute},
    learn::{ServingModel, item_key},
};

/// Most candidates of one decision.
pub const MAX_CANDIDATES: usize = 1_000;
/// Of which, from a catalog that has more, so many are drawn evenly from those that are not the best.
pub const DRAWN: usize = 100;
const REFRESH_MICROS: i64 = 1_000_000;

/// One that may be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrant<'a> {
    pub item: &'a str,
    /// [`item_key`].
    pub key: u64,
    /// Where its encoded attributes are in the buffer.
    pub attributes: Range<usize>,
}

/// The items of a catalog that is too large for a decision, best first by the default policy.
#[derive(Clone, Debug, Default)]
pub struct Shortlist {
    order: Vec<String>,
    made: Option<Made>,
}

/// Of what a shortlist was made, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    at: Time,
    changes: u64,
    seen: Option<u64>,
}

impl Shortlist {
    fn refresh(&mut self, catalog: &Catalog, rank: &Rank, models: &[ServingModel], now: Time) {
        let seen = match rank {
            Rank::Statistic { model, .. } => models[*model].seen(),
            _ => None,
        };
        let (changes, made) = (catalog.changes(), self.made);
        let is_recent = |made: Made| made.at.0.abs_diff(now.0) < REFRESH_MICROS as u64;
        if made.is_some_and(|made| (made.changes, made.seen) == (changes, seen) || is_recent(made)) {
            return;
        }
        self.made = Some(Made { at: now, changes, seen });
        let mut ranked: Vec<(f64, &CatalogItem)> = match rank {
            Rank::Statistic { model, statistic } => {
                let number = models[*model].numbers(*statistic, now);
                let of = |item| number(item_key(item)).unwrap_or(super::policy::NO_EVIDENCE);
                catalog.available().map(|item| (of(&item.id), item)).collect()
            }
            _ => catalog.available().map(|item| (0.0, item)).collect(),
        };
        // Stable: equal ones stay in the catalog's order.
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.order.clear();
        self.order.extend(ranked.into_iter().map(|(_, item)| item.id.clone()));
    }
}

/// What candidates are gathered from.
pub struct Gathering<'a> {
    pub catalog: Option<&'a Catalog>,
    pub models: &'a [ServingModel],
    pub source: Source,
    /// Of the default policy.
    pub rank: &'a Rank,
    /// Hashes of the ids of items that are not shown to the user.
    pub excluded: &'a [u64],
    /// For default content.
    pub is_default: bool,
}

impl<'r> Gathering<'r> {
    /// The candidates in their order, their attributes in `attributes`.
    pub fn gather(
        &self,
        request: &Request<'r>,
        shortlist: &'r mut Shortlist,
        rng: &mut Rng,
        attributes: &mut Vec<u8>,
    ) -> Result<Vec<Entrant<'r>>, DecideError> {
        attributes.clear();
        let mut entrants =
            Entrants { list: Vec::new(), encoded: attributes, gathered: Vec::new(), excluded: self.excluded };
        match (self.source, self.catalog) {
            (Source::Request(most), catalog) => {
                check(request.candidates, most)?;
                for candidate in firsts(request.candidates) {
                    let known = catalog.and_then(|catalog| catalog.get(candidate.item));
                    if known.is_none_or(|item| item.available) {
                        let of_catalog = known.map_or(&[][..], |item| &item.attributes);
                        let own = candidate.attributes.iter().copied();
                        entrants.push(candidate.item, own.chain(of_catalog.iter().map(|(id, v)| (*id, v.value()))));
                    }
                }
            }
            (Source::Catalog, _) if !request.candidates.is_empty() => return Err(DecideError::CandidatesOfCatalog),
            (Source::Catalog, None) => {}
            (Source::Catalog, Some(catalog)) if catalog.len() <= MAX_CANDIDATES => {
                entrants.list.reserve(catalog.len());
                catalog.available().for_each(|item| entrants.push_item(item));
            }
            (Source::Catalog, Some(catalog)) => {
                shortlist.refresh(catalog, self.rank, self.models, request.time);
                let order = &shortlist.order;
                let (best, others) = order.split_at(order.len().min(MAX_CANDIDATES - DRAWN));
                let drawn = if self.is_default { BTreeSet::new() } else { some_of(others.len(), DRAWN, rng) };
                let ids = best.iter().chain(drawn.into_iter().map(|at| &others[at]));
                let items = ids.filter_map(|id| catalog.get(id)).filter(|item| item.available);
                items.for_each(|item| entrants.push_item(item));
            }
        }
        Ok(entrants.list)
    }
}

fn check(candidates: &[Candidate<'_>], limit: usize) -> Result<(), DecideError> {
    if candidates.len() > limit {
        return Err(DecideError::TooManyCandidates { given: candidates.len(), limit });
    }
    let is_id = |candidate: &Candidate<'_>| (1..=TEXT_BYTES_MAX).contains(&candidate.item.len());
    if candidates.iter().all(is_id) { Ok(()) } else { Err(DecideError::ItemId) }
}

/// Without those that were named before.
fn firsts<'c, 'r>(candidates: &'c [Candidate<'r>]) -> impl Iterator<Item = &'c Candidate<'r>> {
    let mut by_item: Vec<usize> = (0..candidates.len()).collect();
    by_item.sort_unstable_by_key(|at| (candidates[*at].item, *at));
    by_item.dedup_by_key(|at| candidates[*at].item);
    by_item.sort_unstable();
    by_item.into_iter().map(|at| &candidates[at])
}

/// `k` of 0..n, or all (Floyd's algorithm; Bentley, "Programming pearls", CACM 30, 1987).
fn some_of(n: usize, k: usize, rng: &mut Rng) -> BTreeSet<usize> {
    let mut drawn = BTreeSet::new();
    for upto in n.saturating_sub(k)..n {
        let at = rng.below(upto as u64 + 1) as usize;
        if !drawn.insert(at) {
            drawn.insert(upto);
        }
    }
    drawn
}

struct Entrants<'a, 'b> {
    list: Vec<Entrant<'a>>,
    encoded: &'b mut Vec<u8>,
    /// Of the item in hand.
    gathered: Vec<(AttributeId, Value<'a>)>,
    excluded: &'a [u64],
}

impl<'a> Entrants<'a, '_> {
    fn push_item(&mut self, item: &'a CatalogItem) {
        self.push(&item.id, item.attributes.iter().map(|(id, value)| (*id, value.value())));
    }

    /// Of an attribute that is there twice the first counts.
    fn push(&mut self, item: &'a str, attributes: impl Iterator<Item = (AttributeId, Value<'a>)>) {
        let key = item_key(item);
        // 0 stands for none where items are kept.
        if self.excluded.contains(&key.max(1)) {
            return;
        }
        self.gathered.clear();
        self.gathered.extend(attributes);
        let start = self.encoded.len();
        encode(&mut self.gathered, self.encoded);
        self.list.push(Entrant { item, key, attributes: start..self.encoded.len() });
    }
}

/// Appends attributes as events hold them: in ascending id, the first of each; text that is too long is missing.
pub fn encode(attributes: &mut Vec<(AttributeId, Value<'_>)>, out: &mut Vec<u8>) {
    if !attributes.is_sorted_by(|a, b| a.0 < b.0) {
        attributes.sort_by_key(|(id, _)| *id);
        attributes.dedup_by_key(|(id, _)| *id);
    }
    for (id, value) in attributes {
        if !matches!(value, Value::Text(text) if text.len() > TEXT_BYTES_MAX) {
            put_attribute(out, *id, *value);
        }
    }
}
