//! One linked stream: how far it is processed, and how far it goes.

use super::LinkRecord;
use crate::{Offset, StreamId, StreamPath};

/// A stream as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Which stream.
    pub stream: StreamId,
    /// Its durable tail.
    pub tail: Offset,
}

/// A position in one stream: everything before it is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which stream.
    pub stream: StreamId,
    /// Where.
    pub acked: Offset,
}

/// A linked stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// By name, not only by the pattern.
    pub explicit: bool,
    /// What the log says; about an earlier stream when the one at this path was deleted since.
    pub cursor: Option<Cursor>,
    /// What is at the path now; `None` when nothing is.
    pub live: Option<Live>,
}

impl Link {
    /// The cursor in the stream that is there now; zero in one that was created after the link.
    pub fn acked(&self) -> Offset {
        match (self.cursor, self.live) {
            (Some(cursor), Some(live)) if cursor.stream == live.stream => cursor.acked,
            _ => Offset::ZERO,
        }
    }

    /// The durable tail; zero where no stream is.
    pub fn tail(&self) -> Offset {
        self.live.map_or(Offset::ZERO, |live| live.tail)
    }

    /// Whether there is work.
    pub fn is_pending(&self) -> bool {
        self.tail() > self.acked()
    }

    pub(super) fn link_type(&self) -> &'static str {
        if self.explicit { "explicit" } else { "glob" }
    }

    /// What must be remembered of a link; `None` when the pattern alone gives it back.
    pub(super) fn record(&self, path: &StreamPath) -> Option<LinkRecord> {
        let cursor = self.cursor.map(|cursor| (cursor.stream, cursor.acked));
        (self.explicit || cursor.is_some()).then(|| LinkRecord {
            path: path.clone(),
            explicit: self.explicit,
            cursor,
        })
    }
}
