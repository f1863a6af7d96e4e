//! The one list of stores that every test of streams runs on.

use std::any::Any;

use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions, MemoryStore};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Memory,
    File,
}

/// A store, and what must live as long as it does.
pub struct Opened {
    pub store: AnyStore,
    directory: Option<tempfile::TempDir>,
}

impl Opened {
    /// The store, and the rest to be kept until the end.
    pub fn into_parts(self) -> (AnyStore, Box<dyn Any + Send>) {
        (self.store, Box::new(self.directory))
    }
}

impl StoreKind {
    /// For tests that loop over them.
    pub const ALL: &[StoreKind] = &[StoreKind::Memory, StoreKind::File];

    /// A new, empty store.
    pub fn open(self) -> Opened {
        self.open_with(|_| {})
    }

    /// The same with a say in how files are kept.
    pub fn open_with(self, change: impl FnOnce(&mut FileStoreOptions)) -> Opened {
        match self {
            StoreKind::Memory => {
                Opened { store: AnyStore::Memory(MemoryStore::default()), directory: None }
            }
            StoreKind::File => {
                let directory = tempfile::tempdir().unwrap();
                let mut options = FileStoreOptions::new(directory.path());
                // Hundreds of these are open at once.
                options.map_size = 1 << 30;
                options.wal_segment = 1 << 20;
                change(&mut options);
                let store = AnyStore::File(FileStore::open(options).unwrap());
                Opened { store, directory: Some(directory) }
            }
        }
    }
}
