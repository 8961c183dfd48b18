//! A CSV line into slots, with the quoting of RFC 4180 inside of one line: a quoted field cannot hold a line break.

use super::{
    number,
    slots::{Raw, Slot, Slots},
};

/// A line that ends within quotes, or has something behind a closing quote.
pub(super) struct BadQuotes;

/// One field of a line.
pub(super) struct Field<'l> {
    /// Where it begins, behind the quote if there is one.
    pub at: usize,
    /// As it stands in the line, without the quotes around it.
    pub text: &'l str,
    /// Holds doubled quotes, each of which stands for one.
    pub doubled: bool,
}

/// The fields of a line, in order.
pub(super) struct Fields<'l> {
    line: &'l str,
    at: Option<usize>,
    delimiter: u8,
}

impl<'l> Fields<'l> {
    /// `delimiter` is ASCII. The line's end may be there or not.
    pub(super) fn of(line: &'l str, delimiter: u8) -> Self {
        let line = line.strip_suffix('\n').unwrap_or(line);
        Self { line: line.strip_suffix('\r').unwrap_or(line), at: Some(0), delimiter }
    }

    fn quoted(&mut self, at: usize) -> Result<Field<'l>, BadQuotes> {
        let bytes = self.line.as_bytes();
        let mut doubled = false;
        let mut end = at;
        loop {
            end += bytes[end..].iter().position(|b| *b == b'"').ok_or(BadQuotes)?;
            if bytes.get(end + 1) != Some(&b'"') {
                break;
            }
            doubled = true;
            end += 2;
        }
        self.at = match bytes.get(end + 1) {
            None => None,
            Some(b) if *b == self.delimiter => Some(end + 2),
            Some(_) => return Err(BadQuotes),
        };
        Ok(Field { at, text: &self.line[at..end], doubled })
    }
}

impl<'l> Iterator for Fields<'l> {
    type Item = Result<Field<'l>, BadQuotes>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at?;
        let bytes = self.line.as_bytes();
        if bytes.get(at) == Some(&b'"') {
            let field = self.quoted(at + 1);
            if field.is_err() {
                self.at = None;
            }
            return Some(field);
        }
        let len = bytes[at..].iter().position(|b| *b == self.delimiter);
        let end = len.map_or(bytes.len(), |len| at + len);
        self.at = len.map(|_| end + 1);
        Some(Ok(Field { at, text: &self.line[at..end], doubled: false }))
    }
}

/// What each column of the files is for.
#[derive(Default)]
pub(super) struct Columns {
    slots: Vec<Option<Slot>>,
}

/// What is wrong with a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the header is not UTF-8")]
    NotUtf8,
    #[error("the header has a quote that is not closed, or something behind one that is")]
    BadQuotes,
    #[error("the header has no column {}", list(.0))]
    Missing(Vec<MissingColumn>),
    #[error("the header has the column `{0}` twice")]
    Twice(String),
}

/// A column that the spec names and the header does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingColumn {
    pub name: String,
    /// A column that the spec does not name, if one is spelled nearly like it.
    pub nearest: Option<String>,
}

fn list(missing: &[MissingColumn]) -> String {
    let each = missing.iter().map(|column| match &column.nearest {
        Some(nearest) => format!("`{}` (did you mean `{nearest}`?)", column.name),
        None => format!("`{}`", column.name),
    });
    each.collect::<Vec<_>>().join(", ")
}

impl Columns {
    /// `wanted`: each slot's column and whether it has to be there. The names are cleared of blanks around them.
    pub(super) fn of_header(line: &[u8], delimiter: u8, wanted: &[(String, bool)]) -> Result<Self, HeaderError> {
        let text = std::str::from_utf8(line).map_err(|_| HeaderError::NotUtf8)?;
        let fields: Result<Vec<_>, _> = Fields::of(text.trim_start_matches('\u{feff}'), delimiter).collect();
        let names: Vec<String> = fields
            .map_err(|_| HeaderError::BadQuotes)?
            .iter()
            .map(|field| if field.doubled { field.text.replace("\"\"", "\"") } else { field.text.to_owned() })
            .map(|name| name.trim().to_owned())
            .collect();
        let mut slots = vec![None; names.len()];
        let mut missing = Vec::new();
        for (slot, (name, required)) in wanted.iter().enumerate() {
            let mut places = (0..names.len()).filter(|i| names[*i] == *name);
            match (places.next(), places.next()) {
                (Some(_), Some(_)) => return Err(HeaderError::Twice(name.clone())),
                (Some(i), None) => slots[i] = Some(slot as Slot),
                (None, _) if *required => {
                    missing.push(MissingColumn { name: name.clone(), nearest: nearest(name, &names, wanted) });
                }
                (None, _) => {}
            }
        }
        if missing.is_empty() { Ok(Self { slots }) } else { Err(HeaderError::Missing(missing)) }
    }

