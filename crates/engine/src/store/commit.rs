//! Commits: handing an event to a store, and hearing of its fate.

use std::sync::Arc;

use durable_streams_protocol::{Created, StreamEvent, StreamId, StreamState};

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
    /// Where the event belongs in its stream.
    pub place: EventPlace,
    /// See [`LogEpoch`].
    pub epoch: LogEpoch,
    /// The caller's number for this event, which the store passes to the sink.
    pub version: u64,
    /// Receives the result.
    pub sink: Arc<dyn CommitSink>,
}

/// Where an event belongs in its stream: behind all events that were decided before it. The log keeps it, so that a lost
/// event, or one of another writer, is noticed before anything is applied behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventPlace {
    /// Events of the stream before this one.
    pub events: u64,
    /// The position of the stream's tail before this event.
    pub position: u64,
}

impl EventPlace {
    /// Of a stream's first event.
    pub fn of_creation(created: &Created) -> Self {
        let position = created.fork.as_ref().map_or(0, |fork| fork.position.position());
        EventPlace { events: 0, position }
    }

    /// Of the next event of a stream.
    pub fn behind(state: &StreamState) -> Self {
        EventPlace { events: state.events, position: state.tail.position() }
    }

    /// Of the event after `event`, which is here.
    #[must_use]
    pub fn after(self, event: &StreamEvent) -> Self {
        let bytes = event.data().map_or(0, |data| data.len() as u64);
        EventPlace { events: self.events + 1, position: self.position + bytes }
    }
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
