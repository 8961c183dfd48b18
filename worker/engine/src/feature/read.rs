//! What a row and a candidate say, as a model's columns.

use millrace_crds::spec::{Model, PipelineSpec};

use crate::{
    event::{AttributeId, Attributes, Event, Item, RawAttribute, Time, Value},
    example::{Column, FeatureValue, Schema},
    names::Names,
};

use super::{
    CompileError, Features, cells,
    compile::{self, Definition},
    layout::{Cell, Form, Input, Kind, Layout},
    row::RowRef,
    update::{Datum, TAG_CATEGORY, TAG_NUMBER, start_of, steps_between},
};

/// For whom values are read: a candidate item at an impression (or a decision), at a time.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub time: Time,
    /// The impression.
    pub event: &'a Event<'a>,
    pub item: Option<Item<'a>>,
}

/// How one column is read.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    Cell(Cell),
    /// For the candidate's category.
    Keyed {
        cell: Cell,
        by: Input,
    },
    Ratio {
        part: Cell,
        whole: Cell,
        smoothing: f64,
    },
    /// The value `at` places before the newest.
    Last {
        cell: Cell,
        at: u8,
    },
    /// Allowed attributes.
    AnyOf(Vec<Input>),
    /// An attribute, or the item.
    Input(Input),
    Placement,
    Platform,
}

impl Reading {
    fn depends_on_item(&self) -> bool {
        let of_item = |input: &Input| matches!(input, Input::Item | Input::ItemAttribute(_));
        match self {
            Reading::Keyed { by, .. } => of_item(by),
            Reading::AnyOf(inputs) => inputs.iter().any(of_item),
            Reading::Input(input) => of_item(input),
            _ => false,
        }
    }
}

/// `bucket` of a feature: numbers become categories, 1 + the number of the bucket. What is no number is missing.
#[derive(Clone, Debug)]
pub(crate) struct Bucketing {
    pub bounds: Vec<f64>,
    pub log2: Option<f64>,
    pub max: Option<u32>,
}

impl Bucketing {
    fn apply(&self, value: FeatureValue) -> FeatureValue {
        match value {
            FeatureValue::Number(x) => FeatureValue::Category(self.bucket_of(x).saturating_add(1)),
            _ => FeatureValue::Missing,
        }
    }
    fn bucket_of(&self, x: f64) -> u64 {
        let bucket = match self.log2 {
            _ if !self.bounds.is_empty() => self.bounds.partition_point(|bound| *bound <= x) as u64,
            Some(_) if x < 1.0 => 0,
            Some(per_doubling) => libm::floor(per_doubling * libm::log2(x)) as u64,
            None => libm::floor(x) as u64,
        };
        self.max.map_or(bucket, |max| bucket.min(u64::from(max)))
    }
}

/// A model's columns, compiled.
#[derive(Clone, Debug, Default)]
pub struct Projection {
    width: usize,
    all: Readers,
    /// Those that differ between the items of an impression.
    of_item: Readers,
}

impl Projection {
    /// Number of values that [`Features::read`] appends.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Columns that differ between the items of an impression.
    pub fn item_columns(&self) -> impl Iterator<Item = usize> + '_ {
        let attributes = self.of_item.event_attributes.iter().chain(&self.of_item.item_attributes);
        self.of_item.others.iter().chain(attributes.map(|(_, reader)| reader)).map(|reader| reader.column)
    }
}

/// Columns to fill. Attributes are apart, each list sorted by attribute, so that an event's are walked only once.
#[derive(Clone, Debug, Default)]
struct Readers {
    others: Vec<Reader>,
    event_attributes: Vec<(AttributeId, Reader)>,
    item_attributes: Vec<(AttributeId, Reader)>,
}

#[derive(Clone, Debug)]
struct Reader {
    column: usize,
    reading: Reading,
    bucketing: Option<Bucketing>,
}

impl Reader {
    fn put(&self, value: FeatureValue, values: &mut [FeatureValue]) {
        values[self.column] = self.bucketing.as_ref().map_or(value, |b| b.apply(value));
    }
}

impl Readers {
    fn push(&mut self, reader: Reader) {
        let (list, id) = match reader.reading {
            Reading::Input(Input::Attribute(id)) => (&mut self.event_attributes, id),
            Reading::Input(Input::ItemAttribute(id)) => (&mut self.item_attributes, id),
            _ => return self.others.push(reader),
        };
        list.insert(list.partition_point(|(i, _)| *i <= id), (id, reader));
    }
    fn fill(&self, view: &View<'_>, values: &mut [FeatureValue]) {
        for reader in &self.others {
            reader.put(view.read(&reader.reading), values);
        }
        fill_attributes(&self.event_attributes, Some(view.context.event.attributes()), values);
        fill_attributes(&self.item_attributes, view.context.item.map(|item| item.attributes()), values);
    }
}

