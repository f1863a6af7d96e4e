//! When a collection gives back room that it once needed: after a burst it may hold a hundred times what is in it, and
//! the allocator can reuse none of that.

/// The capacity to shrink to; `None` while a collection of `len` with room for `capacity` is full enough to be left
/// alone. Half of what is left is free afterwards, so that a few more do not make it grow again.
pub(crate) fn spare(capacity: usize, len: usize) -> Option<usize> {
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
