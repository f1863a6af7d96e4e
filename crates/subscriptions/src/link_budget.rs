//! A bound on the links of all subscriptions together, which are kept in memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use durable_streams_protocol::subscription::Refusal;

/// The number of links over all subscriptions.
#[derive(Default)]
pub(super) struct LinkBudget(AtomicUsize);

impl LinkBudget {
    /// How many links may be added.
    pub(super) fn room(&self, max: usize) -> usize {
        max.saturating_sub(self.0.load(Ordering::Relaxed))
    }

    /// Refuses `new` links beyond `max`.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub(super) fn check_room(&self, new: usize, max: usize) -> Result<(), Refusal> {
        if new <= self.room(max) {
            return Ok(());
        }
        Err(Refusal::TooMany { what: "linked streams, over all subscriptions,", limit: max })
    }
}

/// One subscription's part of the number.
pub(super) struct CountedLinks {
    budget: Arc<LinkBudget>,
    count: usize,
}

impl CountedLinks {
    pub(super) fn new(budget: &Arc<LinkBudget>, count: usize) -> Self {
        let mut links = CountedLinks { budget: budget.clone(), count: 0 };
        links.set(count);
        links
    }

    /// Replaces the subscription's part.
    pub(super) fn set(&mut self, count: usize) {
        self.budget.0.fetch_add(count, Ordering::Relaxed);
        self.budget.0.fetch_sub(self.count, Ordering::Relaxed);
        self.count = count;
    }
}

impl Drop for CountedLinks {
    fn drop(&mut self) {
        self.set(0);
    }
}
