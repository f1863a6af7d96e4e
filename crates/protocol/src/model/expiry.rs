//! Time-to-live and expiry (§5.1). Judged by comparing with `now`, never by a timer.

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Timestamp(millis)
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// `seconds` later; saturates.
    #[must_use]
    pub const fn plus_secs(self, seconds: u64) -> Self {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1000)))
    }
}

/// When a stream goes away by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// After this many seconds without a read or a write.
    Ttl(u64),
    /// At this time.
    At(Timestamp),
}

impl Expiry {
    /// Parses `Stream-TTL`: decimal digits without sign, leading zero, point or exponent.
    pub fn parse_ttl(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let canonical = text == "0" || !text.starts_with('0');
        if digits && canonical { text.parse().ok().map(Expiry::Ttl) } else { None }
    }

    /// The moment from which the stream is gone, for a stream last read or written at `touched`.
    pub fn deadline(self, touched: Timestamp) -> Option<Timestamp> {
        match self {
            Expiry::Never => None,
            Expiry::Ttl(seconds) => Some(touched.plus_secs(seconds)),
            Expiry::At(time) => Some(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_grammar() {
        assert_eq!(Expiry::parse_ttl("0"), Some(Expiry::Ttl(0)));
        assert_eq!(Expiry::parse_ttl("3600"), Some(Expiry::Ttl(3600)));
        for bad in ["", "-1", "+1", "01", "1.0", "1e3", " 1", "abc", "99999999999999999999999"] {
            assert_eq!(Expiry::parse_ttl(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn deadlines() {
        let touched = Timestamp::from_millis(5_000);
        assert_eq!(Expiry::Never.deadline(touched), None);
        assert_eq!(Expiry::Ttl(2).deadline(touched), Some(Timestamp::from_millis(7_000)));
        assert_eq!(Expiry::Ttl(u64::MAX).deadline(touched).unwrap().millis(), u64::MAX);
    }
}
