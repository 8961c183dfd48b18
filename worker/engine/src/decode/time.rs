//! Event times as they are written: numbers in a unit, RFC 3339 text, or calendar fields. All become microseconds.

use millrace_crds::spec::TimeUnit;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A whole number of units; `None` beyond the range. Parts of a microsecond are dropped, downwards.
pub(super) fn of_integer(n: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::S => n.checked_mul(SECOND),
        TimeUnit::Ms => n.checked_mul(1_000),
        TimeUnit::Us => Some(n),
        TimeUnit::Ns => Some(n.div_euclid(1_000)),
    }
}

/// A number of units with a fraction, rounded to the nearest microsecond (halves away from zero).
pub(super) fn of_float(n: f64, unit: TimeUnit) -> Option<i64> {
    let micros = libm::round(match unit {
        TimeUnit::S => n * 1e6,
        TimeUnit::Ms => n * 1e3,
        TimeUnit::Us => n,
        TimeUnit::Ns => n / 1e3,
    });
    // 2^63 is the first number that does not fit.
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&micros).then_some(micros as i64)
}

/// Text: a decimal number of units, or RFC 3339 with a space or a T, seconds, fraction and zone optional (none: UTC), or a
/// date alone (its midnight).
pub(super) fn of_text(text: &str, unit: TimeUnit) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() >= 10 && bytes[4] == b'-' {
        return rfc3339(bytes);
    }
    match text.parse::<i64>() {
        Ok(n) => of_integer(n, unit),
        Err(_) => super::number::strict(text).and_then(|n| of_float(n, unit)),
    }
}

/// Midnight UTC of a day in the Gregorian calendar; years 1 to 9999.
pub(super) fn of_date(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    Some(days_from_civil(year, month, day) * DAY)
}

/// Second 60 (a leap second) is the second that follows.
pub(super) fn of_clock(hour: i64, minute: i64, second: i64) -> Option<i64> {
    let valid = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    valid.then(|| (hour * 3_600 + minute * 60 + second) * SECOND)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms"): years begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn rfc3339(text: &[u8]) -> Option<i64> {
    let mut at = Digits { text };
    let year = at.number(4)?;
    at.expect(b'-')?;
    let month = at.number(2)?;
    at.expect(b'-')?;
    let midnight = of_date(year, month, at.number(2)?)?;
    if at.text.is_empty() {
        return Some(midnight);
    }
    if !matches!(at.next()?, b'T' | b't' | b' ') {
        return None;
    }
    let hour = at.number(2)?;
    at.expect(b':')?;
    let minute = at.number(2)?;
    let mut second = 0;
    let mut fraction = 0;
    if at.skip(b':') {
        second = at.number(2)?;
        if at.skip(b'.') || at.skip(b',') {
            fraction = at.fraction()?;
        }
    }
    let offset = at.zone()?;
    at.text.is_empty().then_some(midnight + of_clock(hour, minute, second)? + fraction - offset)
}

struct Digits<'a> {
    text: &'a [u8],
}

impl Digits<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.text.split_first()?;
        self.text = rest;
        Some(*first)
    }
    fn skip(&mut self, byte: u8) -> bool {
        let there = self.text.first() == Some(&byte);
        if there {
            self.text = &self.text[1..];
        }
        there
    }
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip(byte).then_some(())
    }
    fn number(&mut self, digits: usize) -> Option<i64> {
        let mut n = 0;
        for _ in 0..digits {
            let digit = self.next().filter(u8::is_ascii_digit)?;
            n = n * 10 + i64::from(digit - b'0');
        }
        Some(n)
    }
    /// One to many digits after the point; the first six count.
    fn fraction(&mut self) -> Option<i64> {
        let len = self.text.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.text.split_at(len);
        self.text = rest;
        let micros = (0..6).fold(0, |n, i| n * 10 + digits.get(i).map_or(0, |d| i64::from(d - b'0')));
        (len > 0).then_some(micros)
    }
    /// `Z`, `+hh:mm`, `+hhmm`, `+hh` or nothing, in microseconds east of UTC.
    fn zone(&mut self) -> Option<i64> {
        if self.text.is_empty() || self.skip(b'Z') || self.skip(b'z') {
            return Some(0);
        }
        let sign = match self.next()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let hours = self.number(2)?;
        self.skip(b':');
        let minutes = if self.text.is_empty() { 0 } else { self.number(2)? };
        (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60) * SECOND)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(s: &str) -> Option<i64> {
        of_text(s, TimeUnit::Ms)
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(of_integer(1_659_304_800_025, TimeUnit::Ms), Some(1_659_304_800_025_000));
        assert_eq!(of_integer(-1, TimeUnit::Ns), Some(-1));
        assert_eq!(of_integer(i64::MAX, TimeUnit::S), None);
        assert_eq!(of_float(1_659_304_800.25, TimeUnit::S), Some(1_659_304_800_250_000));
        assert_eq!(of_float(1e300, TimeUnit::Ns), None);
        assert_eq!(of_float(f64::NAN, TimeUnit::Us), None);
        assert_eq!(of_float(9_223_372_036_854_775_808.0, TimeUnit::Us), None);
        assert_eq!(text("1659304800025"), Some(1_659_304_800_025_000));
        assert_eq!(text("1.5"), Some(1_500));
        assert_eq!(of_text("-62135596800", TimeUnit::S), Some(-62_135_596_800_000_000));
    }

    #[test]
    fn text_in_all_its_forms() {
        let expected = 1_574_553_617_004_101;
        for form in [
            "2019-11-24 00:00:17.004101+00:00",
            "2019-11-24T00:00:17.004101Z",
            "2019-11-24t00:00:17.004101999z",
            "2019-11-24 00:00:17.004101",
            "2019-11-24 02:30:17.004101+0230",
            "2019-11-23 19:00:17.004101-05",
        ] {
            assert_eq!(text(form), Some(expected), "{form}");
        }
        assert_eq!(text("1970-01-02"), Some(DAY));
        assert_eq!(text("1970-01-01 00:01"), Some(60 * SECOND));
        assert_eq!(text("2016-12-31T23:59:60Z"), text("2017-01-01T00:00:00Z"));
        assert!(text("0001-01-01T00:00:00Z").is_some() && text("9999-12-31T23:59:59Z").is_some());
    }

    #[test]
    fn what_is_not_a_time() {
        for wrong in [
            "",
            "now",
            "NaN",
            "inf",
            "2019-02-29",
            "2019-13-01",
            "2019-00-01",
            "2019-01-00",
            "0000-01-01",
            "2019-01-01T24:00:00Z",
            "2019-01-01T00:60:00Z",
            "2019-01-01T00:00:61Z",
            "2019-01-01T00:00:00.Z",
            "2019-01-01T00:00:00+24:00",
            "2019-01-01T00:00:00ZZ",
            "2019-01-01T",
            "2019-01-01X00:00:00",
            "+019-01-01",
            "2019-1-01T00:00",
            "１２３４-01-01",
            "0x10",
            "1e999",
            "99999-01-01",
        ] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(micros in -62_135_596_800_000_000i64..253_402_207_200_000_000) {
            let written = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            prop_assert_eq!(text(&written), Some(micros));
        }

        #[test]
        fn any_text_is_only_refused(s in "[-0-9TZ:. +]{0,30}") {
            if let (Some(ours), Ok(theirs)) = (text(&s), s.parse::<jiff::Timestamp>()) {
                prop_assert_eq!(ours, theirs.as_nanosecond().div_euclid(1_000) as i64);
            }
        }
    }
}
