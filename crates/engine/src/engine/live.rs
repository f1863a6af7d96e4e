//! What the live readers of one stream share: its durable tail, and the newest frame.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use durable_streams_protocol::{ControlEvent, Offset, StreamId, Tail};
use parking_lot::Mutex;

use super::{cell::StreamCell, clock::Clock, relay::Relay};

/// What live readers watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) id: Option<StreamId>,
    pub(super) tail: Tail,
}

/// The writing end, held by the stream's cell from the first live reader on.
pub(super) struct LiveTail {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Where the live readers leave the newest frame for each other: readers that follow the tail all need the
    /// same one, and it is encoded once.
    frame: Mutex<Option<LiveFrame>>,
}

struct State {
    published: Published,
    /// Goes up with each that is shown.
    version: u64,
    readers: Relay,
}

impl LiveTail {
    pub(super) fn new(published: Published) -> Self {
        let state = State { published, version: 0, readers: Relay::default() };
        LiveTail { shared: Arc::new(Shared { state: Mutex::new(state), frame: Mutex::default() }) }
    }

    pub(super) fn watch(&self, id: StreamId) -> TailWatch {
        let mut state = self.shared.state.lock();
        let (place, seen) = (state.readers.join(), state.version);
        drop(state);
        TailWatch { id, shared: self.shared.clone(), place, seen, kept: None }
    }

    /// Shows readers what is new, without waking them. Says whether anything is.
    pub(super) fn show(&self, published: Published) -> bool {
        let mut state = self.shared.state.lock();
        let news = std::mem::replace(&mut state.published, published) != published;
        state.version += u64::from(news);
        news
    }

    /// Wakes readers, some now and the others as those have looked at what was shown.
    pub(super) fn wake(&self) {
        let woken = self.shared.state.lock().readers.round();
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whether anyone reads live now.
    pub(super) fn is_watched(&self) -> bool {
        !self.shared.state.lock().readers.is_empty()
    }
}

/// A live reader's view of one stream's tail. Take it before looking at the tail, and no append is missed.
pub struct TailWatch {
    id: StreamId,
    shared: Arc<Shared>,
    place: usize,
    /// The version that was seen last.
    seen: u64,
    /// The stream that this reader keeps from expiring.
    kept: Option<(Arc<StreamCell>, Clock)>,
}

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
    pub control: ControlEvent,
    /// Both events, framed as who left it and who takes it agree.
    pub bytes: Bytes,
}

impl TailWatch {
    /// The frame that another reader left, if it begins and ends where this one needs it.
    pub fn frame(&self, from: Offset, tail: Tail) -> Option<LiveFrame> {
        let fits =
            |frame: &LiveFrame| frame.from == from && frame.tail == tail && frame.id == self.id;
        self.shared.frame.lock().as_ref().filter(|frame| fits(frame)).cloned()
    }

    /// Leaves a frame for others.
    pub fn leave_frame(&self, frame: LiveFrame) {
        *self.shared.frame.lock() = Some(frame);
    }

    /// For a stream with a sliding TTL, which does not run out while it is watched (§5.1). Nothing ticks:
    /// the sweeper, a request or the reader's leaving finds that the time is up and begins it anew.
    pub(super) fn keep_alive(&mut self, cell: Arc<StreamCell>, clock: Clock) {
        self.kept = Some((cell, clock));
    }

    /// The stream that is watched.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The newest durable tail, which is seen from now on.
    pub fn tail(&mut self) -> Tail {
        let mut state = self.shared.state.lock();
        self.seen = state.version;
        let published = state.published;
        let woken = state.readers.heard(self.place);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if published.id == Some(self.id) {
            published.tail
        } else {
            Tail { gone: true, ..published.tail }
        }
    }

    /// Waits for a tail that was not seen yet.
    pub async fn changed(&mut self) {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state.lock();
        let woken = state.readers.heard(self.place);
        let news = state.version != self.seen;
        if !news {
            state.readers.wait(self.place, cx.waker());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if news { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for TailWatch {
    fn drop(&mut self) {
        let woken = self.shared.state.lock().readers.leave(self.place);
        woken.into_iter().for_each(Waker::wake);
        if let Some((cell, clock)) = &self.kept {
            cell.inner.lock().unkeep(self.id, clock.now());
        }
    }
}
