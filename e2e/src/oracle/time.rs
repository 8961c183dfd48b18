//! Times as text, and composed of fields, in microseconds since 1970 UTC.

use millrace_crds::spec::TimeUnit;

/// Days since 1970 of a date of the proleptic Gregorian calendar, counted year by year's rules (Howard Hinnant).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=length).contains(&day) || !(0..=9999).contains(&year) {
        return None;
    }
    let before: i64 = lengths.iter().take((month - 1) as usize).sum();
    let past = year - 1;
    Some(past * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) + before + day - 1 - 719_162)
}

/// Of year, month, day, and on to hour, minute and second where given.
pub(super) fn compose(parts: &[i64]) -> Option<i64> {
    let at = |n: usize| parts.get(n).copied().unwrap_or(0);
    if parts.len() < 3 || parts.len() > 6 || !(0..24).contains(&at(3)) || !(0..60).contains(&at(4)) {
        return None;
    }
    if !(0..60).contains(&at(5)) {
        return None;
    }
    let seconds = days(at(0), at(1), at(2))? * 86_400 + at(3) * 3_600 + at(4) * 60 + at(5);
    seconds.checked_mul(1_000_000)
}

/// `2019-11-24 00:00:17.004101+00:00`, with a space or a T; UTC if it names no zone.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let mark = |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|b| allowed.contains(b));
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"T t") && mark(13, b":") && mark(16, b":")) {
        return None;
    }
    let seconds =
        compose(&[number(0, 4)?, number(5, 7)?, number(8, 10)?, number(11, 13)?, number(14, 16)?, number(17, 19)?])?;
    let mut rest = text.get(19..)?;
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let digits: String = fraction[..len].chars().chain("000000".chars()).take(6).collect();
        micros = if len == 0 { return None } else { digits.parse::<i64>().ok()? };
        rest = &fraction[len..];
    }
    Some(seconds + micros - offset(rest)?)
}

/// Microseconds that a zone (`Z`, `+01:00`, or none) is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.is_empty() || zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?) * 60_000_000)
}

/// A number in a unit; `None` out of range.
pub(super) fn from_number(n: f64, unit: TimeUnit) -> Option<i64> {
    let micros = match unit {
        TimeUnit::S => n * 1e6,
        TimeUnit::Ms => n * 1e3,
        TimeUnit::Us => n,
        TimeUnit::Ns => n / 1e3,
    };
    (micros.abs() < 9e18).then_some(micros.floor() as i64)
}

/// A whole number in a unit, exactly; `None` out of range.
pub(super) fn from_whole(n: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::S => n.checked_mul(1_000_000),
        TimeUnit::Ms => n.checked_mul(1_000),
        TimeUnit::Us => Some(n),
        TimeUnit::Ns => Some(n.div_euclid(1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::{compose, parse_rfc3339};

    #[test]
    fn text_is_read_in_every_allowed_form() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339("2019-11-24 00:00:17.004101+00:00"), Some(1_574_553_617_004_101));
        assert_eq!(parse_rfc3339("2019-11-24 01:00:17.004101+01:00"), Some(1_574_553_617_004_101));
        assert_eq!(parse_rfc3339("2000-02-29T12:34:56.789"), Some(951_827_696_789_000));
        for wrong in
            ["yesterday", "2019-02-29T00:00:00Z", "2019-11-24", "2019-11-24T24:00:00Z", "2019-11-24T00:00:00+x"]
        {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn days_are_composed() {
        assert_eq!(compose(&[1970, 1, 2]), Some(86_400_000_000));
        assert_eq!(compose(&[2008, 4, 1]), Some(1_207_008_000_000_000));
        assert_eq!(compose(&[2008, 4, 31]), None);
    }
}
