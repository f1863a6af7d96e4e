//! The list of streams with their states, for operators.
//!
//! A page is read from the store in one look and makes no cell, so that a walk over a million streams leaves nothing in
//! memory. What only a cell knows (live readers, a last use that is not stored yet) is added where there is one.

use std::ops::Bound;

use durable_streams_protocol::{Expiry, Rejection, StreamPath, StreamState, Tail, Timestamp};

use super::{Engine, StreamView, errors::rejection};
use crate::store::{Store, StoredStream};

/// Streams in the order of their paths.
#[derive(Debug, Default)]
pub struct StreamPage {
    /// The streams; those that have expired are left out.
    pub streams: Vec<ListedStream>,
    /// The last path that was looked at, if there may be more streams: the next page begins after it.
    pub next: Option<StreamPath>,
}

/// One stream of a [`StreamPage`].
#[derive(Debug)]
pub struct ListedStream {
    /// Where it is stored.
    pub path: StreamPath,
    /// What it is, or why it cannot be read.
    pub summary: Result<StreamSummary, Rejection>,
}

/// What an operator sees of a stream.
#[derive(Clone, Debug)]
pub struct StreamSummary {
    /// The stream and its durable tail; a soft-deleted one's tail is gone.
    pub view: StreamView,
    /// Deleted, but forks still read its bytes (§4.2).
    pub soft_deleted: bool,
    /// The last append, or the creation; with a TTL also the last read.
    pub last_used: Timestamp,
    /// When it goes away if it is not used before.
    pub deadline: Option<Timestamp>,
    /// Commits since its creation; format 1 did not count them.
    pub events: u64,
    /// The number of its forks.
    pub forks: usize,
    /// Live readers now.
    pub live_readers: usize,
    /// When it was created, if that is known.
    pub created: Option<Timestamp>,
    /// The last append; `None` before the first, or if it is not known.
    pub last_append: Option<Timestamp>,
    /// Its own messages that it keeps: JSON messages, or appends of bytes. `None` if they were not counted.
    pub messages: Option<u64>,
    own_len: u64,
}

impl StreamSummary {
    /// Bytes of its own that it keeps, those that it inherits apart.
    pub fn own_bytes(&self) -> u64 {
        self.own_len
    }

    fn of(state: StreamState, forks: usize) -> Self {
        let deadline = state.deadline();
        let tail = Tail {
            offset: state.tail,
            earliest: state.earliest,
            closed: state.closed.is_some(),
            gone: state.soft_deleted,
        };
        StreamSummary {
            own_len: state.own_len(),
            created: state.created,
            last_append: state.appended,
            messages: state
                .messages
                .zip(state.messages_before)
                .map(|(all, before)| all - before.min(all)),
            view: StreamView { core: state.core, tail },
            soft_deleted: state.soft_deleted,
            last_used: state.touched,
            deadline,
            events: state.events,
            forks,
            live_readers: 0,
        }
    }
}

impl Engine {
    /// Paths after `after` in byte order, at most `max`; soft-deleted streams included.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, Rejection> {
        self.store.list(after, max).await.map_err(rejection)
    }

    /// Streams from `from` on whose stored paths begin with `prefix`, in byte order, soft-deleted ones included; `max`
    /// are looked at. Does not count as a use of any of them.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn list_streams(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        max: usize,
    ) -> Result<StreamPage, Rejection> {
        let page = self.store.list_states(from, prefix, max).await.map_err(rejection)?;
        let next = page.streams.last().filter(|_| page.more).map(|last| last.path.clone());
        let now = self.clock.now();
        let mut streams = Vec::with_capacity(page.streams.len());
        for stored in page.streams {
            let (listed, seems_expired) = self.listed(stored, now);
            // After a step of the wall clock a TTL has not run out; the cell knows. The sweeper removes what has expired
            // within a moment, so this is rare.
            if seems_expired && matches!(self.head(&listed.path).await, Err(Rejection::NotFound)) {
                continue;
            }
            streams.push(listed);
        }
        Ok(StreamPage { streams, next })
    }

    /// Adds to a stored stream what its cell knows. The flag: by the wall clock it has expired.
    fn listed(&self, stored: StoredStream, now: Timestamp) -> (ListedStream, bool) {
        let StoredStream { path, state, forks } = stored;
        let mut summary = match state {
            Ok(state) => StreamSummary::of(state, forks),
            Err(error) => {
                return (ListedStream { path, summary: Err(rejection(error)) }, false);
            }
        };
        if let Some(cell) = self.registry.find(&path) {
            let state = cell.state.lock();
            summary.live_readers = state.live_readers();
            let known = state.assigned.as_ref();
            if let Some(known) = known.filter(|known| known.core.id == summary.view.core.id)
                && matches!(known.core.expiry, Expiry::Ttl(_))
            {
                summary.last_used = summary.last_used.max(known.touched);
                summary.deadline = known.core.expiry.deadline(summary.last_used);
            }
        }
        let expired = summary.deadline.is_some_and(|deadline| deadline <= now);
        (ListedStream { path, summary: Ok(summary) }, expired)
    }
}
