//! The write-ahead log. See docs/storage.md, "The log".

pub(super) mod end_mark;
pub(super) mod frame;
pub(super) mod reader;
pub(super) mod recovery;
pub(super) mod reserve;
pub(super) mod segment;
#[cfg(test)]
mod tests;
pub(super) mod writer;

/// Log sequence number: counts the events of all streams, from 1, without gaps.
pub(super) type Lsn = u64;