    /// The values of one line. Empty fields are missing. `Ok(false)`: not as many fields as columns.
    pub(super) fn read(&self, line: &str, delimiter: u8, slots: &mut Slots) -> Result<bool, BadQuotes> {
        let mut columns = self.slots.iter();
        for field in Fields::of(line, delimiter) {
            let field = field?;
            let Some(column) = columns.next() else { return Ok(false) };
            let Some(slot) = column.filter(|_| !field.text.is_empty()) else { continue };
            slots.values[slot as usize] = if field.doubled {
                slots.keep(&field.text.replace("\"\"", "\""))
            } else {
                Raw::Text { at: field.at as u32, len: field.text.len() as u32 }
            };
        }
        Ok(columns.next().is_none())
    }
}

/// Only a column that is hardly different: where a file has no header, its first line is somebody's data.
fn nearest(name: &str, names: &[String], wanted: &[(String, bool)]) -> Option<String> {
    if !wanted.iter().any(|(w, _)| names.contains(w)) {
        return None; // no column is known: this is no header
    }
    let unused = names.iter().filter(|n| !wanted.iter().any(|(w, _)| w == *n));
    let near = unused.map(|n| (strsim::osa_distance(&n.to_lowercase(), &name.to_lowercase()), n));
    let (distance, nearest) = near.min()?;
    (distance * 3 <= name.chars().count().max(3) && number::strict(nearest).is_none()).then(|| nearest.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(line: &str) -> Option<Vec<String>> {
        Fields::of(line, b',').map(|f| f.ok().map(|f| f.text.replace("\"\"", "\""))).collect()
    }

    #[test]
    fn quotes() {
        let cases: [(&str, Option<&[&str]>); 10] = [
            ("", Some(&[""])),
            ("a,b", Some(&["a", "b"])),
            ("a,,\r\n", Some(&["a", "", ""])),
            ("\"a,b\",c", Some(&["a,b", "c"])),
            ("\"say \"\"hi\"\"\",", Some(&["say \"hi\"", ""])),
            ("\"\",x", Some(&["", "x"])),
            ("a\"b,c", Some(&["a\"b", "c"])),
            ("\"a", None),
            ("\"a\"b,c", None),
            ("\"a\"\"", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|e| e.iter().map(|s| (*s).to_owned()).collect());
            assert_eq!(fields(line), expected, "{line}");
        }
    }

    #[test]
    fn headers() {
        let wanted = [("user id".to_owned(), true), ("price".to_owned(), true), ("colour".to_owned(), false)];
        let header = |line: &str| Columns::of_header(line.as_bytes(), b';', &wanted).map(|c| c.slots);
        assert_eq!(header("\u{feff}price; user id ;x\r\n"), Ok(vec![Some(1), Some(0), None]));
        assert_eq!(header("price;user id;price"), Err(HeaderError::Twice("price".to_owned())));
        let error = header("User_id;x;colour").unwrap_err().to_string();
        assert_eq!(error, "the header has no column `user id` (did you mean `User_id`?), `price`");
        let error = header("user7;x;y").unwrap_err().to_string();
        assert_eq!(error, "the header has no column `user id`, `price`", "it may be somebody's data");
        assert_eq!(Columns::of_header(b"\xff", b',', &wanted).err(), Some(HeaderError::NotUtf8));
        assert_eq!(header("\"price;user id").err(), Some(HeaderError::BadQuotes));
    }

    proptest! {
        #[test]
        fn written_fields_are_read_back(
            written in prop::collection::vec(("[a-c\",; é]{0,6}", any::<bool>()), 1..6)
        ) {
            let line = written.iter().map(|(text, quote)| {
                let plain = !quote && !text.contains([',', '"']);
                if plain { text.clone() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
            });
            let line = line.collect::<Vec<_>>().join(",");
            prop_assert_eq!(fields(&line), Some(written.into_iter().map(|(text, _)| text).collect()));
        }
    }
}
