//! From the spec's features to cells, what each event does to them, and how features are read from them.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use millrace_crds::spec::{Bucket, Feature, Names as EventNames, Per, PipelineSpec};

use crate::{
    event::{AttributeId, EventType},
    names::{Names, expand},
};

use super::{
    CompileError,
    hidden::Hidden,
    layout::{Cell, Form, Input, Kind, Layout, Step, Wanted},
    read::{Bucketing, Reading},
};

const BUCKETS_DEFAULT: u32 = 8;
const BUCKETS_MAX: u32 = 256;
const LAST_N_MAX: u32 = 16;
const AFFINITY_PLACES_DEFAULT: u32 = 8;
const AFFINITY_PLACES_MAX: u32 = 64;

/// A feature of a user, a session or the context.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub name: String,
    /// One; `n` of a `lastN`.
    pub readings: Vec<Reading>,
    pub bucketing: Option<Bucketing>,
}

/// What one type of event does, by what it is done with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub always: Vec<Cell>,
    pub value: Uses,
    pub attributes: Vec<(AttributeId, Uses)>,
    pub item: Uses,
    pub item_attributes: Vec<(AttributeId, Uses)>,
}

/// The cells that use one input.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses {
    pub cells: Vec<Cell>,
    /// Some cell needs the category of a number, too.
    pub keyed: bool,
}

impl Uses {
    fn push(&mut self, cell: Cell) {
        self.keyed |= cell.kind.is_keyed();
        self.cells.push(cell);
    }
}

impl Program {
    fn push(&mut self, input: Option<Input>, cell: Cell) {
        let uses = match input {
            None => return self.always.push(cell),
            Some(Input::Value) => &mut self.value,
            Some(Input::Item) => &mut self.item,
            Some(Input::Attribute(id)) => uses_of(&mut self.attributes, id),
            Some(Input::ItemAttribute(id)) => uses_of(&mut self.item_attributes, id),
        };
        uses.push(cell);
    }
    pub(crate) fn reads_items(&self) -> bool {
        !self.item.cells.is_empty() || !self.item_attributes.is_empty()
    }
}

fn uses_of(list: &mut Vec<(AttributeId, Uses)>, id: AttributeId) -> &mut Uses {
    let at = list.iter().position(|(i, _)| *i == id).unwrap_or_else(|| {
        list.push((id, Uses::default()));
        list.len() - 1
    });
    &mut list[at].1
}

/// How a feature is read, with the number of its cells among those wanted.
enum Plan {
    Cell(usize),
    Keyed { cell: usize, by: Input },
    Ratio { part: usize, whole: usize, smoothing: f64 },
    LastN { cell: usize, n: u8 },
    AnyOf(Vec<Input>),
    Attribute(Input),
}

pub(crate) struct Compiled {
    pub layout: Arc<Layout>,
    pub definitions: Vec<Definition>,
    pub programs: Vec<Program>,
}

/// Compiles all features but those that the model task keeps (`per: item | global`).
pub(crate) fn compile(
    features: &BTreeMap<String, Feature>,
    hidden: Hidden,
    names: &Names,
) -> Result<Compiled, CompileError> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut planned = Vec::new();
    for (name, feature) in features {
        if matches!(feature.per, Per::User | Per::Session) {
            planned.push((name, feature, One { name, feature, names, wanted: &mut wanted }.plan()?));
        }
    }
    let definition = |w: &Wanted| xxhash_rust::xxh3::xxh3_64(describe(w, names).as_bytes());
    let identities: Vec<u64> = wanted.iter().map(definition).collect();
    let id = fingerprint(&wanted, &hidden, names);
    let (layout, cells) = Layout::place(&wanted, &identities, hidden, id)?;
    let mut programs = vec![Program::default(); names.events.len()];
    for (wanted, cell) in wanted.iter().zip(&cells) {
        for event in &wanted.events {
            programs[usize::from(*event)].push(wanted.input, *cell);
        }
    }
    let definitions = planned
        .into_iter()
        .map(|(name, feature, plan)| Definition {
            name: name.clone(),
            readings: readings(plan, &cells),
            bucketing: feature.bucket.as_ref().map(Bucketing::of),
        })
        .collect();
    Ok(Compiled { layout: Arc::new(layout), definitions, programs })
}