fn fill_attributes(readers: &[(AttributeId, Reader)], attributes: Option<Attributes<'_>>, values: &mut [FeatureValue]) {
    if readers.is_empty() {
        return;
    }
    for (_, reader) in readers {
        values[reader.column] = FeatureValue::Missing;
    }
    for raw in attributes.into_iter().flat_map(Attributes::raw) {
        let first = readers.partition_point(|(i, _)| *i < raw.id);
        for (_, reader) in readers[first..].iter().take_while(|(i, _)| *i == raw.id) {
            reader.put(raw.value().map_or(FeatureValue::Missing, plain), values);
        }
    }
}

/// Numbers stay numbers; text and booleans are categories.
fn plain(value: Value<'_>) -> FeatureValue {
    Datum::of(value, false).map_or(FeatureValue::Missing, |datum| match datum.is_category {
        true => FeatureValue::Category(datum.category),
        false => FeatureValue::Number(datum.number),
    })
}

impl Features {
    /// The columns of a model's examples: its features in order, without those that the model task keeps itself, then
    /// what only its crosses name. A `lastN` has `n` columns of its name.
    pub fn schema(&self, spec: &PipelineSpec, model: &Model) -> Schema {
        let column = |name: &str| Column { name: name.to_owned() };
        let columns = compile::columns(spec, model)
            .into_iter()
            .flat_map(|name| std::iter::repeat_n(name, self.definition(name).map_or(1, |d| d.readings.len())))
            .map(column)
            .collect();
        Schema { columns }
    }

    /// Readers of the columns of [`Features::schema`].
    pub fn projection(&self, spec: &PipelineSpec, model: &Model, names: &Names) -> Result<Projection, CompileError> {
        let mut projection = Projection::default();
        for name in compile::columns(spec, model) {
            let (readings, bucketing) = match self.definition(name) {
                Some(definition) => (definition.readings.clone(), definition.bucketing.clone()),
                None => (vec![context_column(name, names, &model.name)?], None),
            };
            for reading in readings {
                let reader = Reader { column: projection.width, reading, bucketing: bucketing.clone() };
                projection.width += 1;
                if reader.reading.depends_on_item() {
                    projection.of_item.push(reader.clone());
                }
                projection.all.push(reader);
            }
        }
        Ok(projection)
    }

    fn definition(&self, name: &str) -> Option<&Definition> {
        self.definitions.binary_search_by(|d| d.name.as_str().cmp(name)).ok().map(|at| &self.definitions[at])
    }

    /// Appends the values of a candidate: as of `context.time`, before the event's own update. Without a row
    /// (an unknown user) they are the defaults.
    pub fn read(
        &self,
        projection: &Projection,
        row: Option<RowRef<'_>>,
        context: &Context<'_>,
        out: &mut Vec<FeatureValue>,
    ) {
        let start = out.len();
        out.resize(start + projection.width, FeatureValue::Missing);
        projection.all.fill(&View::new(self, row, context), &mut out[start..]);
    }

    /// Turns the values of one item of an impression into those of another: only what differs is read.
    pub fn read_other_item(
        &self,
        projection: &Projection,
        row: Option<RowRef<'_>>,
        context: &Context<'_>,
        values: &mut [FeatureValue],
    ) {
        projection.of_item.fill(&View::new(self, row, context), values);
    }

    /// What a row holds, for people: (feature, value) of each feature of the user and of the last session.
    pub fn describe(&self, row: RowRef<'_>, time: Time) -> Vec<(String, String)> {
        let time = time.max(row.last_event()).0;
        let held = Held { layout: &self.layout, user: row.bytes, session: row.bytes, time };
        let kept = |d: &&Definition| !matches!(d.readings.first(), Some(Reading::AnyOf(_) | Reading::Input(_)) | None);
        let text = |d: &Definition| {
            let one = |reading: &Reading| match reading {
                Reading::Keyed { cell, .. } => held.describe_table(cell),
                _ => {
                    let value = held.read(reading).unwrap_or(FeatureValue::Missing);
                    describe_value(d.bucketing.as_ref().map_or(value, |b| b.apply(value)), d.bucketing.is_some())
                }
            };
            d.readings.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        self.definitions.iter().filter(kept).map(|d| (d.name.clone(), text(d))).collect()
    }
}

fn describe_value(value: FeatureValue, is_bucket: bool) -> String {
    match value {
        FeatureValue::Missing => "-".to_owned(),
        FeatureValue::Number(number) => number.to_string(),
        FeatureValue::Category(category) if is_bucket => format!("bucket {}", category - 1),
        FeatureValue::Category(category) => format!("#{category:016x}"),
    }
}

/// What is not a feature: the candidate, where it is shown, or an allowed attribute.
fn context_column(name: &str, names: &Names, model: &str) -> Result<Reading, CompileError> {
    match name {
        "item" => Ok(Reading::Input(Input::Item)),
        "placement" => Ok(Reading::Placement),
        "platform" => Ok(Reading::Platform),
        _ => compile::attribute(names, name)
            .map(Reading::Input)
            .ok_or_else(|| CompileError::UnknownColumn { model: model.to_owned(), name: name.to_owned() }),
    }
}

/// A row and a candidate being read.
struct View<'a> {
    held: Held<'a>,
    context: &'a Context<'a>,
}

