//! Values that users write as bare scalars: durations, and text or numbers or booleans to compare with.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A duration as Kubernetes users write it: `500ms`, `30s`, `10m`, `1h30m`, `7d`. Kept in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    micros: i64,
}

impl Span {
    pub const fn micros(micros: i64) -> Self {
        Self { micros }
    }
    pub const fn seconds(s: i64) -> Self {
        Self { micros: s * 1_000_000 }
    }
    pub const fn hours(h: i64) -> Self {
        Self::seconds(h * 3600)
    }
    /// Never negative.
    pub const fn as_micros(self) -> i64 {
        self.micros
    }
}

/// What a duration looks like, as the schema says it. Also how [`crate::read`] knows one.
pub const SPAN_PATTERN: &str = "^([0-9]+(us|ms|s|m|h|d))+$";
/// The longest duration: a hundred years. Times and durations can be added without overflow.
const MAX_MICROS: i64 = 36_500 * 86_400_000_000;

/// The units, largest first, so that `Display` writes the shortest form.
const UNITS: [(&str, i64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a duration such as 500ms, 30s, 10m, 1h30m or 7d");
        let mut rest = text;
        let mut micros: i64 = 0;
        if text.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
            let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(wrong)?;
            rest = &rest[letters..];
            micros = number.checked_mul(*unit).and_then(|n| micros.checked_add(n)).ok_or_else(wrong)?;
        }
        if micros > MAX_MICROS {
            return Err(format!("`{text}` is longer than a hundred years"));
        }
        Ok(Self { micros })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.micros == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.micros;
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 2, "maxLength": 32, "pattern": SPAN_PATTERN})
    }
}

/// Text, a number or a boolean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Bool(bool),
    Number(f64),
    Text(String),
}

/// An instant as users write it: RFC 3339 with its zone. In microseconds since 1970-01-01 UTC.
pub fn instant_micros(text: &str) -> Result<i64, String> {
    let instant: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("`{text}` is not an instant of RFC 3339 with its zone such as 2026-01-31T00:00:00Z"))?;
    Ok(instant.as_microsecond())
}
