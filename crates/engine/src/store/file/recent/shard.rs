//! A part of the streams that are in memory, behind one lock, and whose clean bytes stay there.

use std::collections::VecDeque;

use durable_streams_protocol::{StreamEvent, StreamId};
use rustc_hash::FxHashMap;

use crate::store::{
    Spare,
    file::{hot::Hot, wal::Lsn},
};

/// What a stream with bytes here costs beside them, bytes: a place in a table that is partly empty, and in the ring, a
/// list of pieces, and what is left of the request that brought the bytes.
const CACHED_COST: usize = 640;

/// See the module.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) entries: FxHashMap<StreamId, Entry>,
    /// Streams with events since the last mark.
    pub(super) dirty: Vec<StreamId>,
    /// Streams with clean bytes, in the order in which they are looked at when room is needed.
    ring: VecDeque<StreamId>,
    /// Bytes in `ring`'s streams that are clean.
    pub(super) clean: usize,
}

/// A stream that is in memory.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) pending: VecDeque<Pending>,
    pub(super) hot: Hot,
    /// The mark under which this stream was put into `dirty`.
    pub(super) mark: u64,
    in_ring: bool,
    /// Read since room was last made.
    pub(super) used: bool,
    /// The round in which it was last read, or its bytes written to the index.
    pub(super) round: u32,
    pub(super) deleted: bool,
}

/// An event that the index may not have.
pub(super) struct Pending {
    pub(super) lsn: Lsn,
    pub(super) event: StreamEvent,
    /// Where the stream's hot bytes end after this event; see [`Hot`].
    pub(super) end: u64,
}

impl Shard {
    /// Gives back tables that many streams once filled.
    pub(super) fn shrink(&mut self) {
        self.entries.give_back();
        self.ring.give_back();
    }

    /// Keeps bytes of the index, of a stream that is not here.
    pub(super) fn keep(&mut self, id: StreamId, hot: Hot, round: u32, budget: usize) {
        self.clean += hot.end() as usize;
        self.ring.push_back(id);
        self.entries.insert(id, Entry { hot, round, in_ring: true, ..Entry::default() });
        self.make_room(budget);
    }

    /// Events of a stream were settled: it is one of those with clean bytes now, if it has any.
    pub(super) fn settled(&mut self, id: StreamId, budget: usize) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.pending.is_empty() && entry.hot.is_empty() {
            self.entries.remove(&id);
        } else if !entry.in_ring {
            entry.in_ring = true;
            self.ring.push_back(id);
        }
        self.make_room(budget);
    }

    /// Drops clean bytes that were not read lately until what is left fits: each stream gets one more
    /// round for having been read.
    fn make_room(&mut self, budget: usize) {
        if self.ring.len() > 2 * self.entries.len() + 16 {
            self.ring.retain(|id| self.entries.contains_key(id));
        }
        let mut looks = self.ring.len() * 2;
        while self.clean + self.ring.len() * CACHED_COST > budget && looks > 0 {
            looks -= 1;
            self.look_at_next(|entry| !std::mem::take(&mut entry.used));
        }
    }

    /// How many have clean bytes, and maybe some that are gone.
    pub(super) fn ring_len(&self) -> usize {
        self.ring.len()
    }

    /// Looks at the next `some` in the ring and drops the clean bytes that are `unwanted`.
    pub(super) fn let_go(&mut self, some: usize, unwanted: impl Fn(&Entry) -> bool) {
        for _ in 0..some {
            self.look_at_next(|entry| unwanted(entry));
        }
    }

    /// Drops the clean bytes of the next stream in the ring if they are `unwanted`, else it is the last one now.
    fn look_at_next(&mut self, unwanted: impl Fn(&mut Entry) -> bool) {
        let Some(id) = self.ring.pop_front() else { return };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if !unwanted(entry) {
            self.ring.push_back(id);
            return;
        }
        self.clean -= entry.hot.drop_clean();
        if entry.hot.is_empty() && entry.pending.is_empty() {
            self.entries.remove(&id);
        } else {
            entry.in_ring = false;
        }
    }
}
