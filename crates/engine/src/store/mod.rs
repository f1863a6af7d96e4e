//! Stores: they make events durable in order and return bytes. They know no protocol rule.
//!
//! [`Store`] is the contract; [`MemoryStore`] and [`FileStore`] implement it, and [`AnyStore`] is either of them.

mod any;
mod commit;
mod contract;
mod error;
pub mod file;
mod file_part;
mod memory;
mod shrink;
mod stats;

pub use any::AnyStore;
pub use commit::{Commit, CommitSink, Committed, EventPlace, LogEpoch};
pub use contract::{
    AppendEnd, BytePlaces, DamagedStream, DeadlineCursor, LoadFor, LoadedStream, Store, StoredPage,
    StoredStream, UsedAfter,
};
pub use error::StoreError;
pub use file::{FileStore, FileStoreOptions};
pub use file_part::{FilePart, MessageForm, StoredPiece};
pub use memory::MemoryStore;
pub(crate) use shrink::ShrinkSparse;
pub use stats::{DiskStats, FileStoreStats, SegmentTotals, StoreStats};
