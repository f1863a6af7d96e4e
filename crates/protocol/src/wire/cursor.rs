//! Cursors (§10.1): the number of the current 20-second interval, always moving forward.

use crate::Timestamp;

/// Interval length, seconds.
const INTERVAL_SECS: u64 = 20;
/// Interval zero starts on 9 October 2024, 00:00:00 UTC (seconds since 1970).
const EPOCH_SECS: u64 = 1_728_432_000;
/// The most jitter, seconds, that is added when a client is already in the current interval.
const MAX_JITTER_SECS: u64 = 3600;
/// The largest cursor that is believed: what is answered to it still fits the 53 bits that a script's
/// numbers hold exactly. The clock gets there in five billion years.
const MAX: u64 = (1 << 53) - 1 - MAX_JITTER_SECS;

/// The token of live responses that lets caches collapse requests. Not a position in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(u64);

impl Cursor {
    /// Parses what a client echoes; `None` when it is not a cursor of ours, which is then ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|number| plain && *number <= MAX);
        number.map(Cursor)
    }

    /// The cursor to send: the current interval, or past `client` when the client is already there.
    ///
    /// `random` is any number; it spreads clients over up to an hour of intervals so that they do not
    /// collide in a cache again. The result is always greater than `client`.
    pub fn next(client: Option<Cursor>, now: Timestamp, random: u64) -> Self {
        let current = (now.millis() / 1000).saturating_sub(EPOCH_SECS) / INTERVAL_SECS;
        match client {
            Some(Cursor(theirs)) if theirs >= current => {
                let jitter = 1 + random % MAX_JITTER_SECS;
                Cursor(theirs + (jitter / INTERVAL_SECS).max(1))
            }
            _ => Cursor(current),
        }
    }

    /// The interval number.
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn interval_is_counted_from_the_epoch() {
        let at =
            |secs: u64| Cursor::next(None, Timestamp::from_millis((EPOCH_SECS + secs) * 1000), 0);
        assert_eq!(at(0).value(), 0);
        assert_eq!(at(19).value(), 0);
        assert_eq!(at(20_000).value(), 1000);
    }

    #[test]
    fn what_is_no_cursor_of_ours_is_ignored() {
        for bad in ["", "-1", "+1", "1.0", "x", "9999999999999999", "18446744073709551616"] {
            assert_eq!(Cursor::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Cursor::parse("0001"), Some(Cursor(1)));
    }

    #[test]
    fn the_largest_cursor_leaves_an_hour_below_53_bits() {
        let largest = 9_007_199_254_737_391;
        assert_eq!(Cursor::parse(&largest.to_string()), Some(Cursor(largest)));
        assert_eq!(Cursor::parse(&(largest + 1).to_string()), None);
    }

    #[test]
    fn who_is_in_the_current_interval_goes_up_to_an_hour_further() {
        let now = Timestamp::from_millis((EPOCH_SECS + 20_000) * 1000);
        let next = |theirs, random| Cursor::next(Some(Cursor(theirs)), now, random).value();
        assert_eq!(next(999, 3_599), 1_000, "behind it");
        for (random, further) in [(0, 1), (38, 1), (39, 2), (3_599, 180), (3_600, 1), (3_639, 2)] {
            assert_eq!(next(1_000, random), 1_000 + further, "{random}");
            assert_eq!(next(5_000, random), 5_000 + further, "{random}");
        }
    }

    proptest! {
        #[test]
        fn never_goes_backwards(
            theirs in prop_oneof![0..=MAX, MAX - 10..=MAX],
            now: u32,
            random: u64,
        ) {
            let client = Cursor::parse(&theirs.to_string());
            prop_assert!(client.is_some());
            let now = Timestamp::from_millis(u64::from(now) * 1000);
            let next = Cursor::next(client, now, random);
            prop_assert!(next > client.unwrap());
            prop_assert!(next.value() < 1 << 53, "as a number it must be exact");
        }
    }
}
