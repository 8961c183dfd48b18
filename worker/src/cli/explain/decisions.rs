//! What is decided, in words.

use millrace_crds::{
    names::{CLICK, ORDER, REQUEST},
    spec::{
        BetaBernoulli, Catalog, Drift, DriftAnswer, Experiment, Explore, ExploredSlots, Impressions, Metric, Mode,
        PipelineSpec, Placement, Policy, SecretText, Serving,
    },
};

use super::Section;

pub(super) fn catalog(spec: &PipelineSpec) -> Vec<String> {
    let Some(Catalog { source, item, attributes, available }) = &spec.catalog else { return Vec::new() };
    let mut lines = vec![format!("items are the records of `{source}`, by `{item}`; a later record replaces the item")];
    if !attributes.is_empty() {
        let names: Vec<String> = attributes.iter().map(|name| format!("item.{name}")).collect();
        lines.push(format!("{} are also those of items in events that do not say them", names.join(", ")));
    }
    lines.push(match available {
        Some(field) => format!("an item may be shown where `{field}` is true or above zero"),
        None => "every item may be shown".into(),
    });
    lines
}

pub(super) fn policies(spec: &PipelineSpec) -> Vec<Section> {
    spec.policies.iter().map(|(name, policy)| Section { name: name.clone(), lines: policy_lines(policy) }).collect()
}

fn policy_lines(policy: &Policy) -> Vec<String> {
    let mut lines = vec![match &policy.rank_by {
        Some(rank_by) if rank_by == REQUEST => "in the order in which the request names the items".into(),
        Some(rank_by) => format!("by `{rank_by}`, highest first"),
        None => {
            let terms: Vec<String> = policy.score.iter().map(|(model, weight)| format!("{weight} x {model}")).collect();
            format!("by {}, highest first", terms.join(" + "))
        }
    }];
    lines.extend(policy.explore.as_ref().map(explore));
    if let Some(least) = policy.min_propensity {
        lines.push(format!("no candidate has a propensity below {least} in any slot"));
    }
    lines
}

fn explore(explore: &Explore) -> String {
    match (&explore.epsilon_greedy, &explore.softmax, &explore.thompson) {
        (Some(greedy), ..) => {
            let slots = match greedy.slots {
                ExploredSlots::All => "each slot",
                ExploredSlots::Last => "the last slot",
            };
            format!("explores: with probability {} {slots} shows any candidate, all alike", greedy.epsilon)
        }
        (_, Some(softmax), _) => {
            format!("explores: in proportion to exp(score / {}), slot by slot", softmax.temperature)
        }
        (.., Some(thompson)) => {
            format!("explores: the best of scores drawn from the models (propensities from {} draws)", thompson.samples)
        }
        _ => "does not explore".into(),
    }
}

pub(super) fn placements(spec: &PipelineSpec) -> Vec<Section> {
    spec.placements.iter().map(|p| Section { name: p.name.clone(), lines: placement_lines(p, spec) }).collect()
}

fn placement_lines(placement: &Placement, spec: &PipelineSpec) -> Vec<String> {
    let candidates = match placement.candidates.from_request {
        Some(most) => format!("at most {most} items that the request names"),
        None => "the catalog's available items".into(),
    };
    let default = &placement.default;
    let mut lines = vec![
        format!("{} slots of {candidates}", placement.slots),
        format!("`{default}` for users without login or consent, and where a model fell back"),
    ];
    let experiment = spec.experiments.iter().find(|e| e.placements.contains(&placement.name));
    lines.push(match (placement.mode, experiment) {
        (Mode::Default, _) => format!("everybody gets `{default}` (mode: Default)"),
        (_, Some(experiment)) => format!("others get what experiment `{}` says", experiment.name),
        _ => format!("others get `{}`", placement.policy.as_ref().unwrap_or(default)),
    });
    if let Some(within) = placement.exclude.bought_within {
        let event = placement.exclude.event.as_deref().unwrap_or(ORDER);
        lines.push(format!("not shown: items that the user bought (`{event}`) within {within}"));
    }
    lines.push(match placement.impressions {
        Impressions::Event => {
            let within = placement.expose_within.map_or("10m".into(), |within| within.to_string());
            format!("shown is what impression events say that name the decision, within {within}")
        }
        Impressions::Decision => "shown is whatever was decided".into(),
    });
    lines
}

