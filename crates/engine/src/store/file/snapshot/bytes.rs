//! A stream's own bytes: from the tail cache, from chunks, from segment files.

use std::ops::Range;

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamId};

use super::SnapshotReads;
use crate::store::{
    FilePart, MessageForm, StoreError,
    file::{
        index::{
            extents::{ExtentRecord, SegmentPlace, SegmentRecord},
            records::IndexPiece,
        },
        segments::{cold::SealedFile, files::SegmentReadError, objects::SegmentInfo},
    },
};

/// A part of a stream's own bytes, or where it is.
pub(in crate::store::file) enum FoundPiece {
    Bytes(Bytes),
    /// In the object of a segment file, whose bytes only a caller that may wait reads.
    Object {
        file: SealedFile,
        range: Range<u64>,
    },
}

impl FoundPiece {
    /// `len` bytes of an extent from position `from` of its stream on.
    fn in_object(extent: &ExtentRecord, record: &SegmentRecord, from: u64, len: usize) -> Self {
        let at = extent.offset + (from - extent.start);
        let file = SegmentInfo::new(extent.file, record).sealed_file();
        FoundPiece::Object { file, range: at..at + len as u64 }
    }
}

/// What a segment file has, or the number of the file that could not be read.
type SegmentRead<T> = Result<T, (u64, SegmentReadError)>;

/// Looks a file up once more when it is missing: it was removed with its stream, or its bytes have moved, since the index
/// was read.
pub(super) fn present<T>(
    read: impl Fn() -> Result<SegmentRead<T>, StoreError>,
) -> Result<T, StoreError> {
    let mut missing = None;
    loop {
        match read()? {
            Err((file, SegmentReadError::Missing(_))) if missing != Some(file) => {
                missing = Some(file);
            }
            Err((_, error)) => return Err(error.into_error()),
            Ok(found) => return Ok(found),
        }
    }
}

impl SnapshotReads<'_> {
    /// Own bytes of a stream, from the tail cache or from the index. What is in objects is read by the caller.
    pub(in crate::store::file) fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<FoundPiece>, StoreError> {
        self.cache_small(id)?;
        if let Some(found) = self.memtable.read(id, from, to, max) {
            return Ok(found.into_iter().map(FoundPiece::Bytes).collect());
        }
        present(|| Ok(self.fetch(self.index_pieces(id, from, to, max)?)))
    }

    /// Reads what is in segment files, without a transaction.
    pub(super) fn fetch(&self, pieces: Vec<IndexPiece>) -> SegmentRead<Vec<FoundPiece>> {
        let fetch = |piece| match piece {
            IndexPiece::Chunks(bytes) => Ok(FoundPiece::Bytes(bytes)),
            IndexPiece::Segment { extent, record, from, len }
                if record.place == SegmentPlace::Object =>
            {
                Ok(FoundPiece::in_object(&extent, &record, from, len))
            }
            IndexPiece::Segment { extent, record, from, len } => {
                match self.segments.read_for_client(&extent, record.footer_crc, from, len) {
                    Ok(bytes) => Ok(FoundPiece::Bytes(bytes)),
                    // The object was read back whole when it was made.
                    Err(error) if record.place == SegmentPlace::Both => {
                        // A file that is not there may have been removed since the index was read.
                        if let SegmentReadError::Failed(error) = error {
                            tracing::error!(%error, "a local segment cannot be read; its object is read instead");
                        }
                        Ok(FoundPiece::in_object(&extent, &record, from, len))
                    }
                    Err(error) => Err((extent.file, error)),
                }
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
        form: MessageForm,
    ) -> Result<Option<FilePart>, StoreError> {
        present(|| {
            let look = self.segments.index_look();
            let piece = self.index.read()?.segment_piece(id, from, to, max)?;
            let local = piece.filter(|(_, record, len)| record.place.is_local() && *len > 0);
            let Some((extent, record, len)) = local else { return Ok(Ok(None)) };
            let range = from.position()..from.position() + len as u64;
            let part = self.segments.part(look, id, &extent, record.footer_crc, range, form);
            Ok(match part {
                // A read finds its object.
                Err(_) if record.place == SegmentPlace::Both => Ok(None),
                part => part.map_err(|error| (extent.file, error)),
            })
        })
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
