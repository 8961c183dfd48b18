//! Files of a source, in order, and the records in them.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use millrace_crds::spec::{Format, Source};
use serde_json::{Map, Value};

use super::OracleError;

/// Longer records are rejected.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// A record of a file, as read.
pub(super) enum Raw {
    Json(Value),
    /// Cells by their header, as text; empty ones are left out.
    Csv(Value),
    /// Why it cannot be read.
    Malformed(&'static str),
    /// White space only.
    Blank,
}

/// The files that a path (a file, a folder, or a pattern) names, by name.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, OracleError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let pattern = if path.is_dir() { path.join("*") } else { path.to_owned() };
    let wrong = |message: String| OracleError::Pipeline { path: path.to_owned(), message };
    let found = glob::glob(&pattern.to_string_lossy()).map_err(|e| wrong(e.to_string()))?;
    let mut files: Vec<PathBuf> = found.filter_map(Result::ok).filter(|file| file.is_file()).collect();
    files.sort();
    if files.is_empty() {
        return Err(wrong("no such file".into()));
    }
    Ok(files)
}

/// Calls `take` with the number (from 1) and content of every record of a file.
pub(super) fn read(path: &Path, source: &Source, take: &mut dyn FnMut(u64, Raw)) -> Result<(), OracleError> {
    let wrong = |source| OracleError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(wrong)?;
    let gzip = path.extension().is_some_and(|e| e == "gz");
    let bytes: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    match source.format {
        Format::Json => read_json(BufReader::new(bytes), take).map_err(wrong),
        Format::Csv => {
            let delimiter = source.delimiter.as_ref().and_then(|d| d.bytes().next()).unwrap_or(b',');
            read_csv(bytes, delimiter, take).map_err(|e| wrong(e.into()))
        }
    }
}

fn read_json(mut lines: impl BufRead, take: &mut dyn FnMut(u64, Raw)) -> std::io::Result<()> {
    let mut line = Vec::new();
    let mut row = 0;
    while lines.read_until(b'\n', &mut line)? > 0 {
        row += 1;
        take(row, json_record(&line));
        line.clear();
    }
    Ok(())
}

fn json_record(line: &[u8]) -> Raw {
    if line.len() > MAX_RECORD_BYTES {
        return Raw::Malformed("too long");
    }
    if line.iter().all(u8::is_ascii_whitespace) {
        return Raw::Blank;
    }
    match serde_json::from_slice::<Value>(line) {
        Ok(value) if value.is_object() => Raw::Json(value),
        Ok(_) => Raw::Malformed("not an object"),
        Err(_) => Raw::Malformed("malformed"),
    }
}

fn read_csv(bytes: impl Read, delimiter: u8, take: &mut dyn FnMut(u64, Raw)) -> Result<(), csv::Error> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(bytes);
    let headers = reader.headers()?.clone();
    for (n, row) in reader.byte_records().enumerate() {
        let row = row?;
        let mut cells = Map::new();
        let mut readable = row.len() == headers.len();
        for (header, cell) in headers.iter().zip(row.iter()) {
            match std::str::from_utf8(cell) {
                Ok("") => {}
                Ok(text) => {
                    cells.insert(header.to_owned(), Value::String(text.to_owned()));
                }
                Err(_) => readable = false,
            }
        }
        take(n as u64 + 1, if readable { Raw::Csv(Value::Object(cells)) } else { Raw::Malformed("malformed") });
    }
    Ok(())
}
