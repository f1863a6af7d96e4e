//! One active stream: the state decided so far, the state that is durable, and who waits for the one to
//! become the other.
//!
//! Invariants
//! - `assigned` is what commands are judged on; `durable` is all that readers ever see.
//! - `pending` is in version order; an entry leaves it when its version is durable or lost, never before.
//! - The lock guards memory only: nothing is awaited and no I/O is done under it.
//! - A lost commit makes the cell forget `assigned`; it is loaded again once `pending` is empty.
//!
//! One file because these invariants are kept by the cell, its queue and its sink together.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::{oneshot, watch};

use super::{StreamObserver, forks::ForkChange};
use crate::{
    protocol::{
        Control, Offset, StreamCore, StreamEvent, StreamId, StreamPath, StreamState, Tail,
        Timestamp,
    },
    store::{AnyStore, Commit, CommitSink, Committed, Loaded, LogEpoch, StoreError},
};

pub(super) type Reply = oneshot::Receiver<Result<(), StoreError>>;
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
    watch: Option<Watched>,
}

/// What live readers share; there from the first one on.
struct Watched {
    tail: watch::Sender<Published>,
    frames: Arc<FrameSlot>,
}

/// The stream as readers may see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) core: Option<Arc<StreamCore>>,
    pub(super) tail: Offset,
    pub(super) closed: bool,
    pub(super) soft_deleted: bool,
}

/// Something that waits for a version to become durable.
struct Pending {
    version: u64,
    /// What readers see from then on; `None` when the entry only waits.
    effect: Option<Durable>,
    reply: Option<oneshot::Sender<Result<(), StoreError>>>,
    /// What it changed in another cell, which must stay in memory until then.
    forks: Option<ForkChange>,
}

/// What live readers watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Published {
    id: Option<StreamId>,
    tail: Tail,
}

/// A live reader's view of one stream's tail. Take it before looking at the tail, and no append is missed.
pub struct TailWatch {
    id: StreamId,
    receiver: watch::Receiver<Published>,
    frames: Arc<FrameSlot>,
}

/// Where the live readers of one stream leave the newest frame for each other: readers that follow the
/// tail all need the same one, and it is encoded once.
pub(super) type FrameSlot = Mutex<Option<LiveFrame>>;

/// One data event with its control event, and what it was made from.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    /// The stream.
    pub id: StreamId,
    /// Where the data begins.
    pub from: Offset,
    /// The tail that was seen.
    pub tail: Tail,
    /// Where the data ends.
    pub end: Offset,
    /// The bytes up to the tail are the beginning of a character.
    pub held: bool,
    /// The control event.
    pub control: Control,
    /// Both events.
    pub bytes: Bytes,
}

impl TailWatch {
    /// The frame that another reader left, if it begins and ends where this one needs it.
    pub fn frame(&self, from: Offset, tail: Tail) -> Option<LiveFrame> {
        let fits =
            |frame: &LiveFrame| frame.from == from && frame.tail == tail && frame.id == self.id;
        self.frames.lock().as_ref().filter(|frame| fits(frame)).cloned()
    }

    /// Leaves a frame for others.
    pub fn leave_frame(&self, frame: LiveFrame) {
        *self.frames.lock() = Some(frame);
    }

    /// The stream that is watched.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The newest durable tail, which is seen from now on.
    pub fn tail(&mut self) -> Tail {
        let published = *self.receiver.borrow_and_update();
        if published.id == Some(self.id) {
            published.tail
        } else {
            Tail { gone: true, ..published.tail }
        }
    }

