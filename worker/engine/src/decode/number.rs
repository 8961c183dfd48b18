//! Numbers and their decimal text, the same on every machine.

use std::fmt::{self, Write};

/// Text that is a finite decimal number, exponents allowed: no `NaN`, `inf`, blanks, or `+`.
pub(super) fn strict(text: &str) -> Option<f64> {
    if !looks_decimal(text, true) {
        return None;
    }
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

/// A CSV field that is a number by its look: plain decimals without superfluous zeros in front and without an exponent,
/// of at most 15 digits before the point. So `007`, `1e5` and long codes of digits stay text.
pub(super) fn inferred(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let before_point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
    let leading_zero = before_point > 1 && digits[0] == b'0';
    if before_point > 15 || leading_zero || !looks_decimal(text, false) {
        return None;
    }
    text.parse().ok()
}

fn looks_decimal(text: &str, exponent: bool) -> bool {
    let allowed = |b: u8| b.is_ascii_digit() || b == b'.' || b == b'-' || (exponent && matches!(b, b'e' | b'E' | b'+'));
    text.bytes().all(allowed)
        && text.bytes().find(|b| *b != b'-').is_some_and(|b| b.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
}

/// Whole numbers within i64 as such, so that 1 and 1.0 have one text.
pub(super) fn whole(n: f64) -> Option<i64> {
    (n == libm::trunc(n) && libm::fabs(n) < 9_223_372_036_854_775_808.0).then_some(n as i64)
}

/// Room for the text of one number.
pub(super) struct TextBuf {
    bytes: [u8; 40],
    len: usize,
}

impl TextBuf {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; 40], len: 0 }
    }
    pub(super) fn integer(&mut self, n: i64) -> &str {
        self.write(format_args!("{n}"))
    }
    pub(super) fn unsigned(&mut self, n: u64) -> &str {
        self.write(format_args!("{n}"))
    }
    /// The shortest decimal text that reads back as `n`; with an exponent where it would be longer than 40 bytes.
    pub(super) fn float(&mut self, n: f64) -> &str {
        match whole(n) {
            Some(n) => self.integer(n),
            None => {
                self.len = 0;
                if write!(self, "{n}").is_err() {
                    return self.write(format_args!("{n:e}"));
                }
                self.text()
            }
        }
    }
    fn write(&mut self, args: fmt::Arguments<'_>) -> &str {
        self.len = 0;
        // Cannot fail: 20 digits, or 17 with point, sign and exponent, fit.
        let _ = self.write_fmt(args);
        self.text()
    }
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for TextBuf {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.len + s.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn looks_of_numbers() {
        for (text, n) in [
            ("0", 0.0),
            ("-1.5", -1.5),
            ("0.087125", 0.087125),
            ("123456789012345", 123456789012345.0),
            ("-0.49917162609493676", -0.49917162609493676),
        ] {
            assert_eq!(inferred(text), Some(n), "{text}");
        }
        for text in ["", "-", ".5", "5.", "1e5", "007", "-01", "1 ", "+1", "NaN", "1234567890123456", "1-2", "--1"] {
            assert_eq!(inferred(text), None, "{text}");
        }
        assert_eq!(strict("1e5"), Some(1e5));
        for text in ["NaN", "inf", "-infinity", "1e999", "1_0", "0x1", "", "e5", "-", "1e"] {
            assert_eq!(strict(text), None, "{text}");
        }
    }

    #[test]
    fn texts_of_numbers() {
        let mut buf = TextBuf::new();
        assert_eq!(buf.float(123.0), "123");
        assert_eq!(buf.float(-0.0), "0");
        assert_eq!(buf.float(0.1), "0.1");
        assert_eq!(buf.float(1e20), "100000000000000000000");
        assert_eq!(buf.float(1e300), "1e300");
        assert_eq!(buf.float(-1.2345678901234568e-300), "-1.2345678901234568e-300");
        assert_eq!(buf.integer(i64::MIN), "-9223372036854775808");
        assert_eq!(buf.unsigned(u64::MAX), "18446744073709551615");
    }

    proptest! {
        #[test]
        fn text_of_a_float_reads_back(bits in any::<u64>()) {
            let n = f64::from_bits(bits);
            prop_assume!(n.is_finite() && n != 0.0);
            prop_assert_eq!(TextBuf::new().float(n).parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
