//! How much of a stream is read at a time for one reader: little for one that stalls, more while the client takes it all.
//!
//! A look at the store costs the same for any number of bytes, so a replay reads much at a time. What a client does not
//! take at once is dropped again, so that a stalled one holds [`least`](PieceSize::new) bytes at most.
//!
//! Measured: docs/benchmarks.md, "One piece, one call".

/// The next piece is this part of what was taken without a stall. A client that takes nothing beyond the buffers of the
/// kernels, which hold some 100 KiB, gets no large piece.
const PART: usize = 8;

/// The size of the next piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct PieceSize {
    least: usize,
    most: usize,
    /// Bytes taken since the client last stalled.
    taken: usize,
}

impl PieceSize {
    /// Between `least` bytes, which a stalled reader holds, and `most`.
    pub(super) fn new(least: usize, most: usize) -> Self {
        PieceSize { least, most, taken: 0 }
    }

    pub(super) fn bytes(self) -> usize {
        (self.taken / PART).clamp(self.least, self.most)
    }

    /// The client took all of a piece of `bytes`.
    pub(super) fn took_all(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
    }

    /// The client did not take all of a piece in time.
    pub(super) fn stalled(&mut self) {
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_while_they_are_taken_and_begin_again_after_a_stall() {
        let mut size = PieceSize::new(48 << 10, 512 << 10);
        let (mut pieces, mut total) = (0, 0);
        while total < 64 << 20 {
            total += size.bytes();
            pieces += 1;
            size.took_all(size.bytes());
        }
        assert_eq!(size.bytes(), 512 << 10);
        assert!(pieces < 160, "{pieces} looks for 64 MiB");
        size.stalled();
        assert_eq!(size.bytes(), 48 << 10);
    }
}
