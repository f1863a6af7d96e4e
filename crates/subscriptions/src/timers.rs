//! When each subscription must be looked at next: one ordered set for all of them.

use std::collections::{BTreeSet, HashMap};

use durable_streams_protocol::Timestamp;
use parking_lot::Mutex;

use super::entry::Key;

/// Deadlines by subscription, one each.
#[derive(Default)]
pub(super) struct Timers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    order: BTreeSet<(Timestamp, Key)>,
    by_key: HashMap<Key, Timestamp>,
}

impl Timers {
    /// Sets or clears a subscription's deadline. Returns whether it is now the first of all.
    pub(super) fn set(&self, key: Key, deadline: Option<Timestamp>) -> bool {
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

    /// Takes out what is due.
    pub(super) fn take_due(&self, now: Timestamp) -> Vec<Key> {
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
        let timers = Timers::default();
        assert!(timers.set(Key(1), Some(at(30))));
        assert!(timers.set(Key(2), Some(at(10))));
        assert!(!timers.set(Key(1), Some(at(20))));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.take_due(at(20)), [Key(2), Key(1)]);
        timers.set(Key(3), Some(at(5)));
        timers.set(Key(3), None);
        assert_eq!(timers.next(), None);
    }
}
