//! A shard of the memtable: some of its streams, behind one lock, and the clock that evicts their cached bytes.

use std::collections::VecDeque;

use durable_streams_protocol::{StreamEvent, StreamId};
use rustc_hash::FxHashMap;

use super::{producers::PendingProducers, tail_cache::TailCache};
use crate::store::{
    ShrinkSparse,
    file::{index::checkpoint::LoggedChange, wal::Lsn},
};

/// Memory of a cached stream beside its bytes, bytes, roughly: an entry of a table that is partly empty, a place in the
/// ring, a list of pieces, and the rest of the request buffer that the bytes came in.
pub(super) const CACHED_COST: usize = 640;

#[derive(Default)]
pub(super) struct MemtableShard {
    pub(super) entries: FxHashMap<StreamId, MemtableEntry>,
    /// Streams with events since the last seal.
    pub(super) dirty: Vec<StreamId>,
    /// Streams with clean bytes, in the order in which the clock examines them when room is needed.
    ring: VecDeque<StreamId>,
    /// What the clean bytes of the streams in `ring` take, and the ends of appends in them.
    pub(super) clean: usize,
}

#[derive(Default)]
pub(super) struct MemtableEntry {
    pub(super) pending: VecDeque<PendingEvent>,
    pub(super) tail: TailCache,
    /// The seal's generation under which this stream was last put into `dirty`.
    pub(super) generation: u64,
    in_ring: bool,
    /// Read since the clock last passed.
    pub(super) used: bool,
    /// The idle round in which it was last read, or its bytes were checkpointed.
    pub(super) idle_round: u32,
    pub(super) deleted: bool,
    pub(super) producers: PendingProducers,
}

/// An event that the index may not have.
pub(super) struct PendingEvent {
    pub(super) lsn: Lsn,
    pub(super) event: StreamEvent,
    /// The position of the stream's tail after this event.
    pub(super) end: u64,
}

impl PendingEvent {
    pub(super) fn to_fold(&self) -> LoggedChange {
        let bytes = self.event.data().map_or(0, |data| data.len() as u64);
        LoggedChange { lsn: self.lsn, from: self.end - bytes, event: self.event.clone() }
    }
}

impl MemtableEntry {
    /// Of a stream that ends at `tail`.
    pub(super) fn at(tail: u64) -> Self {
        MemtableEntry { tail: TailCache::at(tail), ..MemtableEntry::default() }
    }
}

impl MemtableShard {
    /// Shrinks tables that many streams once filled.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_if_sparse();
        self.ring.shrink_if_sparse();
    }

    /// Inserts a stream with clean bytes only; it must not be here.
    pub(super) fn insert_clean(
        &mut self,
        id: StreamId,
        tail: TailCache,
        idle_round: u32,
        budget: usize,
    ) {
        self.clean += tail.clean_len();
        self.ring.push_back(id);
        let entry = MemtableEntry { tail, idle_round, in_ring: true, ..MemtableEntry::default() };
        self.entries.insert(id, entry);
        self.make_room(budget);
    }

    /// Updates the ring after events of a stream were evicted: its bytes are clean now, if it has any.
    pub(super) fn after_eviction(&mut self, id: StreamId, budget: usize) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.pending.is_empty() && entry.tail.is_empty() {
            self.entries.remove(&id);
        } else if !entry.in_ring {
            entry.in_ring = true;
            self.ring.push_back(id);
        }
        self.make_room(budget);
    }

    /// Evicts clean bytes that were not read lately until the rest fits: a stream that was read since the clock
    /// last passed is spared once.
    fn make_room(&mut self, budget: usize) {
        if self.ring.len() > 2 * self.entries.len() + 16 {
            self.ring.retain(|id| self.entries.contains_key(id));
        }
        while self.clean + self.ring.len() * CACHED_COST > budget && !self.ring.is_empty() {
            self.advance_clock(|entry| !std::mem::take(&mut entry.used));
        }
    }

    /// Length of the ring, in which some streams may be gone already.
    pub(super) fn ring_len(&self) -> usize {
        self.ring.len()
    }

    /// Examines the next `some` streams of the ring and evicts the clean bytes of those that are `unwanted`.
    pub(super) fn evict_where(&mut self, some: usize, unwanted: impl Fn(&MemtableEntry) -> bool) {
        for _ in 0..some {
            self.advance_clock(|entry| unwanted(entry));
        }
    }

    /// Takes the next stream of the ring: evicts its clean bytes if it is `unwanted`, else puts it last.
    fn advance_clock(&mut self, unwanted: impl Fn(&mut MemtableEntry) -> bool) {
        let Some(id) = self.ring.pop_front() else { return };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if !unwanted(entry) {
            self.ring.push_back(id);
            return;
        }
        self.clean -= entry.tail.drop_clean();
        if entry.tail.is_empty() && entry.pending.is_empty() {
            self.entries.remove(&id);
        } else {
            entry.in_ring = false;
        }
    }
}
