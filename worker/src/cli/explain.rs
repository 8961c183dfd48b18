//! `millrace explain`: a pipeline in words.

use std::path::Path;

use millrace_crds::{
    Validated,
    names::ALL,
    spec::{
        Checkpoints, Feature, Format, Join, LatePolicy, Model, Names, OneOrMany, Per, PipelineSpec, Position, Source,
        When,
    },
};
use serde::Serialize;

use super::{CliError, Output, print};
use crate::pipeline;

mod decisions;

/// What each part of a pipeline does, in sentences.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    format_version: u32,
    pipeline: String,
    privacy: Vec<String>,
    sources: Vec<Section>,
    features: Vec<Section>,
    outcomes: Vec<String>,
    models: Vec<Section>,
    catalog: Vec<String>,
    policies: Vec<Section>,
    placements: Vec<Section>,
    experiments: Vec<Section>,
    /// Who may ask; empty without placements and posted events.
    serving: Vec<String>,
    checkpoints: Vec<String>,
    /// Attributes that pass, but reach no model.
    unused_attributes: Vec<String>,
}

#[derive(Serialize)]
struct Section {
    name: String,
    lines: Vec<String>,
}

pub fn explain(path: &Path, output: Output) -> Result<(), CliError> {
    let validated = pipeline::validate(path)?;
    let explanation = Explanation::of(&validated);
    match output {
        Output::Json => print(serde_json::to_string(&explanation).map_err(|e| CliError::Other(e.to_string()))?),
        Output::Text => print(explanation.text()),
    }
    Ok(())
}

impl Explanation {
    fn of(validated: &Validated) -> Self {
        let spec = validated.spec();
        let within = |o: &millrace_crds::spec::Outcome| match o.join {
            Join::Decision => format!("same decision or, without one, same item, within {}", o.within),
            Join::Item => format!("same item, within {}", o.within),
            Join::User => format!("any later one of the same user, within {}", o.within),
        };
        let outcome = |(name, o): (&String, &millrace_crds::spec::Outcome)| {
            format!(
                "{name}: an impression is positive if `{}` follows ({}); each `{}` labels the latest impression that fits",
                o.event,
                within(o),
                o.event
            )
        };
        let serves = !spec.placements.is_empty() || spec.sources.iter().any(|s| s.http.is_some());
        let feature = |(name, f): (&String, &Feature)| Section { name: name.clone(), lines: vec![describe_feature(f)] };
        Self {
            format_version: 1,
            pipeline: validated.name().to_owned(),
            privacy: privacy(spec),
            sources: spec.sources.iter().map(|s| source(s, validated)).collect(),
            features: spec.features.iter().map(feature).collect(),
            outcomes: spec.outcomes.iter().map(outcome).collect(),
            models: spec.models.iter().map(|m| model(m, spec)).collect(),
            catalog: decisions::catalog(spec),
            policies: decisions::policies(spec),
            placements: decisions::placements(spec),
            experiments: decisions::experiments(spec),
            serving: if serves { decisions::serving(&spec.serving) } else { Vec::new() },
            checkpoints: checkpoints(&spec.checkpoints),
            unused_attributes: unused_attributes(spec),
        }
    }

    fn text(&self) -> String {
        let mut out = format!("Pipeline {}\n", self.pipeline);
        list(&mut out, "Privacy", &self.privacy);
        sections(&mut out, "Sources", &self.sources);
        list(&mut out, "Catalog", &self.catalog);
        sections(&mut out, "Features", &self.features);
        sections(&mut out, "Models", &self.models);
        list(&mut out, "Outcomes", &self.outcomes);
        sections(&mut out, "Policies", &self.policies);
        sections(&mut out, "Placements", &self.placements);
        sections(&mut out, "Experiments", &self.experiments);
        list(&mut out, "Serving", &self.serving);
        list(&mut out, "Checkpoints", &self.checkpoints);
        if !self.unused_attributes.is_empty() {
            out.push_str(&format!("\nAllowed, but reaching no model: {}\n", self.unused_attributes.join(", ")));
        }
        out.truncate(out.trim_end().len());
        out
    }
}

fn list(out: &mut String, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        out.push_str(&format!("\n{title}\n"));
        lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
    }
}

fn sections(out: &mut String, title: &str, sections: &[Section]) {
    if !sections.is_empty() {
        out.push_str(&format!("\n{title}\n"));
    }
    for section in sections {
        out.push_str(&format!("  {}\n", section.name));
        section.lines.iter().for_each(|line| out.push_str(&format!("    {line}\n")));
    }
}

