//! One active stream: the state decided so far, the state that is durable, and the callers that wait for the
//! one to become the other.
//!
//! Invariants
//! - `assigned` is what commands are judged on; `durable` is all that readers ever see.
//! - `pending` is in version order. An entry leaves it when its version is durable or lost, never before.
//! - The lock guards memory only: nothing is awaited and no I/O is done under it.
//! - A lost commit makes the cell forget `assigned`. The next request loads it again, once `pending` is empty.
//!
//! [`commit_sink`] takes the store's reports, [`ttl`](super::ttl) has the fields of the sliding expiry.

mod commit_sink;
mod overtaking;
mod producers;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use commit_sink::{CommitEffect, PendingVersion};
use durable_streams_protocol::{
    Offset, Producer, ProducerId, ProducerState, Rejection, StreamCore, StreamEvent, StreamId,
    StreamPath, StreamState, Tail, Timestamp,
};
use overtaking::OvertakingRequests;
use parking_lot::Mutex;
pub(super) use producers::LoadedProducer;
use producers::{CellProducers, EvictionRound};
use rustc_hash::FxHashSet;
use tokio::sync::oneshot;

use super::{
    StreamObserver,
    forks::ForkChange,
    tail_watch::{TailPublisher, TailUpdate, TailWatch},
    ticket::{Judged, Ticket},
    ttl::TtlState,
    usage::{UsageChange, UsageTotals},
};
use crate::store::{
    AnyStore, Commit, Committed, EventPlace, LoadedStream, LogEpoch, Store, StoreError,
};

/// What all cells of an engine share with it.
#[derive(Default)]
pub(super) struct CellContext {
    /// Empty until [`Engine::observe`](super::Engine::observe).
    pub(super) observer: OnceLock<Arc<dyn StreamObserver>>,
    pub(super) usage: UsageTotals,
}

/// A decided event, and what it changes outside its own cell.
pub(super) struct DecidedEvent<'t> {
    pub(super) id: StreamId,
    pub(super) event: StreamEvent,
    /// Where the event belongs, if the state does not say.
    pub(super) place: Option<EventPlace>,
    pub(super) forks: Option<ForkChange>,
    pub(super) usage: Option<UsageChange<'t>>,
}

/// One path's place in memory, whether a stream exists there or not.
pub(super) struct StreamCell {
    pub(super) path: StreamPath,
    /// Held while loading, so that concurrent requests load a stream once.
    pub(super) loading: tokio::sync::Mutex<()>,
    pub(super) state: Mutex<CellState>,
    /// Seconds of the steady clock at the last use, for eviction.
    last_used: AtomicU32,
    context: Arc<CellContext>,
}

/// What the cell's lock guards.
#[derive(Default)]
pub(super) struct CellState {
    pub(super) loaded: bool,
    /// The state decided so far; `None` when no stream exists at the path.
    pub(super) assigned: Option<StreamState>,
    /// Forks of the assigned stream.
    pub(super) forks: FxHashSet<StreamId>,
    pub(super) durable: DurableView,
    pub(super) ttl: TtlState,
    producers: CellProducers,
    overtaking: OvertakingRequests,
    epoch: LogEpoch,
    version: Version,
    durable_version: Version,
    pending: VecDeque<PendingVersion>,
    /// There from the first live reader on.
    live: Option<TailPublisher>,
}

/// Events decided on a cell since it came into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64);

/// The stream as readers may see it.
#[derive(Clone, Debug, Default)]
pub(super) struct DurableView {
    pub(super) core: Option<Arc<StreamCore>>,
    pub(super) tail: Offset,
    pub(super) earliest: Offset,
    pub(super) closed: bool,
    pub(super) soft_deleted: bool,
    /// The deadline that was known when the state was decided.
    pub(super) deadline: Option<Timestamp>,
}

impl StreamCell {
    pub(super) fn new(path: StreamPath, context: Arc<CellContext>) -> Self {
        StreamCell {
            path,
            loading: tokio::sync::Mutex::new(()),
            state: Mutex::default(),
            last_used: AtomicU32::new(0),
            context,
        }
    }

    /// Puts eviction off.
    pub(super) fn mark_used(&self, steady: Timestamp) {
        self.last_used.store((steady.millis() / 1000) as u32, Ordering::Relaxed);
    }