fn readings(plan: Plan, cells: &[Cell]) -> Vec<Reading> {
    match plan {
        Plan::Cell(cell) => vec![Reading::Cell(cells[cell])],
        Plan::Keyed { cell, by } => vec![Reading::Keyed { cell: cells[cell], by }],
        Plan::Ratio { part, whole, smoothing } => {
            vec![Reading::Ratio { part: cells[part], whole: cells[whole], smoothing }]
        }
        Plan::LastN { cell, n } => (0..n).map(|at| Reading::Last { cell: cells[cell], at }).collect(),
        Plan::AnyOf(inputs) => vec![Reading::AnyOf(inputs)],
        Plan::Attribute(input) => vec![Reading::Input(input)],
    }
}

/// One feature on its way.
struct One<'a> {
    name: &'a str,
    feature: &'a Feature,
    names: &'a Names,
    wanted: &'a mut Vec<Wanted>,
}

impl One<'_> {
    fn plan(&mut self) -> Result<Plan, CompileError> {
        let f = self.feature;
        let simple: [(&Option<EventNames>, Kind); 5] = [
            (&f.count, Kind::Count),
            (&f.sum, Kind::Sum),
            (&f.mean, Kind::Mean),
            (&f.min, Kind::Min),
            (&f.max, Kind::Max),
        ];
        let mut plans = Vec::new();
        for (events, kind) in simple {
            if let Some(events) = events {
                plans.push(self.aggregate(events, kind)?);
            }
        }
        if let Some(events) = &f.decayed_sum {
            let input = f.of.as_deref().map(|of| self.input(of)).transpose()?;
            let step = self.half_life()?;
            plans.push(Plan::Cell(self.want(events, Kind::Decayed, input, Some(step), 1)?));
        }
        if let Some(events) = &f.last {
            let input = self.of()?;
            plans.push(Plan::Cell(self.want(events, last_of(input, 1), Some(input), None, 1)?));
        }
        if let Some(events) = &f.last_n {
            let (input, n) = (self.of()?, self.in_range("n", f.n, LAST_N_MAX)? as u8);
            plans.push(Plan::LastN { cell: self.want(events, last_of(input, n), Some(input), None, 1)?, n });
        }
        if let Some(events) = &f.distinct {
            let input = self.of()?;
            plans.push(Plan::Cell(self.want(events, Kind::Distinct, Some(input), None, 1)?));
        }
        if let Some([part, whole]) = &f.ratio {
            plans.push(self.ratio(part, whole)?);
        }
        if let Some(events) = &f.time_since {
            plans.push(Plan::Cell(self.want(events, Kind::TimeSince, None, None, 1)?));
        }
        if let Some(events) = &f.affinity {
            let (by, step) = (self.by()?, self.half_life()?);
            let keep = f.keep.unwrap_or(AFFINITY_PLACES_DEFAULT);
            let places = self.in_range("keep", Some(keep), AFFINITY_PLACES_MAX)? as u8;
            let cell = self.want(events, Kind::Affinity { places }, Some(by), Some(step), 1)?;
            plans.push(Plan::Keyed { cell, by });
        }
        if let Some(names) = &f.any_of {
            let names = names.iter().flat_map(|pattern| expand(pattern));
            plans.push(Plan::AnyOf(names.map(|name| self.attribute(&name)).collect::<Result<_, _>>()?));
        }
        if let Some(name) = &f.attribute {
            plans.push(Plan::Attribute(self.attribute(name)?));
        }
        match (plans.pop(), plans.is_empty()) {
            (Some(plan), true) => Ok(plan),
            _ => Err(CompileError::NotOne { feature: self.name.to_owned() }),
        }
    }

    /// `count` to `max`.
    fn aggregate(&mut self, events: &EventNames, kind: Kind) -> Result<Plan, CompileError> {
        let (step, buckets) = self.window()?;
        if kind != Kind::Count {
            let input = self.of()?;
            return Ok(Plan::Cell(self.want(events, kind, Some(input), step, buckets)?));
        }
        if self.feature.by.is_none() {
            return Ok(Plan::Cell(self.want(events, kind, None, step, buckets)?));
        }
        if step.is_some() {
            let feature = self.name.to_owned();
            return Err(CompileError::Unsupported { feature, what: "a count with both `by` and `window`" });
        }
        let by = self.by()?;
        let cell = self.want(events, Kind::Keyed, Some(by), None, 1)?;
        Ok(Plan::Keyed { cell, by })
    }

    fn ratio(&mut self, part: &str, whole: &str) -> Result<Plan, CompileError> {
        let (step, buckets) = self.window()?;
        let smoothing = self.feature.smoothing.unwrap_or(0.0);
        if !(smoothing.is_finite() && smoothing >= 0.0) {
            return Err(self.out_of_range("smoothing"));
        }
        let mut count = |event: &str| self.want(&EventNames::One(event.to_owned()), Kind::Count, None, step, buckets);
        Ok(Plan::Ratio { part: count(part)?, whole: count(whole)?, smoothing })
    }

    /// The number of a cell, which another feature may already have asked for.
    fn want(
        &mut self,
        events: &EventNames,
        kind: Kind,
        input: Option<Input>,
        step: Option<Step>,
        buckets: u16,
    ) -> Result<usize, CompileError> {
        let events = self.events(events)?;
        let of_session = self.feature.per == Per::Session;
        let wanted = Wanted { of_session, events, kind, input, step, buckets };
        Ok(self.wanted.iter().position(|w| *w == wanted).unwrap_or_else(|| {
            self.wanted.push(wanted);
            self.wanted.len() - 1
        }))
    }

    fn events(&self, names: &EventNames) -> Result<Vec<EventType>, CompileError> {
        let names = match names {
            EventNames::One(name) => std::slice::from_ref(name),
            EventNames::Many(names) => names,
        };
        let mut events = Vec::with_capacity(names.len());
        for name in names {
            let unknown = || CompileError::UnknownEvent { feature: self.name.to_owned(), name: name.clone() };
            events.push(self.names.event(name).ok_or_else(unknown)?);
        }
        events.sort_unstable();
        events.dedup();
        Ok(events)
    }

    fn of(&self) -> Result<Input, CompileError> {
        self.input(self.feature.of.as_deref().ok_or_else(|| self.missing("of"))?)
    }

    fn by(&self) -> Result<Input, CompileError> {
        self.input(self.feature.by.as_deref().ok_or_else(|| self.missing("by"))?)
    }

    fn input(&self, name: &str) -> Result<Input, CompileError> {
        match name {
            "value" => Ok(Input::Value),
            "item" => Ok(Input::Item),
            _ => self.attribute(name),
        }
    }

    fn attribute(&self, name: &str) -> Result<Input, CompileError> {
        attribute(self.names, name)
            .ok_or_else(|| CompileError::UnknownAttribute { feature: self.name.to_owned(), name: name.to_owned() })
    }

    /// The step of the buckets and their number; none and one without a window.
    fn window(&self) -> Result<(Option<Step>, u16), CompileError> {
        let f = self.feature;
        let Some(window) = f.window else { return Ok((None, 1)) };
        let buckets = match f.tumbling {
            Some(true) => 1,
            _ => self.in_range("buckets", Some(f.buckets.unwrap_or(BUCKETS_DEFAULT)), BUCKETS_MAX)?,
        };
        let unit = window.as_micros() / i64::from(buckets);
        if unit < 1 {
            return Err(self.out_of_range("window"));
        }
        Ok((Some(Step { unit, decays: false }), buckets as u16))
    }

    fn half_life(&self) -> Result<Step, CompileError> {
        let unit = self.feature.half_life.ok_or_else(|| self.missing("halfLife"))?.as_micros();
        if unit < 1 { Err(self.out_of_range("halfLife")) } else { Ok(Step { unit, decays: true }) }
    }

    fn in_range(&self, field: &'static str, given: Option<u32>, max: u32) -> Result<u32, CompileError> {
        let given = given.ok_or_else(|| self.missing(field))?;
        if (1..=max).contains(&given) { Ok(given) } else { Err(self.out_of_range(field)) }
    }

    fn missing(&self, field: &'static str) -> CompileError {
        CompileError::Missing { feature: self.name.to_owned(), field }
    }

    fn out_of_range(&self, field: &'static str) -> CompileError {
        CompileError::OutOfRange { feature: self.name.to_owned(), field }
    }
}

