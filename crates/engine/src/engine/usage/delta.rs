//! What one event changes of the streams and bytes that are counted.

use durable_streams_protocol::StreamState;

/// What one event adds to the totals, or removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsageDelta {
    pub(crate) streams: i64,
    pub(crate) bytes: i64,
}

impl UsageDelta {
    /// A stream created with `bytes` of its own.
    pub(crate) fn created(bytes: usize) -> Self {
        UsageDelta { streams: 1, bytes: bytes as i64 }
    }

    pub(crate) fn appended(bytes: usize) -> Self {
        UsageDelta { streams: 0, bytes: bytes as i64 }
    }

    /// A stream deleted with its own bytes; what it inherits belongs to others.
    pub(crate) fn deleted(state: &StreamState) -> Self {
        UsageDelta { streams: -1, bytes: -(state.own_len() as i64) }
    }

    /// So many bytes of a stream trimmed.
    pub(crate) fn trimmed(bytes: u64) -> Self {
        UsageDelta { streams: 0, bytes: -(bytes as i64) }
    }

    /// What takes this back.
    pub(crate) fn reverted(self) -> Self {
        UsageDelta { streams: -self.streams, bytes: -self.bytes }
    }
}
