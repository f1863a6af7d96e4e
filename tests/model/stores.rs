//! The stores that every test here runs on.

use std::{sync::Arc, time::Duration};

use durable_streams_server::{
    engine::{Clock, Engine, Limits, ManualClock},
    protocol::Timestamp,
    store::{AnyStore, FileStore, FileStoreOptions, MemoryStore, file::Durability},
};
use tempfile::TempDir;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    /// Its events become durable some time after they are decided. Crashes are simulated in tests/store.
    File,
}

/// A store, and what must live as long as it does.
pub(crate) struct Opened {
    pub(crate) store: AnyStore,
    dir: Option<TempDir>,
}

impl StoreKind {
    pub(crate) const ALL: &[StoreKind] = &[StoreKind::Memory, StoreKind::File];

    /// A new, empty store.
    pub(crate) fn open(self) -> Opened {
        match self {
            StoreKind::Memory => {
                Opened { store: AnyStore::Memory(MemoryStore::default()), dir: None }
            }
            StoreKind::File => {
                let dir = TempDir::new().unwrap();
                let mut options = FileStoreOptions::new(dir.path());
                // Small, so that segments, checkpoints and cold reads have their part.
                options.durability = Durability::Os;
                options.checkpoint_interval = Duration::from_millis(5);
                options.wal_segment = 1 << 16;
                options.cache = 64;
                options.map_size = 1 << 24;
                let store = AnyStore::File(FileStore::open(options).unwrap());
                Opened { store, dir: Some(dir) }
            }
        }
    }
}

/// An engine on a new store, with small windows, and the clock that it goes by. Keep the directory as long.
pub(crate) fn engine(
    kind: StoreKind,
    max_read: usize,
) -> (Arc<Engine>, ManualClock, Option<TempDir>) {
    let clock = ManualClock::at(Timestamp::from_millis(1_800_000_000_000));
    let limits = Limits { max_read, ..Limits::default() };
    let Opened { store, dir } = kind.open();
    (Arc::new(Engine::new(store, Clock::Manual(clock.clone()), limits)), clock, dir)
}
