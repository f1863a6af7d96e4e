//! A source's set of forks while the events that change it are not durable yet.
//!
//! The set belongs to the source's cell, the event to the fork's. The set changes under both locks, and the change is
//! undone when the event is lost: the source itself may have lost nothing, and then is not loaded again.

use std::sync::Arc;

use durable_streams_protocol::StreamId;
use parking_lot::MutexGuard;

use super::cell::{CellState, StreamCell};

/// A fork that was added to its source's set, or removed from it, by an event that is not durable yet.
pub(super) struct ForkChange {
    pub(super) source: Arc<StreamCell>,
    pub(super) source_id: StreamId,
    pub(super) fork: StreamId,
    pub(super) added: bool,
}

impl ForkChange {
    /// Adds the fork to the locked source's set, or removes it.
    pub(super) fn enter(source: &mut CellState, fork: StreamId, added: bool) {
        if added {
            source.forks.insert(fork);
        } else {
            source.forks.remove(&fork);
        }
    }

    /// Reverts the change, unless the source's path holds another stream now. A source that was loaded again since
    /// has the set as stored; then this changes nothing.
    pub(super) fn undo(&self) {
        let mut source = self.source.state.lock();
        if source.assigned.as_ref().is_some_and(|state| state.core.id == self.source_id) {
            Self::enter(&mut source, self.fork, !self.added);
        }
    }
}

/// Locks a cell and that of its fork's source, in path order, so that no two requests can deadlock.
pub(super) fn lock_both<'c>(
    cell: &'c StreamCell,
    source: Option<&'c StreamCell>,
) -> (MutexGuard<'c, CellState>, Option<MutexGuard<'c, CellState>>) {
    let early = source.filter(|source| source.path < cell.path).map(|source| source.state.lock());
    let state = cell.state.lock();
    let source = early.or_else(|| source.map(|source| source.state.lock()));
    (state, source)
}
