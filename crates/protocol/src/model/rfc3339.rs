//! Times as text: RFC 3339, years 0000 to 9999.

use std::fmt;

use super::expiry::Timestamp;

/// The last millisecond that RFC 3339 can name: the end of 9999-12-31 in UTC.
const LAST_MILLIS: u64 = 253_402_300_799_999;
const DAY_SECS: i64 = 86_400;

impl Timestamp {
    /// Parses RFC 3339 `date-time`; `None` for anything else, other ISO 8601 forms included.
    ///
    /// The date and the time may be separated by `T`, `t` or a space. Digits of a second beyond milliseconds
    /// are cut off, a leap second is the second before it, and times before 1970 are 1970.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date_time, rest) = text.as_bytes().split_at_checked(19)?;
        let field = |at: usize, len: usize| number(date_time.get(at..at + len)?);
        let mark = |at: usize, any: &[u8]| any.contains(date_time.get(at)?).then_some(());
        let (year, month, day) = (field(0, 4)?, field(5, 2)?, field(8, 2)?);
        let (hour, minute, second) = (field(11, 2)?, field(14, 2)?, field(17, 2)?);
        mark(4, b"-")?;
        mark(7, b"-")?;
        mark(10, b"Tt ")?;
        mark(13, b":")?;
        mark(16, b":")?;
        let date_exists = (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day);
        if !date_exists || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction, zone) = fraction_millis(rest)?;
        let seconds = days_since_1970(year, month, day) * DAY_SECS
            + hour * 3600
            + minute * 60
            + second.min(59)
            - zone_offset_secs(zone)?;
        Some(Timestamp::from_millis(u64::try_from(seconds * 1000 + fraction).unwrap_or(0)))
    }
}

/// RFC 3339 in UTC, with milliseconds when there are any. What is past the year 9999 is its last millisecond.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis().min(LAST_MILLIS);
        let (seconds, fraction) = (millis / 1000, millis % 1000);
        let (mut day, in_day) = (seconds as i64 / DAY_SECS, seconds as i64 % DAY_SECS);
        // The estimate is never late: no year is shorter than 365 days.
        let mut year = 1970 + day / 366;
        while days_since_1970(year + 1, 1, 1) <= day {
            year += 1;
        }
        day -= days_since_1970(year, 1, 1);
        let mut month = 1;
        while day >= month_days(year, month) {
            day -= month_days(year, month);
            month += 1;
        }
        let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", day + 1)?;
        if fraction == 0 { f.write_str("Z") } else { write!(f, ".{fraction:03}Z") }
    }
}

/// Digits only; the caller bounds their number.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// The milliseconds of `.123456`, if there is a fraction, and what follows it.
fn fraction_millis(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = rest.split_at_checked(len).filter(|_| len > 0)?;
    let padded = digits.iter().copied().chain(*b"00").take(3);
    Some((padded.fold(0, |millis, digit| millis * 10 + i64::from(digit - b'0')), zone))
}

