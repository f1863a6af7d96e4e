//! The memtable: events that are durable in the log but not yet in the index, and a cache of stream tails.
//!
//! Invariants
//! - A stream's events stay here until the checkpoint that folded them in has committed. So the index, which has
//!   a stream up to some event `C`, and the events here after `C` are together the whole stream; see `snapshot`.
//! - The cached bytes of a stream have no gap and end at its durable tail.
//! - Nothing in this module does I/O. A lock is held for one stream or a bounded number of streams at a time.

mod names;
mod producers;
mod reads;
mod shard;
mod tail_cache;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use durable_streams_protocol::{StreamEvent, StreamId};
use parking_lot::Mutex;

use self::{
    names::NameChange,
    shard::{MemtableEntry, MemtableShard, PendingEvent},
};
use super::{index::checkpoint::StreamEvents, wal::Lsn};
use crate::store::{EventPlace, ShrinkSparse};

pub(super) use names::UnindexedNames;
pub(super) use reads::{ReadGuard, StaleRead};

const SHARDS: usize = 64;
/// Streams examined under one lock when idle memory is released.
const STREAMS_PER_LOCK: usize = 256;
/// Events of one stream evicted under one lock.
const EVENTS_PER_LOCK: usize = 1024;
/// Memory of an event beside its payload, bytes, roughly.
const EVENT_COST: usize = 256;
/// Memory of a new stream until a checkpoint, bytes, roughly: its names, and the tables that find them.
const CREATED_COST: usize = 1024;
/// A checkpoint writes one state per changed stream; this many bytes of events are worth one state.
const BYTES_PER_STATE: usize = 4 << 10;

pub(super) struct Memtable {
    shards: Box<[Mutex<MemtableShard>]>,
    /// Paths, forks and deadlines.
    pub(super) names: Mutex<UnindexedNames>,
    /// Held while a batch is published, so that a checkpoint begins between two batches.
    front: Mutex<PublishedFront>,
    /// Bytes of memory that only a checkpoint can free.
    pending: AtomicUsize,
    /// Streams with events since the last [`seal`](Self::seal), roughly.
    dirty: AtomicUsize,
    /// Cached bytes that are in the index, too, which each shard may keep.
    shard_budget: usize,
    /// A seqlock's counter: odd while the events of a committed checkpoint are evicted, even otherwise.
    evictions: AtomicU64,
    /// Counts the calls of [`release_idle`](Self::release_idle).
    idle_round: AtomicU32,
    last_id: AtomicU64,
    streams: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Clone, Copy)]
struct PublishedFront {
    /// The last event that readers see.
    lsn: Lsn,
    /// The number of the checkpoint that published events will belong to.
    generation: u64,
}

/// The events that a checkpoint folds in.
pub(super) struct SealedEvents {
    /// The last of them.
    pub(super) lsn: Lsn,
    /// Every stream that has some of them; the list may have others.
    pub(super) dirty: Vec<StreamId>,
}

impl Memtable {
    pub(super) fn new(lsn: Lsn, next_id: u64, streams: u64, bytes: u64, cache: usize) -> Self {
        Memtable {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            names: Mutex::default(),
            front: Mutex::new(PublishedFront { lsn, generation: 1 }),
            pending: AtomicUsize::new(0),
            dirty: AtomicUsize::new(0),
            shard_budget: cache / SHARDS,
            evictions: AtomicU64::new(0),
            idle_round: AtomicU32::new(0),
            last_id: AtomicU64::new(next_id.max(1) - 1),
            streams: AtomicU64::new(streams),
            bytes: AtomicU64::new(bytes),
        }
    }

    fn shard(&self, id: StreamId) -> &Mutex<MemtableShard> {
        &self.shards[id.0 as usize % SHARDS]
    }

    pub(super) fn next_id(&self) -> StreamId {
        StreamId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Makes the next `room` ids have growing incarnations.
    pub(super) fn reserve_incarnations(&self, room: u64) {
        let next = StreamId(self.last_id.load(Ordering::Relaxed) + 1).with_room(room);
        self.last_id.store(next.0 - 1, Ordering::Relaxed);
    }

    /// The last event that readers see.
    pub(super) fn lsn(&self) -> Lsn {
        self.front.lock().lsn
    }

    /// Streams that changed since the last seal, roughly.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.load(Ordering::Relaxed)
    }

