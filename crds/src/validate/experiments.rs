//! What is compared, and who may ask.

use std::collections::BTreeMap;

use super::{Check, NameKind};
use crate::{
    names::{ALL, CLICK, ORDER},
    problem::{Path, Problem},
    spec::{Experiment, Metric, SecretText},
};

/// Variants that one experiment may compare.
const MAX_VARIANTS: usize = 16;

impl<'a> Check<'a> {
    pub(super) fn experiments(&mut self) {
        let (path, experiments) = (Path::of("spec.experiments"), &self.spec.experiments);
        self.names(&path, experiments.iter().map(|experiment| experiment.name.as_str()), NameKind::Identifier);
        let mut taken = BTreeMap::new();
        for (i, experiment) in experiments.iter().enumerate() {
            let at = path.index(i);
            self.experiment_placements(&at.key("placements"), experiment, &mut taken);
            self.variants(&at, experiment);
            self.metrics(&at, experiment);
            if experiment.salt.as_deref().is_some_and(str::is_empty) {
                self.wrong(&at.key("salt"), "must not be empty; leave it out for the experiment's name");
            }
        }
    }

    fn experiment_placements(&mut self, at: &Path, experiment: &'a Experiment, taken: &mut BTreeMap<&'a str, &'a str>) {
        for (i, name) in experiment.placements.iter().enumerate() {
            let here = at.index(i);
            let known = self.spec.placements.iter().map(|placement| placement.name.as_str());
            self.resolve(&here, name, "a placement", known);
            if let Some(other) = taken.insert(name, &experiment.name) {
                let message = if other == experiment.name {
                    format!("`{name}` stands here twice")
                } else {
                    format!("`{name}` is in experiment `{other}` already; a placement is in one at most")
                };
                self.push(Problem::new(&here, message).value(name));
            }
        }
    }

    fn variants(&mut self, at: &Path, experiment: &Experiment) {
        let variants = at.key("variants");
        if !(2..=MAX_VARIANTS).contains(&experiment.variants.len()) {
            let message = format!("must be 2 to {MAX_VARIANTS} variants, not {}", experiment.variants.len());
            self.wrong(&variants, message);
        }
        for (name, variant) in &experiment.variants {
            let here = variants.key(name);
            self.name(&here, name, NameKind::Identifier);
            if name == ALL {
                let message = format!("`{ALL}` means all variants in a model's `trainOn`");
                self.push(Problem::new(&here, message).value(name));
            }
            self.resolve_policy(&here.key("policy"), &variant.policy);
        }
        let known = experiment.variants.keys().map(String::as_str);
        self.resolve(&at.key("control"), &experiment.control, "a variant of this experiment", known);
    }

    /// Each metric has what it counts.
    fn metrics(&mut self, at: &Path, experiment: &Experiment) {
        let metrics = at.key("metrics");
        for (i, metric) in experiment.metrics.iter().enumerate() {
            if experiment.metrics[..i].contains(metric) {
                self.wrong(&metrics.index(i), "stands here twice");
            }
        }
        let of_revenue = |metric: &Metric| matches!(metric, Metric::RevenuePerUser | Metric::RevenuePerBasket);
        let (ctr, revenue) = (experiment.metrics.contains(&Metric::Ctr), experiment.metrics.iter().any(of_revenue));
        if ctr || experiment.click.is_some() {
            let here = if experiment.click.is_some() { at.key("click") } else { metrics.clone() };
            let outcomes = self.spec.outcomes.keys().map(String::as_str);
            self.resolve(
                &here,
                experiment.click.as_deref().unwrap_or(CLICK),
                "an outcome, as `click` must be",
                outcomes,
            );
        }
        if revenue || experiment.order.is_some() {
            let here = if experiment.order.is_some() { at.key("order") } else { metrics };
            let event = experiment.order.as_deref().unwrap_or(ORDER);
            self.event_with(&here, event, "value", |fields| fields.value.is_some());
        }
    }

    pub(super) fn serving(&mut self) {
        let (path, serving) = (Path::of("spec.serving"), &self.spec.serving);
        let (tokens, tls) = (path.key("tokens"), path.key("tls"));
        let secrets = [
            (tokens.key("decisions"), serving.tokens.decisions.as_ref()),
            (tokens.key("events"), serving.tokens.events.as_ref()),
            (tokens.key("admin"), serving.tokens.admin.as_ref()),
            (tls.key("certificate"), serving.tls.as_ref().map(|tls| &tls.certificate)),
            (tls.key("key"), serving.tls.as_ref().map(|tls| &tls.key)),
        ];
        for (at, secret) in secrets {
            if let Some(secret) = secret {
                self.secret_text(&at, secret);
            }
        }
    }

    pub(super) fn secret_text(&mut self, at: &Path, text: &SecretText) {
        self.exactly_one(at, &[("file", text.file.is_some()), ("secret", text.secret.is_some())]);
        let secret = at.key("secret");
        let named = [
            (at.key("file"), text.file.as_deref()),
            (secret.key("name"), text.secret.as_ref().map(|secret| secret.name.as_str())),
            (secret.key("key"), text.secret.as_ref().map(|secret| secret.key.as_str())),
        ];
        for (at, name) in named {
            if name.is_some_and(str::is_empty) {
                self.wrong(&at, "must not be empty");
            }
        }
    }
}