pub(super) fn experiments(spec: &PipelineSpec) -> Vec<Section> {
    spec.experiments.iter().map(|e| Section { name: e.name.clone(), lines: experiment_lines(e) }).collect()
}

fn experiment_lines(experiment: &Experiment) -> Vec<String> {
    let total: u32 = experiment.variants.values().map(|variant| variant.weight).sum();
    let variants = experiment.variants.iter().map(|(name, variant)| {
        let share = 100.0 * f64::from(variant.weight) / f64::from(total.max(1));
        let control = if *name == experiment.control { " (control)" } else { "" };
        format!("{name}{control}: {share:.1} % of users, `{}`", variant.policy)
    });
    let mut lines = vec![format!("on {}", experiment.placements.join(", "))];
    lines.extend(variants);
    let (click, order) = (experiment.click.as_deref().unwrap_or(CLICK), experiment.order.as_deref().unwrap_or(ORDER));
    let metric = |metric: &Metric| match metric {
        Metric::Ctr => format!("ctr: exposed items with outcome `{click}`, of all exposed items"),
        Metric::RevenuePerUser => format!("revenuePerUser: value of `{order}` events, over users"),
        Metric::RevenuePerBasket => format!("revenuePerBasket: value of `{order}` events, over their number"),
    };
    lines.extend(experiment.metrics.iter().map(metric));
    let confidence = 100.0 * experiment.confidence.unwrap_or(0.95);
    lines.push(format!("{confidence} % intervals of the differences from control, valid at all times together"));
    lines
}

pub(super) fn serving(serving: &Serving) -> Vec<String> {
    let place = |text: &SecretText| match (&text.file, &text.secret) {
        (Some(file), _) => format!("in {file}"),
        (_, Some(secret)) => format!("in Secret {}, {}", secret.name, secret.key),
        _ => "nowhere".into(),
    };
    let token = |(api, text): (&str, &Option<SecretText>)| match text {
        Some(text) => format!("{api}: token {}", place(text)),
        None => format!("{api}: open, on loopback addresses only"),
    };
    let (tokens, limits) = (&serving.tokens, &serving.limits);
    let mut lines: Vec<String> =
        [("decisions", &tokens.decisions), ("events", &tokens.events), ("admin", &tokens.admin)].map(token).into();
    lines.push(match &serving.tls {
        Some(tls) => format!("TLS: certificate {}, key {}", place(&tls.certificate), place(&tls.key)),
        None => "no TLS".into(),
    });
    lines.push(format!(
        "at most {} decisions/s, {} events/s, {} connections, {} bytes a body",
        limits.decisions_per_second, limits.events_per_second, limits.connections, limits.body_bytes
    ));
    lines
}

pub(super) fn beta_bernoulli(beta: &BetaBernoulli) -> String {
    let forgets = beta.half_life_examples.map_or("never forget".into(), |n| format!("halve over {n} examples"));
    format!(
        "Beta-Bernoulli per item, begins with {} examples of the ratio of all items; counts {forgets}",
        beta.prior_examples
    )
}

pub(super) fn drift(drift: &Drift) -> String {
    let answer = match drift.answer {
        DriftAnswer::Alert => "it is told",
        DriftAnswer::ForgetFaster => "it forgets faster, once",
        DriftAnswer::FallBackToDefault => "placements show their default until it is calibrated again",
        DriftAnswer::FallBackToPrevious => "the weights of before serve until the model predicts better than they do",
    };
    format!(
        "watched for drift (calibration off by more than {} %, a feature's PSI above {}): then {answer}",
        100.0 * drift.tolerance,
        drift.psi
    )
}

#[cfg(test)]
mod tests {
    use crate::cli::explain::Explanation;

    #[test]
    fn what_is_decided_is_said() {
        let shop = millrace_crds::load(include_str!("../../../../crds/tests/shop.yaml")).unwrap();
        let text = Explanation::of(&shop).text();
        for line in [
            "    a table: its records are items of the catalog, known to every partition",
            "    each record counts from when it is read",
            "  item.category, item.brand, item.price are also those of items in events that do not say them",
            "    by 2.5 x buyers + 1 x ctr, highest first",
            "    explores: with probability 0.05 each slot shows any candidate, all alike",
            "    others get what experiment `launch` says",
            "    everybody gets `RequestOrder` (mode: Default)",
            "    oracle: 1.0 % of users, `given`",
            "    learns only from examples of variant control or personal",
            "  events: open, on loopback addresses only",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
