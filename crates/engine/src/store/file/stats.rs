//! Counters and sizes of the store, for metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{checkpointer::Checkpointer, core::StoreCore};
use crate::counters::{DurationHistogram, SizeHistogram};

/// Counters and sizes at one moment. Counters count from the opening.
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
    /// Time spent in committed checkpoints.
    pub checkpoint_time: Duration,
    /// Events that are in the log and not in the index.
    pub checkpoint_lag_events: u64,
    /// Memory of those events, bytes, roughly.
    pub pending_bytes: u64,
    /// Size of the index's file, bytes.
    pub index_bytes: u64,
    /// Bytes of it without records.
    pub index_free_bytes: u64,
    /// Deleted streams that are retained because forks need their bytes.
    pub kept_streams: u64,
    /// Payload bytes of those streams.
    pub kept_bytes: u64,
    /// The index can be used; `false` after it failed, until it could be opened again.
    pub index_available: bool,
    /// How often the index was opened again after a failure.
    pub index_reopenings: u64,
    /// Writes are refused until a restart.
    pub poisoned: bool,
}

impl FileStoreStats {
    pub(super) fn collect(core: &StoreCore, checkpointer: &Checkpointer) -> Self {
        let counters = &core.counters;
        let retained = checkpointer.retained();
        let index_bytes = core.index.size();
        let used = core.index.used_size().unwrap_or(index_bytes);
        FileStoreStats {
            wal_written_bytes: get(&counters.written),
            wal_reserved_bytes: core.old_segments.reserved(),
            batches: get(&counters.batches),
            events: get(&counters.events),
            syncs: get(&counters.syncs),
            write_time: Duration::from_nanos(get(&counters.write_nanos)),
            checkpoints: get(&counters.checkpoints),
            checkpoint_failures: get(&counters.checkpoint_failures),
            checkpoint_time: Duration::from_nanos(get(&counters.checkpoint_nanos)),
            checkpoint_lag_events: core.memtable.lsn() - checkpointer.checkpointed(),
            pending_bytes: core.memtable.pending() as u64,
            index_bytes,
            index_free_bytes: index_bytes.saturating_sub(used),
            kept_streams: retained.streams,
            kept_bytes: retained.bytes,
            index_available: core.index.available().is_ok(),
            index_reopenings: core.index.reopenings(),
            poisoned: core.queue.poisoned().is_some(),
        }
    }
}

#[derive(Default)]
pub(super) struct StoreCounters {
    pub(super) written: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) batch_sizes: SizeHistogram,
    pub(super) syncs: AtomicU64,
    pub(super) write_nanos: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) checkpoint_failures: AtomicU64,
    pub(super) checkpoint_nanos: AtomicU64,
    pub(super) sync_times: Arc<DurationHistogram>,
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
