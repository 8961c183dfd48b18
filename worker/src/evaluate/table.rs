//! One CSV file, row by row, with columns by name.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use csv::{ReaderBuilder, StringRecord};
use flate2::read::MultiGzDecoder;

use super::EvaluateError;

/// A file and its header.
pub struct Table {
    path: PathBuf,
    header: Vec<String>,
    reader: csv::Reader<Box<dyn Read>>,
    row: StringRecord,
}

/// A column's place in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column(usize);

impl Table {
    /// Opens a file and reads its header. Gzip if its name ends in `.gz`.
    pub fn open(path: &Path) -> Result<Self, EvaluateError> {
        let file = File::open(path).map_err(|cause| EvaluateError::Io { path: path.to_owned(), cause })?;
        let compressed = path.extension().is_some_and(|e| e == "gz");
        let input: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut reader = ReaderBuilder::new().from_reader(input);
        let header = match reader.headers() {
            Ok(header) => header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect(),
            Err(cause) => return Err(broken(path, cause)),
        };
        Ok(Self { path: path.to_owned(), header, reader, row: StringRecord::new() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn has(&self, name: &str) -> bool {
        self.header.iter().any(|column| column == name)
    }

    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The first of these columns that there is.
    pub fn column(&self, names: &[&str]) -> Result<Column, EvaluateError> {
        let find = |name: &&str| self.header.iter().position(|column| column == name);
        names.iter().find_map(find).map(Column).ok_or_else(|| EvaluateError::Column {
            path: self.path.clone(),
            wanted: names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
            found: self.header.clone(),
        })
    }

    /// Goes to the next row. False at the end.
    pub fn advance(&mut self) -> Result<bool, EvaluateError> {
        self.reader.read_record(&mut self.row).map_err(|cause| broken(&self.path, cause))
    }

    pub fn text(&self, column: Column) -> &str {
        self.row.get(column.0).unwrap_or("").trim()
    }

    /// A finite number.
    pub fn number(&self, column: Column) -> Result<f64, EvaluateError> {
        let number = self.text(column).parse().ok().filter(|x: &f64| x.is_finite());
        number.ok_or_else(|| self.wrong(column, "a number"))
    }

    /// A finite number, or `None` for an empty cell.
    pub fn optional(&self, column: Column) -> Result<Option<f64>, EvaluateError> {
        if self.text(column).is_empty() { Ok(None) } else { self.number(column).map(Some) }
    }

    /// A whole number from 0.
    pub fn count(&self, column: Column) -> Result<u64, EvaluateError> {
        self.text(column).parse().map_err(|_| self.wrong(column, "a whole number from 0"))
    }

    fn wrong(&self, column: Column, expected: &str) -> EvaluateError {
        self.line(format!("`{}` is {expected}, not `{}`", self.header[column.0], self.text(column)))
    }

    /// Something is wrong with the current row.
    pub fn line(&self, why: String) -> EvaluateError {
        let line = self.row.position().map_or(0, csv::Position::line);
        EvaluateError::Line { path: self.path.clone(), line, why }
    }
}

fn broken(path: &Path, cause: csv::Error) -> EvaluateError {
    let line = cause.position().map_or(0, csv::Position::line);
    match cause.into_kind() {
        csv::ErrorKind::Io(cause) => EvaluateError::Io { path: path.to_owned(), cause },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => EvaluateError::Line {
            path: path.to_owned(),
            line,
            why: format!("{len} cells, but the header has {expected_len} columns"),
        },
        csv::ErrorKind::Utf8 { .. } => {
            EvaluateError::Line { path: path.to_owned(), line, why: "not UTF-8 text".to_owned() }
        }
        other => EvaluateError::Line { path: path.to_owned(), line, why: format!("not CSV: {other:?}") },
    }
}
