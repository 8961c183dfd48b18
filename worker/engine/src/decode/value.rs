//! Values of a record as the spec reads them: compared, defaulted, mapped, converted, brought to a type.

use millrace_crds::spec::Convert;

use super::{
    number::{self, TextBuf},
    reject::Reason,
    slots::{Raw, Slot, Val, View},
    trie::same,
};
use crate::event::Value;

/// Longest text that an event holds, in bytes: its length is one byte.
pub(super) const MAX_TEXT_BYTES: usize = 255;

/// A value that the spec writes.
pub(super) enum Constant {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Constant {
    fn val(&self) -> Val<'_> {
        match self {
            Self::Bool(b) => Val::Bool(*b),
            Self::Number(n) => number::whole(*n).map_or(Val::Float(*n), Val::Int),
            Self::Text(text) => Val::Text(text),
        }
    }

    /// JSON: same type and value. CSV, where all is text: the number that it reads as, and `true` in any case.
    #[inline]
    fn equals(&self, val: Val<'_>, csv: bool) -> bool {
        match (self, val) {
            (Self::Text(wanted), Val::Text(text)) => same(wanted, text),
            (Self::Bool(wanted), Val::Bool(b)) => *wanted == b,
            (Self::Number(wanted), Val::Int(n)) => *wanted == n as f64,
            (Self::Number(wanted), Val::UInt(n)) => *wanted == n as f64,
            (Self::Number(wanted), Val::Float(n)) => *wanted == n,
            (Self::Number(wanted), Val::Text(text)) if csv => number::strict(text) == Some(*wanted),
            (Self::Bool(wanted), Val::Text(text)) if csv => {
                text.eq_ignore_ascii_case(if *wanted { "true" } else { "false" })
            }
            _ => false,
        }
    }
}

/// Equality of one path with any of some values. What is missing, a list or an object equals nothing.
pub(super) struct Condition {
    pub slot: Slot,
    pub any: Vec<Constant>,
}

impl Condition {
    #[inline]
    pub(super) fn holds(&self, view: View<'_>) -> bool {
        let val = view.get(self.slot);
        self.any.iter().any(|constant| constant.equals(val, view.csv))
    }
}

#[inline]
pub(super) fn all_hold(conditions: &[Condition], view: View<'_>) -> bool {
    conditions.iter().all(|condition| condition.holds(view))
}

/// Where a value is and what is done about it: first `map`, then `convert`, and the default for what is missing then
/// (as it is written; as text with `convert: text`).
pub(super) struct Field {
    pub slot: Option<Slot>,
    /// The default or, without a slot, the constant.
    pub otherwise: Option<Constant>,
    /// Ascending.
    pub map: Vec<(String, String)>,
    pub convert: Option<Convert>,
}

impl Field {
    pub(super) fn of_slot(slot: Slot) -> Self {
        Self { slot: Some(slot), otherwise: None, map: Vec::new(), convert: None }
    }

    /// The field's value. A list comes as it is: [`Field::element`] reads its elements.
    #[inline(always)]
    pub(super) fn read<'r>(&'r self, view: View<'r>) -> Val<'r> {
        match self.slot.map_or(Val::Missing, |slot| view.get(slot)) {
            list @ Val::List(_) => list,
            val => self.apply(val),
        }
    }

    /// One element of a list that the field is.
    #[inline(always)]
    pub(super) fn element<'r>(&'r self, view: View<'r>, raw: &Raw) -> Val<'r> {
        self.apply(view.val(raw))
    }

    #[inline(always)]
    fn apply<'r>(&'r self, val: Val<'r>) -> Val<'r> {
        if self.map.is_empty() && self.convert.is_none() && self.otherwise.is_none() { val } else { self.rules(val) }
    }

    fn rules<'r>(&'r self, val: Val<'r>) -> Val<'r> {
        match (self.converted(self.mapped(val)), &self.otherwise) {
            (Val::Missing, Some(otherwise)) if self.convert == Some(Convert::Text) => self.converted(otherwise.val()),
            (Val::Missing, Some(otherwise)) => otherwise.val(),
            (val, _) => val,
        }
    }

