//! Offsets (§8): opaque to clients, byte positions to us.
//!
//! Text form: two zero-padded 16-digit decimals joined by `_`. The first is the incarnation, a number that each creation
//! of a stream has for itself, so that an offset of a deleted stream is recognised when its path lives again. The second
//! counts the stored bytes before the position. In JSON mode a stored message is its bytes and one terminator, see
//! `json::mode`.
//!
//! The start of every stream is all zeros. Streams that format 1 created have incarnation 0. A fork's inherited offsets
//! have the incarnations of the streams that hold the bytes, which are less than its own. So within a stream text order is
//! position order.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

/// A position in a stream: the number of stored bytes before it. At most [`Offset::MAX`].
///
/// Offsets compare by position: those of one stream are in order, and for those of different streams a comparison means
/// nothing. Whether a client's offset is of a stream, [`StreamCore::resolve`](crate::StreamCore::resolve) says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offset {
    incarnation: u64,
    position: u64,
}

impl Offset {
    /// The start of every stream.
    pub const ZERO: Offset = Offset::new(0);
    /// The largest position that sixteen digits can name.
    pub const MAX: Offset = Offset::new(LARGEST);
    /// Length of the text form, bytes.
    pub const TEXT_LEN: usize = 33;

    /// The position after `bytes` stored bytes, of no incarnation. For a client,
    /// [`StreamCore::offset_at`](crate::StreamCore::offset_at) returns it with one.
    pub const fn new(bytes: u64) -> Self {
        Offset { incarnation: 0, position: bytes }
    }

    /// The same position in this incarnation. The start of a stream has none.
    #[must_use]
    pub const fn in_incarnation(self, incarnation: u64) -> Self {
        let position = self.position;
        Offset { incarnation: if position == 0 { 0 } else { incarnation }, position }
    }

    /// The incarnation; 0 at the start of a stream and in streams of format 1.
    pub const fn incarnation(self) -> u64 {
        self.incarnation
    }

    /// Stored bytes before this position.
    pub const fn position(self) -> u64 {
        self.position
    }

    /// The position `bytes` further on; saturates at [`Offset::MAX`].
    #[must_use]
    pub fn advance(self, bytes: u64) -> Self {
        Offset { position: self.position.saturating_add(bytes).min(LARGEST), ..self }
    }

    /// Parses the text form exactly; anything else, the sentinels included, is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (incarnation, position) = text.split_once('_')?;
        let number = |digits: &str| {
            let exact = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit());
            exact.then(|| digits.parse().ok()).flatten()
        };
        let offset = Offset { incarnation: number(incarnation)?, position: number(position)? };
        (offset.position > 0 || offset.incarnation == 0).then_some(offset)
    }

    /// The text form as bytes, without allocating.
    pub fn text(self) -> [u8; Self::TEXT_LEN] {
        let mut text = *b"0000000000000000_0000000000000000";
        let (first, second) = text.split_at_mut(17);
        put_digits(first.get_mut(..16).unwrap_or_default(), self.incarnation);
        put_digits(second, self.position);
        text
    }
}

/// The largest number that sixteen digits can write.
const LARGEST: u64 = 9_999_999_999_999_999;

/// Writes a decimal number from the right; the rest stays.
fn put_digits(digits: &mut [u8], mut left: u64) {
    for digit in digits.iter_mut().rev() {
        if left == 0 {
            return;
        }
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

impl PartialEq for Offset {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for Offset {}

impl PartialOrd for Offset {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Offset {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position.cmp(&other.position)
    }
}

impl Hash for Offset {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.position.hash(state);
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}_{:016}", self.incarnation, self.position)
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
    use std::hash::BuildHasher;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_exact_text_form_parses() {
        for bad in ["", "0", "1_2", "now", "-1", "0000000000000000_000000000000000", "a,b"] {
            assert_eq!(Offset::parse(bad), None, "{bad}");
        }
        assert_eq!(Offset::parse("0000000000000001_0000000000000000"), None, "the start is zeros");
        assert_eq!(Offset::parse("0000000000000000_+000000000000001"), None);
        assert_eq!(Offset::parse("+000000000000001_0000000000000001"), None);
    }

    #[test]
    fn offsets_are_compared_and_hashed_by_position() {
        let hashes = std::hash::RandomState::new();
        let hash = |offset: Offset| hashes.hash_one(offset);
        let (one, again) = (Offset::new(5), Offset::new(5).in_incarnation(3));
        assert_eq!((one, hash(one)), (again, hash(again)));
        assert_ne!(hash(one), hash(Offset::new(6)));
    }

    proptest! {
        #[test]
        fn text_round_trips_and_sorts(
            (a, b) in (0..=LARGEST, 0..=LARGEST),
            (one, two) in (0..=LARGEST, 0..=LARGEST),
        ) {
            let (first, last) = (one.min(two), one.max(two));
            let x = Offset::new(a.min(b)).in_incarnation(first);
            let y = Offset::new(a.max(b)).in_incarnation(last);
            for offset in [x, y] {
                let parsed = Offset::parse(&offset.to_string()).unwrap();
                prop_assert_eq!(parsed, offset);
                prop_assert_eq!(parsed.incarnation(), offset.incarnation());
                prop_assert_eq!(offset.to_string().into_bytes(), offset.text().to_vec());
            }
            prop_assert!(x.to_string() <= y.to_string());
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = ReadFrom::parse(&text);
        }
    }
}
