//! Wall-clock time as text: read from ISO 8601, written as Python's `isoformat` in UTC.
//!
//! It decides which spellings of an instant are one. No clock is read here, and the machines never see this time: a
//! peer's wall clock says nothing about theirs ([`Instant`](crate::Instant)).
//!
//! ```text
//! 2026-11-20T22:15:30.576062+00:00 ◀──▶ 1_795_212_930_576_062 µs since 1970
//! 2026-11-20T23:15:30+01:00  ──┐
//! 2026-11-20 22:15:30.000Z   ──┴──────▶ 2026-11-20T22:15:30+00:00
//! 2026-11-20T22:15:30        ──▶ refused: no zone
//! ```
//!
//! Invariants: every [`Timestamp`] lies in the years 1 to 9999, as Python's do, and reads back as it is written.

use alloc::string::{String, ToString};
use core::fmt;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Microseconds since 1970-01-01T00:00:00Z.
///
/// ```
/// use bowline::wire::timestamp::Timestamp;
/// let noon = Timestamp::from_unix_micros(1_743_422_400_000_000);
/// assert_eq!(noon.to_string(), "2025-03-31T12:00:00+00:00");
/// assert_eq!(Timestamp::parse("2025-03-31T14:00:00+02:00"), Some(noon));
/// assert_eq!(Timestamp::parse("2025-03-31T12:00:00"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0001-01-01T00:00:00+00:00
    pub const MIN: Self = Self(-62_135_596_800 * SECOND);
    /// 9999-12-31T23:59:59.999999+00:00
    pub const MAX: Self = Self(253_402_300_800 * SECOND - 1);

    /// A time from its microseconds, held within [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Its microseconds; negative before 1970.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// As text without its zone, as Python writes a time that has none; whoever reads it must know that it is UTC.
    ///
    /// ```
    /// use bowline::wire::timestamp::Timestamp;
    /// assert_eq!(Timestamp::from_unix_micros(1).naive(), "1970-01-01T00:00:00.000001");
    /// ```
    #[must_use]
    pub fn naive(self) -> String {
        let mut text = self.to_string();
        text.truncate(text.len().saturating_sub("+00:00".len()));
        text
    }

    /// Reads `2026-11-20T22:15:30.576062+00:00` and its likes: a space for the `T`, any number of decimals or none (those
    /// beyond six are cut off), `Z` for `+00:00`. Without a zone it is no instant, and refused.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = Digits(text);
        let (year, month, day) = (rest.take(4, 1, 9999)?, rest.after('-', 2, 1, 12)?, rest.after('-', 2, 1, 31)?);
        let days = days(year, month, day);
        if civil(days) != (year, month, day) {
            return None;
        }
        rest.0 = rest.0.strip_prefix(['T', ' '])?;
        let (hour, minute, second) = (rest.take(2, 0, 23)?, rest.after(':', 2, 0, 59)?, rest.after(':', 2, 0, 59)?);
        let fraction = rest.fraction()?;
        let zone = rest.zone()?;
        let parts = [(days, DAY), (hour, HOUR), (minute, MINUTE), (second, SECOND), (fraction, 1), (zone, -MINUTE)];
        let micros = parts.iter().fold(0, |sum: i64, (n, unit)| sum.saturating_add(n.saturating_mul(*unit)));
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }
}

impl fmt::Display for Timestamp {
    /// As Python does: without decimals if there are none, with six otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(DAY));
        let time = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (time / HOUR, time / MINUTE % 60, time / SECOND % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match time % SECOND {
            0 => f.write_str("+00:00"),
            micros => write!(f, ".{micros:06}+00:00"),
        }
    }
}

/// What of a text is still to be read.
struct Digits<'a>(&'a str);

