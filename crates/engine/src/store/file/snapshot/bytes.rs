//! A stream's own bytes: from the tail cache, from chunks, from segment files.

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamId};

use super::SnapshotReads;
use crate::store::{
    FilePart, StoreError,
    file::{index::records::IndexPiece, segments::files::SegmentReadError},
};

impl SnapshotReads<'_> {
    /// Own bytes of a stream, from the tail cache or from the index.
    pub(in crate::store::file) fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.consistent(|snapshot| {
            let state = snapshot.state(id)?;
            state.as_ref().map_or(Ok(()), |state| snapshot.cache_small(state))
        })?;
        if let Some(found) = self.memtable.read(id, from, to, max) {
            return Ok(found);
        }
        let mut missing = None;
        loop {
            let pieces = self.index_pieces(id, from, to, max)?;
            match self.fetch(pieces) {
                // It was removed with the stream, or its bytes have moved, since the index was read: look again.
                Err((file, SegmentReadError::Missing(_))) if missing != Some(file) => {
                    missing = Some(file);
                }
                Err((_, error)) => return Err(error.into_error()),
                Ok(bytes) => return Ok(bytes),
            }
        }
    }

    /// Reads what is in segment files, without a transaction.
    fn fetch(&self, pieces: Vec<IndexPiece>) -> Result<Vec<Bytes>, (u64, SegmentReadError)> {
        let fetch = |piece| match piece {
            IndexPiece::Chunks(bytes) => Ok(bytes),
            IndexPiece::Segment { extent, footer_crc, from, len } => {
                let read = self.segments.read(&extent, footer_crc, from, len);
                read.map_err(|error| (extent.file, error))
            }
        };
        pieces.into_iter().map(fetch).collect()
    }

    /// See [`Store::file_part`](crate::store::Store::file_part).
    pub(in crate::store::file) fn file_part(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Option<FilePart>, StoreError> {
        let mut missing = None;
        loop {
            let piece = self.index.read()?.segment_piece(id, from, to, max)?;
            let Some((extent, footer_crc, len)) = piece else { return Ok(None) };
            match self.segments.part(&extent, footer_crc, from.position(), len) {
                Err(SegmentReadError::Missing(_)) if missing != Some(extent.file) => {
                    missing = Some(extent.file);
                }
                part => return part.map_err(SegmentReadError::into_error),
            }
        }
    }

    /// Own bytes of a stream as of the index's last event.
    fn index_pieces(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<IndexPiece>, StoreError> {
        let reading = self.index.read()?;
        let pieces = reading.pieces(id, from, to, max)?;
        if pieces.is_empty() && max > 0 && from < to {
            // A deleted stream may have no bytes; one that exists has all from the first that it keeps to its tail.
            let there = reading.state(id)?.filter(|state| from < state.tail);
            if let Some(state) = there.filter(|state| from >= state.first_kept()) {
                let what = format!(
                    "the bytes of {} (stream {}) from {}",
                    state.core.path,
                    id.0,
                    from.position()
                );
                return Err(self.index.missing(&what));
            }
        }
        Ok(pieces)
    }
}
