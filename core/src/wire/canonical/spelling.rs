//! How the canonical form spells strings and numbers: Python's way.
//!
//! ```text
//! "\u00E9\/\ud83d" ──▶ its code points ──────────────▶ "\u00e9/\ud83d"
//! 10E-8            ──▶ the shortest digits of an f64 ──▶ 1e-07
//! 10, -0           ──▶ as they are, but for the sign ──▶ 10, 0
//! ```

use alloc::format;
use alloc::string::String;
use core::str::Chars;

use super::{MAX_DIGITS, Uncanonical};

/// The code points of a JSON string, from after its first quotation mark to its last: half a surrogate pair is one, too.
#[derive(Clone)]
pub(super) struct Points<'a>(Chars<'a>);

impl<'a> Points<'a> {
    pub(super) fn of(after_quote: &'a str) -> Self {
        Self(after_quote.chars())
    }

    /// What comes after the string.
    pub(super) fn rest(mut self) -> &'a str {
        self.by_ref().for_each(drop);
        self.0.as_str()
    }

    /// The code unit that `\u` escapes.
    fn unit(&mut self) -> Option<u16> {
        let (digits, rest) = self.0.as_str().split_at_checked(4)?;
        self.0 = rest.chars();
        u16::from_str_radix(digits, 16).ok()
    }

    fn escaped(&mut self) -> Option<u32> {
        let control = match self.0.next()? {
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'f' => '\u{c}',
            'r' => '\r',
            'u' => {
                let unit = self.unit()?;
                let mut behind = Self::of(self.0.as_str().strip_prefix("\\u").unwrap_or_default());
                let pair = char::decode_utf16([unit, behind.unit().unwrap_or_default()]).next();
                return match pair {
                    Some(Ok(c)) if c > '\u{ffff}' => {
                        *self = behind;
                        Some(c.into())
                    }
                    _ => Some(unit.into()),
                };
            }
            itself => itself,
        };
        Some(control.into())
    }
}

impl Iterator for Points<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self.0.next()? {
            '"' => None,
            '\\' => self.escaped(),
            c => Some(c.into()),
        }
    }
}

/// Whether a member has this name.
pub(super) fn is(key: &Points<'_>, name: &str) -> bool {
    key.clone().eq(name.chars().map(u32::from))
}

/// Writes the string that begins after this quotation mark, and gives back the text after it.
pub(super) fn push_string<'a>(out: &mut String, after_quote: &'a str) -> &'a str {
    let mut rest = after_quote;
    out.push('"');
    loop {
        let special = rest.bytes().position(|byte| !matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'));
        let (plain, special) = rest.split_at_checked(special.unwrap_or(rest.len())).unwrap_or_default();
        out.push_str(plain);
        let mut points = Points::of(special);
        let Some(point) = points.next() else {
            out.push('"');
            return points.0.as_str();
        };
        push_point(out, point);
        rest = points.0.as_str();
    }
}

pub(super) fn push_point(out: &mut String, point: u32) {
    match char::from_u32(point) {
        Some('"') => out.push_str("\\\""),
        Some('\\') => out.push_str("\\\\"),
        Some(c @ ' '..='~') => out.push(c),
        Some('\u{8}') => out.push_str("\\b"),
        Some('\t') => out.push_str("\\t"),
        Some('\n') => out.push_str("\\n"),
        Some('\u{c}') => out.push_str("\\f"),
        Some('\r') => out.push_str("\\r"),
        Some(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| push_unit(out, *unit)),
        None => push_unit(out, u16::try_from(point).unwrap_or_default()),
    }
}

fn push_unit(out: &mut String, unit: u16) {
    out.push_str("\\u");
    let digits = unit.to_be_bytes().into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    out.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
}

/// Writes a number as Python does; `true`, `false` and `null` are as they are.
pub(super) fn push_scalar(out: &mut String, scalar: &str) -> Result<(), Uncanonical> {
    if !scalar.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        out.push_str(scalar);
    } else if scalar.contains(['.', 'e', 'E']) {
        let float: f64 = scalar.parse().map_err(|_| Uncanonical::Number)?;
        if !float.is_finite() {
            return Err(Uncanonical::Number);
        }
        push_float(out, float);
    } else if scalar.trim_start_matches('-').len() > MAX_DIGITS {
        return Err(Uncanonical::Number);
    } else {
        out.push_str(if scalar == "-0" { "0" } else { scalar });
    }
    Ok(())
}