    /// Memory that only a checkpoint can free, bytes.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint is worth its cost: the pending events take a quarter of `most` and
    /// [`BYTES_PER_STATE`] for each changed stream, or `most` in any case.
    ///
    /// Small checkpoints delay the log's syncs the least, and what they fold in is still in the processor's
    /// cache. But when appends go round many streams, small checkpoints would write each state again and again.
    ///
    /// Measured: 25,000 -> 500 page faults a second (docs/benchmarks.md).
    pub(super) fn is_due(&self, most: usize) -> bool {
        let states = self.dirty.load(Ordering::Relaxed).saturating_mul(BYTES_PER_STATE);
        self.pending() > most.min((most / 4).saturating_add(states))
    }

    /// Streams and their payload bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.streams.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Shows durable events to readers. `first` is the LSN of the first of them.
    pub(super) fn publish(
        &self,
        first: Lsn,
        events: impl Iterator<Item = (StreamId, EventPlace, StreamEvent)>,
    ) {
        let mut front = self.front.lock();
        let (mut cost, mut dirty) = (0, 0);
        let mut next = first;
        for (id, place, event) in events {
            cost += cost_of(&event);
            dirty += usize::from(self.publish_one(front.generation, next, (id, place), event));
            next += 1;
        }
        front.lsn = next - 1;
        self.dirty.fetch_add(dirty, Ordering::Relaxed);
        self.pending.fetch_add(cost, Ordering::Relaxed);
    }

