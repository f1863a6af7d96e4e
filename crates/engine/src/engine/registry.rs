//! The map from paths to cells: a cell is made on first use and evicted when idle.
//!
//! Invariant: requests that use a path at the same time have the same cell. A cell leaves the map only when no
//! request holds it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use durable_streams_protocol::{StreamPath, Timestamp};
use parking_lot::RwLock;

use super::cell::{CellContext, StreamCell};
use crate::store::ShrinkSparse;

const SHARDS: usize = 64;

type CellShard = RwLock<HashMap<StreamPath, Arc<StreamCell>>>;

/// All cells in memory. Clients choose the paths, hence the randomly keyed hash.
pub(super) struct CellRegistry {
    shards: Box<[CellShard]>,
    hasher: RandomState,
    context: Arc<CellContext>,
}

impl CellRegistry {
    pub(super) fn new(context: Arc<CellContext>) -> Self {
        CellRegistry {
            shards: (0..SHARDS).map(|_| CellShard::default()).collect(),
            hasher: RandomState::new(),
            context,
        }
    }

    fn shard(&self, path: &StreamPath) -> &CellShard {
        let at = self.hasher.hash_one(path) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "reduced to the number of shards")]
        &self.shards[at]
    }

    /// The cell of a path, made if there is none.
    pub(super) fn cell(&self, path: &StreamPath) -> Arc<StreamCell> {
        let shard = self.shard(path);
        if let Some(cell) = shard.read().get(path) {
            return cell.clone();
        }
        let mut shard = shard.write();
        let make = || Arc::new(StreamCell::new(path.clone(), self.context.clone()));
        shard.entry(path.clone()).or_insert_with(make).clone()
    }

    /// The cell of a path, if it is in memory.
    pub(super) fn find(&self, path: &StreamPath) -> Option<Arc<StreamCell>> {
        self.shard(path).read().get(path).cloned()
    }

    /// Drops the caller's cell if no other request uses it and no stream exists at its path, so that requests
    /// for absent streams leave nothing in memory.
    pub(super) fn forget_absent(&self, cell: Arc<StreamCell>) {
        let mut shard = self.shard(&cell.path).write();
        // The map's reference and the caller's. No request can take another while the shard is locked.
        if Arc::strong_count(&cell) == 2 {
            let absent = {
                let state = cell.state.lock();
                state.assigned.is_none() && state.is_clean()
            };
            if absent {
                shard.remove(&cell.path);
            }
        }
    }

    /// Cells of one shard that have been idle for `seconds` and have a last use that the store does not know of, or that is
    /// in the future at `now`.
    pub(super) fn idle_touched(
        &self,
        turn: usize,
        (steady, now): (Timestamp, Timestamp),
        seconds: u32,
    ) -> Vec<Arc<StreamCell>> {
        #[expect(clippy::indexing_slicing, reason = "reduced to the number of shards")]
        let shard = self.shards[turn % SHARDS].read();
        let idle = shard.values().filter(|cell| cell.is_idle(steady, seconds));
        let touched = |cell: &&Arc<StreamCell>| {
            cell.state.try_lock().is_some_and(|state| {
                state.unstored_touch().is_some() || state.is_used_in_future(now)
            })
        };
        idle.filter(touched).cloned().collect()
    }

    /// Evicts clean cells of one shard that have been idle for `seconds`; `turn` chooses the shard. Returns how
    /// many.
    pub(super) fn evict_idle(&self, turn: usize, steady: Timestamp, seconds: u32) -> usize {
        #[expect(clippy::indexing_slicing, reason = "reduced to the number of shards")]
        let mut shard = self.shards[turn % SHARDS].write();
        let before = shard.len();
        let used = |cell: &StreamCell| !cell.is_idle(steady, seconds) || !cell.is_clean();
        shard.retain(|_, cell| Arc::strong_count(cell) > 1 || used(cell));
        shard.shrink_if_sparse();
        before - shard.len()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: usize) -> StreamPath {
        StreamPath::new(format!("/{number}").as_str()).unwrap()
    }

    const fn second(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn idle_cells_leave_memory_unless_a_request_holds_them() {
        let registry = CellRegistry::new(Arc::default());
        let held: Vec<_> = (0..10).map(|number| registry.cell(&path(number))).collect();
        (10..500).for_each(|number| drop(registry.cell(&path(number))));
        assert_eq!(registry.len(), 500);
        held[0].mark_used(second(20));
        registry.cell(&path(20)).mark_used(second(20));
        let evict = |at| (0..SHARDS).map(|turn| registry.evict_idle(turn, second(at), 10)).sum();
        let evicted: usize = evict(9);
        assert_eq!((evicted, registry.len()), (0, 500), "after nine of ten seconds");
        let evicted: usize = evict(10);
        assert_eq!((evicted, registry.len()), (489, 11));
        for (number, cell) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(cell, &registry.cell(&path(number))), "the same for all requests");
        }
        assert!(registry.find(&path(20)).is_some() && registry.find(&path(21)).is_none());
        drop(held);
        let evicted: usize = evict(29);
        assert_eq!(evicted, 9);
        let evicted: usize = evict(30);
        assert_eq!((evicted, registry.len()), (2, 0));
    }

    #[test]
    fn a_cell_without_a_stream_is_forgotten_by_its_last_request() {
        let registry = CellRegistry::new(Arc::default());
        let (first, second) = (registry.cell(&path(1)), registry.cell(&path(1)));
        registry.forget_absent(first);
        assert!(registry.find(&path(1)).is_some(), "another request uses it");
        registry.forget_absent(second);
        assert!(registry.find(&path(1)).is_none());
    }
}