    /// Waits for a tail that was not seen yet.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The cell is gone only when the engine is; there is nothing to wait for.
            std::future::pending().await
        }
    }
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
        let watched = self.watch.as_ref().is_some_and(|watch| watch.tail.receiver_count() > 0);
        self.pending.is_empty() && !watched && self.unstored_touch().is_none()
    }

    /// The last read or write, when the store does not know of it.
    pub(super) fn unstored_touch(&self) -> Option<(StreamId, Timestamp)> {
        let state = self.assigned.as_ref()?;
        (state.touched > self.stored_touch).then_some((state.core.id, state.touched))
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

    /// Applies an event and hands it to the store. Returns what to wait for, if it is not durable yet.
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
    ) -> Result<Option<Reply>, StoreError> {
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
    ) -> Result<Option<Reply>, StoreError> {
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
                let (reply, wait) = oneshot::channel();
                self.pending.push_back(Pending {
                    version: self.version,
                    effect: Some(effect),
                    reply: Some(reply),
                    forks,
                });
                Ok(Some(wait))
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
        match (event, &mut self.assigned) {
            (StreamEvent::Created(created), assigned) => {
                *assigned = Some(StreamState::created(id, created));
                self.stored_touch = created.at;
                self.forks.clear();
            }
            (StreamEvent::Deleted { .. }, assigned) => *assigned = None,
            (event, Some(state)) => {
                state.apply(event);
                self.stored_touch = state.touched;
            }
            (_, None) => {}
        }
    }

    /// What to wait for before telling anyone about the assigned state; `None` when it is durable.
    pub(super) fn settled(&mut self) -> Option<Reply> {
        if self.durable_version == self.version {
            return None;
        }
        let (reply, wait) = oneshot::channel();
        let version = self.version;
        self.pending.push_back(Pending { version, effect: None, reply: Some(reply), forks: None });
        Some(wait)
    }

    pub(super) fn watch(&mut self, id: StreamId) -> TailWatch {
        let published = self.published();
        let watched = self.watch.get_or_insert_with(|| Watched {
            tail: watch::Sender::new(published),
            frames: Arc::default(),
        });
        TailWatch { id, receiver: watched.tail.subscribe(), frames: watched.frames.clone() }
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
        if let Some(watch) = &self.watch {
            let published = self.published();
            watch.tail.send_if_modified(|seen| std::mem::replace(seen, published) != published);
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

impl StreamCell {
    fn observe(&self, before: &Durable, after: &Durable) {
        let Some(observer) = self.observer.get() else { return };
        let moved = before.tail != after.tail || before.core.is_some() != after.core.is_some();
        if moved || before.soft_deleted != after.soft_deleted {
            observer.on_durable(&self.path, after.core.as_ref(), after.tail());
        }
    }
}

impl CommitSink for StreamCell {
    fn committed(&self, version: u64) {
        let mut replies = Vec::new();
        let mut inner = self.inner.lock();
        let observed = self.observer.get().is_some();
        let seen = observed.then(|| inner.durable.clone());
        while inner.pending.front().is_some_and(|pending| pending.version <= version) {
            let Some(pending) = inner.pending.pop_front() else { break };
            if let Some(effect) = pending.effect {
                inner.durable = effect;
            }
            replies.extend(pending.reply);
        }
        inner.durable_version = inner.durable_version.max(version);
        inner.publish();
        let change = seen.map(|seen| (seen, inner.durable.clone()));
        drop(inner);
        if let Some((seen, now)) = change {
            self.observe(&seen, &now);
        }
        for reply in replies {
            // The client may have left; its append stands all the same.
            let _ = reply.send(Ok(()));
        }
    }

    fn failed(&self, version: u64, error: StoreError) {
        let mut inner = self.inner.lock();
        if inner.pending.front().is_none_or(|pending| pending.version > version) {
            return;
        }
        // What was decided on top of it is lost, too.
        let lost = std::mem::take(&mut inner.pending);
        inner.forget();
        drop(inner);
        // Newest first, as undoing goes; and before anyone is told, so that a new try finds the sets right.
        for change in lost.iter().rev().filter_map(|pending| pending.forks.as_ref()) {
            change.undo();
        }
        for reply in lost.into_iter().filter_map(|pending| pending.reply) {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
