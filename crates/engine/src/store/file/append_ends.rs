//! Where appends end: the lengths of successive appends, one variable-length integer each.
//!
//! A length takes a byte for each seven bits, least significant first; all but the last have the high bit set. So an
//! append of up to 127 bytes costs one byte, and one of up to 16,383 bytes two.

/// Appends between two marks: a search walks over fewer than this.
const APPENDS_PER_MARK: u32 = 64;

/// Appends the encoding of a length.
pub(super) fn put_len(out: &mut Vec<u8>, mut len: u64) {
    while len > 0x7f {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// The lengths that `bytes` holds, up to the first byte that is not part of one.
pub(super) struct AppendLens<'l>(pub(super) &'l [u8]);

impl Iterator for AppendLens<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let mut len = 0;
        for (at, byte) in self.0.iter().enumerate().take(9) {
            len |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(at + 1..).unwrap_or(&[]);
                return Some(len);
            }
        }
        None
    }
}

/// The two appends' ends around a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndsAround {
    /// The last end that is not after the position, or where the first append begins.
    pub(super) last: u64,
    /// The first end after the position.
    pub(super) next: Option<u64>,
}

impl EndsAround {
    /// Among the appends that begin at `start` and have the lengths `lens`; `start` is not after `limit`.
    pub(super) fn find(start: u64, lens: &[u8], limit: u64) -> Self {
        let mut last = start;
        for len in AppendLens(lens) {
            let end = last.saturating_add(len);
            if end > limit {
                return EndsAround { last, next: Some(end) };
            }
            last = end;
        }
        EndsAround { last, next: None }
    }

    /// The end of a page that begins at `from`: the last append that fits, or else the next one.
    pub(super) fn page_end(self, from: u64) -> Option<u64> {
        if self.last > from { Some(self.last) } else { self.next }
    }
}

/// The ends of successive appends in memory.
pub(super) struct AppendEnds {
    start: u64,
    end: u64,
    lens: Vec<u8>,
    count: u32,
    /// For each [`APPENDS_PER_MARK`] appends: where the next one begins, and where its length is.
    marks: Vec<(u64, u32)>,
}

impl AppendEnds {
    /// No appends yet; the first one will begin at `start`.
    pub(super) fn beginning_at(start: u64) -> Self {
        AppendEnds { start, end: start, lens: Vec::new(), count: 0, marks: Vec::new() }
    }

    pub(super) fn push(&mut self, len: u64) {
        if self.count == APPENDS_PER_MARK {
            self.count = 0;
            self.marks.push((self.end, u32::try_from(self.lens.len()).unwrap_or(u32::MAX)));
        }
        self.count += 1;
        put_len(&mut self.lens, len);
        self.end += len;
    }

    /// The ends around `limit`; `None` when that is before the first append.
    pub(super) fn around(&self, limit: u64) -> Option<EndsAround> {
        if limit < self.start {
            return None;
        }
        let after = self.marks.partition_point(|(at, _)| *at <= limit);
        let mark = after.checked_sub(1).and_then(|at| self.marks.get(at));
        let (start, at) = mark.copied().unwrap_or((self.start, 0));
        Some(EndsAround::find(start, self.lens.get(at as usize..)?, limit))
    }

    /// Memory that this takes, bytes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.lens.capacity() + self.marks.capacity() * size_of::<(u64, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_a_byte_for_seven_bits() {
        for (len, bytes) in
            [(0, 1), (4, 1), (127, 1), (128, 2), (16_383, 2), (1 << 21, 4), (1 << 62, 9)]
        {
            let mut out = Vec::new();
            put_len(&mut out, len);
            assert_eq!(out.len(), bytes, "{len}");
            out.push(5);
            assert_eq!(AppendLens(&out).collect::<Vec<_>>(), [len, 5]);
            assert_eq!(AppendLens(&out[..bytes - 1]).next(), None, "a cut length");
        }
    }

    #[test]
    fn ends_are_found_as_a_plain_list_has_them() {
        for step in [0, 1, 3, 200] {
            let mut ends = AppendEnds::beginning_at(100);
            let mut list = vec![100];
            for n in 0..1000 {
                let len = 1 + n % 7 * step;
                ends.push(len);
                list.push(list.last().unwrap() + len);
            }
            assert_eq!(ends.around(99), None);
            for limit in 100..=*list.last().unwrap() + 1 {
                let after = list.partition_point(|end| *end <= limit);
                let expected = EndsAround { last: list[after - 1], next: list.get(after).copied() };
                assert_eq!(ends.around(limit), Some(expected));
                assert_eq!(expected.page_end(limit), expected.next, "nothing fits in no bytes");
            }
        }
    }

    #[test]
    fn a_small_append_costs_two_bytes_at_most() {
        let mut ends = AppendEnds::beginning_at(0);
        (0..100_000).for_each(|_| ends.push(4));
        assert!(ends.memory() < 2 * 100_000, "{} bytes", ends.memory());
    }
}
