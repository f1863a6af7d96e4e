//! Path to cell: one cell per active path, made on first touch, dropped when idle.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use durable_streams_protocol::{StreamPath, Timestamp};
use parking_lot::RwLock;

use super::cell::{Observer, StreamCell};
use crate::store::ShrinkSparse;

const SHARDS: usize = 64;

type Shard = RwLock<HashMap<StreamPath, Arc<StreamCell>>>;

/// See the module. Paths are chosen by clients, hence the randomly keyed hash.
pub(super) struct Registry {
    shards: Box<[Shard]>,
    hasher: RandomState,
    observer: Observer,
}

impl Registry {
    pub(super) fn new(observer: Observer) -> Self {
        Registry {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            observer,
        }
    }

    fn shard(&self, path: &StreamPath) -> &Shard {
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
        let make = || Arc::new(StreamCell::new(path.clone(), self.observer.clone()));
        shard.entry(path.clone()).or_insert_with(make).clone()
    }

    /// Drops a cell that only the caller still uses and where no stream lives, so that requests for
    /// streams that do not exist leave nothing behind.
    pub(super) fn forget_absent(&self, cell: Arc<StreamCell>) {
        let mut shard = self.shard(&cell.path).write();
        // The map's and the caller's; nobody can take another while the shard is locked.
        if Arc::strong_count(&cell) == 2 {
            let absent = {
                let inner = cell.inner.lock();
                inner.assigned.is_none() && inner.is_clean()
            };
            if absent {
                shard.remove(&cell.path);
            }
        }
    }

    /// Cells of one shard that have been idle for `seconds` and hold a touch that the store does not know of.
    pub(super) fn idle_touched(
        &self,
        turn: usize,
        now: Timestamp,
        seconds: u32,
    ) -> Vec<Arc<StreamCell>> {
        #[expect(clippy::indexing_slicing, reason = "reduced to the number of shards")]
        let shard = self.shards[turn % SHARDS].read();
        let idle = shard.values().filter(|cell| cell.is_idle(now, seconds));
        let touched = |cell: &&Arc<StreamCell>| {
            cell.inner.try_lock().is_some_and(|inner| inner.unstored_touch().is_some())
        };
        idle.filter(touched).cloned().collect()
    }

    /// Drops cells of one shard that have been idle for `seconds`; `turn` chooses the shard.
    pub(super) fn evict_idle(&self, turn: usize, now: Timestamp, seconds: u32) -> usize {
        #[expect(clippy::indexing_slicing, reason = "reduced to the number of shards")]
        let mut shard = self.shards[turn % SHARDS].write();
        let before = shard.len();
        let used = |cell: &StreamCell| !cell.is_idle(now, seconds) || !cell.is_clean();
        shard.retain(|_, cell| Arc::strong_count(cell) > 1 || used(cell));
        shard.shrink_if_sparse();
        before - shard.len()
    }

    /// Cells in memory.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}