/// Python's `repr`: the shortest digits that read back as this float, and of two that are equally near, the even one.
fn push_float(out: &mut String, float: f64) {
    let plain = float == 0.0 || (1e-4..1e16).contains(&float.abs());
    let shortest = if plain { format!("{float}") } else { format!("{float:e}") };
    let decimals = shortest.split_once('.').map_or("", |(_, decimals)| decimals);
    let decimals = decimals.find('e').unwrap_or(decimals.len());
    // Rust breaks ties upwards when it looks for the shortest, but to even when told how many digits to write. (Next to a
    // power of two, the nearest of so many digits may be another float.)
    let nearest = if plain { format!("{float:.decimals$}") } else { format!("{float:.decimals$e}") };
    let digits = if nearest.parse() == Ok(float) { nearest } else { shortest };
    match digits.split_once('e') {
        None if decimals == 0 => out.extend([&digits, ".0"]),
        None => out.push_str(&digits),
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
            let zero = if exponent.len() == 1 { "0" } else { "" };
            out.extend([digits, "e", sign, zero, exponent]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;

    fn scalar(text: &str) -> Result<String, Uncanonical> {
        let mut out = String::new();
        push_scalar(&mut out, text).map(|()| out)
    }

    #[test]
    fn floats_are_spelt_as_pythons_repr() {
        for (spelt, repr) in [
            ("1.0", "1.0"),
            ("1e0", "1.0"),
            ("-0.0", "-0.0"),
            ("-0e5", "-0.0"),
            ("0E-999", "0.0"),
            ("1e-999", "0.0"),
            ("0.1e1", "1.0"),
            ("1E-4", "0.0001"),
            ("-0.00012", "-0.00012"),
            ("0.00009999999999999999", "9.999999999999999e-05"),
            ("0.000099999999999999999", "0.0001"),
            ("-0.00001", "-1e-05"),
            ("1.5e-7", "1.5e-07"),
            ("1e15", "1000000000000000.0"),
            ("123456789012345.67", "123456789012345.67"),
            ("9999999999999998.0", "9999999999999998.0"),
            ("9999999999999999.0", "1e+16"),
            ("1e16", "1e+16"),
            ("-12345678901234567.0", "-1.2345678901234568e+16"),
            ("1E22", "1e+22"),
            ("1.0e+100", "1e+100"),
            ("5e-324", "5e-324"),
            ("3e-324", "5e-324"),
            ("2.2250738585072011e-308", "2.225073858507201e-308"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("5e22", "5e+22"),
            // Halfway between two of 17 digits: a time of day is, one in ten thousand.
            ("-113272185396253.125", "-113272185396253.12"),
            ("113272185396253.375", "113272185396253.38"),
            ("1795213203.00390625", "1795213203.0039062"),
            ("1795213203.01171875", "1795213203.0117188"),
            // 2 to the -1017: …044 would be nearer, but is another float.
            ("7.120236347223045e-307", "7.120236347223045e-307"),
            ("0.1000000000000000055511151231257827021181583404541015625", "0.1"),
        ] {
            assert_eq!(scalar(spelt).as_deref(), Ok(repr), "{spelt}");
        }
    }

    #[test]
    fn integers_are_not_touched() {
        let longest = "-".to_owned() + &"9".repeat(MAX_DIGITS);
        for text in ["0", "-1", "18446744073709551616", &longest] {
            assert_eq!(scalar(text).as_deref(), Ok(text));
        }
        assert_eq!(scalar("-0").as_deref(), Ok("0"));
        assert_eq!(scalar(&"1".repeat(MAX_DIGITS + 1)), Err(Uncanonical::Number));
    }

    #[test]
    fn a_number_beyond_all_floats_is_refused() {
        assert_eq!(scalar("1.7976931348623159e308"), Err(Uncanonical::Number));
        assert_eq!(scalar("-1e309"), Err(Uncanonical::Number));
    }

    #[test]
    fn strings_are_ascii_and_half_a_pair_stays_one() {
        for (json, form) in [
            ("", ""),
            ("\\u0000\\b\\t\\n\\f\\r\\u001f ~\u{7f}\u{80}", r"\u0000\b\t\n\f\r\u001f ~\u007f\u0080"),
            (r#"\/\"\\\u002F\u0022"#, r#"/\"\\/\""#),
            ("\\u00E9é\\uffff\u{ffff}\u{2028}", r"\u00e9\u00e9\uffff\uffff\u2028"),
            (r"😀\ud83d\ude00\uD83D\uDE00", r"\ud83d\ude00\ud83d\ude00\ud83d\ude00"),
            (r"\ud83d", r"\ud83d"),
            (r"\ude00\uD83D", r"\ude00\ud83d"),
            (r"\ud83d\ud83d\ude00", r"\ud83d\ud83d\ude00"),
            (r"\ud83d\n\ude00", r"\ud83d\n\ude00"),
            (r"\ud83dx\u0041", r"\ud83dxA"),
            (r"\ud83d\u0041", r"\ud83dA"),
            (r"\ud83d\\u0041", r"\ud83d\\u0041"),
        ] {
            let (json, form) = (format!("{json}\", 1"), format!("\"{form}\""));
            let mut out = String::new();
            assert_eq!(push_string(&mut out, &json), ", 1");
            assert_eq!(out, form, "{json}");
        }
    }
}
