//! Which deliveries wait for each other.
//!
//! A receiver whose last attempt failed or was slow posts in another lane, so slow and dead ones wait for
//! each other only.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Permits to post.
pub(super) struct DeliveryLanes {
    first: Arc<Semaphore>,
    again: Arc<Semaphore>,
}

impl DeliveryLanes {
    /// At least one post at a time in each.
    pub(super) fn new(max_deliveries: usize, max_retries: usize) -> Self {
        DeliveryLanes {
            first: Arc::new(Semaphore::new(max_deliveries.max(1))),
            again: Arc::new(Semaphore::new(max_retries.max(1))),
        }
    }

    /// The lane of a receiver; `suspect` when its last attempt failed or was slow.
    pub(super) fn lane(&self, suspect: bool) -> Arc<Semaphore> {
        if suspect { self.again.clone() } else { self.first.clone() }
    }
}
