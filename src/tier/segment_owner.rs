//! What the background work of a tier needs to get at the file store.

use durable_streams_engine::Engine;
use durable_streams_engine::store::AnyStore;
use durable_streams_engine::store::file::FileStore;

/// Has the file store whose segments are moved.
pub trait SegmentOwner: Send + Sync + 'static {
    /// `None` for a store in memory.
    fn file_store(&self) -> Option<&FileStore>;
}

impl SegmentOwner for FileStore {
    fn file_store(&self) -> Option<&FileStore> {
        Some(self)
    }
}

impl SegmentOwner for Engine {
    fn file_store(&self) -> Option<&FileStore> {
        match self.store() {
            AnyStore::File(store) => Some(store),
            AnyStore::Memory(_) => None,
        }
    }
}