/// An allowed attribute, of the event or of each item.
pub(crate) fn attribute(names: &Names, name: &str) -> Option<Input> {
    let id = names.attribute(name)?;
    Some(if Names::is_of_item(name) { Input::ItemAttribute(id) } else { Input::Attribute(id) })
}

/// `value` is always a number and `item` always a category; an attribute says with each value what it is.
fn last_of(input: Input, n: u8) -> Kind {
    let form = match input {
        Input::Value => Form::Number,
        Input::Item => Form::Category,
        Input::Attribute(_) | Input::ItemAttribute(_) => Form::Tagged,
    };
    Kind::Last { n, form }
}

/// A hash of what the cells are, by names, so that it changes exactly when old rows cannot be read any more.
fn fingerprint(wanted: &[Wanted], hidden: &Hidden, names: &Names) -> u64 {
    let mut lines: Vec<String> = wanted.iter().map(|w| describe(w, names)).collect();
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|i| &wanted[*i]);
    let mut text: String = order.into_iter().map(|i| std::mem::take(&mut lines[i])).collect();
    hidden.fingerprint(&mut text);
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

fn describe(wanted: &Wanted, names: &Names) -> String {
    let mut line = match wanted.kind {
        Kind::Count => "count".to_owned(),
        Kind::Sum => "sum".to_owned(),
        Kind::Mean => "mean".to_owned(),
        Kind::Min => "min".to_owned(),
        Kind::Max => "max".to_owned(),
        Kind::Decayed => "decayed".to_owned(),
        // As it was called before there was a choice, so that rows stay readable.
        Kind::Affinity { places: 8 } => "affinity".to_owned(),
        Kind::Affinity { places } => format!("affinity {places}"),
        Kind::Keyed => "keyed".to_owned(),
        Kind::Last { n, form } => format!("last {n} {}", form as u8),
        Kind::TimeSince => "time".to_owned(),
        Kind::Distinct => "distinct".to_owned(),
    };
    let attribute = |id: AttributeId| names.attributes.get(usize::from(id)).map_or("", String::as_str);
    let input = match wanted.input {
        None => "",
        Some(Input::Value) => "value",
        Some(Input::Item) => "item",
        Some(Input::Attribute(id) | Input::ItemAttribute(id)) => attribute(id),
    };
    // Writing to a String never fails.
    let _ = write!(line, " {} of '{input}' in {}", wanted.of_session, wanted.buckets);
    if let Some(step) = wanted.step {
        let _ = write!(line, " every {} {}", step.unit, step.decays);
    }
    for event in &wanted.events {
        let _ = write!(line, " '{}'", names.events.get(usize::from(*event)).map_or("", String::as_str));
    }
    line.push('\n');
    line
}

impl Bucketing {
    fn of(bucket: &Bucket) -> Self {
        Self { bounds: bucket.bounds.clone(), log2: bucket.log2, max: bucket.max }
    }
}

/// Names of what the profile task fills in for a model, in order: its features without those of the model task, then
/// what only its crosses name.
pub(crate) fn columns<'s>(spec: &'s PipelineSpec, model: &'s millrace_crds::spec::Model) -> Vec<&'s str> {
    let mut columns: Vec<&str> = Vec::new();
    for name in model.features.iter().chain(model.crosses.iter().flatten()) {
        let elsewhere = spec.features.get(name).is_some_and(|f| matches!(f.per, Per::Item | Per::Global));
        if !elsewhere && !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    columns
}
