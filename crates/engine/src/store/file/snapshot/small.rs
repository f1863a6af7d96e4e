//! Small streams, whose bytes enter the tail cache when they are looked at, so that one look serves the read that follows.

use bytes::Bytes;
use durable_streams_protocol::{StreamId, StreamState};

use super::{SnapshotReads, StoreSnapshot, bytes::FoundPiece};
use crate::store::{
    StoreError,
    file::{index::records::IndexPiece, memtable::ReadGuard},
};

/// The bytes of a stream with no more than this in the index and in segments enter the tail cache when the stream is read.
///
/// Measured: one look instead of two for a cold read of a small stream (docs/benchmarks.md, cold catch-up).
const SMALL: u64 = 16 << 10;

/// Where the bytes of a small stream are, all that it keeps, and what the tail cache needs to take them.
pub(super) struct SmallStream {
    pieces: Vec<IndexPiece>,
    /// The lengths of its appends, as far as they are known.
    lens: Vec<u8>,
    /// Of the read that found it.
    guard: ReadGuard,
}

impl SnapshotReads<'_> {
    /// Caches the bytes of a stream if it is small, where the reads that follow find them.
    pub(super) fn cache_small(&self, id: StreamId) -> Result<(), StoreError> {
        let found = self.consistent(|snapshot| {
            let Some(state) = snapshot.state(id)? else { return Ok(None) };
            let small = snapshot.small(&state);
            Ok(Some((state, small)))
        })?;
        if let Some((state, small)) = found {
            self.cache(&state, small);
        }
        Ok(())
    }

    /// Reads what is in segment files, now that the transaction has ended, and caches the whole. Damage is an error only
    /// for a caller that reads these bytes, and what has changed since the look is not cached.
    pub(super) fn cache(&self, state: &StreamState, small: Option<SmallStream>) {
        let Some(SmallStream { pieces, lens, guard }) = small else { return };
        let Ok(pieces) = self.fetch(pieces) else { return };
        let local = pieces.into_iter().map(|piece| match piece {
            FoundPiece::Bytes(bytes) => Some(bytes),
            FoundPiece::Object { .. } => None,
        });
        let Some(bytes) = local.collect::<Option<Vec<Bytes>>>() else { return };
        let bytes = match <[Bytes; 1]>::try_from(bytes) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat().into(),
        };
        if state.first_kept().position() + bytes.len() as u64 == state.tail.position() {
            let _ = self.memtable.cache_indexed(guard, state, bytes, &lens);
        }
    }
}

impl StoreSnapshot<'_> {
    /// Where the bytes of a stream are, if they are few, and neither in the memtable nor in an object.
    pub(super) fn small(&self, state: &StreamState) -> Option<SmallStream> {
        let (id, start, tail) = (state.core.id, state.first_kept(), state.tail);
        let len = tail.position().saturating_sub(start.position());
        if len == 0 || len > SMALL || self.memtable.has(id) {
            return None;
        }
        // Damage is an error only for a caller that reads these bytes.
        let pieces = self.txn.pieces(id, start, tail, len as usize).ok()?;
        if pieces.iter().any(IndexPiece::is_in_object) {
            return None;
        }
        let json = state.core.content_type.is_json();
        let lens = if json { Vec::new() } else { self.txn.append_lens(state).ok()? };
        Some(SmallStream { pieces, lens, guard: self.guard })
    }
}
