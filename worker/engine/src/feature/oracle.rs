//! The features' naive oracle, for tests: it keeps every event of a user and computes each value anew from all of them,
//! straight from the spec. Slow, and shares nothing with the fast path but the hash of categories and the sketch's crate.

use datasketches::hll::{HllSketch, HllType};
use millrace_crds::spec::{self, Bucket, Feature, Per, PipelineSpec};

use crate::{
    event::{Event, Item, Value, category_of_number, category_of_text},
    example::FeatureValue,
    names::Names,
};

use super::{Context, EXACT_MAX};

/// One user's events, all of them.
#[derive(Clone, Debug)]
pub struct Oracle<'s> {
    spec: &'s PipelineSpec,
    names: Names,
    facts: Vec<Fact>,
}

#[derive(Clone, Debug, PartialEq)]
enum Given {
    Number(f64),
    Text(String),
    Bool(bool),
}

impl Given {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Number(number) => number.is_finite().then_some(Given::Number(number)),
            Value::Text(text) => (!text.is_empty()).then(|| Given::Text(text.to_owned())),
            Value::Bool(b) => Some(Given::Bool(b)),
        }
    }
    fn category(&self) -> u64 {
        match self {
            Given::Number(number) => category_of_number(*number),
            Given::Text(text) => category_of_text(text),
            Given::Bool(b) => category_of_text(&b.to_string()),
        }
    }
    fn number(&self) -> Option<f64> {
        match self {
            Given::Number(number) => Some(*number),
            Given::Text(_) => None,
            Given::Bool(b) => Some(if *b { 1.0 } else { 0.0 }),
        }
    }
    fn value(&self) -> FeatureValue {
        match self {
            Given::Number(number) => FeatureValue::Number(*number),
            _ => FeatureValue::Category(self.category()),
        }
    }
}

type Named = Vec<(String, Given)>;

#[derive(Clone, Debug)]
struct Fact {
    time: i64,
    event: String,
    session: u64,
    value: Option<Given>,
    attributes: Named,
    items: Vec<(Option<Given>, Named)>,
}

impl Fact {
    fn of(event: &Event<'_>, names: &Names) -> Self {
        let of_item = |item: Item<'_>| (Given::of(Value::Text(item.id)), named(item.attributes(), names));
        Fact {
            time: event.head.time.0,
            event: names.events[usize::from(event.head.event_type)].clone(),
            session: event.head.session,
            value: Given::of(Value::Number(event.head.value)),
            attributes: named(event.attributes(), names),
            items: event.items().map(of_item).collect(),
        }
    }

    /// The values of `of` or `by`, in their order.
    fn inputs(&self, name: &str) -> Vec<Given> {
        let of = |list: &Named| list.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        match name {
            "value" => self.value.iter().cloned().collect(),
            "item" => self.items.iter().filter_map(|(id, _)| id.clone()).collect(),
            _ if Names::is_of_item(name) => self.items.iter().flat_map(|(_, list)| of(list)).collect(),
            _ => of(&self.attributes),
        }
    }
}

fn named<'a>(attributes: impl Iterator<Item = (u16, Value<'a>)>, names: &Names) -> Named {
    let name = |id: u16| names.attributes[usize::from(id)].clone();
    attributes.filter_map(|(id, value)| Some((name(id), Given::of(value)?))).collect()
}

/// A feature's own events: (time, inputs of `of` or `by`).
type Terms = Vec<(i64, Vec<Given>)>;

impl<'s> Oracle<'s> {
    /// A user without events. The spec must be valid.
    pub fn new(spec: &'s PipelineSpec) -> Self {
        Self { spec, names: Names::of(spec), facts: Vec::new() }
    }

    /// Adds an event of this user.
    pub fn push(&mut self, event: &Event<'_>) {
        let mut fact = Fact::of(event, &self.names);
        fact.time = fact.time.max(self.facts.last().map_or(i64::MIN, |last| last.time));
        self.facts.push(fact);
    }

    /// The values of a model's columns, in the order of its schema.
    pub fn read(&self, model: &spec::Model, context: &Context<'_>) -> Vec<FeatureValue> {
        let mut seen: Vec<&String> = Vec::new();
        let mut values = Vec::new();
        for name in model.features.iter().chain(model.crosses.iter().flatten()) {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            match self.spec.features.get(name) {
                Some(feature) if matches!(feature.per, Per::Item | Per::Global) => {}
                Some(feature) => values.extend(self.feature(feature, context)),
                None => values.push(self.plain(name, context).unwrap_or(FeatureValue::Missing)),
            }
        }
        values
    }

    /// The candidate as if it were an event with that one item.
    fn candidate(&self, context: &Context<'_>) -> Fact {
        let mut fact = Fact::of(context.event, &self.names);
        let item = context.item.map(|item| (Given::of(Value::Text(item.id)), named(item.attributes(), &self.names)));
        fact.items = item.into_iter().collect();
        fact
    }