/// Cells at a time that is not before the last event.
struct Held<'a> {
    layout: &'a Layout,
    user: &'a [u8],
    /// The row if its session is the candidate's, otherwise an empty one.
    session: &'a [u8],
    time: i64,
}

impl<'a> View<'a> {
    fn new(features: &'a Features, row: Option<RowRef<'a>>, context: &'a Context<'a>) -> Self {
        let empty: &[u8] = &features.empty;
        let user = row.map_or(empty, |row| row.bytes);
        let is_same = |at: usize| cells::get_u64(user, at) == context.event.head.session;
        let session = if features.layout.session_at.is_none_or(is_same) { user } else { empty };
        let time = row.map_or(context.time, |row| context.time.max(row.last_event())).0;
        Self { held: Held { layout: &features.layout, user, session, time }, context }
    }

    fn read(&self, reading: &Reading) -> FeatureValue {
        match reading {
            Reading::Keyed { cell, by } => {
                let category = self.input(*by, true).map(|datum| datum.category);
                category.map_or(FeatureValue::Missing, |category| self.held.keyed(cell, category))
            }
            Reading::AnyOf(inputs) => FeatureValue::Number(f64::from(u8::from(self.any_of(inputs)))),
            Reading::Input(input) => category(self.input(*input, false)),
            Reading::Placement => category(Datum::of_text(self.context.event.placement)),
            Reading::Platform => category(Datum::of_text(self.context.event.platform)),
            _ => self.held.read(reading).unwrap_or(FeatureValue::Missing),
        }
    }

    fn input(&self, input: Input, keyed: bool) -> Option<Datum> {
        let (event, item) = (self.context.event, &self.context.item);
        match input {
            Input::Value => Datum::of_number(event.head.value, keyed),
            Input::Item => Datum::of_text(item.as_ref()?.id),
            Input::Attribute(id) => Datum::of(event.attribute(id)?, keyed),
            Input::ItemAttribute(id) => {
                item.as_ref()?.attributes().find_id(id).and_then(|value| Datum::of(value, keyed))
            }
        }
    }

    fn any_of(&self, inputs: &[Input]) -> bool {
        let holds = |value: Value<'_>| match value {
            Value::Number(number) => number > 0.0 && number.is_finite(),
            Value::Text(text) => !text.is_empty(),
            Value::Bool(b) => b,
        };
        let wanted = |input: Input, raw: RawAttribute<'_>| inputs.contains(&input) && raw.value().is_some_and(holds);
        self.context.event.attributes().raw().any(|raw| wanted(Input::Attribute(raw.id), raw))
            || (self.context.item.iter().flat_map(|item| item.attributes().raw()))
                .any(|raw| wanted(Input::ItemAttribute(raw.id), raw))
    }
}

fn category(datum: Option<Datum>) -> FeatureValue {
    datum.map_or(FeatureValue::Missing, |datum| FeatureValue::Category(datum.category))
}

