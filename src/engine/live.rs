//! What the live readers of one stream share: its durable tail, and the newest frame.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{cell::StreamCell, clock::Clock};
use crate::protocol::{Control, Offset, StreamId, Tail};

/// What live readers watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) id: Option<StreamId>,
    pub(super) tail: Tail,
}

/// The writing end, held by the stream's cell from the first live reader on.
pub(super) struct LiveTail {
    tail: watch::Sender<Published>,
    frames: Arc<FrameSlot>,
}

impl LiveTail {
    pub(super) fn new(published: Published) -> Self {
        LiveTail { tail: watch::Sender::new(published), frames: Arc::default() }
    }

    pub(super) fn watch(&self, id: StreamId) -> TailWatch {
        TailWatch { id, receiver: self.tail.subscribe(), frames: self.frames.clone(), kept: None }
    }

    /// Shows readers what is new, without waking them. Says whether anything is.
    pub(super) fn show(&self, published: Published) -> bool {
        let mut news = false;
        self.tail.send_if_modified(|seen| {
            news = std::mem::replace(seen, published) != published;
            false
        });
        news
    }

    /// Wakes readers, who look at what was shown.
    pub(super) fn wake(&self) {
        self.tail.send_modify(|_| ());
    }

    /// Whether anyone reads live now.
    pub(super) fn is_watched(&self) -> bool {
        self.tail.receiver_count() > 0
    }
}

/// A live reader's view of one stream's tail. Take it before looking at the tail, and no append is missed.
pub struct TailWatch {
    id: StreamId,
    receiver: watch::Receiver<Published>,
    frames: Arc<FrameSlot>,
    /// The stream that this reader keeps from expiring.
    kept: Option<(Arc<StreamCell>, Clock)>,
}

/// Where the live readers of one stream leave the newest frame for each other: readers that follow the
/// tail all need the same one, and it is encoded once.
type FrameSlot = Mutex<Option<LiveFrame>>;

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

impl Drop for TailWatch {
    fn drop(&mut self) {
        if let Some((cell, clock)) = &self.kept {
            cell.inner.lock().unkeep(self.id, clock.now());
        }
    }
}
