//! What is durable in the log but not yet in the index, and bytes that are worth keeping in memory.
//!
//! Invariants
//! - A stream's events stay here until the checkpoint that has them was committed. So the index as of its
//!   last event `C`, and the events here after `C`, are the whole stream; see `lookup`.
//! - A stream's bytes here have no gap and end at its durable tail. Where they begin is known once the
//!   stream's state was loaded, or when its creation is here; until then they cannot be read from here.
//! - Nothing in this module does I/O, and no lock is held for longer than one stream, or a few, take.

mod shard;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamEvent, StreamId, StreamState};
use parking_lot::Mutex;
use shard::{Pending, Shard};

use super::{hot::Hot, index::checkpoint::Events, names::Names, wal::Lsn};
use crate::store::Spare;

const SHARDS: usize = 64;
/// Streams that are looked at under one lock at leisure.
const AT_ONCE: usize = 256;
/// Events of a stream that are settled under one lock.
const EVENTS_AT_ONCE: usize = 1024;
/// What an event costs beside its payload, bytes, roughly.
const EVENT_COST: usize = 256;
/// What a stream that was created costs until a checkpoint: its names, and places to find them.
const CREATED_COST: usize = 1024;
/// A checkpoint may wait for this many bytes for each stream that it will write a state of.
const WORTH_A_STATE: usize = 4 << 10;

/// See the module.
pub(super) struct Recent {
    shards: Box<[Mutex<Shard>]>,
    /// Paths, forks and deadlines.
    pub(super) names: Mutex<Names>,
    /// The last published event, and the mark that dirty streams carry. Held while a batch is published,
    /// so that a checkpoint begins between two batches.
    front: Mutex<Front>,
    /// Bytes of memory that only a checkpoint can free.
    pending: AtomicUsize,
    /// Streams with events since the last mark, roughly.
    dirty: AtomicUsize,
    /// Clean bytes that each shard may keep.
    shard_budget: usize,
    /// Odd while a committed checkpoint's events are forgotten, even otherwise; only grows.
    settles: AtomicU64,
    /// Counts the calls of [`rest`](Self::rest).
    round: AtomicU32,
    last_id: AtomicU64,
    streams: AtomicU64,
    bytes: AtomicU64,
}

/// Events were forgotten meanwhile because the index has them now: look again.
#[derive(Debug)]
pub(super) struct Settled;

/// A moment before which nothing looked at has been forgotten; see [`Recent::begin`].
#[derive(Clone, Copy)]
pub(super) struct Begin(u64);

#[derive(Clone, Copy)]
struct Front {
    lsn: Lsn,
    mark: u64,
}

/// Where a checkpoint begins.
pub(super) struct Mark {
    /// The last event that belongs to it.
    pub(super) lsn: Lsn,
    /// The streams that have events up to there, and maybe others.
    pub(super) dirty: Vec<StreamId>,
}

impl Recent {
    pub(super) fn new(lsn: Lsn, next_id: u64, streams: u64, bytes: u64, cache: usize) -> Self {
        Recent {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            names: Mutex::default(),
            front: Mutex::new(Front { lsn, mark: 1 }),
            pending: AtomicUsize::new(0),
            dirty: AtomicUsize::new(0),
            shard_budget: cache / SHARDS,
            settles: AtomicU64::new(0),
            round: AtomicU32::new(0),
            last_id: AtomicU64::new(next_id.max(1) - 1),
            streams: AtomicU64::new(streams),
            bytes: AtomicU64::new(bytes),
        }
    }

    fn shard(&self, id: StreamId) -> &Mutex<Shard> {
        &self.shards[id.0 as usize % SHARDS]
    }