    /// Whether the last use is `seconds` ago or more.
    pub(super) fn is_idle(&self, steady: Timestamp, seconds: u32) -> bool {
        let used = self.last_used.load(Ordering::Relaxed);
        ((steady.millis() / 1000) as u32).saturating_sub(used) >= seconds
    }

    /// Whether the cell may leave memory; `false` while another thread holds the lock.
    pub(super) fn is_clean(&self) -> bool {
        self.state.try_lock().is_some_and(|state| state.is_clean())
    }
}

impl CellState {
    /// Whether the cell may leave memory: the store has everything that is here, and no reader watches the tail.
    pub(super) fn is_clean(&self) -> bool {
        let watched = self.live.as_ref().is_some_and(TailPublisher::is_watched);
        self.pending.is_empty() && !watched && self.unstored_touch().is_none()
    }

    pub(super) fn can_load(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes in what the store has. `epoch` was read before the store was asked.
    pub(super) fn install(&mut self, loaded: Option<LoadedStream>, epoch: LogEpoch) {
        self.loaded = true;
        self.epoch = epoch;
        self.forks = FxHashSet::default();
        self.overtaking = OvertakingRequests::default();
        self.producers.begin(loaded.as_ref().map_or(0, |loaded| loaded.producers));
        self.assigned = loaded.map(|loaded| {
            self.forks.extend(loaded.forks);
            loaded.state
        });
        self.ttl.restore(self.assigned.as_mut());
        self.durable = DurableView::of(self.assigned.as_ref());
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
        decided: DecidedEvent<'_>,
    ) -> Result<Option<Ticket>, StoreError> {
        self.commit_to(cell, store.epoch(), |commit| store.commit(commit), decided)
    }

    /// As [`commit`](Self::commit), with the log epoch at this moment and another way into the store.
    pub(super) fn commit_to(
        &mut self,
        cell: &Arc<StreamCell>,
        epoch: LogEpoch,
        store: impl FnOnce(Commit) -> Result<Committed, StoreError>,
        decided: DecidedEvent<'_>,
    ) -> Result<Option<Ticket>, StoreError> {
        let DecidedEvent { id, event, place, forks, usage } = decided;
        if self.durable_version == self.version {
            // All that this event is decided on is durable, whatever the log lost elsewhere.
            self.epoch = epoch;
        }
        let place = place.unwrap_or_else(|| match (&event, &self.assigned) {
            (StreamEvent::Created(created), _) => EventPlace::of_creation(created),
            (_, assigned) => assigned.as_ref().map_or_else(EventPlace::default, EventPlace::behind),
        });
        self.apply(id, &event);
        let effect = DurableView::of(self.assigned.as_ref());
        self.version.0 += 1;
        let (epoch, version) = (self.epoch, self.version.0);
        match store(Commit { id, event, place, epoch, version, sink: cell.clone() }) {
            Ok(Committed::Now) => {
                usage.map(UsageChange::keep);
                self.durable_version = self.version;
                let before = std::mem::replace(&mut self.durable, effect);
                self.publish();
                cell.observe(&before, &self.durable);
                Ok(None)
            }
            Ok(Committed::Queued) => {
                let usage = usage.map(UsageChange::keep).unwrap_or_default();
                Ok(Some(self.wait_for(Some(CommitEffect { view: effect, forks, usage }))))
            }
            Err(error) => {
                // The store will never report this version, so no ticket may wait for it.
                self.version.0 -= 1;
                self.forget();
                Err(error)
            }
        }
    }

    fn apply(&mut self, id: StreamId, event: &StreamEvent) {
        match event {
            StreamEvent::Created(_) => {
                self.forks.clear();
                self.producers.begin(0);
            }
            // Readers see the stream until its removal is durable, but not beyond its deadline.
            StreamEvent::Deleted { .. } => {
                self.durable.deadline = self.assigned.as_ref().and_then(StreamState::deadline);
            }
            StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::SoftDeleted { .. }
            | StreamEvent::Trimmed(_)
            | StreamEvent::ExpiryChanged { .. }
            | StreamEvent::Marked { .. } => {}
        }
        let in_state =
            |state: &Option<StreamState>| state.as_ref().map_or(0, |s| s.producers.len());
        let before = in_state(&self.assigned);
        self.assigned = StreamState::fold(self.assigned.take(), id, event);
        self.producers.count_new(in_state(&self.assigned).saturating_sub(before));
        self.ttl.stored_with(self.assigned.as_ref());
    }

    /// A verdict on the assigned state, with the ticket for that state.
    pub(super) fn judged<T>(&mut self, verdict: Result<T, Rejection>) -> Judged<T> {
        Judged { verdict, ticket: self.ticket() }
    }

    /// The wait until the assigned state is durable; `None` when it is.
    pub(super) fn ticket(&mut self) -> Option<Ticket> {
        let durable = self.durable_version == self.version;
        (!durable).then(|| self.wait_for(None))
    }

    fn wait_for(&mut self, effect: Option<CommitEffect>) -> Ticket {
        let (resolver, ticket) = Ticket::new();
        self.pending.push_back(PendingVersion { version: self.version, effect, resolver });
        ticket
    }

    pub(super) fn watch(&mut self, id: StreamId) -> TailWatch {
        let update = self.update();
        self.live.get_or_insert_with(|| TailPublisher::new(update)).watch(id)
    }

    /// Live readers of the stream now.
    pub(super) fn live_readers(&self) -> usize {
        self.live.as_ref().map_or(0, TailPublisher::reader_count)
    }

    /// How many producers the assigned stream has.
    pub(super) fn producers(&self) -> u64 {
        self.producers.total()
    }

    /// What the assigned stream remembers of a producer. Returns `None` when the store must be asked, and `loaded` is not
    /// its answer.
    pub(super) fn producer(
        &mut self,
        id: &ProducerId,
        loaded: Option<LoadedProducer>,
    ) -> Option<Option<ProducerState>> {
        let in_state = &mut self.assigned.as_mut()?.producers;
        match in_state.get(id) {
            Some(known) => Some(Some(*known)),
            None => {
                let versions = (self.version.0, self.durable_version.0);
                self.producers.recall(in_state, versions, id, loaded)
            }
        }
    }

    /// Registers a request that arrived before its predecessor. The receiver resolves when the predecessor is committed,
    /// or when the stream is loaded again. `None` when too many requests of the stream wait already.
    pub(super) fn register_overtaking(
        &mut self,
        producer: &Producer,
    ) -> Option<oneshot::Receiver<()>> {
        self.overtaking.register(producer)
    }

    /// Wakes the request that waits for `committed`.
    pub(super) fn wake_successor(&mut self, committed: &Producer) {
        self.overtaking.wake_successor(committed);
    }

    /// Drops what [`register_overtaking`](Self::register_overtaking) keeps of requests that no longer wait.
    pub(super) fn forget_cancelled(&mut self) {
        self.overtaking.forget_cancelled();
    }

    /// Where to look for a producer's record.
    pub(super) fn producer_lookup(&self) -> Option<(StreamId, EvictionRound)> {
        let stream = self.assigned.as_ref()?;
        Some((stream.core.id, self.producers.round()))
    }

    /// Producers in memory.
    #[cfg(test)]
    pub(super) fn producers_in_memory(&self) -> usize {
        let in_state = self.assigned.as_ref().map_or(0, |stream| stream.producers.len());
        in_state + self.producers.older()
    }

    /// Brings back the state of before an event that the store refused for lack of room.
    pub(super) fn restore(&mut self, before: Option<StreamState>) {
        self.loaded = true;
        self.assigned = before;
        self.ttl.restore(self.assigned.as_mut());
    }

    fn forget(&mut self) {
        self.loaded = false;
        self.producers.begin(0);
        self.ttl.remember(self.assigned.take().as_ref());
    }

    fn update(&self) -> TailUpdate {
        let tail = self.durable.tail();
        TailUpdate { id: self.durable.core.as_ref().map(|core| core.id), tail }
    }

    fn publish(&self) {
        if let Some(live) = &self.live
            && live.show(self.update())
        {
            live.wake();
        }
    }
}

impl DurableView {
    fn of(state: Option<&StreamState>) -> Self {
        state.map_or_else(DurableView::default, |state| DurableView {
            core: Some(state.core.clone()),
            tail: state.tail,
            earliest: state.earliest,
            closed: state.closed.is_some(),
            soft_deleted: state.soft_deleted,
            deadline: state.deadline(),
        })
    }

    pub(super) fn tail(&self) -> Tail {
        Tail {
            offset: self.tail,
            earliest: self.earliest,
            closed: self.closed,
            gone: self.core.is_none() || self.soft_deleted,
        }
    }
}
