//! A source's set of forks while the events that change it are not durable yet.
//!
//! The set belongs to the source's cell, the event to the fork's: it is entered under both locks, and taken back when
//! the event is lost, because the source need not have lost anything itself and then is not loaded again.

use std::sync::Arc;

use durable_streams_protocol::StreamId;
use parking_lot::MutexGuard;

use super::cell::{Inner, StreamCell};

/// A fork that came to be or went, as its source's set of forks has it. Taken back when the event is lost.
pub(super) struct ForkChange {
    pub(super) source: Arc<StreamCell>,
    pub(super) source_id: StreamId,
    pub(super) fork: StreamId,
    pub(super) added: bool,
}

impl ForkChange {
    /// Enters the change. `source` is the source's locked state.
    pub(super) fn enter(source: &mut Inner, fork: StreamId, added: bool) {
        if added {
            source.forks.insert(fork);
        } else {
            source.forks.remove(&fork);
        }
    }

    /// Takes it back; nothing to do when the source was loaded again since, or is another stream.
    pub(super) fn undo(&self) {
        let mut source = self.source.inner.lock();
        if source.assigned.as_ref().is_some_and(|state| state.core.id == self.source_id) {
            Self::enter(&mut source, self.fork, !self.added);
        }
    }
}

/// Locks a cell, and that of its fork's source: in path order, so that no two requests wait for each other.
pub(super) fn lock_both<'c>(
    cell: &'c StreamCell,
    source: Option<&'c StreamCell>,
) -> (MutexGuard<'c, Inner>, Option<MutexGuard<'c, Inner>>) {
    let early = source.filter(|source| source.path < cell.path).map(|source| source.inner.lock());
    let inner = cell.inner.lock();
    let source = early.or_else(|| source.map(|source| source.inner.lock()));
    (inner, source)
}
