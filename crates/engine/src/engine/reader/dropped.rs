//! Ranges whose bytes `repair` has dropped because they were damaged: a read goes on behind them.
//!
//! Such a range holds whole JSON messages and, where their ends are known, whole appends.

use durable_streams_protocol::{Offset, StreamCore};

use crate::store::Store;

/// Where a read from `from` to `tail` begins, once it has passed dropped bytes, and how far it may go: up to the next
/// dropped range at most.
pub(in crate::engine) fn readable<S: Store>(
    store: &S,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
) -> (Offset, Offset) {
    let (mut from, mut at) = (from, from);
    while at < tail {
        let (holder, until) = core.holder_of(at, tail);
        match store.dropped(holder, at, until) {
            Some((start, end)) if start <= from => {
                from = end.min(until);
                at = from;
            }
            Some((start, _)) => return (from, start),
            None => at = until,
        }
    }
    (from.min(tail), tail)
}

/// Whether the byte before `from` was dropped, so that no message goes on at `from`.
pub(super) fn follows_dropped<S: Store>(store: &S, core: &StreamCore, from: Offset) -> bool {
    let Some(before) = from.position().checked_sub(1).map(Offset::new) else { return false };
    let (holder, _) = core.holder_of(before, from);
    let next = store.dropped(holder, before, from);
    next.is_some_and(|(start, _)| start <= before)
}
