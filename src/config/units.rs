//! Durations and sizes as people write them: `30s`, `1m30s`, `500ms`; `10MiB`, `64KiB`, `1GB`.
//!
//! `humantime` reads durations, behind a closed list of units.
//!
//! Invariants
//! - What `Display` writes, `Scalar::parse` reads back as the same value (property-tested).
//! - A bare number is refused: a unit that is guessed is a bug that waits.
//!
//! Units: durations are whole milliseconds, sizes whole bytes.

use std::fmt;
use std::time::Duration;

use super::reader::setting::{InvalidValue, ScalarSetting};

/// A span of time with millisecond resolution, written as `500ms`, `30s`, `1m30s`, `2h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

/// A number of bytes, written as `512B`, `64KiB`, `10MiB`, `1GiB` (powers of 1024) or `1KB`,
/// `10MB`, `1GB` (powers of 1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Unit and its length in milliseconds, longest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Unit and its length in bytes, in the order in which `Display` prefers them.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl HumanDuration {
    /// A duration of `count` milliseconds.
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// A duration of `count` seconds.
    pub const fn secs(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// The duration for the standard library and tokio.
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// Takes over the default of an option; fractions of a millisecond are dropped.
impl From<Duration> for HumanDuration {
    fn from(value: Duration) -> Self {
        Self::millis(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }
}

impl ByteSize {
    /// A size of `count` bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// A size of `count` times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// A size of `count` times 1024² bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// A size of `count` times 1024³ bytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// A size of `count` times 1024⁴ bytes.
    pub const fn tib(count: u64) -> Self {
        Self(count << 40)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<usize> for ByteSize {
    fn from(bytes: usize) -> Self {
        Self(bytes as u64)
    }
}

impl ScalarSetting for HumanDuration {
    const WHAT: &'static str = "a duration such as 30s, 1m30s or 500ms";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let text = text.trim();
        if let Some(bare) = bare_number(text) {
            return Err(InvalidValue::new("has no unit", format!("write {bare}s or {bare}ms")));
        }
        if text.contains('.') {
            return Err(InvalidValue::not_a(Self::WHAT).fix("use whole numbers: 1500ms, not 1.5s"));
        }
        check_units(text)?;
        let too_long = || InvalidValue::new("is too long", "write a shorter duration");
        let duration = humantime::parse_duration(text).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => too_long(),
            _ => InvalidValue::not_a(Self::WHAT),
        })?;
        u64::try_from(duration.as_millis()).map(Self::millis).map_err(|_| too_long())
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl ScalarSetting for ByteSize {
    const WHAT: &'static str = "a size such as 64KiB, 10MiB or 1GB";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let text = text.trim();
        if let Some(bare) = bare_number(text) {
            return Err(InvalidValue::new("has no unit", format!("write {bare}B or {bare}MiB")));
        }
        let (digits, unit, after) = split_quantity(text);
        let length = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, l)| *l);
        match (digits.parse::<u64>(), length) {
            (Ok(number), Some(length)) if after.is_empty() => {
                number.checked_mul(length).map(Self).ok_or_else(|| {
                    InvalidValue::new("is larger than 2^64 bytes", "write a smaller size")
                })
            }
            _ => Err(InvalidValue::not_a(Self::WHAT)
                .fix("use a whole number and B, KiB, MiB, GiB, TiB, KB, MB, GB or TB")),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in TIME_UNITS {
            if left >= length {
                write!(f, "{}{unit}", left / length)?;
                left %= length;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            |(_, length): &&(&str, u64)| self.0 >= *length && self.0.is_multiple_of(*length);
        match SIZE_UNITS.iter().find(exact) {
            Some((unit, length)) => write!(f, "{}{unit}", self.0 / length),
            None => f.write_str("0B"),
        }
    }
}

/// Lets through what every reader takes for the same duration: of the units that `humantime` knows
/// only those of [`TIME_UNITS`], each at most once, largest first. (`humantime` also reads `M` as a
/// month, and adds units up in any order.)
fn check_units(text: &str) -> Result<(), InvalidValue> {
    let refuse = |fix: &str| Err(InvalidValue::not_a(HumanDuration::WHAT).fix(fix));
    let mut rest = text;
    let mut smaller_than = u64::MAX;
    while !rest.is_empty() {
        let (digits, unit, after) = split_quantity(rest);
        let length = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, length)| *length);
        let Some(length) = length.filter(|_| !digits.is_empty()) else {
            return refuse("the units are ms, s, m, h and d");
        };
        if length >= smaller_than {
            return refuse("name each unit once, largest first");
        }
        smaller_than = length;
        rest = after;
    }
    Ok(())
}

/// The text itself when it is digits only.
fn bare_number(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

/// `"10 MiB rest"` to `("10", "MiB", " rest")`; the digits may be missing.
fn split_quantity(text: &str) -> (&str, &str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    (digits, unit, after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(n in any::<u64>()) {
            let duration = HumanDuration::millis(n);
            prop_assert_eq!(HumanDuration::parse(&duration.to_string()).unwrap(), duration);
            let size = ByteSize::bytes(n);
            prop_assert_eq!(ByteSize::parse(&size.to_string()).unwrap(), size);
        }

        #[test]
        fn round_values_survive_too(n in 0_u64..10_000, unit in 0_usize..9, time in 0_usize..5) {
            let size = ByteSize::bytes(n * SIZE_UNITS[unit].1);
            prop_assert_eq!(ByteSize::parse(&size.to_string()).unwrap(), size);
            let duration = HumanDuration::millis(n * TIME_UNITS[time].1);
            prop_assert_eq!(HumanDuration::parse(&duration.to_string()).unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = HumanDuration::parse(&text);
            let _ = ByteSize::parse(&text);
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("2m", 120_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            (" 7d ", 604_800_000),
            ("5 s", 5_000),
            ("0s", 0),
        ] {
            assert_eq!(
                HumanDuration::parse(text).unwrap(),
                HumanDuration::millis(millis),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "30",
            "1.5s",
            "30 sec",
            "-1s",
            "30s1m",
            "1s1s",
            "1M",
            "1month",
            "1 0s",
            "5us",
            "99999999999999999d",
            "99999999999999999999d",
        ] {
            assert!(HumanDuration::parse(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("10MiB", 10 << 20),
            ("64KiB", 64 << 10),
            ("1GB", 1_000_000_000),
            ("512B", 512),
            ("2 TiB", 2 << 40),
            ("0B", 0),
        ] {
            assert_eq!(ByteSize::parse(text).unwrap(), ByteSize::bytes(bytes), "{text}");
        }
        for text in ["", "B", "10", "10M", "1.5GiB", "-1B", "1GiB1B", "99999999999TiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn display_prefers_the_unit_that_divides_exactly() {
        assert_eq!(ByteSize::mib(16).to_string(), "16MiB");
        assert_eq!(ByteSize::bytes(1_000_000_000).to_string(), "1GB");
        assert_eq!(ByteSize::bytes(1500).to_string(), "1500B");
        assert_eq!(HumanDuration::secs(90).to_string(), "1m30s");
        assert_eq!(HumanDuration::millis(1_050).to_string(), "1s50ms");
    }
}
