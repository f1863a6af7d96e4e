//! Counters and sizes of the store, for metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{checkpointer::Checkpointer, core::StoreCore, scrubber::ScrubStats, sealer::SealStats};
use crate::counters::{DurationHistogram, SizeHistogram};
use crate::store::{FileStoreStats, SegmentTotals};

impl FileStoreStats {
    pub(super) fn collect(
        core: &StoreCore,
        checkpointer: &Checkpointer,
        scrub: ScrubStats,
        seal: SealStats,
    ) -> Self {
        let segments_by_place = core.index.segment_totals().unwrap_or_default();
        let all =
            |field: fn(&SegmentTotals) -> u64| -> u64 { segments_by_place.iter().map(field).sum() };
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
            scrubs: scrub.rounds,
            scrub_age: scrub.age,
            scrub_bytes: scrub.bytes,
            scrub_damaged: scrub.damaged,
            segment_files: all(|totals| totals.files),
            segment_bytes: all(|totals| totals.bytes),
            segment_live_bytes: all(|totals| totals.live),
            segments_by_place,
            sealed_files: seal.files,
            sealed_bytes: seal.bytes,
            seal_failures: seal.failures,
            file_part_bytes: core.segments.part_bytes(),
            disk_limit_bytes: core.limit.map_or(0, |limit| limit.total),
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
