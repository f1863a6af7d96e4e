//! What is counted of the object store, for metrics.

use durable_streams_engine::counters::RelaxedCounter;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct TierCounters {
    /// Objects that were created and verified.
    pub uploads: RelaxedCounter,
    /// Their bytes.
    pub uploaded_bytes: RelaxedCounter,
    /// Uploads that failed after all attempts.
    pub upload_failures: RelaxedCounter,
    /// Requests for a range that were answered.
    pub gets: RelaxedCounter,
    /// Bytes of the answers.
    pub read_bytes: RelaxedCounter,
    /// Ranges that could not be read after all attempts.
    pub read_failures: RelaxedCounter,
    /// Objects that were deleted.
    pub deletes: RelaxedCounter,
    /// Attempts of any kind that failed, repeated ones among them.
    pub failed_attempts: RelaxedCounter,
    /// Blocks that were found in the cache.
    pub cache_hits: RelaxedCounter,
    /// Blocks that were not.
    pub cache_misses: RelaxedCounter,
    /// Whether another server has taken the prefix over.
    pub superseded: RelaxedCounter,
    /// Blocks that did not match their checksum.
    pub damaged_blocks: RelaxedCounter,
}
