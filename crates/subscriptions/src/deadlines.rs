//! When the driver must look at each subscription next: one ordered set for all of them.

use std::collections::{BTreeSet, HashMap};

use durable_streams_protocol::Timestamp;
use parking_lot::Mutex;

use super::cell::SubscriptionKey;

/// At most one deadline for each subscription.
#[derive(Default)]
pub(super) struct DeadlineQueue(Mutex<DeadlineMaps>);

#[derive(Default)]
struct DeadlineMaps {
    order: BTreeSet<(Timestamp, SubscriptionKey)>,
    by_key: HashMap<SubscriptionKey, Timestamp>,
}

impl DeadlineQueue {
    /// Sets or clears a subscription's deadline. Returns whether it is now the first of all.
    pub(super) fn set(&self, key: SubscriptionKey, deadline: Option<Timestamp>) -> bool {
        let mut inner = self.0.lock();
        if let Some(old) = inner.by_key.remove(&key) {
            inner.order.remove(&(old, key));
        }
        let Some(deadline) = deadline else { return false };
        inner.by_key.insert(key, deadline);
        inner.order.insert((deadline, key));
        inner.order.first() == Some(&(deadline, key))
    }

    /// The first deadline.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.lock().order.first().map(|(deadline, _)| *deadline)
    }

    /// Removes and returns the subscriptions whose deadline has passed.
    pub(super) fn take_due(&self, now: Timestamp) -> Vec<SubscriptionKey> {
        let mut inner = self.0.lock();
        let mut due = Vec::new();
        while let Some((deadline, key)) = inner.order.first().copied().filter(|(at, _)| *at <= now)
        {
            inner.order.remove(&(deadline, key));
            inner.by_key.remove(&key);
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deadline_comes_first_and_each_has_one() {
        let at = Timestamp::from_millis;
        let deadlines = DeadlineQueue::default();
        assert!(deadlines.set(SubscriptionKey(1), Some(at(30))));
        assert!(deadlines.set(SubscriptionKey(2), Some(at(10))));
        assert!(!deadlines.set(SubscriptionKey(1), Some(at(20))));
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.take_due(at(20)), [SubscriptionKey(2), SubscriptionKey(1)]);
        deadlines.set(SubscriptionKey(3), Some(at(5)));
        deadlines.set(SubscriptionKey(3), None);
        assert_eq!(deadlines.next(), None);
    }
}
