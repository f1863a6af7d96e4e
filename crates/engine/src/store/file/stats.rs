//! Numbers about the store, for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::counters::Sizes;

/// A moment's numbers. Counters count from the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileStoreStats {
    /// Bytes written to the log.
    pub wal_written_bytes: u64,
    /// Disk space that the log has reserved, bytes.
    pub wal_reserved_bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Time spent writing and syncing batches.
    pub write_time: Duration,
    /// Checkpoints committed.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub checkpoint_failures: u64,
    /// Time spent in checkpoints.
    pub checkpoint_time: Duration,
    /// Events that are in the log and not in the index.
    pub checkpoint_lag_events: u64,
    /// Memory that they take, bytes, roughly.
    pub pending_bytes: u64,
    /// Size of the index's file, bytes.
    pub index_bytes: u64,
    /// What of it holds no records, bytes.
    pub index_free_bytes: u64,
    /// Streams that were deleted and are kept because forks need their bytes.
    pub kept_streams: u64,
    /// Payload bytes of those streams.
    pub kept_bytes: u64,
    /// Writes are refused until a restart.
    pub poisoned: bool,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) written: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) batch_sizes: Sizes,
    pub(super) syncs: AtomicU64,
    pub(super) write_nanos: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) checkpoint_failures: AtomicU64,
    pub(super) checkpoint_nanos: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
