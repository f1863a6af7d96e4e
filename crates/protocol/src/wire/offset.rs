//! Offsets (§8): opaque to clients, byte positions to us.
//!
//! Text form: two zero-padded 16-digit decimals joined by `_`. The first is reserved (always zero) and the
//! second counts the stored bytes before the position, so text order is position order. In JSON mode a
//! stored message is its bytes and one terminator, see `json::mode`.

use std::fmt;

/// A position in a stream: the number of stored bytes before it. At most [`Offset::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The start of every stream.
    pub const ZERO: Offset = Offset(0);
    /// The largest position that sixteen digits can name.
    pub const MAX: Offset = Offset(9_999_999_999_999_999);
    /// Length of the text form, bytes.
    pub const TEXT_LEN: usize = 33;

    /// The position after `bytes` stored bytes.
    pub const fn new(bytes: u64) -> Self {
        Offset(bytes)
    }

    /// Stored bytes before this position.
    pub const fn position(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on; saturates at [`Offset::MAX`].
    #[must_use]
    pub fn advance(self, bytes: u64) -> Self {
        Offset(self.0.saturating_add(bytes).min(Self::MAX.0))
    }

    /// Parses the text form exactly; anything else, the sentinels included, is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("0000000000000000_")?;
        if rest.len() != 16 || !rest.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        rest.parse().ok().map(Offset)
    }

    /// The text form as bytes, without allocating.
    pub fn text(self) -> [u8; Self::TEXT_LEN] {
        let mut text = *b"0000000000000000_0000000000000000";
        let mut left = self.0;
        for digit in text.iter_mut().rev().take(16) {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        text
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0000000000000000_{:016}", self.0)
    }
}

/// Where a read starts, as the `offset` query parameter asks (§5.6, §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// `-1`, or no parameter.
    Start,
    /// `now`: the tail at the time of the request.
    Now,
    /// A position handed out before.
    At(Offset),
}

impl ReadFrom {
    /// Parses the query value; `None` when it is neither a sentinel nor an offset.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "-1" => Some(ReadFrom::Start),
            "now" => Some(ReadFrom::Now),
            _ => Offset::parse(text).map(ReadFrom::At),
        }
    }
}

/// The query value.
impl fmt::Display for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadFrom::Start => f.write_str("-1"),
            ReadFrom::Now => f.write_str("now"),
            ReadFrom::At(offset) => offset.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_exact_text_form_parses() {
        for bad in ["", "0", "1_2", "now", "-1", "0000000000000000_000000000000000", "a,b"] {
            assert_eq!(Offset::parse(bad), None, "{bad}");
        }
        assert_eq!(Offset::parse("0000000000000001_0000000000000000"), None);
        assert_eq!(Offset::parse("0000000000000000_+000000000000001"), None);
    }

    proptest! {
        #[test]
        fn text_round_trips_and_sorts(a in 0..=Offset::MAX.0, b in 0..=Offset::MAX.0) {
            let (x, y) = (Offset::new(a), Offset::new(b));
            prop_assert_eq!(Offset::parse(&x.to_string()), Some(x));
            prop_assert_eq!(x.to_string().into_bytes(), x.text().to_vec());
            prop_assert_eq!(x.cmp(&y), x.to_string().cmp(&y.to_string()));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = ReadFrom::parse(&text);
        }
    }
}