    fn mapped<'r>(&'r self, val: Val<'r>) -> Val<'r> {
        if self.map.is_empty() {
            return val;
        }
        let mut buf = TextBuf::new();
        match text(val, &mut buf) {
            Ok(Some(text)) => {
                let found = self.map.binary_search_by(|(from, _)| from.as_str().cmp(text));
                found.map_or(Val::Missing, |i| Val::Text(&self.map[i].1))
            }
            Ok(None) => Val::Missing,
            Err(_) => Val::Wrong,
        }
    }

    fn converted<'r>(&self, val: Val<'r>) -> Val<'r> {
        match (self.convert, val) {
            (Some(Convert::Number), Val::Text(text)) => match text.parse::<i64>() {
                Ok(n) => Val::Int(n),
                Err(_) => number::strict(text).map_or(Val::Wrong, Val::Float),
            },
            (Some(Convert::Number), Val::Bool(b)) => Val::Int(i64::from(b)),
            (Some(Convert::Boolean), Val::Text(text)) => boolean(text).map_or(Val::Wrong, Val::Bool),
            (Some(Convert::Boolean), Val::Int(n @ 0..=1)) => Val::Bool(n == 1),
            (Some(Convert::Boolean), Val::Int(_) | Val::UInt(_) | Val::Float(_)) => Val::Wrong,
            (Some(Convert::Text), Val::Bool(b)) => Val::Text(if b { "true" } else { "false" }),
            // Numbers to text: whoever takes the value as text does it.
            _ => val,
        }
    }

    /// The value as an attribute's. `Err`: none that an attribute can have.
    pub(super) fn attribute<'t>(&self, val: Val<'t>, csv: bool, buf: &'t mut TextBuf) -> Result<Option<Value<'t>>, ()> {
        let as_text = self.convert == Some(Convert::Text);
        let value = match val {
            Val::Missing => return Ok(None),
            Val::Wrong | Val::List(_) => return Err(()),
            Val::Text(text) if text.len() > MAX_TEXT_BYTES => return Err(()),
            Val::Text(text) => match number::inferred(text) {
                Some(n) if csv && self.convert.is_none() && self.map.is_empty() => Value::Number(n),
                _ => Value::Text(text),
            },
            val if as_text => return text(val, buf).map(|text| text.map(Value::Text)).map_err(|_| ()),
            Val::Bool(b) => Value::Bool(b),
            Val::Int(n) => Value::Number(n as f64),
            Val::UInt(n) => Value::Number(n as f64),
            Val::Float(n) => Value::Number(n),
        };
        Ok(Some(value))
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Text, or the decimal text of a number, or `true` and `false`.
#[inline(always)]
pub(super) fn text<'t>(val: Val<'t>, buf: &'t mut TextBuf) -> Result<Option<&'t str>, Reason> {
    match val {
        Val::Missing => Ok(None),
        Val::Text(text) => Ok(Some(text)),
        Val::Int(n) => Ok(Some(buf.integer(n))),
        Val::UInt(n) => Ok(Some(buf.unsigned(n))),
        Val::Float(n) => Ok(Some(buf.float(n))),
        Val::Bool(b) => Ok(Some(if b { "true" } else { "false" })),
        Val::Wrong | Val::List(_) => Err(Reason::WrongType),
    }
}

/// The text of an id: as [`text`], but a boolean is none.
#[inline(always)]
pub(super) fn id<'t>(val: Val<'t>, buf: &'t mut TextBuf) -> Result<Option<&'t str>, Reason> {
    match val {
        Val::Bool(_) => Err(Reason::WrongType),
        _ => text(val, buf),
    }
}

/// A finite number. Text is one only in CSV (elsewhere it takes `convert: number`).
#[inline(always)]
pub(super) fn number(val: Val<'_>, csv: bool) -> Result<Option<f64>, Reason> {
    match val {
        Val::Missing => Ok(None),
        Val::Int(n) => Ok(Some(n as f64)),
        Val::UInt(n) => Ok(Some(n as f64)),
        Val::Float(n) => Ok(Some(n)),
        Val::Text(text) if csv => match number::strict(text) {
            Some(n) => Ok(Some(n)),
            // `NaN`, `inf` and `1e999` are numbers, but none that can be used.
            None if text.parse::<f64>().is_ok_and(|n| !n.is_finite()) => Err(Reason::NumberOutOfRange),
            None => Err(Reason::WrongType),
        },
        Val::Text(_) | Val::Bool(_) | Val::Wrong | Val::List(_) => Err(Reason::WrongType),
    }
}
