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

pub(crate) const BUCKET_RULE: &str = "must be the name of a general purpose bucket: 3 to 63 of a-z, 0-9, dashes and single dots, a letter \
    or digit first and last, not an IP address, not ending with --x-s3";
pub(crate) const KEY_PREFIX_RULE: &str = "must be names of letters, digits, `_`, `-` and `.`, with one `/` between them, none beginning with `.` \
    and without `..`, of 200 bytes at most";
pub(crate) const REGION_RULE: &str = "must be letters, digits and dashes, such as eu-west-1";
pub(crate) const ENDPOINT_RULE: &str =
    "must be a URL such as https://s3.example.com:9000, without user, query and fragment";

/// Is this the name of a general purpose bucket, as S3 has them?
pub fn check_bucket(name: &str) -> Result<(), &'static str> {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let outside = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| inside(*b))
        && bytes.first().zip(bytes.last()).is_some_and(|(a, z)| outside(a) && outside(z))
        && !name.contains("..")
        && !is_like_an_ip_address(name)
        // Directory buckets list in no order.
        && !name.ends_with("--x-s3");
    if good { Ok(()) } else { Err(BUCKET_RULE) }
}

fn is_like_an_ip_address(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    parts.len() == 4 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// May all keys of a store begin with this? A `/` at its end makes no difference.
pub fn check_key_prefix(prefix: &str) -> Result<(), &'static str> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    let names = prefix.strip_suffix('/').unwrap_or(prefix);
    let good = prefix.len() <= 200 && !prefix.contains("..") && names.split('/').all(plain);
    if good { Ok(()) } else { Err(KEY_PREFIX_RULE) }
}

/// Is this the name of a region, of any store?
pub fn check_region(region: &str) -> Result<(), &'static str> {
    let good = (1..=63).contains(&region.len()) && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if good { Ok(()) } else { Err(REGION_RULE) }
}

/// Is this where a store may answer?
pub fn check_endpoint(url: &str) -> Result<(), &'static str> {
    let good = url.len() <= 500
        && url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).is_some_and(|rest| {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            is_authority(authority) && (path.is_empty() || is_plain_path(path))
        });
    if good { Ok(()) } else { Err(ENDPOINT_RULE) }
}

/// `host`, `host:port` or `[v6]:port`.
fn is_authority(authority: &str) -> bool {
    let is_v6 =
        |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let (good_host, rest) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (is_v6(host), rest),
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            (is_name(&authority[..end]), &authority[end..])
        }
    };
    let is_port = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    good_host && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

fn is_plain_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'~' | b'-');
    let names = path.strip_suffix('/').unwrap_or(path);
    names.split('/').all(|part| !part.is_empty() && part.bytes().all(plain))
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
    fn places_in_object_stores() {
        let longest = "a".repeat(63);
        for good in ["abc", "a-b.c", "1.2.3", "1.2.3.4.5", "acme-millrace", &longest] {
            assert_eq!(check_bucket(good), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        for bad in
            ["", "ab", "-ab", "ab-", "a..b", "A-bucket", "a_b", "a/b", "127.0.0.1", "zone--x-s3", "bücket", &long]
        {
            assert_eq!(check_bucket(bad), Err(BUCKET_RULE), "{bad}");
        }
        let longest = "a/".repeat(100);
        for good in ["shop", "shop/", "a/b-c_d/e.f/", &longest] {
            assert_eq!(check_key_prefix(good), Ok(()), "{good}");
        }
        let long = "a".repeat(201);
        for bad in ["", "/", "/a", "a//b", "a//", "..", "a/../b", "a..b", "a/.b", "a b", "ä", "a?b", "a\nb", &long] {
            assert_eq!(check_key_prefix(bad), Err(KEY_PREFIX_RULE), "{bad}");
        }
        assert_eq!((check_region("eu-west-1"), check_region("auto")), (Ok(()), Ok(())));
        assert_eq!((check_region(""), check_region("eu west")), (Err(REGION_RULE), Err(REGION_RULE)));
        for good in [
            "http://a",
            "https://s3.example.com",
            "https://s3.example.com/",
            "http://[::1]:9000",
            "http://minio_1.x:9000/a/b.c/",
        ] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "https://",
            "s3://a",
            "HTTPS://a",
            "a.example.com",
            "http://a?x=1",
            "http://a/b?x",
            "http://a/#b",
            "http://u:p@a",
            "http://a:",
            "http://a:123456",
            "http://a b",
            "http://a//b",
            "http://[::1",
            "http://[]:1",
        ] {
            assert_eq!(check_endpoint(bad), Err(ENDPOINT_RULE), "{bad}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("itms", ["decision", "items", "item"]), Some("items"));
        assert_eq!(nearest("maxoutoforderness", ["maxOutOfOrderness"]), Some("maxOutOfOrderness"));
        assert_eq!(nearest("kafka", ["file", "format"]), None);
    }
}