    /// Returns whether this is the stream's first event since the last [`seal`](Self::seal).
    fn publish_one(
        &self,
        generation: u64,
        lsn: Lsn,
        (id, place): (StreamId, EventPlace),
        event: StreamEvent,
    ) -> bool {
        self.last_id.fetch_max(id.0, Ordering::Relaxed);
        let mut guard = self.shard(id).lock();
        let shard = &mut *guard;
        let entry = shard.entries.entry(id).or_insert_with(|| MemtableEntry::at(place.position));
        let first = entry.generation != generation;
        if first {
            entry.generation = generation;
            shard.dirty.push(id);
        }
        match &event {
            StreamEvent::Created(created) => {
                if created.content_type.is_json() {
                    // Nothing of a new stream is clean.
                    entry.tail.note_json();
                }
                self.streams.fetch_add(1, Ordering::Relaxed);
            }
            StreamEvent::Deleted { .. } => {
                shard.clean -= entry.tail.clear();
                entry.deleted = true;
                self.streams.fetch_sub(1, Ordering::Relaxed);
            }
            StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Trimmed(_)
            | StreamEvent::ExpiryChanged { .. }
            | StreamEvent::Marked { .. } => {}
        }
        if let Some(data) = event.data() {
            entry.tail.push(data.clone());
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        entry.producers.note(lsn, &event);
        let change = NameChange::of(&event);
        entry.pending.push_back(PendingEvent { lsn, event, end: entry.tail.end() });
        if let Some(change) = change {
            // The stream is published before its name, so a reader that finds the name finds the stream.
            drop(guard);
            self.names.lock().add(lsn, id, change);
        }
        first
    }

    /// Begins a checkpoint, between two batches: returns the events that it is to fold in.
    pub(super) fn seal(&self) -> SealedEvents {
        let mut front = self.front.lock();
        front.generation += 1;
        self.dirty.store(0, Ordering::Relaxed);
        let mut dirty = Vec::new();
        for shard in &self.shards {
            dirty.append(&mut shard.lock().dirty);
        }
        dirty.sort_unstable();
        dirty.dedup();
        SealedEvents { lsn: front.lsn, dirty }
    }

    /// Undoes [`seal`](Self::seal) after a failed checkpoint: its streams are dirty again.
    pub(super) fn reopen(&self, dirty: Vec<StreamId>) {
        self.dirty.fetch_add(dirty.len(), Ordering::Relaxed);
        for id in dirty {
            self.shard(id).lock().dirty.push(id);
        }
    }

    /// Bytes of a stream that the index does not have.
    pub(super) fn unindexed(&self, id: StreamId) -> u64 {
        let shard = self.shard(id).lock();
        shard.entries.get(&id).map_or(0, |entry| entry.tail.unindexed())
    }

    /// A stream's events up to `upto`.
    pub(super) fn events(&self, id: StreamId, upto: Lsn) -> StreamEvents {
        let shard = self.shard(id).lock();
        let Some(entry) = shard.entries.get(&id) else { return StreamEvents::new() };
        let some = entry.pending.partition_point(|pending| pending.lsn <= upto);
        entry.pending.range(..some).map(PendingEvent::to_fold).collect()
    }

    /// Ends a committed checkpoint: evicts the events of `ids` up to `upto`, which the index has now, and keeps
    /// their bytes in the tail cache while there is room. `json`, in order, are JSON streams. `freed` payload bytes were
    /// deleted with their streams, or trimmed.
    pub(super) fn evict_folded(&self, ids: &[StreamId], json: &[StreamId], upto: Lsn, freed: u64) {
        self.evictions.fetch_add(1, Ordering::AcqRel);
        for id in ids {
            let json = json.binary_search(id).is_ok();
            while self.evict_some(*id, json, upto) {}
        }
        self.evictions.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        for shard in &self.shards {
            shard.lock().shrink();
        }
        self.names.lock().shrink();
    }

    /// Evicts cached bytes that were neither checkpointed nor read since the previous call. The index has them,
    /// and the page cache may have them.
    ///
    /// Measured: part of 630 -> 25 bytes per idle stream (docs/benchmarks.md).
    pub(super) fn release_idle(&self) {
        let ended = self.idle_round.fetch_add(1, Ordering::Relaxed);
        for shard in &self.shards {
            let mut left = shard.lock().ring_len();
            while left > 0 {
                let some = left.min(STREAMS_PER_LOCK);
                shard.lock().evict_where(some, |entry| entry.idle_round < ended);
                left -= some;
            }
            shard.lock().shrink();
        }
    }

    /// Evicts some of a stream's events, oldest first, so that its lock is never held for all of them. Returns
    /// whether there may be more.
    fn evict_some(&self, id: StreamId, json: bool, upto: Lsn) -> bool {
        let mut guard = self.shard(id).lock();
        let shard = &mut *guard;
        let Some(entry) = shard.entries.get_mut(&id) else { return false };
        let all = entry.pending.partition_point(|pending| pending.lsn <= upto);
        let some: Vec<_> = entry.pending.drain(..all.min(EVENTS_PER_LOCK)).collect();
        entry.pending.shrink_if_sparse();
        entry.producers.forget(&some, entry.pending.is_empty());
        if let Some(last) = some.last() {
            if json {
                shard.clean -= entry.tail.note_json();
            }
            shard.clean += entry.tail.mark_indexed(last.end);
            entry.idle_round = self.idle_round.load(Ordering::Relaxed);
        }
        shard.after_eviction(id, self.shard_budget);
        drop(guard);
        let cost = some.iter().map(|pending| cost_of(&pending.event)).sum();
        self.pending.fetch_sub(cost, Ordering::Relaxed);
        let mut changes = some
            .iter()
            .filter_map(|pending| Some((pending.lsn, NameChange::of(&pending.event)?)))
            .peekable();
        if changes.peek().is_some() {
            let mut names = self.names.lock();
            changes.for_each(|(lsn, change)| names.remove(lsn, id, change));
        }
        all > some.len()
    }
}

fn cost_of(event: &StreamEvent) -> usize {
    let data = event.data().map_or(0, Bytes::len);
    match event {
        StreamEvent::Created(_) => CREATED_COST + data,
        StreamEvent::Appended(_)
        | StreamEvent::Touched { .. }
        | StreamEvent::SoftDeleted { .. }
        | StreamEvent::Deleted { .. }
        | StreamEvent::Trimmed(_)
        | StreamEvent::ExpiryChanged { .. }
        | StreamEvent::Marked { .. } => EVENT_COST + data,
    }
}
