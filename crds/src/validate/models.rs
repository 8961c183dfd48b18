//! What impressions wait for, and what is learned from them.

use std::collections::BTreeSet;

use super::{Check, NameKind, features::outcome_event_needed};
use crate::{
    names::{ALL, IMPRESSION},
    problem::{Path, Problem},
    spec::{EventFields, Ftrl, Join, Model, Names, Outcome, Position},
};

impl Check<'_> {
    pub(super) fn outcomes(&mut self) {
        let path = Path::of("spec.outcomes");
        for (name, outcome) in &self.spec.outcomes {
            let at = path.key(name);
            self.name(&at, name, NameKind::Identifier);
            self.above_zero(&at.key("within"), Some(outcome.within));
            if self.resolve_event(&at.key("event"), &outcome.event) {
                self.join(&at.key("join"), outcome);
            }
        }
        if self.spec.outcomes.is_empty() && self.spec.models.is_empty() {
            return;
        }
        if !self.events.contains_key(IMPRESSION) {
            self.wrong(&path, format!("outcomes and models need an event named `{IMPRESSION}`; no source has one"));
        }
        self.impressions_have_items();
    }

    fn impressions_have_items(&mut self) {
        for (s, source) in self.spec.sources.iter().enumerate() {
            for (e, event) in source.events.iter().enumerate() {
                if event.name == IMPRESSION && event.fields.items.is_none() {
                    let at = Path::of("spec.sources").index(s).key("events").index(e).key("fields").key("items");
                    self.wrong(&at, "is missing; an impression without items gives no examples");
                }
            }
        }
    }

    /// A join on a field that either side never has would label nothing.
    fn join(&mut self, at: &Path, outcome: &Outcome) {
        let has_items: fn(&EventFields) -> bool = |fields| fields.items.is_some();
        let has_decision: fn(&EventFields) -> bool = |fields| fields.decision.is_some();
        let event = &outcome.event;
        match outcome.join {
            Join::User => {}
            Join::Item if self.any_mapping_has(event, has_items) => {}
            Join::Item => self.wrong(at, format!("no mapping of event `{event}` has `items` to join by")),
            Join::Decision => {
                if !self.any_mapping_has(IMPRESSION, has_decision) {
                    self.wrong(at, format!("no mapping of event `{IMPRESSION}` has a `decision` to join by"));
                }
                if !self.any_mapping_has(event, has_decision) && !self.any_mapping_has(event, has_items) {
                    self.wrong(at, format!("no mapping of event `{event}` has a `decision` or `items` to join by"));
                }
            }
        }
    }

    pub(super) fn models(&mut self) {
        let (path, models) = (Path::of("spec.models"), &self.spec.models);
        self.names(&path, models.iter().map(|model| model.name.as_str()), NameKind::Label);
        for (i, model) in models.iter().enumerate() {
            self.model(&path.index(i), model);
        }
    }

    fn model(&mut self, at: &Path, model: &Model) {
        let outcomes = self.spec.outcomes.keys().map(String::as_str);
        self.resolve(&at.key("outcome"), &model.outcome, "an outcome", outcomes);
        let mut seen = BTreeSet::new();
        for (i, name) in model.features.iter().enumerate() {
            let here = at.key("features").index(i);
            self.model_feature(&here, name, model);
            if !seen.insert(name) {
                self.push(Problem::new(&here, format!("`{name}` stands here twice")).value(name));
            }
        }
        for (i, cross) in model.crosses.iter().enumerate() {
            let here = at.key("crosses").index(i);
            for (j, name) in cross.iter().enumerate() {
                self.model_feature(&here.index(j), name, model);
                if cross[..j].contains(name) {
                    let message = format!("`{name}` crossed with itself says nothing new");
                    self.push(Problem::new(&here.index(j), message).value(name));
                }
            }
            if !(2..=3).contains(&cross.len()) {
                self.wrong(&here, format!("a cross is of two or three, not of {}", cross.len()));
            }
        }
        let has_positions = self.any_mapping_has(IMPRESSION, |fields| fields.positions.is_some());
        if model.position == Position::TrainOnly && !has_positions {
            let message = format!("no mapping of event `{IMPRESSION}` has `positions` to learn from");
            self.push(Problem::new(&at.key("position"), message).value("TrainOnly"));
        }
        self.learner(&at.key("learner"), model);
        if let Some(train_on) = &model.train_on {
            self.train_on(&at.key("trainOn").key("variants"), &train_on.variants);
        }
        if let Some(drift) = &model.drift {
            let at = at.key("drift");
            for (key, bound) in [("tolerance", drift.tolerance), ("psi", drift.psi)] {
                if bound <= 0.0 {
                    self.push(Problem::new(&at.key(key), "must be above zero, or chance alone alarms").value("0"));
                }
            }
        }
    }

    fn learner(&mut self, at: &Path, model: &Model) {
        let ftrl = at.key("ftrl");
        if model.learner.ftrl.alpha <= 0.0 {
            self.push(Problem::new(&ftrl.key("alpha"), "must be above zero, or nothing is learned").value("0"));
        }
        let Some(beta) = &model.learner.beta_bernoulli else { return };
        let here = at.key("betaBernoulli");
        if model.learner.ftrl != Ftrl::default() {
            self.wrong(&ftrl, "stands beside `betaBernoulli`; a model has one learner");
        }
        if model.features != ["item"] || !model.crosses.is_empty() || model.position != Position::Ignore {
            self.wrong(&here, "knows items only: `features: [item]`, without `crosses` and `position`");
        }
        if beta.prior_examples <= 0.0 {
            let message = "must be above zero, or an item without examples has no probability";
            self.push(Problem::new(&here.key("priorExamples"), message).value("0"));
        }
    }

    fn train_on(&mut self, at: &Path, variants: &Names) {
        let (names, listed) = match variants {
            Names::One(name) if name == ALL => return,
            Names::One(name) => (std::slice::from_ref(name), false),
            Names::Many(names) => (names.as_slice(), true),
        };
        let known: BTreeSet<&str> = self
            .spec
            .experiments
            .iter()
            .flat_map(|experiment| experiment.variants.keys())
            .map(String::as_str)
            .collect();
        for (i, name) in names.iter().enumerate() {
            let here = if listed { at.index(i) } else { at.clone() };
            self.resolve(&here, name, "a variant of any experiment", known.iter().copied());
            if names[..i].contains(name) {
                self.push(Problem::new(&here, format!("`{name}` stands here twice")).value(name));
            }
        }
    }

    fn model_feature(&mut self, at: &Path, name: &str, model: &Model) {
        let spec = self.spec;
        match name {
            "item" => {}
            "placement" => {
                if !self.any_mapping_has(IMPRESSION, |fields| fields.placement.is_some()) {
                    let message = format!("no mapping of event `{IMPRESSION}` has a `placement`");
                    self.push(Problem::new(at, message).value(name));
                }
            }
            "platform" => {
                if spec.sources.iter().all(|source| source.platform.is_none()) {
                    self.push(Problem::new(at, "no source says where the `platform` is").value(name));
                }
            }
            _ => match spec.features.get(name) {
                Some(feature) => {
                    let outcome = spec.outcomes.get(&model.outcome).map(|outcome| outcome.event.as_str());
                    if let (Some(needed), Some(event)) = (outcome_event_needed(feature), outcome)
                        && needed != event
                    {
                        let message = format!("`{name}` counts `{needed}`, but the outcome of this model is `{event}`");
                        self.push(Problem::new(at, message).value(name));
                    }
                }
                None if self.attributes.contains(name) => {}
                None => {
                    let known = spec.features.keys().chain(&self.attributes).map(String::as_str);
                    let known = known.chain(["item", "placement", "platform"]);
                    let message = format!("`{name}` is neither a feature nor an allowed attribute");
                    let problem = Problem::new(at, message).one_of(name, known);
                    self.push(problem);
                }
            },
        }
    }
}
