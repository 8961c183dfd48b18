//! What is wrong with a pipeline, where, and what would be right.

use std::{fmt, fmt::Write as _};

use serde::Serialize;

use crate::names;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Such as `spec.sources[0].events[1].fields.itms`; empty for the document itself.
    pub path: String,
    pub message: String,
    /// The value that is wrong, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is allowed there, where that is a short list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// The allowed name that is nearest to the one given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// From 1, in the YAML; absent where the pipeline came from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// Longer lists of what is allowed are left out where a nearest name says enough.
const MANY_ALLOWED: usize = 12;
/// Longer values are cut.
const SHORT_VALUE_CHARS: usize = 60;

impl Problem {
    pub(crate) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: path.0.clone(),
            message: message.into(),
            value: None,
            allowed: Vec::new(),
            nearest: None,
            line: None,
            column: None,
        }
    }

    pub(crate) fn value(mut self, value: &str) -> Self {
        self.value = Some(shortened(value));
        self
    }

    /// `name` should have been one of these.
    pub(crate) fn one_of<'a>(mut self, name: &str, allowed: impl IntoIterator<Item = &'a str>) -> Self {
        let allowed: Vec<&str> = allowed.into_iter().collect();
        self.nearest = names::nearest(name, allowed.iter().copied()).map(str::to_owned);
        if allowed.len() <= MANY_ALLOWED || (self.nearest.is_none() && allowed.len() <= 3 * MANY_ALLOWED) {
            self.allowed = allowed.into_iter().map(str::to_owned).collect();
        }
        self.value(name)
    }

    pub(crate) fn at(mut self, (line, column): (u32, u32)) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }
}

/// At most 60 characters of `text`, on one line.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String =
        text.chars().take(SHORT_VALUE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHORT_VALUE_CHARS).is_some() {
        short.push('…');
    }
    short
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean `{nearest}`?")?;
        }
        if !self.allowed.is_empty() {
            write!(f, " (allowed: {})", self.allowed.join(", "))?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of the document. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| (p.line, p.column));
        Self(problems)
    }
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_char('\n')?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where in the document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path(String);

impl Path {
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn key(&self, key: &str) -> Self {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        match (plain, self.0.is_empty()) {
            (true, true) => Self(key.to_owned()),
            (true, false) => Self(format!("{}.{key}", self.0)),
            (false, _) => Self(format!("{}[{:?}]", self.0, shortened(key))),
        }
    }
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}