    fn plain(&self, name: &str, context: &Context<'_>) -> Option<FeatureValue> {
        let text = |text| Given::of(Value::Text(text)).map(|given| given.value());
        match name {
            "placement" => text(context.event.placement),
            "platform" => text(context.event.platform),
            _ => self.candidate(context).inputs(name).last().map(Given::value),
        }
    }

    fn feature(&self, f: &Feature, context: &Context<'_>) -> Vec<FeatureValue> {
        let time = context.time.0.max(self.facts.last().map_or(i64::MIN, |last| last.time));
        let values = match (&f.last_n, &f.n) {
            (Some(events), Some(n)) => {
                let mut newest = flat(&self.terms(f, events, context, None));
                newest.reverse();
                (0..*n as usize).map(|i| newest.get(i).map(|(_, given)| given.value())).collect()
            }
            _ => vec![self.one(f, context, time)],
        };
        let finish = |value: FeatureValue| f.bucket.as_ref().map_or(value, |b| bucketed(b, value));
        values.into_iter().map(|value| finish(value.unwrap_or(FeatureValue::Missing))).collect()
    }

    fn one(&self, f: &Feature, context: &Context<'_>, time: i64) -> Option<FeatureValue> {
        let number = FeatureValue::Number;
        let candidate = |name: &str| self.candidate(context).inputs(name).last().cloned();
        if let Some(names) = &f.any_of {
            let names = names.iter().flat_map(|pattern| crate::names::expand(pattern));
            let any = names.filter_map(|name| candidate(&name)).any(|given| match given {
                Given::Number(number) => number > 0.0,
                Given::Text(_) => true,
                Given::Bool(b) => b,
            });
            return Some(number(if any { 1.0 } else { 0.0 }));
        }
        if let Some(name) = &f.attribute {
            return candidate(name).map(|given| given.value());
        }
        if let Some([part, whole]) = &f.ratio {
            let count =
                |event: &String| self.terms(f, &spec::Names::One(event.clone()), context, Some(time)).len() as f64;
            let whole = count(whole) + f.smoothing.unwrap_or(0.0);
            return if whole == 0.0 { None } else { Some(number(count(part) / whole)) };
        }
        let terms = |events: &spec::Names| self.terms(f, events, context, Some(time));
        let numbers = |events| -> Vec<f64> { flat(&terms(events)).iter().filter_map(|(_, g)| g.number()).collect() };
        if let Some(events) = &f.count {
            return match f.by.as_deref() {
                None => Some(number(terms(events).len() as f64)),
                Some(by) => Some(number(keyed_count(&terms(events), &candidate(by)?))),
            };
        }
        if let Some(events) = &f.sum {
            return Some(number(numbers(events).iter().sum()));
        }
        if let Some(events) = &f.mean {
            let all = numbers(events);
            return if all.is_empty() { None } else { Some(number(all.iter().sum::<f64>() / all.len() as f64)) };
        }
        if let Some(events) = &f.min {
            return numbers(events).into_iter().reduce(f64::min).map(number);
        }
        if let Some(events) = &f.max {
            return numbers(events).into_iter().reduce(f64::max).map(number);
        }
        if let Some(events) = &f.decayed_sum {
            return Some(number(decayed_sum(&terms(events), f, time)));
        }
        if let Some(events) = &f.last {
            return flat(&terms(events)).last().map(|(_, given)| given.value());
        }
        if let Some(events) = &f.distinct {
            return Some(number(distinct(&terms(events))));
        }
        if let Some(events) = &f.time_since {
            return terms(events).last().map(|(last, _)| number((time - last) as f64 / 1e6));
        }
        let share = affinity(&terms(f.affinity.as_ref()?), f, &candidate(f.by.as_deref()?)?);
        share.map(number)
    }

    /// The events of a feature; with `window_at`, those that its window covers then.
    fn terms(&self, f: &Feature, events: &spec::Names, context: &Context<'_>, window_at: Option<i64>) -> Terms {
        let is_named = |name: &String| match events {
            spec::Names::One(one) => one == name,
            spec::Names::Many(many) => many.contains(name),
        };
        let input = f.of.as_deref().or(f.by.as_deref());
        let covers = |at: i64| match (f.window, window_at) {
            (Some(window), Some(now)) => {
                let buckets = if f.tumbling == Some(true) { 1 } else { i64::from(f.buckets.unwrap_or(8)) };
                let width = window.as_micros() / buckets;
                let (bucket, newest) = (at.div_euclid(width), now.div_euclid(width));
                newest - buckets < bucket && bucket <= newest
            }
            _ => true,
        };
        self.of_scope(f, context)
            .iter()
            .filter(|fact| is_named(&fact.event) && covers(fact.time))
            .map(|fact| (fact.time, input.map_or(Vec::new(), |name| fact.inputs(name))))
            .collect()
    }