impl Held<'_> {
    fn row(&self, cell: &Cell) -> &[u8] {
        if cell.of_session { self.session } else { self.user }
    }

    /// What a reading says that needs no candidate; none if it is missing, or needs one.
    fn read(&self, reading: &Reading) -> Option<FeatureValue> {
        match reading {
            Reading::Cell(cell) => self.cell(cell),
            Reading::Ratio { part, whole, smoothing } => {
                let whole = self.count(whole) + smoothing;
                (whole > 0.0).then(|| FeatureValue::Number(self.count(part) / whole))
            }
            Reading::Last { cell, at } => self.last(cell, usize::from(*at)),
            _ => None,
        }
    }

    fn cell(&self, cell: &Cell) -> Option<FeatureValue> {
        let (row, at) = (self.row(cell), cell.at);
        let number = match cell.kind {
            Kind::Count => self.count(cell),
            Kind::Sum => self.starts(cell).map(|at| cells::get_f64(row, at)).fold(0.0, |a, b| cells::finite(a + b)),
            Kind::Mean => {
                let (mut sum, mut count) = (0.0, 0u64);
                for at in self.starts(cell) {
                    sum = cells::finite(sum + cells::get_f64(row, at));
                    count += u64::from(cells::get_u32(row, at + 8));
                }
                return (count > 0).then(|| FeatureValue::Number(sum / count as f64));
            }
            Kind::Min => self.starts(cell).filter_map(|at| cells::get_optional(row, at)).reduce(f64::min)?,
            Kind::Max => self.starts(cell).filter_map(|at| cells::get_optional(row, at)).reduce(f64::max)?,
            Kind::Decayed => self.decayed(cell),
            Kind::TimeSince => {
                let last = cells::get_time(row, at);
                let micros = if last == i64::MIN { return None } else { self.time.saturating_sub(last).max(0) };
                micros as f64 / 1e6
            }
            Kind::Distinct => f64::from(cells::get_u32(row, at)),
            Kind::Last { .. } => return self.last(cell, 0),
            Kind::Affinity { .. } | Kind::Keyed => return None,
        };
        Some(FeatureValue::Number(number))
    }

    /// Where the buckets begin that the window still covers, newest first.
    fn starts(&self, cell: &Cell) -> impl Iterator<Item = usize> {
        let buckets = usize::from(cell.buckets);
        let covered = cell.clock.map_or(buckets, |clock| {
            let clock = &self.layout.clocks[usize::from(clock)];
            let start = cells::get_time(self.row(cell), clock.at);
            let steps = steps_between(clock.step, start, start_of(clock.step, self.time));
            buckets.saturating_sub(usize::try_from(steps).unwrap_or(usize::MAX))
        });
        let (at, bytes) = (cell.at, cell.kind.bytes());
        (0..covered).map(move |bucket| at + bucket * bytes)
    }

    fn count(&self, cell: &Cell) -> f64 {
        let row = self.row(cell);
        self.starts(cell).map(|at| u64::from(cells::get_u32(row, at))).sum::<u64>() as f64
    }

    /// Rounded to single precision, so that whole terms stay whole while no time passes.
    fn decayed(&self, cell: &Cell) -> f64 {
        let Some(clock) = cell.clock.map(|clock| &self.layout.clocks[usize::from(clock)]) else { return 0.0 };
        let (row, unit) = (self.row(cell), clock.step.unit as f64);
        let passed = self.time.saturating_sub(cells::get_time(row, clock.at)).max(0) as f64;
        let sum = cells::get_f64(row, cell.at) * libm::exp2(-passed / unit);
        let single = f64::from(sum as f32);
        if single.is_finite() { single } else { sum }
    }

    fn last(&self, cell: &Cell, at: usize) -> Option<FeatureValue> {
        let Kind::Last { n, form } = cell.kind else { return None };
        let (row, value_at) = (self.row(cell), cell.at + at * 8);
        let tag = match form {
            Form::Number => TAG_NUMBER,
            Form::Category => TAG_CATEGORY,
            Form::Tagged => row[cell.at + usize::from(n) * 8 + at],
        };
        match (tag, cells::get_u64(row, value_at)) {
            (TAG_NUMBER, _) => cells::get_optional(row, value_at).map(FeatureValue::Number),
            (TAG_CATEGORY, category) if category != 0 => Some(FeatureValue::Category(category)),
            _ => None,
        }
    }

    /// The candidate's share of an affinity, or its count.
    fn keyed(&self, cell: &Cell, category: u64) -> FeatureValue {
        let tag = cells::tag_of(category);
        if cell.kind == Kind::Keyed {
            let count = cells::table::<u32>(self.row(cell), cell.at, cell.kind.places()).find(|(t, _)| *t == tag);
            return FeatureValue::Number(count.map_or(0.0, |(_, count)| f64::from(count)));
        }
        let (mut of_candidate, mut total) = (0.0, 0.0);
        for (t, weight) in cells::table::<f32>(self.row(cell), cell.at, cell.kind.places()) {
            total += f64::from(weight);
            if t == tag {
                of_candidate = f64::from(weight);
            }
        }
        if total > 0.0 { FeatureValue::Number(of_candidate / total) } else { FeatureValue::Missing }
    }

    fn describe_table(&self, cell: &Cell) -> String {
        let row = self.row(cell);
        let places: Vec<(u32, f64)> = match cell.kind {
            Kind::Keyed => {
                cells::table::<u32>(row, cell.at, cell.kind.places()).map(|(tag, n)| (tag, f64::from(n))).collect()
            }
            _ => {
                let of = || cells::table::<f32>(row, cell.at, cell.kind.places()).map(|(tag, w)| (tag, f64::from(w)));
                let total: f64 = of().map(|(_, weight)| weight).sum();
                of().map(|(tag, weight)| (tag, weight / total)).collect()
            }
        };
        let one = |(tag, n): &(u32, f64)| format!("#{tag:08x} {:.4}", n);
        if places.is_empty() { "-".to_owned() } else { places.iter().map(one).collect::<Vec<_>>().join(", ") }
    }
}
