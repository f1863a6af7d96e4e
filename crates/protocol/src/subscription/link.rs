//! One linked stream: its cursor, and its current head.

use super::LinkRecord;
use crate::{Offset, StreamId, StreamPath};

/// A stream and its durable tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHead {
    pub stream: StreamId,
    pub tail: Offset,
}

/// A position in one stream: everything before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkCursor {
    /// Which stream.
    pub stream: StreamId,
    pub acked: Offset,
}

/// A linked stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether it is linked by name, not only by the pattern.
    pub explicit: bool,
    /// The cursor that the log holds. It is of an earlier stream when that one was deleted since.
    pub cursor: Option<LinkCursor>,
    /// The head of the stream at the path; `None` when there is no stream.
    pub head: Option<StreamHead>,
}

impl Link {
    /// The cursor in the current stream; zero in a stream that was created after the link.
    pub fn acked(&self) -> Offset {
        match (self.cursor, self.head) {
            (Some(cursor), Some(head)) if cursor.stream == head.stream => cursor.acked,
            _ => Offset::ZERO,
        }
    }

    /// The durable tail; zero without a stream.
    pub fn tail(&self) -> Offset {
        self.head.map_or(Offset::ZERO, |head| head.tail)
    }

    /// Whether the tail is past the cursor.
    pub fn is_pending(&self) -> bool {
        self.tail() > self.acked()
    }

    pub(super) fn link_type(&self) -> &'static str {
        if self.explicit { "explicit" } else { "glob" }
    }

    /// The record for the log; `None` when the pattern alone recreates the link.
    pub(super) fn record(&self, path: &StreamPath) -> Option<LinkRecord> {
        let cursor = self.cursor.map(|cursor| (cursor.stream, cursor.acked));
        (self.explicit || cursor.is_some()).then(|| LinkRecord {
            path: path.clone(),
            explicit: self.explicit,
            cursor,
        })
    }
}
