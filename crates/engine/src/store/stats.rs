//! Totals and counters of stores, for limits and metrics.

use std::time::Duration;

use crate::counters::HistogramSnapshot;

/// Totals of a store, for limits and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Streams, soft-deleted ones included.
    pub streams: u64,
    /// Payload bytes of those streams.
    pub bytes: u64,
}

/// Counters of a store on disk, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Counters and sizes of log and index.
    pub files: FileStoreStats,
    /// Events per write to the log.
    pub batches: HistogramSnapshot,
    /// Nanoseconds per sync of the log.
    pub syncs: HistogramSnapshot,
}

/// What segments take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentTotals {
    /// Segments.
    pub files: u64,
    /// Sizes of their files, bytes.
    pub bytes: u64,
    /// Bytes in them that a stream still has.
    pub live: u64,
}

/// Counters and sizes of a store on disk at one moment. Counters count from the opening.
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
    /// The index takes writes; `false` after it failed, until it could be opened again for writing. Reads may go on meanwhile.
    pub index_available: bool,
    /// How often the index was opened again after a failure.
    pub index_reopenings: u64,
    /// Checks of the whole index that have ended.
    pub scrubs: u64,
    /// The time since the last one ended, or since the opening.
    pub scrub_age: Duration,
    /// Bytes that the present or last one has read.
    pub scrub_bytes: u64,
    /// Damaged records and pages that the last one has found.
    pub scrub_damaged: u64,
    /// Sealed segments.
    pub segment_files: u64,
    /// Sizes of their files, bytes.
    pub segment_bytes: u64,
    /// Bytes in them that streams still have.
    pub segment_live_bytes: u64,
    /// The same three by place, in the order of [`SegmentPlace::ALL`](super::file::segments::objects::SegmentPlace::ALL).
    pub segments_by_place: [SegmentTotals; 3],
    /// Segments sealed since the opening.
    pub sealed_files: u64,
    /// Bytes of their files.
    pub sealed_bytes: u64,
    /// Failed attempts to seal since the opening.
    pub seal_failures: u64,
    /// Bytes of segments handed out as [parts of files](super::Store::file_part) since the opening.
    pub file_part_bytes: u64,
    /// The limit on disk use, bytes; 0 when there is none.
    pub disk_limit_bytes: u64,
    /// Writes are refused until a restart.
    pub poisoned: bool,
}