impl Digits<'_> {
    /// So many digits, that make a number between these two.
    fn take(&mut self, digits: usize, least: i64, most: i64) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        // Not left to `parse`, which takes a sign.
        let number: i64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
        (least..=most).contains(&number).then_some(number)
    }

    fn after(&mut self, sign: char, digits: usize, least: i64, most: i64) -> Option<i64> {
        self.0 = self.0.strip_prefix(sign)?;
        self.take(digits, least, most)
    }

    /// Microseconds, if there is a decimal point.
    fn fraction(&mut self) -> Option<i64> {
        let Some(rest) = self.0.strip_prefix('.') else { return Some(0) };
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, rest) = rest.split_at_checked(end)?;
        self.0 = rest;
        let micros = digits.bytes().chain(core::iter::repeat(b'0')).take(6);
        let number = |sum: i64, digit: u8| sum.saturating_mul(10).saturating_add(i64::from(digit.saturating_sub(b'0')));
        (!digits.is_empty()).then(|| micros.fold(0, number))
    }

    /// Minutes east of Greenwich, and nothing behind it.
    fn zone(&mut self) -> Option<i64> {
        if self.0 == "Z" {
            return Some(0);
        }
        let east = if self.0.starts_with('-') { -1 } else { 1 };
        self.0 = self.0.strip_prefix(['+', '-'])?;
        let (hours, minutes) = (self.take(2, 0, 23)?, self.after(':', 2, 0, 59)?);
        self.0.is_empty().then_some(hours.saturating_mul(60).saturating_add(minutes).saturating_mul(east))
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Years are counted from March, so that the leap day
/// is the last; an era is the 400 years after which the calendar repeats.
#[expect(clippy::arithmetic_side_effects, reason = "years 1 to 9999, months to 12, days to 31: far from any overflow")]
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

/// The date so many days after 1970-01-01: year, month, day.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an i64 of microseconds has at most 10^8 days: far from any overflow"
)]
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (era * 400 + year + if month <= 2 { 1 } else { 0 }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times_are_read_and_written() {
        for (text, micros) in [
            ("1970-01-01T00:00:00+00:00", 0),
            ("1969-12-31T23:59:59.999999+00:00", -1),
            ("2000-02-29T00:00:00.000001+00:00", 951_782_400_000_001),
            ("2026-11-20T22:15:30.576062+00:00", 1_795_212_930_576_062),
            ("2100-03-01T00:00:00+00:00", 4_107_542_400_000_000),
            ("0001-01-01T00:00:00+00:00", Timestamp::MIN.0),
            ("9999-12-31T23:59:59.999999+00:00", Timestamp::MAX.0),
        ] {
            assert_eq!(Timestamp::from_unix_micros(micros).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp(micros)), "{text}");
        }
        assert_eq!(Timestamp::from_unix_micros(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::from_unix_micros(i64::MAX), Timestamp::MAX);
    }

    #[test]
    fn one_instant_has_many_spellings() {
        let instant = Timestamp::parse("2026-11-20T22:15:30.5+00:00");
        assert_eq!(instant.map(Timestamp::unix_micros), Some(1_795_212_930_500_000));
        for text in [
            "2026-11-20T22:15:30.500000Z",
            "2026-11-20 22:15:30.5000009+00:00",
            "2026-11-20T22:15:30.5000000001-00:00",
            "2026-11-21T00:15:30.50+02:00",
            "2026-11-20T16:45:30.500-05:30",
        ] {
            assert_eq!(Timestamp::parse(text), instant, "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "now",
            "1795212930.576",
            "2026-11-20",
            "2026-11-20T22:15:30",
            "2026-11-20T22:15:30.576062",
            "2026-11-20T22:15:30.+00:00",
            "2026-11-20T22:15:30.Z",
            "2026-11-20T22:15:30.1",
            "2026-11-20T22:15:30+0000",
            "2026-11-20T22:15:30+00",
            "2026-11-20T22:15:30+24:00",
            "2026-11-20T22:15:30+00:60",
            "2026-11-20T22:15:30+00:00 ",
            "2026-11-20T22:15:30ZZ",
            "2026-11-20T22:15+00:00",
            "2026-11-20T24:00:00+00:00",
            "2026-11-20T22:60:00+00:00",
            "2026-11-20T23:59:60+00:00",
            "2026-13-20T22:15:30+00:00",
            "2026-00-20T22:15:30+00:00",
            "2026-11-31T22:15:30+00:00",
            "2026-11-00T22:15:30+00:00",
            "2025-02-29T22:15:30+00:00",
            "1900-02-29T22:15:30+00:00",
            "0000-01-01T00:00:00+00:00",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+026-11-20T22:15:30+00:00",
            "2026-11-20T+2:15:30+00:00",
            "2026-11-20T22:15:30+-1:00",
            "２026-11-20T22:15:30+00:00",
            "2026-11-20T22:15:30.５+00:00",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_ten_thousand_years_is_the_day_after_the_one_before() {
        let mut before = civil(days(1, 1, 1) - 1);
        assert_eq!(before, (0, 12, 31));
        for day in days(1, 1, 1)..=days(9999, 12, 31) {
            let date @ (year, month, of_month) = civil(day);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let next = match before {
                (y, 12, 31) => (y + 1, 1, 1),
                // The month before ended in this very year, so the length is that of this year's.
                (y, m, d) if d == lengths[usize::try_from(m - 1).unwrap()] => (y, m + 1, 1),
                (y, m, d) => (y, m, d + 1),
            };
            assert_eq!(date, next);
            assert_eq!(days(year, month, of_month), day);
            before = date;
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micros in any::<i64>(), near in Timestamp::MIN.0..=Timestamp::MAX.0) {
            for time in [micros, near].map(Timestamp::from_unix_micros) {
                prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>(), likely in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-9:.Z+ -]{0,20}") {
            let _ = (Timestamp::parse(&text), Timestamp::parse(&likely));
        }
    }
}
