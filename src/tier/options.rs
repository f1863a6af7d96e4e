//! How the object store is reached and used.

use std::time::Duration;

use super::{TierEnvironment, TierLocation};

/// Settings of the object store. Credentials are none of them: they come from the environment or from files.
#[derive(Clone, Debug)]
pub struct TierOptions {
    /// The bucket or directory.
    pub location: TierLocation,
    /// The address of the service, where it is not the vendor's own.
    pub endpoint: Option<String>,
    /// The region, for S3.
    pub region: Option<String>,
    /// Whether requests may go over HTTP without TLS.
    pub allow_http: bool,
    /// Where credentials come from.
    pub environment: TierEnvironment,
    /// Longest time that a read waits for the object store, with all retries.
    pub read_timeout: Duration,
    /// Requests under way at once that read, list or delete.
    pub concurrency: usize,
    /// Segments that are uploaded at once; each is in memory as long.
    pub uploads: usize,
    /// Most memory for blocks that were read from objects, bytes.
    pub cache: usize,
    /// Bytes that are read and cached together: a multiple of the segments' 64 KiB blocks.
    pub cache_block: usize,
    /// Age of a segment before it is uploaded.
    pub after: Duration,
    /// The pause between two looks for segments to move.
    pub interval: Duration,
    /// Most bytes of local segments; beyond, those that are objects lose their local files. `None` for no limit.
    pub local: Option<u64>,
    /// The pause between two copies of the index; zero for no copies.
    pub index_interval: Duration,
    /// How failed requests are repeated.
    pub retry: RetryOptions,
}

/// How failed requests are repeated.
#[derive(Clone, Copy, Debug)]
pub struct RetryOptions {
    /// Attempts in all.
    pub attempts: u32,
    /// Pause after the first failed attempt; each further one is twice as long, less a random part.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// Longest time of one attempt to read, list or delete, and the least of one to upload.
    pub attempt_timeout: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        RetryOptions {
            attempts: 4,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(10),
        }
    }
}

impl TierOptions {
    /// Longest time that a read waits.
    pub const READ_TIMEOUT: Duration = Duration::from_secs(10);
    /// Reads, listings and deletions at once.
    pub const CONCURRENCY: usize = 32;
    /// Uploads at once.
    pub const UPLOADS: usize = 2;
    /// Between two looks for segments to move.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// Memory for blocks, bytes.
    pub const CACHE: usize = 256 << 20;
    /// Bytes that are read and cached together.
    pub const CACHE_BLOCK: usize = 256 << 10;

    /// Most blocks of one request. A request costs the provider's price and a round trip, however many blocks it brings.
    /// Measured: docs/benchmarks.md, "Cold reads".
    pub const RUN: u64 = 8;
    /// Bytes of an uploaded object that one request reads back.
    pub const READ_BACK: u64 = 8 << 20;
    /// Bytes of a part of a copy of the index, but for the last one.
    pub const INDEX_PART: u64 = 16 << 20;
    /// Pause between two copies of the index.
    pub const INDEX_INTERVAL: Duration = Duration::from_secs(60 * 60);

    /// The defaults, for a place.
    pub fn new(location: TierLocation) -> Self {
        TierOptions {
            location,
            endpoint: None,
            region: None,
            allow_http: false,
            environment: TierEnvironment::of_process(),
            read_timeout: Self::READ_TIMEOUT,
            concurrency: Self::CONCURRENCY,
            uploads: Self::UPLOADS,
            cache: Self::CACHE,
            cache_block: Self::CACHE_BLOCK,
            after: Duration::ZERO,
            interval: Self::INTERVAL,
            local: None,
            index_interval: Self::INDEX_INTERVAL,
            retry: RetryOptions::default(),
        }
    }
}
