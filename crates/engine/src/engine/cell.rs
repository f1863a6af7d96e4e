//! One active stream: the state decided so far, the state that is durable, and who waits for the one to
//! become the other.
//!
//! Invariants
//! - `assigned` is what commands are judged on; `durable` is all that readers ever see.
//! - `pending` is in version order; an entry leaves it when its version is durable or lost, never before.
//! - The lock guards memory only: nothing is awaited and no I/O is done under it.
//! - A lost commit makes the cell forget `assigned`; it is loaded again once `pending` is empty.
//! - What becomes of a commit is in `fate`; what live readers share is in `live`.

mod fate;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use durable_streams_protocol::{
    Offset, Rejection, StreamCore, StreamEvent, StreamId, StreamPath, StreamState, Tail, Timestamp,
};
use fate::Pending;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::{
    StreamObserver,
    forks::ForkChange,
    live::{LiveTail, Published, TailWatch},
    ticket::{Judged, Ticket},
};
use crate::store::{AnyStore, Commit, Committed, Loaded, LogEpoch, StoreError};

pub(super) type Observer = Arc<OnceLock<Arc<dyn StreamObserver>>>;

/// See the module.
pub(super) struct StreamCell {
    pub(super) path: StreamPath,
    /// Held while loading, so that a stream is loaded once.
    pub(super) loading: tokio::sync::Mutex<()>,
    pub(super) inner: Mutex<Inner>,
    /// Seconds since 1970 of the last use, for eviction.
    last_used: AtomicU32,
    observer: Observer,
}

/// What the lock guards.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) loaded: bool,
    /// The state decided so far; `None` when no stream lives here.
    pub(super) assigned: Option<StreamState>,
    /// Forks of the assigned stream.
    pub(super) forks: FxHashSet<StreamId>,
    /// The touch that the store knows of.
    pub(super) stored_touch: Timestamp,
    /// The last access of a stream whose state was forgotten: a disk that takes no writes must not make a
    /// stream expire that is being read.
    kept_touch: Option<(StreamId, Timestamp)>,
    pub(super) durable: Durable,
    epoch: LogEpoch,
    version: u64,
    durable_version: u64,
    pending: VecDeque<Pending>,
    live: Option<LiveTail>,
    /// The stream whose sliding TTL does not run out, and the live readers that keep it.
    kept: (Option<StreamId>, usize),
}

/// The stream as readers may see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) core: Option<Arc<StreamCore>>,
    pub(super) tail: Offset,
    pub(super) closed: bool,
    pub(super) soft_deleted: bool,
    /// When its time is up, as far as it was known when the state was decided.
    pub(super) deadline: Option<Timestamp>,
}

impl StreamCell {
    pub(super) fn new(path: StreamPath, observer: Observer) -> Self {
        StreamCell {
            path,
            loading: tokio::sync::Mutex::new(()),
            inner: Mutex::default(),
            last_used: AtomicU32::new(0),
            observer,
        }
    }

    pub(super) fn touch(&self, now: Timestamp) {
        self.last_used.store((now.millis() / 1000) as u32, Ordering::Relaxed);
    }

    /// Not used for `seconds`.
    pub(super) fn is_idle(&self, now: Timestamp, seconds: u32) -> bool {
        let used = self.last_used.load(Ordering::Relaxed);
        ((now.millis() / 1000) as u32).saturating_sub(used) >= seconds
    }

    /// Holds nothing that is not in the store, and nobody is at it now.
    pub(super) fn is_clean(&self) -> bool {
        self.inner.try_lock().is_some_and(|inner| inner.is_clean())
    }
}

impl Inner {
    /// Nothing here is missing from the store, and nobody watches.
    pub(super) fn is_clean(&self) -> bool {
        let watched = self.live.as_ref().is_some_and(LiveTail::is_watched);
        self.pending.is_empty() && !watched && self.unstored_touch().is_none()
    }

    /// The last read or write, when the store does not know of it.
    pub(super) fn unstored_touch(&self) -> Option<(StreamId, Timestamp)> {
        let state = self.assigned.as_ref()?;
        (state.touched > self.stored_touch).then_some((state.core.id, state.touched))
    }

