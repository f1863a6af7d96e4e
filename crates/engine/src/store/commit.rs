//! Commits: handing an event to a store, and hearing of its fate.

use std::sync::Arc;

use durable_streams_protocol::{StreamEvent, StreamId};

use super::StoreError;

/// Counts how often queued events were lost. A commit carries the epoch under which its stream's state was loaded or
/// last known to be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEpoch(pub u64);

/// One event to make durable.
pub struct Commit {
    /// The stream. For `Created`, an id from [`Store::next_id`](super::Store::next_id).
    pub id: StreamId,
    /// What happened to the stream.
    pub event: StreamEvent,
    /// See [`LogEpoch`].
    pub epoch: LogEpoch,
    /// The caller's number for this event, which the store passes to the sink.
    pub version: u64,
    /// Receives the result.
    pub sink: Arc<dyn CommitSink>,
}

/// Receives the results of commits, on a thread of the store. Must not block.
pub trait CommitSink: Send + Sync {
    /// The event with this version, and all of this sink's before it, are durable.
    fn committed(&self, version: u64);
    /// The event with this version is lost, and so is everything that was decided on top of it.
    fn failed(&self, version: u64, error: StoreError);
}

/// What [`Store::commit`](super::Store::commit) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The event is durable already; the sink is not called.
    Now,
    /// The event is queued; the sink will be called.
    Queued,
}