    /// All events, or those since the session began, if it is the impression's.
    fn of_scope(&self, f: &Feature, context: &Context<'_>) -> &[Fact] {
        if f.per != Per::Session {
            return &self.facts;
        }
        let session = context.event.head.session;
        let before = self.facts.iter().rposition(|fact| fact.session != session);
        &self.facts[before.map_or(0, |at| at + 1)..]
    }
}

fn flat(terms: &Terms) -> Vec<(i64, Given)> {
    terms.iter().flat_map(|(time, inputs)| inputs.iter().map(|given| (*time, given.clone()))).collect()
}

fn half_life(f: &Feature) -> i64 {
    f.half_life.map_or(1, |span| span.as_micros())
}

fn decayed_sum(terms: &Terms, f: &Feature, time: i64) -> f64 {
    let weight = |at: i64| libm::exp2(-((time - at) as f64) / half_life(f) as f64);
    let of_event = |(at, inputs): &(i64, Vec<Given>)| match &f.of {
        None => weight(*at),
        Some(_) => inputs.iter().filter_map(Given::number).map(|term| term * weight(*at)).sum(),
    };
    f64::from(terms.iter().map(of_event).sum::<f64>() as f32)
}

fn distinct(terms: &Terms) -> f64 {
    let mut members: Vec<u64> = Vec::new();
    for (_, given) in flat(terms) {
        if !members.contains(&given.category()) {
            members.push(given.category());
        }
    }
    match HllSketch::new(10, HllType::Hll8) {
        Ok(mut sketch) if members.len() > EXACT_MAX => {
            members.iter().for_each(|member| sketch.update(*member));
            libm::round(sketch.estimate())
        }
        _ => members.len() as f64,
    }
}

/// Categories in the order in which they came, each with what it has; `grow` says what one more input makes of it.
fn tabulate(terms: &Terms, places: usize, mut grow: impl FnMut(&mut Vec<(u32, f32)>, i64) -> f32) -> Vec<(u32, f32)> {
    let mut table: Vec<(u32, f32)> = Vec::new();
    for (time, given) in flat(terms) {
        let weight = grow(&mut table, time);
        let tag = ((given.category() >> 32) as u32).max(1);
        if let Some((_, held)) = table.iter_mut().find(|(t, _)| *t == tag) {
            *held += weight;
            continue;
        }
        if table.len() == places {
            let least = table.iter().map(|(_, w)| *w).fold(f32::INFINITY, f32::min);
            let out = table.iter().position(|(_, w)| *w == least).unwrap_or(0);
            table.remove(out);
        }
        table.push((tag, weight));
    }
    table
}

fn keyed_count(terms: &Terms, candidate: &Given) -> f64 {
    let tag = ((candidate.category() >> 32) as u32).max(1);
    let table = tabulate(terms, 16, |_, _| 1.0);
    table.iter().find(|(t, _)| *t == tag).map_or(0.0, |(_, n)| f64::from(*n))
}

fn affinity(terms: &Terms, f: &Feature, candidate: &Given) -> Option<f64> {
    let tag = ((candidate.category() >> 32) as u32).max(1);
    let unit = half_life(f);
    let mut period: Option<i64> = None;
    let table = tabulate(terms, f.keep.unwrap_or(8) as usize, |table, time| {
        let now = time.div_euclid(unit);
        let passed = period.replace(now).map_or(0, |before| now - before);
        for (_, weight) in table.iter_mut() {
            *weight = (f64::from(*weight) * libm::exp2(-passed as f64)) as f32;
        }
        libm::exp2(time.rem_euclid(unit) as f64 / unit as f64) as f32
    });
    let total: f64 = table.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let of_candidate = table.iter().find(|(t, _)| *t == tag).map_or(0.0, |(_, weight)| f64::from(*weight));
    if total > 0.0 { Some(of_candidate / total) } else { None }
}

fn bucketed(bucket: &Bucket, value: FeatureValue) -> FeatureValue {
    let FeatureValue::Number(x) = value else { return FeatureValue::Missing };
    let number = if !bucket.bounds.is_empty() {
        bucket.bounds.iter().filter(|bound| **bound <= x).count() as f64
    } else {
        match bucket.log2 {
            Some(_) if x < 1.0 => 0.0,
            Some(per_doubling) => libm::floor(per_doubling * libm::log2(x)),
            None => libm::floor(x).max(0.0),
        }
    };
    FeatureValue::Category(1 + bucket.max.map_or(number, |max| number.min(f64::from(max))) as u64)
}
