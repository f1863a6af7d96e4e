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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const ID: StreamId = StreamId(3);

    fn update(offset: u64) -> TailUpdate {
        let tail = Tail { offset: Offset::new(offset), ..Tail::default() };
        TailUpdate { id: Some(ID), tail }
    }

    /// Whether a reader that waits would go on.
    fn changes(watch: &mut TailWatch) -> bool {
        watch.changed().now_or_never().is_some()
    }

    #[test]
    fn a_reader_goes_on_after_each_change_that_it_has_not_seen() {
        let publisher = TailPublisher::new(update(5));
        assert!(!publisher.is_watched());
        let mut watch = publisher.watch(ID);
        assert_eq!((publisher.reader_count(), publisher.is_watched(), watch.id()), (1, true, ID));
        assert!(!changes(&mut watch));
        assert_eq!(watch.tail(), update(5).tail);
        assert!(!publisher.show(update(5)), "it is the same");
        assert!(!changes(&mut watch));
        assert!(publisher.show(update(6)) && publisher.show(update(7)));
        assert!(changes(&mut watch) && changes(&mut watch), "until it has looked");
        assert_eq!(watch.tail(), update(7).tail);
        assert!(!changes(&mut watch));
        let mut late = publisher.watch(ID);
        assert!(!changes(&mut late), "what was before is no change");
        assert_eq!(publisher.reader_count(), 2);
        drop(watch);
        assert_eq!(publisher.reader_count(), 1);
    }

    #[test]
    fn a_stream_of_another_id_or_none_is_gone_for_its_readers() {
        let publisher = TailPublisher::new(update(5));
        let mut watch = publisher.watch(ID);
        assert!(!watch.tail().gone);
        let other = TailUpdate { id: Some(StreamId(4)), ..update(5) };
        assert!(publisher.show(other), "with the same tail");
        assert!(changes(&mut watch));
        assert_eq!(watch.tail(), Tail { gone: true, ..update(5).tail });
        publisher.show(TailUpdate { id: None, ..update(5) });
        assert!(watch.tail().gone);
    }

    #[test]
    fn waiting_readers_are_woken_and_those_that_left_make_room() {
        let publisher = TailPublisher::new(update(0));
        let waker = || {
            struct Count(std::sync::atomic::AtomicUsize);
            impl std::task::Wake for Count {
                fn wake(self: Arc<Self>) {
                    self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
            let count = Arc::new(Count(0.into()));
            (count.clone().into(), move || count.0.load(std::sync::atomic::Ordering::Relaxed))
        };
        let mut readers: Vec<_> = (0..20)
            .map(|_| {
                let (waker, woken): (Waker, _) = waker();
                let watch = publisher.watch(ID);
                assert!(watch.poll_changed(&mut Context::from_waker(&waker)).is_pending());
                (watch, woken)
            })
            .collect();
        publisher.show(update(1));
        let woken = |readers: &[(TailWatch, _)], of: &dyn Fn(&(TailWatch, _)) -> usize| {
            readers.iter().map(of).sum::<usize>()
        };
        let count = |(_, woken): &(TailWatch, _)| -> usize { (woken as &dyn Fn() -> usize)() };
        assert_eq!(woken(&readers, &count), 0, "shown only");
        publisher.wake();
        assert_eq!(woken(&readers, &count), 16);
        for (watch, _) in &mut readers[..4] {
            watch.tail();
        }
        readers.drain(..4);
        assert_eq!(woken(&readers, &count), 12, "four of eight have run");
        for (watch, _) in &readers[..4] {
            assert!(watch.poll_changed(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        assert_eq!(woken(&readers, &count), 16, "all of them");
    }

    #[test]
    fn a_frame_is_for_readers_of_the_same_bytes_and_tail() {
        let publisher = TailPublisher::new(update(9));
        let watch = publisher.watch(ID);
        let (from, tail) = (Offset::new(4), update(9).tail);
        assert!(watch.frame(from, tail).is_none());
        let control = ControlEvent {
            next_offset: tail.offset,
            cursor: None,
            up_to_date: true,
            closed: false,
        };
        let bytes = Bytes::from_static(b"frame");
        watch.leave_frame(LiveFrame {
            id: ID,
            from,
            tail,
            end: tail.offset,
            held: false,
            control,
            bytes,
        });
        let other = publisher.watch(ID);
        assert_eq!(other.frame(from, tail).map(|frame| frame.bytes), Some("frame".into()));
        assert!(other.frame(Offset::new(5), tail).is_none());
        assert!(other.frame(from, update(10).tail).is_none());
        assert!(publisher.watch(StreamId(4)).frame(from, tail).is_none());
    }
}