    /// Whether the assigned stream's time is up. A sliding TTL does not run out under a live reader (§5.1).
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.assigned.as_ref().is_some_and(|state| state.is_expired(now)) && !self.is_read_live()
    }

    fn is_read_live(&self) -> bool {
        let (id, readers) = self.kept;
        readers > 0 && self.assigned.as_ref().is_some_and(|state| id == Some(state.core.id))
    }

    /// Begins the TTL anew if only its live readers have kept the stream until now.
    pub(super) fn renew_read_live(&mut self, now: Timestamp) {
        let kept = self.is_read_live();
        if let Some(state) = self.assigned.as_mut().filter(|s| kept && s.is_expired(now)) {
            state.touched = state.touched.max(now);
        }
    }

    /// A live reader of a stream with a sliding TTL comes.
    pub(super) fn keep(&mut self, id: StreamId) {
        let (kept, readers) = self.kept;
        self.kept = (Some(id), if kept == Some(id) { readers + 1 } else { 1 });
    }

    /// It leaves. Perhaps the time was up before anyone looked: then it has kept the stream until now, and
    /// may be about to come back, as it must when an SSE connection is recycled.
    pub(super) fn unkeep(&mut self, id: StreamId, now: Timestamp) {
        if self.kept.0 == Some(id) {
            self.renew_read_live(now);
            self.kept.1 = self.kept.1.saturating_sub(1);
        }
    }

    pub(super) fn can_load(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes in what the store has. `epoch` was read before the store was asked.
    pub(super) fn install(&mut self, loaded: Option<Loaded>, epoch: LogEpoch) {
        self.loaded = true;
        self.epoch = epoch;
        self.forks = FxHashSet::default();
        self.assigned = loaded.map(|loaded| {
            self.forks.extend(loaded.forks);
            loaded.state
        });
        self.stored_touch = self.assigned.as_ref().map_or(Timestamp::default(), |s| s.touched);
        if let (Some((id, at)), Some(state)) = (self.kept_touch.take(), &mut self.assigned)
            && state.core.id == id
        {
            state.touched = state.touched.max(at);
        }
        self.durable = Durable::of(self.assigned.as_ref());
        self.durable_version = self.version;
        self.publish();
    }

    /// Applies an event and hands it to the store. Returns the ticket, unless the event is durable already.
    ///
    /// # Errors
    /// Those of [`AnyStore::commit`]; the stream is loaded again before anything else is decided on it.
    pub(super) fn commit(
        &mut self,
        cell: &Arc<StreamCell>,
        store: &AnyStore,
        id: StreamId,
        event: StreamEvent,
        forks: Option<ForkChange>,
    ) -> Result<Option<Ticket>, StoreError> {
        self.hand_over(cell, store.epoch(), |commit| store.commit(commit), id, event, forks)
    }

    fn hand_over(
        &mut self,
        cell: &Arc<StreamCell>,
        epoch: LogEpoch,
        to: impl FnOnce(Commit) -> Result<Committed, StoreError>,
        id: StreamId,
        event: StreamEvent,
        forks: Option<ForkChange>,
    ) -> Result<Option<Ticket>, StoreError> {
        if self.durable_version == self.version {
            // Nothing that this is decided on can have been lost, whatever was lost elsewhere.
            self.epoch = epoch;
        }
        self.apply(id, &event);
        let effect = Durable::of(self.assigned.as_ref());
        self.version += 1;
        let commit =
            Commit { id, event, epoch: self.epoch, version: self.version, sink: cell.clone() };
        match to(commit) {
            Ok(Committed::Now) => {
                self.durable_version = self.version;
                let seen = std::mem::replace(&mut self.durable, effect);
                self.publish();
                cell.observe(&seen, &self.durable);
                Ok(None)
            }
            Ok(Committed::Queued) => {
                let (resolution, ticket) = Ticket::new();
                self.pending.push_back(Pending {
                    version: self.version,
                    effect: Some(effect),
                    resolution,
                    forks,
                });
                Ok(Some(ticket))
            }
            Err(error) => {
                // Nobody will ever say that this version is durable, so nobody may wait for it.
                self.version -= 1;
                self.forget();
                Err(error)
            }
        }
    }

    fn apply(&mut self, id: StreamId, event: &StreamEvent) {
        match event {
            StreamEvent::Created(_) => self.forks.clear(),
            // Readers see the stream until its removal is durable, but not beyond its time.
            StreamEvent::Deleted { .. } => {
                self.durable.deadline = self.assigned.as_ref().and_then(StreamState::deadline);
            }
            StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. } => {}
        }
        self.assigned = StreamState::fold(self.assigned.take(), id, event);
        if let Some(state) = &self.assigned {
            self.stored_touch = state.touched;
        }
    }

    /// A verdict on the assigned state, with the ticket for that state.
    pub(super) fn judged<T>(&mut self, verdict: Result<T, Rejection>) -> Judged<T> {
        Judged { verdict, ticket: self.ticket() }
    }

    /// The wait until the assigned state is durable; `None` when it is.
    pub(super) fn ticket(&mut self) -> Option<Ticket> {
        if self.durable_version == self.version {
            return None;
        }
        let (resolution, ticket) = Ticket::new();
        let version = self.version;
        self.pending.push_back(Pending { version, effect: None, resolution, forks: None });
        Some(ticket)
    }

    pub(super) fn watch(&mut self, id: StreamId) -> TailWatch {
        let published = self.published();
        self.live.get_or_insert_with(|| LiveTail::new(published)).watch(id)
    }

    fn forget(&mut self) {
        self.loaded = false;
        let forgotten = self.assigned.take();
        self.kept_touch = forgotten.map(|state| (state.core.id, state.touched)).or(self.kept_touch);
    }

    fn published(&self) -> Published {
        let tail = self.durable.tail();
        Published { id: self.durable.core.as_ref().map(|core| core.id), tail }
    }

    fn publish(&self) {
        if let Some(live) = &self.live
            && live.show(self.published())
        {
            live.wake();
        }
    }
}

impl Durable {
    fn of(state: Option<&StreamState>) -> Self {
        state.map_or_else(Durable::default, |state| Durable {
            core: Some(state.core.clone()),
            tail: state.tail,
            closed: state.closed.is_some(),
            soft_deleted: state.soft_deleted,
            deadline: state.deadline(),
        })
    }

    pub(super) fn tail(&self) -> Tail {
        Tail {
            offset: self.tail,
            closed: self.closed,
            gone: self.core.is_none() || self.soft_deleted,
        }
    }
}
