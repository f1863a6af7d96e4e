//! Reads of the memtable, and of the memtable on top of a snapshot of the index.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamEvent, StreamId, StreamState};

use super::{Memtable, shard::PendingEvent, tail_cache::TailCache};
use crate::store::file::wal::Lsn;

/// Events that a reader needs were evicted during its read, because the index has them now; read again.
#[derive(Debug)]
pub(in crate::store::file) struct StaleRead;

/// The seqlock's counter when a read began; see [`Memtable::begin_read`].
#[derive(Clone, Copy)]
pub(in crate::store::file) struct ReadGuard(u64);

impl Memtable {
    /// A stream's bytes from the tail cache; `None` when the index must be read.
    pub(in crate::store::file) fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Option<Vec<Bytes>> {
        let mut shard = self.shard(id).lock();
        let entry = shard.entries.get_mut(&id)?;
        entry.used = true;
        entry.idle_round = self.idle_round.load(Ordering::Relaxed);
        entry.tail.read(from, to, max)
    }

    /// The end of the last append after `from` and up to `limit`, else of the next one; at most `to`, which is after
    /// `limit`. Returns `None` when the tail cache does not know.
    pub(in crate::store::file) fn append_end(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        limit: Offset,
    ) -> Option<Offset> {
        self.shard(id).lock().entries.get(&id)?.tail.append_end(from, to, limit)
    }

    /// Whether a stream has events that the index does not have.
    pub(in crate::store::file) fn has_pending(&self, id: StreamId) -> bool {
        let shard = self.shard(id).lock();
        shard.entries.get(&id).is_some_and(|entry| !entry.pending.is_empty())
    }

    /// Begins a read of index and memtable. The caller takes its snapshot of the index after this call, and
    /// calls [`validate`](Self::validate) at the end: when that succeeds, no event was missing in both.
    pub(in crate::store::file) fn begin_read(&self) -> ReadGuard {
        ReadGuard(self.evictions.load(Ordering::Acquire))
    }

    /// Fails when events were evicted since `guard` whose commit the reader's snapshot of the index may lack.
    pub(in crate::store::file) fn validate(&self, guard: ReadGuard) -> Result<(), StaleRead> {
        let now = self.evictions.load(Ordering::Acquire);
        if now > guard.0 + (guard.0 & 1) { Err(StaleRead) } else { Ok(()) }
    }

    /// Applies the events after `after` to the state that the index has, or begins a state with the stream's
    /// `Created` event. Returns `None` when the stream is unknown or deleted.
    pub(in crate::store::file) fn fold(
        &self,
        guard: ReadGuard,
        id: StreamId,
        after: Lsn,
        base: Option<StreamState>,
    ) -> Result<Option<StreamState>, StaleRead> {
        let mut locked = self.shard(id).lock();
        self.validate(guard)?;
        let shard = &mut *locked;
        let Some(entry) = shard.entries.get_mut(&id) else { return Ok(base) };
        if entry.deleted {
            return Ok(None);
        }
        let mut state = base;
        for pending in entry.pending.iter().filter(|pending| pending.lsn > after) {
            state = StreamState::fold(state, id, &pending.event);
        }
        if state.as_ref().is_some_and(|state| state.core.content_type.is_json()) {
            shard.clean -= entry.tail.note_json();
        }
        Ok(state)
    }

    /// Whether events or bytes of a stream are here.
    pub(in crate::store::file) fn has(&self, id: StreamId) -> bool {
        self.shard(id).lock().entries.contains_key(&id)
    }

    /// Caches a stream's own bytes, all of them, and the lengths of its appends, as far as they are known, unless the
    /// memtable has something of the stream.
    pub(in crate::store::file) fn cache_indexed(
        &self,
        guard: ReadGuard,
        state: &StreamState,
        bytes: Bytes,
        lens: &[u8],
    ) -> Result<(), StaleRead> {
        let id = state.core.id;
        let mut shard = self.shard(id).lock();
        self.validate(guard)?;
        if !shard.entries.contains_key(&id) {
            let round = self.idle_round.load(Ordering::Relaxed);
            let cache = TailCache::indexed(state, bytes, lens);
            shard.insert_clean(id, cache, round, self.shard_budget);
        }
        Ok(())
    }

    /// Whether the stream's `Created` event is here, so that the index has nothing of it.
    pub(in crate::store::file) fn begins_here(&self, id: StreamId) -> bool {
        let shard = self.shard(id).lock();
        let first = shard.entries.get(&id).and_then(|entry| entry.pending.front());
        matches!(first, Some(PendingEvent { event: StreamEvent::Created(_), .. }))
    }
}

impl ReadGuard {
    /// Whether no events were being evicted when the read began.
    pub(in crate::store::file) fn is_stable(self) -> bool {
        self.0 & 1 == 0
    }
}
