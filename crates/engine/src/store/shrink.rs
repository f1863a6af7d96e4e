//! When a collection shrinks: after a burst it may hold a hundred times the memory of its contents, and the allocator
//! can reuse none of that.
//!
//! Measured: part of 630 -> 25 bytes per idle stream (docs/benchmarks.md).

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash},
};

/// A collection that can shrink.
pub(crate) trait ShrinkSparse {
    /// Shrinks when mostly empty.
    fn shrink_if_sparse(&mut self);
}

impl<K: Eq + Hash, V, S: BuildHasher> ShrinkSparse for HashMap<K, V, S> {
    fn shrink_if_sparse(&mut self) {
        if let Some(capacity) = shrunk(self.capacity(), self.len()) {
            self.shrink_to(capacity);
        }
    }
}

impl<T> ShrinkSparse for VecDeque<T> {
    fn shrink_if_sparse(&mut self) {
        if let Some(capacity) = shrunk(self.capacity(), self.len()) {
            self.shrink_to(capacity);
        }
    }
}

impl<T> ShrinkSparse for Vec<T> {
    fn shrink_if_sparse(&mut self) {
        if let Some(capacity) = shrunk(self.capacity(), self.len()) {
            self.shrink_to(capacity);
        }
    }
}

/// The capacity to shrink to; `None` while a collection of `len` in `capacity` is full enough to be left alone. Half of
/// the result is free, so that a few insertions do not make the collection grow again.
fn shrunk(capacity: usize, len: usize) -> Option<usize> {
    (capacity > 4 * len).then_some(2 * len)
}

#[cfg(test)]
mod tests {
    use super::shrunk;

    #[test]
    fn a_sparse_collection_shrinks_once_and_a_full_one_never() {
        assert_eq!(shrunk(4, 0), Some(0));
        assert_eq!(shrunk(0, 0), None);
        assert_eq!(shrunk(400, 100), None);
        assert_eq!(shrunk(401, 100), Some(200));
        for len in 0..1000 {
            if let Some(capacity) = shrunk(100_000, len) {
                assert!(capacity >= len);
                assert_eq!(shrunk(capacity, len), None);
            }
        }
    }
}
