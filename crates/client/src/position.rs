//! Where a reader is: an opaque offset, and how much after it is read already.

use std::{fmt, str::FromStr, sync::Arc};

/// A position that a server returned: opaque text that sorts as the stream does (§8). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamOffset(Arc<str>);

impl StreamOffset {
    /// Takes an offset that a server returned earlier, for example from a database. `None` for what no server returns:
    /// an empty text, `-1`, `now`, or one with `,`, `&`, `=`, `?`, `/` or spaces.
    pub fn new(text: &str) -> Option<Self> {
        let opaque = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '&' | '=' | '?' | '/');
        let usable = !text.is_empty() && !matches!(text, "-1" | "now") && text.chars().all(opaque);
        usable.then(|| StreamOffset(text.into()))
    }

    /// The offset as the server wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where to go on reading: everything before it has been delivered, nothing after it.
///
/// Servers return offsets at the ends of pages and events only. Within a large page a position is the offset that the
/// page began at and the bytes (of a JSON stream, messages) delivered since. Its text, `OFFSET` or `OFFSET,SKIP`, is
/// what an application stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// `None` is the beginning of the stream.
    offset: Option<StreamOffset>,
    skip: u64,
}

impl StreamPosition {
    /// The beginning of a stream.
    pub const START: StreamPosition = StreamPosition { offset: None, skip: 0 };

    /// Exactly at `offset`.
    pub fn at(offset: StreamOffset) -> Self {
        StreamPosition { offset: Some(offset), skip: 0 }
    }

    /// The offset at or before this position; `None` at the beginning.
    pub fn offset(&self) -> Option<&StreamOffset> {
        self.offset.as_ref()
    }

    /// Bytes, or messages of a JSON stream, between the offset and this position.
    pub fn skip(&self) -> u64 {
        self.skip
    }

    pub(crate) fn plus(&self, more: u64) -> Self {
        StreamPosition { offset: self.offset.clone(), skip: self.skip.saturating_add(more) }
    }

    /// The value of the `offset` query parameter.
    pub(crate) fn query(&self) -> &str {
        self.offset.as_ref().map_or("-1", StreamOffset::as_str)
    }
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.query())?;
        if self.skip > 0 { write!(f, ",{}", self.skip) } else { Ok(()) }
    }
}

/// A text that is no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no position; write an offset that a server returned, or -1 for the beginning")]
pub struct InvalidPosition(pub String);

impl FromStr for StreamPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let invalid = || InvalidPosition(text.to_owned());
        let (offset, skip) = match text.split_once(',') {
            None => (text, 0),
            Some((offset, skip)) => (offset, skip.parse().map_err(|_| invalid())?),
        };
        let offset = match offset {
            "-1" => None,
            offset => Some(StreamOffset::new(offset).ok_or_else(invalid)?),
        };
        Ok(StreamPosition { offset, skip })
    }
}

/// Where a read begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// The first byte of the stream.
    #[default]
    Start,
    /// The tail at the moment of the first request: nothing that is stored already.
    Now,
    /// Where an earlier read ended.
    Position(StreamPosition),
}

impl From<StreamPosition> for StartFrom {
    fn from(position: StreamPosition) -> Self {
        StartFrom::Position(position)
    }
}

impl From<StreamOffset> for StartFrom {
    fn from(offset: StreamOffset) -> Self {
        StartFrom::Position(StreamPosition::at(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text() {
        for text in ["-1", "-1,7", "0000000000000000_0000000000000007", "7-a,12"] {
            let position: StreamPosition = text.parse().unwrap();
            assert_eq!(position.to_string(), text);
        }
        for bad in ["", "now", "a,", "a,b", ",1", "a b", "a,1,2", "a&b", "-1,-1"] {
            assert!(bad.parse::<StreamPosition>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_position_grows_within_its_page() {
        let offset = StreamOffset::new("7").unwrap();
        let position = StreamPosition::at(offset.clone()).plus(3).plus(4);
        assert_eq!((position.offset(), position.skip()), (Some(&offset), 7));
        assert_eq!(position.to_string(), "7,7");
    }
}
