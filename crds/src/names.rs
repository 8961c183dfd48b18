//! Names with a meaning of their own, patterns of names, and the nearest name to a mistyped one.

/// The event that opens joins.
pub const IMPRESSION: &str = "impression";
/// What attributes that belong to each item, rather than to the event, begin with.
pub const ITEM_PREFIX: &str = "item.";
/// A placement's `default` that shows items in the order in which the request names them.
pub const REQUEST_ORDER: &str = "RequestOrder";
/// Likewise, as a policy's `rankBy`.
pub const REQUEST: &str = "request";
/// The outcome that counts as a click, where an experiment names none.
pub const CLICK: &str = "click";
/// The event that means bought and has revenue, where none is named.
pub const ORDER: &str = "order";
/// Every variant, in a model's `trainOn`.
pub const ALL: &str = "All";
/// Most names that one pattern may stand for.
pub const MAX_PATTERN_NAMES: u32 = 1_000;

/// `a_{0..2}` becomes `a_0`, `a_1`, `a_2`; a name without braces becomes itself. At most 1,000 names.
pub fn expand(pattern: &str) -> Vec<String> {
    match range(pattern) {
        Some((before, from, to, after)) => {
            (from..=to).take(MAX_PATTERN_NAMES as usize).map(|n| format!("{before}{n}{after}")).collect()
        }
        None => vec![pattern.to_owned()],
    }
}

/// Why `pattern` cannot be expanded, if so.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    match range(pattern) {
        None if pattern.contains(['{', '}']) => Err("braces hold a range such as `{0..79}`, once".into()),
        None => Ok(()),
        Some((before, _, _, after)) if before.contains('}') || after.contains(['{', '}']) => {
            Err("only one range in braces is allowed".into())
        }
        Some((_, from, to, _)) if from > to => Err(format!("the range {{{from}..{to}}} is empty")),
        Some((_, from, to, _)) if to - from >= MAX_PATTERN_NAMES => {
            Err(format!("the range {{{from}..{to}}} has more than {MAX_PATTERN_NAMES} names"))
        }
        Some(_) => Ok(()),
    }
}

fn range(pattern: &str) -> Option<(&str, u32, u32, &str)> {
    let (before, rest) = pattern.split_once('{')?;
    let (range, after) = rest.split_once('}')?;
    let (from, to) = range.split_once("..")?;
    Some((before, from.parse().ok()?, to.parse().ok()?, after))
}

/// At most 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit (RFC 1123).
pub fn is_dns_label(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
        && bytes.first().zip(bytes.last()).is_some_and(|(a, z)| alphanumeric(*a) && alphanumeric(*z))
}

/// A letter, then at most 62 letters, digits, `_` and `-`: names of events, features and outcomes.
pub fn is_identifier(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The candidate that `name` was probably meant to be: at most one mistake in four letters, case aside.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 100;
    if name.len() > LONGEST {
        return None;
    }
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + name.len().min(candidate.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_expand() {
        assert_eq!(expand("a_{9..11}_z"), ["a_9_z", "a_10_z", "a_11_z"]);
        assert_eq!(expand("plain"), ["plain"]);
        assert_eq!(expand("a{0..4294967295}").len(), 1000);
        for (pattern, phrase) in
            [("a{2..1}", "empty"), ("a{0..1000}", "more than"), ("a{x}", "range such"), ("a{0..1}{0..1}", "one range")]
        {
            assert!(check_pattern(pattern).unwrap_err().contains(phrase), "{pattern}");
        }
        assert_eq!(check_pattern("a{0..999}"), Ok(()));
    }

    #[test]
    fn labels_and_identifiers() {
        assert!(is_dns_label("a") && is_dns_label("shop-1") && is_dns_label(&"a".repeat(63)));
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"a".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
        assert!(is_identifier("cartAdd") && !is_identifier("1a") && !is_identifier("a b") && !is_identifier(""));
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("itms", ["decision", "items", "item"]), Some("items"));
        assert_eq!(nearest("maxoutoforderness", ["maxOutOfOrderness"]), Some("maxOutOfOrderness"));
        assert_eq!(nearest("kafka", ["file", "format"]), None);
    }
}
