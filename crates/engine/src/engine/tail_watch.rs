//! What the live readers of one stream share: its durable tail, and the newest encoded frame.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use durable_streams_protocol::{ControlEvent, Offset, StreamId, Tail};
use parking_lot::Mutex;

use super::{
    cell::StreamCell,
    clock::Clock,
    wake_ring::{SlotKey, WakeRing},
};

/// The durable tail at a path, and the stream it belongs to; `None` when no stream exists there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TailUpdate {
    pub(super) id: Option<StreamId>,
    pub(super) tail: Tail,
}

/// The writing end, held by the stream's cell from the first live reader on.
pub(super) struct TailPublisher {
    shared: Arc<SharedTail>,
}

struct SharedTail {
    state: Mutex<TailState>,
    /// The newest frame: readers that follow the tail all need the same one, and it is encoded once.
    frame: Mutex<Option<LiveFrame>>,
}

struct TailState {
    update: TailUpdate,
    revision: TailRevision,
    readers: WakeRing,
}

/// Counts the updates of one path's tail, so that a reader can tell whether it has seen the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TailRevision(u64);

impl TailPublisher {
    pub(super) fn new(update: TailUpdate) -> Self {
        let (revision, readers) = (TailRevision::default(), WakeRing::default());
        let state = Mutex::new(TailState { update, revision, readers });
        TailPublisher { shared: Arc::new(SharedTail { state, frame: Mutex::default() }) }
    }

    pub(super) fn watch(&self, id: StreamId) -> TailWatch {
        let mut state = self.shared.state.lock();
        let (slot, seen) = (state.readers.join(), state.revision);
        drop(state);
        TailWatch { id, shared: self.shared.clone(), slot, seen, held: None }
    }

    /// Shows readers an update without waking them. Returns whether it differs from the last one.
    pub(super) fn show(&self, update: TailUpdate) -> bool {
        let mut state = self.shared.state.lock();
        let changed = std::mem::replace(&mut state.update, update) != update;
        state.revision.0 += u64::from(changed);
        changed
    }

    /// Wakes the waiting readers, some now and the others as those have run.
    pub(super) fn wake(&self) {
        let woken = self.shared.state.lock().readers.start_round();
        woken.into_iter().for_each(Waker::wake);
    }

    pub(super) fn reader_count(&self) -> usize {
        self.shared.state.lock().readers.len()
    }

    pub(super) fn is_watched(&self) -> bool {
        !self.shared.state.lock().readers.is_empty()
    }
}

/// A live reader's view of one stream's tail.
///
/// The reader creates the watch before it looks at the tail, so that no append falls in between. A watch holds the
/// newest tail only: a slow reader makes no queue grow, and reads a larger range next.
pub struct TailWatch {
    id: StreamId,
    shared: Arc<SharedTail>,
    slot: SlotKey,
    seen: TailRevision,
    /// The cell whose TTL this reader holds.
    held: Option<(Arc<StreamCell>, Clock)>,
}

/// One data event with its control event as sent to one reader, and what it was made from.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    /// The stream.
    pub id: StreamId,
    /// Where the data begins.
    pub from: Offset,
    /// The tail that the reader saw.
    pub tail: Tail,
    /// Where the data ends.
    pub end: Offset,
    /// Whether the bytes between `end` and the tail are an unfinished UTF-8 character.
    pub held: bool,
    /// The control event.
    pub control: ControlEvent,
    /// Both events, in the framing that all readers of this engine share.
    pub bytes: Bytes,
}

impl TailWatch {
    /// The frame that another reader shared, if it begins at `from` and was made for `tail`.
    pub fn frame(&self, from: Offset, tail: Tail) -> Option<LiveFrame> {
        let fits =
            |frame: &LiveFrame| frame.from == from && frame.tail == tail && frame.id == self.id;
        self.shared.frame.lock().as_ref().filter(|frame| fits(frame)).cloned()
    }

    /// Shares a frame with the stream's other readers, in place of the one shared before.
    pub fn leave_frame(&self, frame: LiveFrame) {
        *self.shared.frame.lock() = Some(frame);
    }

    /// Holds the TTL of the watched stream, which must not run out under a live reader (§5.1). No timer runs: the
    /// sweeper, a request, or the end of this watch finds that the TTL has run out and restarts it.
    pub(super) fn hold_ttl(&mut self, cell: Arc<StreamCell>, clock: Clock) {
        self.held = Some((cell, clock));
    }

    /// The stream that is watched.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The newest durable tail. [`changed`](Self::changed) waits for one after it.
    pub fn tail(&mut self) -> Tail {
        let mut state = self.shared.state.lock();
        self.seen = state.revision;
        let update = state.update;
        let woken = state.readers.ack(self.slot);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if update.id == Some(self.id) { update.tail } else { Tail { gone: true, ..update.tail } }
    }

    /// Waits until the tail differs from the one that [`tail`](Self::tail) returned last.
    pub async fn changed(&mut self) {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state.lock();
        let woken = state.readers.ack(self.slot);
        let changed = state.revision != self.seen;
        if !changed {
            state.readers.wait(self.slot, cx.waker());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if changed { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for TailWatch {
    fn drop(&mut self) {
        let woken = self.shared.state.lock().readers.leave(self.slot);
        woken.into_iter().for_each(Waker::wake);
        if let Some((cell, clock)) = &self.held {
            cell.state.lock().release(self.id, clock.now());
        }
    }
}
