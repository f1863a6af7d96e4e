//! The store's report on a commit: durable, and the tickets up to it resolve; or lost, with everything that
//! was decided on top of it.

use super::{DurableView, StreamCell, Version};
use crate::{
    engine::{forks::ForkChange, ticket::TicketResolver, usage::UsageDelta},
    store::{CommitSink, StoreError},
};

/// A ticket that waits for a version to become durable.
pub(super) struct PendingVersion {
    pub(super) version: Version,
    /// The event of this version; `None` when the entry only waits for it.
    pub(super) effect: Option<CommitEffect>,
    pub(super) resolver: TicketResolver,
}

/// What follows when an event is durable, and what is reverted when it is lost.
pub(super) struct CommitEffect {
    /// What readers see from then on.
    pub(super) view: DurableView,
    /// The change to another cell, which stays in memory until then.
    pub(super) forks: Option<ForkChange>,
    pub(super) usage: UsageDelta,
}

impl StreamCell {
    /// Reports a change of the durable state to the observer, if it moves the tail or what exists.
    pub(super) fn observe(&self, before: &DurableView, after: &DurableView) {
        let Some(observer) = self.context.observer.get() else { return };
        let moved = before.tail != after.tail || before.core.is_some() != after.core.is_some();
        if moved || before.soft_deleted != after.soft_deleted {
            observer.on_durable(&self.path, after.core.as_ref(), after.tail());
        }
    }
}

impl CommitSink for StreamCell {
    fn committed(&self, version: u64) {
        let version = Version(version);
        let mut state = self.state.lock();
        let observed = self.context.observer.get().is_some();
        let before = observed.then(|| state.durable.clone());
        let mut resolvers = Vec::new();
        while state.pending.front().is_some_and(|pending| pending.version <= version) {
            let Some(pending) = state.pending.pop_front() else { break };
            if let Some(effect) = pending.effect {
                state.durable = effect.view;
            }
            resolvers.push(pending.resolver);
        }
        state.durable_version = state.durable_version.max(version);
        let update = state.update();
        let changed = state.live.as_ref().is_some_and(|live| live.show(update));
        let change = before.map(|before| (before, state.durable.clone()));
        drop(state);
        // The observer hears first: a client may claim the work of its append (§7) as soon as that is acknowledged.
        if let Some((before, after)) = change {
            self.observe(&before, &after);
        }
        // Tickets resolve before live readers wake, of which there may be thousands: writers queued behind
        // all of those deliveries would never append at the same time and share a sync.
        for resolver in resolvers {
            // The client may have left; its append stands all the same.
            let _ = resolver.send(Ok(()));
        }
        if changed && let Some(live) = &self.state.lock().live {
            live.wake();
        }
    }

    fn failed(&self, version: u64, error: StoreError) {
        let version = Version(version);
        let mut state = self.state.lock();
        if state.pending.front().is_none_or(|pending| pending.version > version) {
            return;
        }
        // Everything decided on top of the lost event is lost, too.
        let lost = std::mem::take(&mut state.pending);
        state.forget();
        drop(state);
        // Newest first, so that each undo finds the set as its change left it; and before the tickets
        // resolve, so that a retry finds the sets and totals right.
        for effect in lost.iter().rev().filter_map(|pending| pending.effect.as_ref()) {
            self.context.usage.revert(&self.path, effect.usage);
            effect.forks.iter().for_each(ForkChange::undo);
        }
        for pending in lost {
            let _ = pending.resolver.send(Err(error.clone()));
        }
    }
}
