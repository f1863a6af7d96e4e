//! What an engine counts.

use crate::store::StoreStats;

/// Counts for metrics and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Durable streams and bytes.
    pub store: StoreStats,
    /// Paths with a cell in memory.
    pub cells: usize,
    /// Live readers now.
    pub live_readers: usize,
    /// Bytes of request bodies that are being received or made durable.
    pub inflight_append_bytes: usize,
    /// Idle cells evicted from memory since the start.
    pub evicted: u64,
    /// Streams removed since the start because they expired.
    pub expired: u64,
    /// Bytes before earliest positions that trims have moved since the start.
    pub trimmed_bytes: u64,
    /// Messages before them, as far as they were counted.
    pub trimmed_messages: u64,
}
