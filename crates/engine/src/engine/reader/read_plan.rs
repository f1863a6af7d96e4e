//! What is left to read of a planned range.

use bytes::Bytes;
use durable_streams_protocol::Offset;

use super::ReadSlice;
use crate::store::FilePart;

/// A range of a stream that is read piece by piece.
///
/// The bytes are those of one stream, whatever is created at its path meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPlan {
    /// The first piece, until it is taken.
    pub(super) first: Vec<Bytes>,
    /// Where the piece after it begins.
    pub(super) next: Offset,
    pub(super) end: Offset,
    /// What begins at `next`, where that lies in a file.
    pub(super) part: Option<FilePart>,
}

impl ReadPlan {
    /// The position after the range.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Bytes that were not taken yet.
    pub fn len(&self) -> u64 {
        let first: usize = self.first.iter().map(Bytes::len).sum();
        first as u64 + self.end.position().saturating_sub(self.next.position())
    }

    /// Whether there is nothing left to take.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first piece is all there is.
    pub fn is_one_piece(&self) -> bool {
        self.next >= self.end
    }

    /// Whether nothing was read, as what comes first can be sent from a file.
    pub fn is_in_file(&self) -> bool {
        self.part.is_some()
    }

    /// Leaves out the last `bytes` bytes. The end is a position then: it may lie before the fork point.
    pub fn cut(&mut self, bytes: u64) {
        self.end = Offset::new(self.end.position().saturating_sub(bytes));
        let mut first = self.take_first();
        first.cut(self.next.position().saturating_sub(self.end.position()) as usize);
        self.next = self.next.min(self.end);
        self.first = first.chunks;
        self.part = None;
    }

    /// Passes over the last byte, which the caller sends by itself; only where nothing else is left.
    pub fn skip_last(&mut self) {
        self.drop_first();
        self.part = None;
        self.next = self.end;
    }

    /// Puts back the last `bytes` bytes of the pieces that were taken: the next piece begins with them.
    pub fn put_back(&mut self, bytes: u64) {
        self.drop_first();
        self.part = None;
        self.next = Offset::new(self.next.position().saturating_sub(bytes));
    }

    /// Drops the first piece, unless it was taken, from memory. It is read again when it is asked for.
    pub fn drop_first(&mut self) {
        let first: usize = self.first.iter().map(Bytes::len).sum();
        self.first = Vec::new();
        self.next = Offset::new(self.next.position().saturating_sub(first as u64));
    }

    /// Takes the first piece.
    pub fn take_first(&mut self) -> ReadSlice {
        ReadSlice { chunks: std::mem::take(&mut self.first), end: self.next }
    }
}
