//! The bytes of one stream in memory.

use bytes::Bytes;
use durable_streams_protocol::Offset;

use crate::store::ShrinkSparse;

/// A stream's own bytes as the pieces that were appended, each with the position of its start, without gaps. Trims cut the
/// first ones off.
#[derive(Default)]
pub(super) struct StreamChunks(Vec<(u64, Bytes)>);

impl StreamChunks {
    pub(super) fn push(&mut self, start: Offset, data: Bytes) {
        if !data.is_empty() {
            self.0.push((start.position(), data));
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(_, data)| data.len() as u64).sum()
    }

    /// Drops the bytes before `kept`. Returns how many.
    pub(super) fn trim(&mut self, kept: Offset) -> u64 {
        let before = self.len();
        let whole =
            self.0.partition_point(|(start, data)| start + data.len() as u64 <= kept.position());
        self.0.drain(..whole);
        self.0.shrink_if_sparse();
        if let Some((start, data)) = self.0.first_mut()
            && *start < kept.position()
        {
            // Trims lie between appends; format 1 alone did not keep where those end.
            let _ = data.split_to((kept.position() - *start) as usize);
            *start = kept.position();
        }
        before - self.len()
    }

    /// The end of the last append after `from` and up to `limit`, else of the next one; at most `to`.
    pub(super) fn append_end(&self, from: Offset, to: Offset, limit: Offset) -> Option<Offset> {
        let end_of = |(start, data): &(u64, Bytes)| Offset::new(start + data.len() as u64);
        let next = self.0.partition_point(|piece| end_of(piece) <= limit);
        let last = next.checked_sub(1).and_then(|last| self.0.get(last)).map(end_of);
        let end = last.filter(|last| *last > from).or_else(|| self.0.get(next).map(end_of))?;
        Some(end.min(to))
    }

    pub(super) fn read(&self, from: Offset, to: Offset, max: usize) -> Vec<Bytes> {
        let (from, to) = (from.position(), to.position());
        if self.0.first().is_none_or(|(start, _)| from < *start) {
            // Nothing is there, or it was trimmed.
            return Vec::new();
        }
        let first = self.0.partition_point(|(start, data)| start + data.len() as u64 <= from);
        let mut pieces = Vec::new();
        let mut room = max;
        for (start, data) in self.0.iter().skip(first) {
            if *start >= to || room == 0 {
                break;
            }
            let skip = from.saturating_sub(*start) as usize;
            let until = (to - start).min(data.len() as u64) as usize;
            let end = until.min(skip.saturating_add(room));
            room -= end - skip;
            pieces.push(data.slice(skip..end));
        }
        pieces
    }
}
