//! What an event does to a row.

use crate::event::{Attributes, Event, Item, Value, category_of_number, category_of_text};

use super::{
    Features, cells,
    compile::Uses,
    layout::{Cell, Clock, Form, Kind, Step},
    row::RowMut,
};

/// One value of one input, as far as its cells need it.
#[derive(Clone, Copy)]
pub(crate) struct Datum {
    /// NaN if it is text.
    pub number: f64,
    /// 0 if it is a number whose category nobody needs.
    pub category: u64,
    pub is_category: bool,
}

impl Datum {
    const NONE: Datum = Datum { number: f64::NAN, category: 0, is_category: false };

    /// Nothing if the value counts as absent: not finite, or empty text.
    #[inline]
    pub(crate) fn of(value: Value<'_>, keyed: bool) -> Option<Self> {
        match value {
            Value::Number(number) => Self::of_number(number, keyed),
            Value::Text(text) => Self::of_text(text),
            Value::Bool(b) => {
                Some(Datum { number: f64::from(u8::from(b)), category: value.category(), is_category: true })
            }
        }
    }
    #[inline]
    pub(crate) fn of_number(number: f64, keyed: bool) -> Option<Self> {
        let category = if keyed { category_of_number(number) } else { 0 };
        number.is_finite().then_some(Datum { number, category, is_category: false })
    }
    #[inline]
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Datum { number: f64::NAN, category: category_of_text(text), is_category: true })
    }
}

impl Features {
    /// Applies an event to the user's cells. Events reach a user in event-time order; one with an earlier time
    /// than the last counts as of the last's.
    pub fn update(&self, row: &mut RowMut<'_>, event: &Event<'_>) {
        let time = event.head.time.max(row.last_event());
        row.set_last_event(time);
        row.enter_session(event.head.session);
        row.buy(event);
        let Some(program) = self.programs.get(usize::from(event.head.event_type)) else { return };
        let mut update = Update { clocks: &row.layout.clocks, time: time.0, row, factor: None };
        for cell in &program.always {
            update.apply(cell, &Datum::NONE);
        }
        if !program.value.cells.is_empty() {
            update.apply_all(&program.value, Datum::of_number(event.head.value, program.value.keyed));
        }
        if !program.attributes.is_empty() {
            update.apply_attributes(&program.attributes, event.attributes());
        }
        if program.reads_items() {
            for item in event.items() {
                update.apply_item(&program.item, &program.item_attributes, &item);
            }
        }
    }
}

/// An event being applied to a row.
struct Update<'r, 'u> {
    row: &'u mut RowMut<'r>,
    clocks: &'r [Clock],
    time: i64,
    /// The clock of the last decay, and 2^(time within its half-life): most cells of an event share it.
    factor: Option<(u16, f64)>,
}

impl Update<'_, '_> {
    fn apply_item(&mut self, ids: &Uses, attributes: &[(u16, Uses)], item: &Item<'_>) {
        if !ids.cells.is_empty() {
            self.apply_all(ids, Datum::of_text(item.id));
        }
        if !attributes.is_empty() {
            self.apply_attributes(attributes, item.attributes());
        }
    }

    fn apply_attributes(&mut self, wanted: &[(u16, Uses)], attributes: Attributes<'_>) {
        for raw in attributes.raw() {
            if let Some((_, uses)) = wanted.iter().find(|(id, _)| *id == raw.id) {
                self.apply_all(uses, raw.value().and_then(|value| Datum::of(value, uses.keyed)));
            }
        }
    }

    #[inline]
    fn apply_all(&mut self, uses: &Uses, datum: Option<Datum>) {
        if let Some(datum) = datum {
            for cell in &uses.cells {
                self.apply(cell, &datum);
            }
        }
    }

    /// A cell without an input gets [`Datum::NONE`].
    #[inline]
    fn apply(&mut self, cell: &Cell, datum: &Datum) {
        let at = cell.at;
        match cell.kind {
            Kind::Count => {
                self.advance(cell);
                cells::count_one(self.row.bytes, at);
            }
            Kind::Sum | Kind::Mean | Kind::Min | Kind::Max if datum.number.is_nan() => {}
            Kind::Sum => {
                self.advance(cell);
                cells::add(self.row.bytes, at, datum.number);
            }
            Kind::Mean => {
                self.advance(cell);
                cells::add(self.row.bytes, at, datum.number);
                cells::count_one(self.row.bytes, at + 8);
            }
            Kind::Min => self.extreme(cell, datum.number, |new, old| new < old),
            Kind::Max => self.extreme(cell, datum.number, |new, old| new > old),
            Kind::Decayed => self.decayed(cell, datum),
            Kind::Affinity { places } => {
                let weight = self.decay_factor(cell) as f32;
                cells::table_add(self.row.bytes, at, usize::from(places), cells::tag_of(datum.category), weight);
            }
            Kind::Keyed => {
                cells::table_add(self.row.bytes, at, cells::KEYED_PLACES, cells::tag_of(datum.category), 1u32);
            }
            Kind::Last { n, form } => last(self.row.bytes, at, usize::from(n), form, datum),
            Kind::TimeSince => cells::put_time(self.row.bytes, at, self.time),
            Kind::Distinct => self.row.insert(cell.handle_at, at, datum.category),
        }
    }