    pub(super) fn next_id(&self) -> StreamId {
        StreamId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The last event that readers can see.
    pub(super) fn lsn(&self) -> Lsn {
        self.front.lock().lsn
    }

    /// Memory that only a checkpoint can free, bytes.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint is worth its while: a quarter of `most` waits for it, with room for each stream that
    /// it will write a state of, or `most` in any case. Small checkpoints hold up the log's syncs the least, and
    /// what they fold in is still in the processor's cache; but going round many streams they would write each
    /// of them time and again.
    pub(super) fn is_due(&self, most: usize) -> bool {
        let states = self.dirty.load(Ordering::Relaxed).saturating_mul(WORTH_A_STATE);
        self.pending() > most.min((most / 4).saturating_add(states))
    }

    /// Streams and their payload bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.streams.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Shows durable events to readers. `first` is the number of the first of them.
    pub(super) fn publish(
        &self,
        first: Lsn,
        events: impl Iterator<Item = (StreamId, StreamEvent)>,
    ) {
        let mut front = self.front.lock();
        let (mut cost, mut dirty) = (0, 0);
        let mut next = first;
        for (id, event) in events {
            cost += cost_of(&event);
            dirty += usize::from(self.publish_one(front.mark, next, id, event));
            next += 1;
        }
        front.lsn = next - 1;
        self.dirty.fetch_add(dirty, Ordering::Relaxed);
        self.pending.fetch_add(cost, Ordering::Relaxed);
    }

    /// Gives whether this is the stream's first event since the last mark.
    fn publish_one(&self, mark: u64, lsn: Lsn, id: StreamId, event: StreamEvent) -> bool {
        self.last_id.fetch_max(id.0, Ordering::Relaxed);
        let mut guard = self.shard(id).lock();
        let shard = &mut *guard;
        let entry = shard.entries.entry(id).or_default();
        let first = entry.mark != mark;
        if first {
            entry.mark = mark;
            shard.dirty.push(id);
        }
        match &event {
            StreamEvent::Created(created) => {
                let start = created.fork.as_ref().map_or(Offset::ZERO, |fork| fork.position);
                entry.hot.begin(start);
                self.streams.fetch_add(1, Ordering::Relaxed);
            }
            StreamEvent::Deleted { .. } => {
                shard.clean -= entry.hot.clear();
                entry.deleted = true;
                self.streams.fetch_sub(1, Ordering::Relaxed);
            }
            StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. } => {}
        }
        if let Some(data) = event.data() {
            entry.hot.push(data.clone());
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if Names::has(&event) {
            // The stream first, its name second: who finds the name finds the stream.
            let copy = Names::needs(&event);
            entry.pending.push_back(Pending { lsn, event, end: entry.hot.end() });
            drop(guard);
            self.names.lock().add(lsn, id, copy);
        } else {
            entry.pending.push_back(Pending { lsn, event, end: entry.hot.end() });
        }
        first
    }

    /// A stream's bytes, when they are here; `None` when they must be looked for in the index.
    pub(super) fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Option<Vec<Bytes>> {
        let mut shard = self.shard(id).lock();
        let entry = shard.entries.get_mut(&id)?;
        entry.used = true;
        entry.round = self.round.load(Ordering::Relaxed);
        entry.hot.read(from, to, max)
    }

    /// Call this before a moment of the index is taken, and [`check`](Self::check) when done: then what the
    /// index had and what is here make a whole.
    pub(super) fn begin(&self) -> Begin {
        Begin(self.settles.load(Ordering::Acquire))
    }

    /// Whether no checkpoint was settled since `begin` whose commit the index taken then may lack.
    pub(super) fn check(&self, begin: Begin) -> Result<(), Settled> {
        let now = self.settles.load(Ordering::Acquire);
        if now > begin.0 + (begin.0 & 1) { Err(Settled) } else { Ok(()) }
    }

    /// Whether no checkpoint is being settled at a moment.
    pub(super) fn is_quiet(begin: Begin) -> bool {
        begin.0 & 1 == 0
    }

    /// Folds the events after `after` into a state that the index gave, or that begins here. Gives `None`
    /// when there is no such stream, or not any more.
    pub(super) fn fold(
        &self,
        begin: Begin,
        id: StreamId,
        after: Lsn,
        base: Option<StreamState>,
    ) -> Result<Option<StreamState>, Settled> {
        let mut guard = self.shard(id).lock();
        self.check(begin)?;
        let Some(entry) = guard.entries.get_mut(&id) else { return Ok(base) };
        if entry.deleted {
            return Ok(None);
        }
        let mut state = base;
        for pending in entry.pending.iter().filter(|pending| pending.lsn > after) {
            state = StreamState::fold(state, id, &pending.event);
        }
        if let Some(state) = &state {
            entry.hot.ends_at(state.tail);
        }
        Ok(state)
    }

    /// Whether anything of a stream is here.
    pub(super) fn has(&self, id: StreamId) -> bool {
        self.shard(id).lock().entries.contains_key(&id)
    }

    /// Keeps the bytes that the index has up to the stream's tail, unless something of the stream is here.
    pub(super) fn keep(
        &self,
        begin: Begin,
        id: StreamId,
        bytes: Bytes,
        tail: Offset,
    ) -> Result<(), Settled> {
        let mut shard = self.shard(id).lock();
        self.check(begin)?;
        if !shard.entries.contains_key(&id) {
            let round = self.round.load(Ordering::Relaxed);
            shard.keep(id, Hot::clean(bytes, tail), round, self.shard_budget);
        }
        Ok(())
    }

    /// Whether the creation of a stream is here, so that the index need not be asked for it.
    pub(super) fn begins_here(&self, id: StreamId) -> bool {
        let shard = self.shard(id).lock();
        let first = shard.entries.get(&id).and_then(|entry| entry.pending.front());
        matches!(first, Some(Pending { event: StreamEvent::Created(_), .. }))
    }

    /// Begins a checkpoint: between two batches.
    pub(super) fn mark(&self) -> Mark {
        let mut front = self.front.lock();
        front.mark += 1;
        self.dirty.store(0, Ordering::Relaxed);
        let mut dirty = Vec::new();
        for shard in &self.shards {
            dirty.append(&mut shard.lock().dirty);
        }
        dirty.sort_unstable();
        dirty.dedup();
        Mark { lsn: front.lsn, dirty }
    }

    /// Takes back a checkpoint that failed: its streams are dirty still.
    pub(super) fn unmark(&self, dirty: Vec<StreamId>) {
        self.dirty.fetch_add(dirty.len(), Ordering::Relaxed);
        for id in dirty {
            self.shard(id).lock().dirty.push(id);
        }
    }

    /// A stream's events up to `upto`.
    pub(super) fn events(&self, id: StreamId, upto: Lsn) -> Events {
        let shard = self.shard(id).lock();
        let Some(entry) = shard.entries.get(&id) else { return Events::new() };
        let some = entry.pending.partition_point(|pending| pending.lsn <= upto);
        entry.pending.range(..some).map(|p| (p.lsn, p.event.clone())).collect()
    }

    /// Ends a checkpoint that was committed: forgets the events of `ids` up to `upto`, and keeps their bytes
    /// as long as there is room. `freed` payload bytes were deleted.
    pub(super) fn settle(&self, ids: &[StreamId], upto: Lsn, freed: u64) {
        self.settles.fetch_add(1, Ordering::AcqRel);
        for id in ids {
            while self.settle_some(*id, upto) {}
        }
        self.settles.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        for shard in &self.shards {
            shard.lock().shrink();
        }
        self.names.lock().shrink();
    }

    /// Lets go of bytes that were neither written to the index nor read since the call before. Those of the index are in
    /// the system's page cache, too.
    pub(super) fn rest(&self) {
        let ended = self.round.fetch_add(1, Ordering::Relaxed);
        for shard in &self.shards {
            let mut looks = shard.lock().ring_len();
            while looks > 0 {
                let some = looks.min(AT_ONCE);
                shard.lock().let_go(some, |entry| entry.round < ended);
                looks -= some;
            }
            shard.lock().shrink();
        }
    }

    /// Some of a stream's events, oldest first, so that who needs its lock need not wait for all of them. Gives whether
    /// there may be more.
    fn settle_some(&self, id: StreamId, upto: Lsn) -> bool {
        let mut guard = self.shard(id).lock();
        let shard = &mut *guard;
        let Some(entry) = shard.entries.get_mut(&id) else { return false };
        let all = entry.pending.partition_point(|pending| pending.lsn <= upto);
        let some: Vec<_> = entry.pending.drain(..all.min(EVENTS_AT_ONCE)).collect();
        entry.pending.give_back();
        if let Some(last) = some.last() {
            shard.clean += entry.hot.settle(last.end);
            entry.round = self.round.load(Ordering::Relaxed);
        }
        shard.settled(id, self.shard_budget);
        drop(guard);
        let cost = some.iter().map(|pending| cost_of(&pending.event)).sum();
        self.pending.fetch_sub(cost, Ordering::Relaxed);
        let mut named = some.iter().filter(|pending| Names::has(&pending.event)).peekable();
        if named.peek().is_some() {
            let mut names = self.names.lock();
            named.for_each(|pending| names.remove(pending.lsn, id, &pending.event));
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
        | StreamEvent::Deleted { .. } => EVENT_COST + data,
    }
}