fn privacy(spec: &PipelineSpec) -> Vec<String> {
    let p = &spec.privacy;
    let user = match (&p.user.field, p.user.row_number) {
        (Some(field), _) => {
            format!("users are `{field}`, kept only as keyed pseudonyms; a record without it is not kept")
        }
        _ => "every record is a user of its own".into(),
    };
    let granted: Vec<String> = p.consent.granted_if.iter().map(|(k, v)| format!("{k} = {}", scalar(v))).collect();
    let consent = match (&p.consent.event, &p.consent.field, &p.consent.assumed) {
        (Some(event), ..) => format!(
            "consent is closed until a `{event}` event grants it ({}); one that does not withdraws it and removes the user",
            granted.join(", ")
        ),
        (_, Some(field), _) => {
            format!("a record is kept only if it says so itself: `{field}` ({})", granted.join(", "))
        }
        (.., reason) => format!("consent is ASSUMED for everybody: {}", reason.as_deref().unwrap_or_default()),
    };
    let attributes = match p.allowed_attributes.len() {
        0 => "no attribute passes".into(),
        _ => format!("only these attributes pass: {}", p.allowed_attributes.join(", ")),
    };
    vec![user, consent, attributes]
}

fn scalar(s: &millrace_crds::scalar::Scalar) -> String {
    match s {
        millrace_crds::scalar::Scalar::Number(n) => n.to_string(),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

fn when(when: &When) -> String {
    let value = |v: &OneOrMany| match v {
        OneOrMany::One(s) => scalar(s),
        OneOrMany::Many(list) => list.iter().map(scalar).collect::<Vec<_>>().join(" or "),
    };
    match when.len() {
        0 => "every record".into(),
        _ => when.iter().map(|(k, v)| format!("{k} = {}", value(v))).collect::<Vec<_>>().join(" and "),
    }
}

fn source(s: &Source, validated: &Validated) -> Section {
    let format = match s.format {
        Format::Json => "JSON",
        Format::Csv => "CSV",
    };
    let mut lines = vec![match (&s.file, &s.kafka, &s.http) {
        (Some(file), _, _) => format!("{format} records, one a line, of {}; each file is a partition", file.path),
        (_, Some(kafka), _) => {
            format!("JSON records of the topics {}, each with its partitions", kafka.topics.join(", "))
        }
        (_, _, http) => {
            let partitions = http.as_ref().map_or(1, |http| http.partitions);
            format!("JSON records posted to /v1/events, kept in a topic of {partitions} partitions, without identities")
        }
    }];
    if let Some(each) = &s.each {
        lines.push(format!("each element of `{each}` is read as a record of its own"));
    }
    if s.table {
        lines.push("a table: its records are items of the catalog, known to every partition".into());
    }
    event_time(s, &mut lines);
    if !s.table {
        lines
            .push(format!("reading waits where a partition is more than {} ahead of the others", validated.max_skew()));
    }
    if let Some(id) = &s.event_id {
        lines.push(format!("repeated `{}` within {} are dropped", id.field, id.dedup_within));
    }
    lines.extend(s.drop.iter().map(|d| format!("dropped: {}", when(d))));
    lines.extend(s.events.iter().map(|e| format!("{}: {}", e.name, when(&e.when))));
    Section { name: s.name.clone(), lines }
}

fn event_time(s: &Source, lines: &mut Vec<String>) {
    let t = &s.event_time;
    let from = t.field.clone().unwrap_or_else(|| t.fields.join(", "));
    let plus = if t.plus.is_some() { " and the row's number" } else { "" };
    let late = match t.late {
        LatePolicy::DeadLetter => "becomes a dead letter",
        LatePolicy::Drop => "is dropped and counted",
    };
    lines.push(match (s.table, from.is_empty()) {
        (true, true) => "each record counts from when it is read".into(),
        (true, false) => format!("each record counts from {from}{plus}, or from when it is read if that is later"),
        _ => format!(
            "event time from {from}{plus}; an event more than {} below the highest time before it in its partition is \
             late and {late}",
            t.max_out_of_orderness
        ),
    });
    if let Some(not_before) = &t.not_before {
        lines.push(format!("times before {not_before} are rejected (dead letter `timeOutOfRange`)"));
    }
    if let Some(not_after) = &t.not_after {
        lines.push(format!("times after {not_after} are not believed (dead letter `future`)"));
    }
    if let (Some(max_ahead), false) = (s.max_ahead(), from.is_empty()) {
        lines.push(format!("times more than {max_ahead} after the receipt are not believed (dead letter `future`)"));
    }
}

fn names(names: &Names) -> String {
    match names {
        Names::One(name) => name.clone(),
        Names::Many(list) => list.join(" or "),
    }
}

fn describe_feature(f: &Feature) -> String {
    let per = match f.per {
        Per::User => "of the user",
        Per::Session => "of the session",
        Per::Item => "of the item, over the model's examples",
        Per::Global => "over all the model's examples",
    };
    let kinds = [
        ("number of", &f.count),
        ("sum of", &f.sum),
        ("mean of", &f.mean),
        ("lowest of", &f.min),
        ("highest of", &f.max),
        ("decayed sum of", &f.decayed_sum),
        ("last value of", &f.last),
        ("last values of", &f.last_n),
        ("distinct values of", &f.distinct),
        ("seconds since", &f.time_since),
        ("affinity by", &f.affinity),
    ];
    let mut text = match kinds.iter().find_map(|(what, events)| events.as_ref().map(|e| (what, e))) {
        Some((what, events)) => match &f.of {
            Some(of) => format!("{what} `{of}` in {} events, {per}", names(events)),
            None if f.affinity.is_some() => format!("share of {} events, {per}", names(events)),
            None => format!("{what} {} events, {per}", names(events)),
        },
        None => match (&f.ratio, &f.any_of, &f.attribute) {
            (Some([part, whole]), ..) => format!("{part} events per {whole} event, {per}"),
            (_, Some(any), _) => format!("whether any of {} is set, at the impression", any.join(", ")),
            (.., attribute) => format!("`{}` at the impression", attribute.as_deref().unwrap_or_default()),
        },
    };
    for (name, span) in [("within", &f.window), ("half-life", &f.half_life)] {
        if let Some(span) = span {
            text.push_str(&format!(", {name} {span}"));
        }
    }
    if let Some(by) = &f.by {
        text.push_str(&format!(", with the candidate's `{by}`"));
    }
    if let Some(keep) = f.keep {
        text.push_str(&format!(", of {keep} values"));
    }
    if f.bucket.is_some() {
        text.push_str(", in buckets");
    }
    text
}

/// Attributes that a feature or a name in a model takes from events.
fn attributes_of(name: &str, spec: &PipelineSpec) -> Vec<String> {
    let allowed = allowed(spec);
    match spec.features.get(name) {
        None => allowed.iter().filter(|a| *a == name).cloned().collect(),
        Some(f) => {
            let mut used: Vec<String> = f.of.iter().chain(&f.by).chain(&f.attribute).cloned().collect();
            used.extend(f.any_of.iter().flatten().flat_map(|p| millrace_crds::names::expand(p)));
            used.retain(|u| allowed.contains(u));
            used
        }
    }
}

fn allowed(spec: &PipelineSpec) -> Vec<String> {
    spec.privacy.allowed_attributes.iter().flat_map(|p| millrace_crds::names::expand(p)).collect()
}

/// Names as `allowedAttributes` has them: a pattern, if all of its names are there.
fn in_patterns(mut names: Vec<String>, spec: &PipelineSpec) -> String {
    let mut shown = Vec::new();
    for pattern in &spec.privacy.allowed_attributes {
        let of_pattern = millrace_crds::names::expand(pattern);
        if of_pattern.iter().all(|name| names.contains(name)) {
            names.retain(|name| !of_pattern.contains(name));
            shown.push(pattern.clone());
        }
    }
    shown.extend(names);
    if shown.is_empty() { "none".into() } else { shown.join(", ") }
}

fn model_attributes(m: &Model, spec: &PipelineSpec) -> Vec<String> {
    let names = m.features.iter().chain(m.crosses.iter().flatten());
    let mut used: Vec<String> = names.flat_map(|name| attributes_of(name, spec)).collect();
    used.sort();
    used.dedup();
    used
}

fn model(m: &Model, spec: &PipelineSpec) -> Section {
    let crosses: Vec<String> = m.crosses.iter().map(|c| c.join(" x ")).collect();
    let used = model_attributes(m, spec);
    let mut lines = vec![
        format!("predicts `{}` from {}", m.outcome, m.features.join(", ")),
        format!("attributes that reach it: {}", in_patterns(used, spec)),
    ];
    if !crosses.is_empty() {
        lines.insert(1, format!("and from the crosses {}", crosses.join(", ")));
    }
    if m.position == Position::TrainOnly {
        lines.push("position is a feature in training, constant when serving".into());
    }
    let f = &m.learner.ftrl;
    lines.push(match &m.learner.beta_bernoulli {
        Some(beta) => decisions::beta_bernoulli(beta),
        None => {
            format!("FTRL-proximal, alpha {}, beta {}, l1 {}, l2 {}, 2^{} weights", f.alpha, f.beta, f.l1, f.l2, f.bits)
        }
    });
    match m.train_on.as_ref().map(|train_on| &train_on.variants) {
        Some(Names::One(name)) if name == ALL => {}
        Some(variants) => lines.push(format!("learns only from examples of variant {}", names(variants))),
        None => {}
    }
    if m.frozen {
        lines.push("frozen: it scores, but learns no more".into());
    }
    lines.extend(m.drift.as_ref().map(decisions::drift));
    Section { name: m.name.clone(), lines }
}

fn checkpoints(checkpoints: &Checkpoints) -> Vec<String> {
    let place = match &checkpoints.s3 {
        Some(s3) if s3.path_style => format!("in {s3}, with the bucket in the path"),
        Some(s3) => format!("in {s3}"),
        None => "in the data folder".into(),
    };
    vec![format!("every {} per task, kept for {}, {place}", checkpoints.interval, checkpoints.retain)]
}

fn unused_attributes(spec: &PipelineSpec) -> Vec<String> {
    let used: Vec<String> = spec.models.iter().flat_map(|m| model_attributes(m, spec)).collect();
    allowed(spec).into_iter().filter(|a| !used.contains(a)).collect()
}