    #[inline]
    fn extreme(&mut self, cell: &Cell, number: f64, beats: impl Fn(f64, f64) -> bool) {
        self.advance(cell);
        if cells::get_optional(self.row.bytes, cell.at).is_none_or(|old| beats(number, old)) {
            cells::put_optional(self.row.bytes, cell.at, number);
        }
    }

    /// The term is the input or, without one, 1. Text is no term.
    #[inline]
    fn decayed(&mut self, cell: &Cell, datum: &Datum) {
        let is_text = datum.is_category && datum.number.is_nan();
        if !is_text {
            let term = if datum.number.is_nan() { 1.0 } else { datum.number };
            let weight = self.decay_factor(cell);
            cells::add(self.row.bytes, cell.at, term * weight);
        }
    }

    /// Makes the cell's newest bucket, or its half-life, the one of this event.
    #[inline]
    fn advance(&mut self, cell: &Cell) {
        if let Some(clock) = cell.clock {
            let clock = &self.clocks[usize::from(clock)];
            let start = cells::get_time(self.row.bytes, clock.at);
            // An unset clock is far behind, so that this is false.
            if self.time.saturating_sub(start) >= clock.step.unit {
                turn(self.row.bytes, clock, start, self.time);
            }
        }
    }

    /// What 1 weighs at this event's time, as of the start of the half-life: in [1, 2).
    #[inline]
    fn decay_factor(&mut self, cell: &Cell) -> f64 {
        self.advance(cell);
        let Some(clock) = cell.clock else { return 1.0 };
        match self.factor {
            Some((known, factor)) if known == clock => factor,
            _ => {
                let unit = self.clocks[usize::from(clock)].step.unit;
                let factor = libm::exp2(self.time.rem_euclid(unit) as f64 / unit as f64);
                self.factor = Some((clock, factor));
                factor
            }
        }
    }
}

/// Start of the step in which `time` is.
#[inline]
pub(crate) fn start_of(step: Step, time: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(step.unit))
}

/// Steps from one start to a later one.
#[inline]
pub(crate) fn steps_between(step: Step, from: i64, to: i64) -> u64 {
    to.checked_sub(from).map_or(u64::MAX, |micros| (micros / step.unit).max(0) as u64)
}

/// Moves a clock to the step of `time`, with all its cells.
#[cold]
fn turn(row: &mut [u8], clock: &Clock, start: i64, time: i64) {
    let now = start_of(clock.step, time);
    cells::put_time(row, clock.at, now);
    let steps = steps_between(clock.step, start, now);
    for cell in &clock.cells {
        match cell.kind {
            Kind::Decayed => {
                let sum = cells::get_f64(row, cell.at);
                cells::put_f64(row, cell.at, sum * halved(steps));
            }
            Kind::Affinity { .. } => {
                for at in (cell.at..cell.at + cell.kind.bytes()).step_by(cells::PLACE_BYTES).map(|at| at + 4) {
                    let weight = f64::from(cells::get_f32(row, at));
                    cells::put_f32(row, at, (weight * halved(steps)) as f32);
                }
            }
            _ => {
                let all = cell.kind.bytes() * usize::from(cell.buckets);
                let gone = usize::try_from(steps).unwrap_or(usize::MAX).saturating_mul(cell.kind.bytes()).min(all);
                row.copy_within(cell.at..cell.at + all - gone, cell.at + gone);
                row[cell.at..cell.at + gone].fill(0);
            }
        }
    }
}

/// 2^-steps, exactly; 0 where that is beyond a normal number.
fn halved(steps: u64) -> f64 {
    if steps > 1022 { 0.0 } else { f64::from_bits((1023 - steps) << 52) }
}

/// Tags of a [`Form::Tagged`] value, which stand behind all values; 0: none.
pub(crate) const TAG_NUMBER: u8 = 1;
pub(crate) const TAG_CATEGORY: u8 = 2;

/// Puts a value before the others, of which the oldest goes.
fn last(row: &mut [u8], at: usize, n: usize, form: Form, datum: &Datum) {
    let is_category = match form {
        Form::Number => false,
        Form::Category => true,
        Form::Tagged => datum.is_category,
    };
    row.copy_within(at..at + (n - 1) * 8, at + 8);
    if is_category {
        cells::put_u64(row, at, datum.category);
    } else {
        cells::put_optional(row, at, datum.number);
    }
    if form == Form::Tagged {
        let tags = at + n * 8;
        row.copy_within(tags..tags + n - 1, tags + 1);
        row[tags] = if is_category { TAG_CATEGORY } else { TAG_NUMBER };
    }
}
