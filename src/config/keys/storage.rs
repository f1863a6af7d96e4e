//! The durable store: when an append is safe, and the sizes of log, index and cache.

use durable_streams_engine::store::{FileStoreOptions, file::SegmentOptions};

use crate::config::reader::error::ConfigProblems;
use crate::config::reader::node::{ConfigNode, NodeValue};
use crate::config::reader::setting::{
    InvalidValue, Setting, check_range, join, not_a_choice, open_group, settings,
};
use crate::config::units::{ByteSize, HumanDuration};

/// When an append counts as safe and is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DurabilityConfig {
    /// After the log is synced to the disk: survives power loss.
    #[default]
    Fsync,
    /// After the log is handed to the operating system: survives a crash of the server.
    Os,
    /// Like `Os`, with a sync at this interval: bounds what power loss can take.
    Interval(HumanDuration),
}

settings! {
    /// Sizes and intervals of the durable store. The defaults suit most machines.
    pub struct StorageConfig {
        /// Address space reserved for the index at first; doubles when full. Costs no memory or disk by itself.
        map_size: ByteSize = FileStoreOptions::MAP_SIZE.into()
            => ByteSize::mib(64), ByteSize::tib(64);
        /// Longest time between two checkpoints of the log into the index.
        checkpoint_interval: HumanDuration = FileStoreOptions::CHECKPOINT_INTERVAL.into()
            => HumanDuration::millis(100), HumanDuration::secs(3600);
        /// Memory for what the index does not have yet that starts a checkpoint before its time; a quarter of it does
        /// while few streams changed.
        checkpoint_size: ByteSize = FileStoreOptions::CHECKPOINT_SIZE.into()
            => ByteSize::mib(1), ByteSize::gib(64);
        /// Size of one log file.
        wal_segment: ByteSize = ByteSize::bytes(FileStoreOptions::WAL_SEGMENT)
            => ByteSize::mib(1), ByteSize::gib(4);
        /// Most disk that log and index may take together; unlimited when not set.
        max_disk: Option<ByteSize> = None;
        /// Pause between two checks of the whole index in the background; the first one begins ten seconds after the start.
        scrub_interval: HumanDuration = FileStoreOptions::SCRUB_INTERVAL.into()
            => HumanDuration::secs(60), HumanDuration::secs(366 * 24 * 3600);
        /// Most bytes a second that such a check reads.
        scrub_rate: ByteSize = ByteSize::bytes(FileStoreOptions::SCRUB_RATE)
            => ByteSize::bytes(64 << 10), ByteSize::gib(64);
        /// What leaves the index for sealed segments.
        segments: SegmentsConfig = SegmentsConfig::default();
        /// Most memory for data that was written or read in the last half minute.
        cache: ByteSize = FileStoreOptions::CACHE.into()
            => ByteSize::bytes(0), ByteSize::tib(1);
    }
}

settings! {
    /// What leaves the index for sealed segments: immutable files with bytes of streams.
    pub struct SegmentsConfig {
        /// Whether anything does.
        enabled: bool = true;
        /// Whether local segments are compared with their checksums when clients read them.
        check_reads: bool = true;
        /// A stream with this many bytes in the index, besides `keep`, gets segments of its own; so do that many new bytes at once.
        min: ByteSize = ByteSize::bytes(SegmentOptions::DEFAULT.min)
            => ByteSize::bytes(1), ByteSize::gib(1);
        /// Newest bytes of such a stream that stay in the index when older ones leave it.
        keep: ByteSize = ByteSize::bytes(SegmentOptions::DEFAULT.keep)
            => ByteSize::bytes(0), ByteSize::gib(1);
        /// Size of a segment, roughly.
        size: ByteSize = ByteSize::bytes(SegmentOptions::DEFAULT.size)
            => ByteSize::bytes(1), ByteSize::gib(1);
        /// A stream that was not written for this long leaves the index, for a segment that it shares with others.
        idle: HumanDuration = SegmentOptions::DEFAULT.idle.into()
            => HumanDuration::millis(0), HumanDuration::secs(366 * 24 * 3600);
        /// Bytes from which on a shared segment is written.
        share: ByteSize = ByteSize::bytes(SegmentOptions::DEFAULT.share)
            => ByteSize::bytes(1), ByteSize::gib(1);
        /// Pause between two walks over the streams, while something is due.
        interval: HumanDuration = SegmentOptions::DEFAULT.interval.into()
            => HumanDuration::millis(10), HumanDuration::secs(24 * 3600);
    }
}

impl SegmentsConfig {
    /// As the store knows it; `None` when nothing is sealed.
    pub fn options(&self) -> Option<SegmentOptions> {
        self.enabled.then(|| SegmentOptions {
            min: self.min.get(),
            keep: self.keep.get(),
            size: self.size.get(),
            idle: self.idle.get(),
            share: self.share.get(),
            ahead: self.min.get(),
            interval: self.interval.get(),
            ..SegmentOptions::DEFAULT
        })
    }
}

const WHAT: &str = "fsync, os, or a group such as {interval: 50ms}";
const INTERVAL: &str = "interval";

impl Setting for DurabilityConfig {
    fn read(node: &ConfigNode, path: &str, problems: &mut ConfigProblems<'_>) -> Option<Self> {
        let why = match &node.value {
            NodeValue::Text(text) => match text.as_str() {
                "fsync" => return Some(Self::Fsync),
                "os" => return Some(Self::Os),
                "interval" => InvalidValue::new("has no duration", "write {interval: 50ms}"),
                other => not_a_choice(other, WHAT, &["fsync", "os"]),
            },
            NodeValue::Null => {
                InvalidValue::new("is not a value", format!("write {WHAT}, or remove it"))
            }
            NodeValue::List(_) => {
                problems.wrong_shape(node, path, WHAT);
                return None;
            }
            NodeValue::Group(_) => {
                open_group(node, path, &[INTERVAL], problems);
                let Some(entry) = node.child(INTERVAL) else {
                    problems.wrong_shape(node, path, WHAT);
                    return None;
                };
                let read = HumanDuration::read(&entry.node, &join(path, INTERVAL), problems);
                return read.map(Self::Interval);
            }
        };
        problems.invalid(node, path, why);
        None
    }

    fn write(&self) -> ConfigNode {
        match self {
            Self::Fsync => ConfigNode::text("fsync"),
            Self::Os => ConfigNode::text("os"),
            Self::Interval(interval) => ConfigNode::group(vec![(INTERVAL, interval.write())]),
        }
    }

    fn check(&self, path: &str, problems: &mut ConfigProblems<'_>) {
        if let Self::Interval(interval) = self {
            let bounds = (HumanDuration::millis(1), HumanDuration::secs(60));
            check_range(interval, bounds, &join(path, INTERVAL), problems);
        }
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(path.to_owned());
        keys.push(join(path, INTERVAL));
    }
}
