//! What becomes of a commit: durable, and everyone who waited is told; or lost, with all that was decided
//! on top of it.

use super::{Durable, StreamCell};
use crate::{
    engine::{forks::ForkChange, ticket::Resolution},
    store::{CommitSink, StoreError},
};

/// Something that waits for a version to become durable.
pub(super) struct Pending {
    pub(super) version: u64,
    /// What readers see from then on; `None` when the entry only waits.
    pub(super) effect: Option<Durable>,
    pub(super) resolution: Resolution,
    /// What it changed in another cell, which must stay in memory until then.
    pub(super) forks: Option<ForkChange>,
}

impl StreamCell {
    pub(super) fn observe(&self, before: &Durable, after: &Durable) {
        let Some(observer) = self.observer.get() else { return };
        let moved = before.tail != after.tail || before.core.is_some() != after.core.is_some();
        if moved || before.soft_deleted != after.soft_deleted {
            observer.on_durable(&self.path, after.core.as_ref(), after.tail());
        }
    }
}

impl CommitSink for StreamCell {
    fn committed(&self, version: u64) {
        let mut inner = self.inner.lock();
        let observed = self.observer.get().is_some();
        let seen = observed.then(|| inner.durable.clone());
        let mut resolutions = Vec::new();
        while inner.pending.front().is_some_and(|pending| pending.version <= version) {
            let Some(pending) = inner.pending.pop_front() else { break };
            if let Some(effect) = pending.effect {
                inner.durable = effect;
            }
            resolutions.push(pending.resolution);
        }
        inner.durable_version = inner.durable_version.max(version);
        let published = inner.published();
        let news = inner.live.as_ref().is_some_and(|live| live.show(published));
        // Before the live readers are woken, of whom there may be thousands: behind them in the queue, whoever
        // appends would wait for all deliveries, and no two appends would ever share one.
        for resolution in resolutions {
            // The client may have left; its append stands all the same.
            let _ = resolution.send(Ok(()));
        }
        if let Some(live) = inner.live.as_ref().filter(|_| news) {
            live.wake();
        }
        let change = seen.map(|seen| (seen, inner.durable.clone()));
        drop(inner);
        if let Some((seen, now)) = change {
            self.observe(&seen, &now);
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
        for pending in lost {
            let _ = pending.resolution.send(Err(error.clone()));
        }
    }
}
