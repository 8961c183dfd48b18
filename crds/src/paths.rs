//! Paths to fields of a record: names separated by dots, each of which may end in `[]` for "each element of".
//!
//! Names may hold anything else, since headers of CSV files do: `page 2 (clothing model)`. Nothing is quoted.

/// One name of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    pub name: &'a str,
    /// Followed by `[]`.
    pub each: bool,
}

/// The names of a path, outermost first; or why it is none.
pub fn segments(path: &str) -> Result<Vec<Segment<'_>>, String> {
    if path.is_empty() {
        return Err("a path must not be empty".into());
    }
    path.split('.').map(|part| segment(part).ok_or_else(|| wrong(path))).collect()
}

fn segment(part: &str) -> Option<Segment<'_>> {
    let (name, each) = match part.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (part, false),
    };
    (!name.is_empty() && !name.ends_with("[]")).then_some(Segment { name, each })
}

fn wrong(path: &str) -> String {
    format!("`{path}` is not a path such as `a`, `a.b` or `a[].b`")
}

/// What is left of `path` within an element of the array at `array`, if it leads there: `lines[].sku` is `sku`
/// in `lines`, and `lines[]` the element itself, the empty path.
pub fn within<'a>(path: &'a str, array: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(array)?.strip_prefix("[]")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split() {
        let each = |name, each| Segment { name, each };
        assert_eq!(segments("a.b[].c d (e)").unwrap(), [each("a", false), each("b", true), each("c d (e)", false)]);
        for bad in ["", ".", "a.", ".a", "a..b", "[]", "a.[].b", "a[][]"] {
            assert!(segments(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_within_an_element() {
        assert_eq!(within("a.lines[].sku", "a.lines"), Some("sku"));
        assert_eq!(within("lines[]", "lines"), Some(""));
        assert_eq!(within("lines[]x", "lines"), None);
        assert_eq!(within("linesX[].sku", "lines"), None);
    }
}
