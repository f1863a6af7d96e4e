//! Where the terminators of JSON messages are in a segment whose data has commas in their place, so that the kernel can send
//! it as a part of an array.

use durable_streams_protocol::MESSAGE_END;

use super::BLOCK;

/// A list that is longer than this, bytes, and than this share of the data, costs more than it is worth: the messages are tiny.
const FREE: u64 = BLOCK as u64;
const SHARE: u64 = 64;

/// The places of terminators, two bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MessageEnds {
    /// For each block, how many places there are up to its end.
    up_to: Vec<u32>,
    /// Places in their blocks, in order.
    places: Vec<u16>,
}

impl MessageEnds {
    /// Notes the terminators of bytes that lie in the last block, from `at` of it on.
    pub(super) fn note(&mut self, at: usize, stored: &[u8]) {
        let ends = memchr::memchr_iter(MESSAGE_END, stored);
        self.places.extend(ends.filter_map(|end| u16::try_from(at + end).ok()));
    }

    /// The next bytes lie in another block.
    pub(super) fn end_block(&mut self) {
        self.up_to.push(self.places.len() as u32);
    }

    /// Bytes in memory.
    pub(super) fn size(&self) -> usize {
        4 * self.up_to.len() + 2 * self.places.len()
    }

    /// Whether they are too many for so many bytes of data.
    pub(super) fn are_many(&self, data: u64) -> bool {
        self.size() as u64 > (data / SHARE).max(FREE)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.up_to.iter().flat_map(|count| count.to_le_bytes()));
        out.extend(self.places.iter().flat_map(|place| place.to_le_bytes()));
    }

    /// Of data with `len` bytes; `None` for what [`encode`](Self::encode) does not write of it.
    pub(super) fn decode(found: &[u8], len: u64) -> Option<Self> {
        let blocks = usize::try_from(len.div_ceil(BLOCK as u64)).ok()?;
        let (up_to, places) = found.split_at_checked(blocks.checked_mul(4)?)?;
        let up_to: Vec<u32> = numbers(up_to, u32::from_le_bytes)?;
        let places: Vec<u16> = numbers(places, u16::from_le_bytes)?;
        let ends = MessageEnds { up_to, places };
        let mut before = 0;
        for (block, up_to) in ends.up_to.iter().enumerate() {
            let of_block = ends.places.get(before..*up_to as usize)?;
            let room = (len - block as u64 * BLOCK as u64).min(BLOCK as u64);
            let in_order = of_block.is_sorted_by(|place, next| place < next);
            let within = of_block.last().is_none_or(|last| u64::from(*last) < room);
            if !in_order || !within {
                return None;
            }
            before = *up_to as usize;
        }
        (before == ends.places.len()).then_some(ends)
    }

    /// Puts the terminators back into bytes that lie in the data from `at` on.
    pub(super) fn restore(&self, at: u64, bytes: &mut [u8]) {
        let mut block = (at / BLOCK as u64) as usize;
        let (mut skip, mut rest) = ((at % BLOCK as u64) as usize, bytes);
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(rest.len().min(BLOCK - skip));
            let places = self.of_block(block);
            let first = places.partition_point(|place| usize::from(*place) < skip);
            for place in places.iter().skip(first) {
                match now.get_mut(usize::from(*place) - skip) {
                    Some(byte) => *byte = MESSAGE_END,
                    None => break,
                }
            }
            (block, skip, rest) = (block + 1, 0, later);
        }
    }

    /// Whether there are any from `at` of the data on up to `end`.
    pub(super) fn any_between(&self, at: u64, end: u64) -> bool {
        let mut block = at / BLOCK as u64;
        let mut skip = at % BLOCK as u64;
        while block * BLOCK as u64 + skip < end {
            let places = self.of_block(block as usize);
            let first = places.partition_point(|place| u64::from(*place) < skip);
            if let Some(place) = places.get(first) {
                return block * BLOCK as u64 + u64::from(*place) < end;
            }
            (block, skip) = (block + 1, 0);
        }
        false
    }

    fn of_block(&self, block: usize) -> &[u16] {
        let before = block.checked_sub(1).and_then(|block| self.up_to.get(block));
        let (from, to) =
            (before.copied().unwrap_or(0), self.up_to.get(block).copied().unwrap_or(0));
        self.places.get(from as usize..to as usize).unwrap_or_default()
    }
}

/// Numbers of `N` bytes each, if the bytes are whole ones.
fn numbers<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (whole, []) = bytes.as_chunks() else { return None };
    Some(whole.iter().map(|bytes| number(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100,000 bytes of data: places in the first block and in the second one, which ends at 34,464.
    #[test]
    fn what_no_writer_writes_is_refused() {
        let list = |up_to: [u32; 2], places: &[u16]| {
            let mut out = Vec::new();
            MessageEnds { up_to: up_to.to_vec(), places: places.to_vec() }.encode(&mut out);
            MessageEnds::decode(&out, 100_000)
        };
        let found = list([2, 3], &[5, 65_535, 34_463]).unwrap();
        assert_eq!((&found.up_to[..], &found.places[..]), (&[2, 3][..], &[5, 65_535, 34_463][..]));
        assert!(list([0, 0], &[]).is_some());
        for (up_to, places, why) in [
            ([2, 3], &[5, 5, 0][..], "twice the same"),
            ([2, 3], &[6, 5, 0], "out of order"),
            ([2, 3], &[5, 6, 34_464], "behind the data"),
            ([3, 2], &[5, 6, 0], "counts that go down"),
            ([2, 4], &[5, 6, 0], "more than there are"),
            ([1, 2], &[5, 6, 7], "more than are counted"),
        ] {
            assert_eq!(list(up_to, places), None, "{why}");
        }
        assert_eq!(MessageEnds::decode(&[0; 9], 100_000), None, "half a place");
        assert_eq!(MessageEnds::decode(&[0; 7], 100_000), None, "half a count");
    }
}