/// `Z` or `±hh:mm`.
fn zone_offset_secs(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let seconds = hours * 3600 + minutes * 60;
            let exists = hours <= 23 && minutes <= 59;
            exists.then_some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, from year 0 on.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Days before the year 1970, counted from 0000-01-01.
    const DAYS_TO_1970: i64 = 719_528;
    let leap_years =
        if year == 0 { 0 } else { (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400 + 1 };
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    year * 365 + leap_years + months + day - 1 - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(text: &str) -> Option<u64> {
        Timestamp::parse_rfc3339(text).map(Timestamp::millis)
    }

    #[test]
    fn times_of_every_century_that_rfc_3339_knows() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.001Z", 1),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2024-12-31T23:59:59Z", 1_735_689_599_000),
            ("2026-01-02T03:04:05.678Z", 1_767_323_045_678),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            ("9999-12-31T00:00:00.000Z", 253_402_214_400_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for before in
            ["0000-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00+00:01"]
        {
            assert_eq!(millis(before), Some(0), "{before}");
        }
    }

    #[test]
    fn every_form_that_rfc_3339_has() {
        let expected = millis("2026-01-02T03:04:05Z");
        for same in [
            "2026-01-02t03:04:05z",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05.0000000000Z",
            "2026-01-02T03:04:05+00:00",
            "2026-01-02T03:04:05-00:00",
            "2026-01-02T04:04:05+01:00",
            "2026-01-01T21:34:05-05:30",
            "2026-01-02T03:04:05.0009Z",
        ] {
            assert_eq!(millis(same), expected, "{same}");
        }
        assert_eq!(millis("2026-01-02T03:04:05.5Z"), expected.map(|millis| millis + 500));
        assert_eq!(millis("2026-01-02T03:04:05.25Z"), expected.map(|millis| millis + 250));
        assert_eq!(millis("2016-12-31T23:59:60Z"), millis("2016-12-31T23:59:59Z"), "a leap second");
        assert_eq!(
            millis("2026-01-02T03:04:05+23:59"),
            expected.map(|m| m - (23 * 60 + 59) * 60_000)
        );
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for bad in [
            "",
            "1",
            "tomorrow",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "20260102T030405Z",
            "2030-01-01T00:00Z",
            "2030-01-01T00:00:00,5Z",
            "2030-01-01T00:00:00.Z",
            "2030-01-01T00:00:00+02",
            "2030-01-01T00:00:00+0200",
            "2030-01-01T00:00:00+24:00",
            "2030-01-01T00:00:00+25:00",
            "2030-01-01T00:00:00+00:60",
            "2030-01-01T00:00:00Z ",
            "2030-01-01T00:00:00Z[UTC]",
            "2030-01-01T00:00:00ZZ",
            " 2030-01-01T00:00:00Z",
            "2030-00-01T00:00:00Z",
            "2030-13-01T00:00:00Z",
            "2030-01-00T00:00:00Z",
            "2030-01-32T00:00:00Z",
            "2030-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2030-04-31T00:00:00Z",
            "2030-06-31T00:00:00Z",
            "2030-09-31T00:00:00Z",
            "2030-11-31T00:00:00Z",
            "2030-01-01T24:00:00Z",
            "2030-01-01T00:60:00Z",
            "2030-01-01T00:00:61Z",
            "+030-01-01T00:00:00Z",
            "2030/01/01T00:00:00Z",
            "2030-01/01T00:00:00Z",
            "2030-01-01_00:00:00Z",
            "2030-01-01T00.00:00Z",
            "2030-01-01T00:00.00Z",
            "2030-01-01T0a:00:00Z",
            "12030-01-01T00:00:00Z",
            "2030-01-01T00:00:00*02:00",
            "2030-01-01T00:00:00+02.00",
            "2030-01-01T00:00:00+0a:00",
        ] {
            assert_eq!(millis(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_no_text_can_name_is_the_last_moment() {
        let last = "9999-12-31T23:59:59.999Z";
        assert_eq!(Timestamp::from_millis(LAST_MILLIS).to_string(), last);
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), last);
        let beyond = Timestamp::parse_rfc3339("9999-12-31T23:59:59-01:00").unwrap();
        assert_eq!(beyond.to_string(), last);
    }

    #[test]
    fn the_first_and_the_last_day_of_every_month() {
        let mut millis = 0;
        for year in 1970..2370 {
            for month in 1..=12 {
                let text = Timestamp::from_millis(millis).to_string();
                assert_eq!(text, format!("{year}-{month:02}-01T00:00:00Z"));
                millis += month_days(year, month) as u64 * 86_400_000;
                let text = Timestamp::from_millis(millis - 1).to_string();
                let last = month_days(year, month);
                assert_eq!(text, format!("{year}-{month:02}-{last}T23:59:59.999Z"));
            }
        }
        assert_eq!(millis, 146_097 * 86_400_000, "400 years of the Gregorian calendar");
    }

    proptest! {
        #[test]
        fn text_round_trips_and_sorts(a in 0..=LAST_MILLIS, b in 0..=LAST_MILLIS) {
            let (x, y) = (Timestamp::from_millis(a), Timestamp::from_millis(b));
            prop_assert_eq!(Timestamp::parse_rfc3339(&x.to_string()), Some(x));
            prop_assert!(x.millis() / 1000 == y.millis() / 1000 || x.cmp(&y) == x.to_string().cmp(&y.to_string()));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,4})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])|.*") {
            if let Some(time) = Timestamp::parse_rfc3339(&text) {
                prop_assert_eq!(Timestamp::parse_rfc3339(&time.to_string()).map(Timestamp::millis), Some(time.millis().min(LAST_MILLIS)));
            }
        }
    }
}
