//! When a collection gives back room that it once needed: after a burst it may hold a hundred times what is in it, and
//! the allocator can reuse none of that.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash},
};

/// A collection that gives room back.
pub(crate) trait Spare {
    /// Shrinks when it is mostly empty.
    fn give_back(&mut self);
}

impl<K: Eq + Hash, V, S: BuildHasher> Spare for HashMap<K, V, S> {
    fn give_back(&mut self) {
        if let Some(room) = spare(self.capacity(), self.len()) {
            self.shrink_to(room);
        }
    }
}

impl<T> Spare for VecDeque<T> {
    fn give_back(&mut self) {
        if let Some(room) = spare(self.capacity(), self.len()) {
            self.shrink_to(room);
        }
    }
}

/// The capacity to shrink to; `None` while a collection of `len` with room for `capacity` is full enough to be left
/// alone. Half of what is left is free afterwards, so that a few more do not make it grow again.
fn spare(capacity: usize, len: usize) -> Option<usize> {
    (capacity > 4 * len).then_some(2 * len)
}

#[cfg(test)]
mod tests {
    use super::spare;

    #[test]
    fn room_is_given_back_once_and_not_for_a_few() {
        assert_eq!(spare(4, 0), Some(0));
        assert_eq!(spare(0, 0), None);
        assert_eq!(spare(400, 100), None);
        assert_eq!(spare(401, 100), Some(200));
        for len in 0..1000 {
            if let Some(room) = spare(100_000, len) {
                assert!(room >= len);
                assert_eq!(spare(room, len), None);
            }
        }
    }
}
