//! What the engine keeps of the lifecycle stream beside its cell.

use durable_streams_protocol::{Offset, StreamId, Timestamp};
use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct LifecycleLog {
    /// Locked under the lock of the stream's cell.
    pub(super) mark: Mutex<Option<TrimMark>>,
    pub(super) upkeep: Mutex<LifecycleUpkeep>,
}

/// A position where a message begins: once there is enough behind it, everything before it goes.
#[derive(Clone, Copy)]
pub(super) struct TrimMark {
    pub(super) stream: StreamId,
    pub(super) at: Offset,
    pub(super) messages: Option<u64>,
}

/// Whether the stream is there as the limits want it.
#[derive(Clone, Copy, Default)]
pub(super) struct LifecycleUpkeep {
    /// `None`: that is not known yet.
    pub(super) exists: Option<bool>,
    /// When to try again after a failure, by the steady clock.
    pub(super) retry_at: Timestamp,
}
