//! What may be shown, in which order, and where.

use std::collections::BTreeSet;

use super::{Check, NameKind, fields::Leads};
use crate::{
    names::{IMPRESSION, ITEM_PREFIX, ORDER, REQUEST, REQUEST_ORDER},
    problem::{Path, Problem},
    spec::{Candidates, Explore, Impressions, Per, Placement, Policy},
};

impl Check<'_> {
    pub(super) fn catalog(&mut self) {
        let path = Path::of("spec.catalog");
        let Some(catalog) = &self.spec.catalog else { return };
        let sources = &self.spec.sources;
        let tables = sources.iter().filter(|source| source.table).map(|source| source.name.as_str());
        self.resolve(&path.key("source"), &catalog.source, "a source with `table: true`", tables);
        let mut seen = BTreeSet::new();
        for (i, name) in catalog.attributes.iter().enumerate() {
            let here = path.key("attributes").index(i);
            self.catalog_attribute(&here, name);
            if !seen.insert(name) {
                self.push(Problem::new(&here, format!("`{name}` stands here twice")).value(name));
            }
        }
        let Some(source) = sources.iter().find(|source| source.name == catalog.source) else { return };
        self.path(&path.key("item"), &catalog.item, source, Leads::ToOne);
        for (i, name) in catalog.attributes.iter().enumerate() {
            self.path(&path.key("attributes").index(i), name, source, Leads::ToOne);
        }
        if let Some(available) = &catalog.available {
            self.path(&path.key("available"), available, source, Leads::ToOne);
        }
    }

    fn catalog_attribute(&mut self, at: &Path, name: &str) {
        if !self.attributes.contains(&format!("{ITEM_PREFIX}{name}")) {
            let known = self.attributes.iter().filter_map(|attribute| attribute.strip_prefix(ITEM_PREFIX));
            let message = format!("`{ITEM_PREFIX}{name}` is not in privacy.allowedAttributes");
            let problem = Problem::new(at, message).one_of(name, known);
            self.push(problem);
        }
    }

    pub(super) fn policies(&mut self) {
        let path = Path::of("spec.policies");
        for (name, policy) in &self.spec.policies {
            let at = path.key(name);
            self.name(&at, name, NameKind::Identifier);
            if name == REQUEST_ORDER {
                let message = format!("`{name}` means the order of the request already");
                self.push(Problem::new(&at, message).value(name));
            }
            self.policy(&at, policy);
        }
    }

    fn policy(&mut self, at: &Path, policy: &Policy) {
        self.exactly_one(at, &[("rankBy", policy.rank_by.is_some()), ("score", !policy.score.is_empty())]);
        if let Some(feature) = policy.rank_by.as_deref().filter(|name| *name != REQUEST) {
            self.rank_by(&at.key("rankBy"), feature);
        }
        for (model, weight) in &policy.score {
            let here = at.key("score").key(model);
            self.resolve(&here, model, "a model", self.spec.models.iter().map(|model| model.name.as_str()));
            if *weight == 0.0 {
                self.push(Problem::new(&here, "a model of weight 0 says nothing; leave it out").value("0"));
            }
        }
        if let Some(explore) = &policy.explore {
            self.explore(&at.key("explore"), explore, policy);
        }
    }

    /// Statistics per item live in the models that have them.
    fn rank_by(&mut self, at: &Path, name: &str) {
        let spec = self.spec;
        let per_item = spec.features.iter().filter(|(_, feature)| feature.per == Per::Item);
        let known = per_item.map(|(name, _)| name.as_str()).chain([REQUEST]);
        if !self.resolve(at, name, "a feature `per: item`, nor `request`", known) {
            return;
        }
        let mut used = spec.models.iter().flat_map(|model| model.features.iter().chain(model.crosses.iter().flatten()));
        if !used.any(|feature| feature == name) {
            let message = format!("no model has `{name}` in its `features`; a feature per item is kept by models");
            self.push(Problem::new(at, message).value(name));
        }
    }

    fn explore(&mut self, at: &Path, explore: &Explore, policy: &Policy) {
        let kinds = [
            ("epsilonGreedy", explore.epsilon_greedy.is_some()),
            ("softmax", explore.softmax.is_some()),
            ("thompson", explore.thompson.is_some()),
        ];
        self.exactly_one(at, &kinds);
        if let Some(softmax) = &explore.softmax {
            let here = at.key("softmax");
            if softmax.temperature <= 0.0 {
                self.push(Problem::new(&here.key("temperature"), "must be above zero").value("0"));
            }
            if policy.rank_by.as_deref() == Some(REQUEST) {
                self.wrong(&here, "needs scores, which the order of a request has not; use `epsilonGreedy`");
            }
        }
        if explore.thompson.is_some() {
            let here = at.key("thompson");
            if policy.rank_by.is_some() {
                self.wrong(&here, "draws from what models believe; give `score`");
            }
            for name in policy.score.keys() {
                let model = self.spec.models.iter().find(|model| model.name == *name);
                if model.is_some_and(|model| model.learner.beta_bernoulli.is_none()) {
                    let message = format!("model `{name}` keeps no distribution; only `betaBernoulli` does");
                    self.push(Problem::new(&here, message).value(name));
                }
            }
        }
    }

    pub(super) fn placements(&mut self) {
        let (path, placements) = (Path::of("spec.placements"), &self.spec.placements);
        self.names(&path, placements.iter().map(|placement| placement.name.as_str()), NameKind::Identifier);
        for (i, placement) in placements.iter().enumerate() {
            self.placement(&path.index(i), placement);
        }
    }

    fn placement(&mut self, at: &Path, placement: &Placement) {
        self.candidates(&at.key("candidates"), &placement.candidates, placement.slots);
        self.default_policy(&at.key("default"), placement);
        if let Some(policy) = &placement.policy {
            self.resolve_policy(&at.key("policy"), policy);
        }
        let exclude = at.key("exclude");
        self.above_zero(&exclude.key("boughtWithin"), placement.exclude.bought_within);
        match (&placement.exclude.event, placement.exclude.bought_within) {
            (Some(_), None) => self.wrong(&exclude.key("event"), "goes with `boughtWithin`, which is not given"),
            (event, Some(_)) => {
                let key = if event.is_some() { exclude.key("event") } else { exclude };
                self.event_with(&key, event.as_deref().unwrap_or(ORDER), "items", |fields| fields.items.is_some());
            }
            (None, None) => {}
        }
        let expose_within = at.key("exposeWithin");
        self.above_zero(&expose_within, placement.expose_within);
        match placement.impressions {
            Impressions::Decision if placement.expose_within.is_some() => {
                self.wrong(&expose_within, "with `impressions: decision` no impression is waited for");
            }
            Impressions::Event if !self.any_mapping_has(IMPRESSION, |fields| fields.decision.is_some()) => {
                let message =
                    format!("no mapping of event `{IMPRESSION}` has a `decision`; use `impressions: decision`");
                self.wrong(&at.key("impressions"), message);
            }
            _ => {}
        }
    }

    fn candidates(&mut self, at: &Path, candidates: &Candidates, slots: u32) {
        let given = [("catalog", candidates.catalog.is_some()), ("fromRequest", candidates.from_request.is_some())];
        self.exactly_one(at, &given);
        if candidates.catalog.is_some() && self.spec.catalog.is_none() {
            self.wrong(&at.key("catalog"), "there is no catalog; give `spec.catalog`");
        }
        if let Some(most) = candidates.from_request.filter(|most| *most < slots) {
            let message = format!("must be at least the number of slots, {slots}");
            self.push(Problem::new(&at.key("fromRequest"), message).value(&most.to_string()));
        }
    }

    /// It needs nothing of the user, nor an order that nobody gives.
    fn default_policy(&mut self, at: &Path, placement: &Placement) {
        let name = placement.default.as_str();
        let policies = &self.spec.policies;
        let of_request = match policies.get(name) {
            Some(Policy { rank_by: Some(rank_by), .. }) => rank_by == REQUEST,
            None if name == REQUEST_ORDER => true,
            _ => {
                let known = policies.iter().filter(|(_, policy)| policy.rank_by.is_some());
                let known = known.map(|(name, _)| name.as_str()).chain([REQUEST_ORDER]);
                self.resolve(at, name, "a policy without personal features (`rankBy`)", known);
                false
            }
        };
        if of_request && placement.candidates.catalog.is_some() {
            let message = "is the order of a request, which names no items where candidates are the catalog's";
            self.push(Problem::new(at, message).value(name));
        }
    }

    pub(super) fn resolve_policy(&mut self, at: &Path, name: &str) {
        self.resolve(at, name, "a policy", self.spec.policies.keys().map(String::as_str));
    }
}
