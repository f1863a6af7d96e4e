//! Options of a file store; the defaults suit most servers.

use std::{fmt, path::PathBuf, time::Duration};

use durable_streams_protocol::Timestamp;

/// When an append counts as durable, and so is acknowledged and shown to readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on stable storage: it survives everything that the disk survives.
    #[default]
    Fsync,
    /// Once the operating system has it; synced after each interval. A crash of the process loses nothing; a power cut
    /// or a crash of the system may lose what was acknowledged in the last interval.
    Interval(Duration),
    /// Once the operating system has it, which decides when to write it. A crash of the process loses nothing; a power
    /// cut or a crash of the system may lose what was acknowledged since the last checkpoint.
    Os,
}

/// What leaves the index for sealed segments, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOptions {
    /// A stream with this many bytes in the index, besides [`keep`](Self::keep), gets segments of its own.
    pub min: u64,
    /// Bytes of such a stream that stay in the index when older ones leave it: its newest ones.
    pub keep: u64,
    /// Bytes of one segment, roughly.
    pub size: u64,
    /// A stream that was not written for this long leaves the index as a whole, for a segment that it shares with others.
    pub idle: Duration,
    /// A shared segment is written once it has this many bytes.
    pub share: u64,
    /// A stream of which a checkpoint has this many new bytes is sealed by it, without its bytes entering the index, if few streams
    /// have changed.
    pub ahead: u64,
    /// JSON messages are sealed with commas, so that the kernel can send them, where at least so many bytes lie together; at most
    /// the default, from which on they are sent.
    pub arrays_from: u64,
    /// The pause between two walks over the streams. It grows to thirty times that while nothing is due.
    pub interval: Duration,
    /// Bytes of local segments beyond which nothing is sealed in a store with
    /// [`max_disk`](FileStoreOptions::max_disk): what uploads them removes files then. `None`: nothing is sealed in such a
    /// store, as nothing would bound the files.
    pub max_local: Option<u64>,
    /// Nothing is sealed while more bytes of the index's file are free than this, and more than a quarter of it.
    pub most_free: u64,
}

impl SegmentOptions {
    /// What suits most servers.
    pub const DEFAULT: Self = SegmentOptions {
        min: 4 << 20,
        keep: 1 << 20,
        size: 64 << 20,
        idle: Duration::from_secs(3600),
        share: 1 << 20,
        ahead: 4 << 20,
        arrays_from: Self::LEAST_SENT,
        interval: Duration::from_secs(10),
        max_local: None,
        most_free: 1 << 30,
    };
    /// What a segment has of a stream is sent out of its file from so many bytes on: a look at the index and a call cost more than
    /// the copy of less.
    pub(super) const LEAST_SENT: u64 = 64 << 10;
    /// The longest pause between two walks, in intervals.
    pub(super) const LONGEST_PAUSE: u32 = 30;
}

/// A function that returns the time of day; the default one stands still, so that no stream counts as idle.
#[derive(Clone, Copy)]
pub struct WallClock(pub fn() -> Timestamp);

impl Default for WallClock {
    fn default() -> Self {
        WallClock(Timestamp::default)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// The options of a file store.
#[derive(Clone, Debug)]
pub struct FileStoreOptions {
    /// The data directory; created when missing.
    pub dir: PathBuf,
    /// When an append counts as durable.
    pub durability: Durability,
    /// Address space reserved for the index at first, bytes; doubled whenever it is full. Not a limit.
    pub map_size: usize,
    /// The longest time between two checkpoints while there are events to fold in.
    pub checkpoint_interval: Duration,
    /// A checkpoint begins when the events that the index does not have take this much memory, bytes; a quarter of it
    /// while few streams changed. At four times this, appends wait for the checkpoint.
    pub checkpoint_size: usize,
    /// Size of a log segment, bytes; reserved when it is created.
    pub wal_segment: u64,
    /// The most that log and index may take on disk together, bytes; `None` for no limit. At least
    /// [`least_max_disk`](Self::least_max_disk). The index does not shrink by itself, but uses its free room again.
    pub max_disk: Option<u64>,
    /// The pause between two checks of the whole index in the background; `None` for none.
    pub scrub_interval: Option<Duration>,
    /// Bytes a second that such a check reads at most.
    pub scrub_rate: u64,
    /// What leaves the index for sealed segments, and when; `None` for nothing.
    pub segments: Option<SegmentOptions>,
    /// Whether local segments are compared with their checksums when clients read them. Objects always are, and so is what is
    /// sealed again, verified or checked in the background.
    pub check_segment_reads: bool,
    /// The wall clock that the times in events are from: it tells how long a stream was not written. A step of it seals
    /// streams early or late, and does no harm.
    pub clock: WallClock,
    /// Memory for the tail cache: bytes that the index has, and that were written or read lately.
    pub cache: usize,
}

impl FileStoreOptions {
    /// Default of [`map_size`](Self::map_size): 1 TiB, or 1 GiB where addresses have 32 bits.
    pub const MAP_SIZE: usize = if cfg!(target_pointer_width = "64") { 1 << 40 } else { 1 << 30 };
    /// Default of [`checkpoint_interval`](Self::checkpoint_interval).
    pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
    /// Default of [`checkpoint_size`](Self::checkpoint_size), bytes.
    pub const CHECKPOINT_SIZE: usize = 64 << 20;
    /// Default of [`wal_segment`](Self::wal_segment), bytes.
    pub const WAL_SEGMENT: u64 = 64 << 20;
    /// Default of [`scrub_interval`](Self::scrub_interval).
    pub const SCRUB_INTERVAL: Duration = Duration::from_secs(24 * 3600);
    /// Default of [`scrub_rate`](Self::scrub_rate), bytes a second.
    pub const SCRUB_RATE: u64 = 8 << 20;
    /// Default of [`cache`](Self::cache), bytes.
    pub const CACHE: usize = 256 << 20;

    /// Segments that fit into the log's share of [`max_disk`](Self::max_disk): two with events, a spare one, the reserve.
    pub(super) const LEAST_LOG_SEGMENTS: u64 = 4;

    /// The least [`max_disk`](Self::max_disk) for a segment size, bytes.
    pub fn least_max_disk(wal_segment: u64) -> u64 {
        wal_segment.saturating_mul(2 * Self::LEAST_LOG_SEGMENTS).max(64 << 20)
    }

    /// The defaults, for a data directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        FileStoreOptions {
            dir: dir.into(),
            durability: Durability::Fsync,
            map_size: Self::MAP_SIZE,
            checkpoint_interval: Self::CHECKPOINT_INTERVAL,
            checkpoint_size: Self::CHECKPOINT_SIZE,
            wal_segment: Self::WAL_SEGMENT,
            max_disk: None,
            scrub_interval: Some(Self::SCRUB_INTERVAL),
            scrub_rate: Self::SCRUB_RATE,
            segments: Some(SegmentOptions::DEFAULT),
            check_segment_reads: true,
            clock: WallClock::default(),
            cache: Self::CACHE,
        }
    }
}
