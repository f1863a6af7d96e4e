//! The bytes of one stream that are in memory: without gaps, up to the durable tail.
//!
//! They are counted from the first byte that was ever put here (`end` and the like). Where in the stream
//! that is may be learnt later; see [`Hot::ends_at`].

use std::collections::VecDeque;

use bytes::Bytes;
use durable_streams_protocol::Offset;

use crate::store::Spare;

/// Small clean pieces are joined up to this size, so that a hot stream does not keep many of them, bytes.
const JOIN: usize = 64 << 10;
/// A piece of this size is not small: a copy of it would save no memory to speak of, bytes.
const SMALL: usize = 8 << 10;

/// See the module.
#[derive(Default)]
pub(super) struct Hot {
    /// Pieces that are in the index as well, each with its end.
    clean: VecDeque<(u64, Bytes)>,
    /// Pieces that may not be there yet, after those.
    fresh: VecDeque<(u64, Bytes)>,
    /// Where the clean pieces begin.
    start: u64,
    /// Where the fresh pieces begin.
    settled: u64,
    /// Where they end.
    end: u64,
    /// The stream's position of count 0; negative for bytes that came after much was there already.
    origin: Option<i128>,
}

impl Hot {
    /// Bytes of the index up to `tail`, the stream's tail.
    pub(super) fn clean(bytes: Bytes, tail: Offset) -> Self {
        let mut hot = Hot::default();
        hot.push(bytes);
        hot.settle(hot.end);
        hot.ends_at(tail);
        hot
    }

    /// The stream begins here, at `start`.
    pub(super) fn begin(&mut self, start: Offset) {
        self.origin = Some(i128::from(start.position()));
    }

    /// The stream's tail is `tail`.
    pub(super) fn ends_at(&mut self, tail: Offset) {
        self.origin = Some(i128::from(tail.position()) - i128::from(self.end));
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.end += data.len() as u64;
            self.fresh.push_back((self.end, data));
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clean.is_empty() && self.fresh.is_empty()
    }

    /// `None` when `from` is not here, or it is not known whether it is.
    pub(super) fn read(&self, from: Offset, to: Offset, max: usize) -> Option<Vec<Bytes>> {
        let origin = self.origin?;
        let from = u64::try_from(i128::from(from.position()) - origin).ok()?;
        let to = u64::try_from(i128::from(to.position()) - origin).ok()?;
        if from < self.start || self.is_empty() {
            return None;
        }
        let clean = self.clean.range(self.clean.partition_point(|(end, _)| *end <= from)..);
        let fresh = self.fresh.range(self.fresh.partition_point(|(end, _)| *end <= from)..);
        let (mut found, mut next, mut room) = (Vec::new(), from, max);
        for (end, data) in clean.chain(fresh) {
            if next >= to || room == 0 {
                break;
            }
            let start = end - data.len() as u64;
            let take = (to.min(*end) - next).min(room as u64) as usize;
            let skip = (next - start) as usize;
            found.push(data.slice(skip..skip + take));
            next += take as u64;
            room -= take;
        }
        Some(found)
    }

    /// Every piece up to `end` is in the index now; small ones are joined. Gives how many bytes became clean.
    pub(super) fn settle(&mut self, end: u64) -> usize {
        let was = self.settled;
        let settled = self.fresh.partition_point(|(piece, _)| *piece <= end);
        if settled == 1 && self.fresh.len() == 1 && self.clean.is_empty() {
            // Most streams of many: nothing to join, and no memory to ask for.
            self.settled = self.end;
            std::mem::swap(&mut self.clean, &mut self.fresh);
            return (self.settled - was) as usize;
        }
        let last_is_small = self.clean.back().is_some_and(|(_, last)| last.len() < SMALL);
        let last = if last_is_small { self.clean.pop_back() } else { None };
        let mut run = Run::default();
        for (end, data) in last.into_iter().chain(self.fresh.drain(..settled)) {
            let small = data.len() < SMALL;
            if !small || run.len + data.len() > JOIN {
                self.clean.extend(run.take());
            }
            if small {
                run.add(end, data);
            } else {
                self.clean.push_back((end, data));
            }
            self.settled = end;
        }
        self.clean.extend(run.take());
        self.clean.give_back();
        self.fresh.give_back();
        (self.settled - was) as usize
    }

    /// Drops what is in the index as well. Gives how many bytes that were.
    pub(super) fn drop_clean(&mut self) -> usize {
        let clean = self.settled - self.start;
        self.start = self.settled;
        self.clean.clear();
        self.clean.give_back();
        clean as usize
    }

    /// Drops everything, for a stream that is gone. Gives how many clean bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        let clean = self.drop_clean();
        self.fresh.clear();
        self.start = self.end;
        self.settled = self.end;
        clean
    }
}

/// Small pieces that follow one another.
#[derive(Default)]
struct Run {
    pieces: Vec<Bytes>,
    len: usize,
    end: u64,
}

impl Run {
    fn add(&mut self, end: u64, piece: Bytes) {
        self.len += piece.len();
        self.end = end;
        self.pieces.push(piece);
    }

    /// They as one piece without room to spare, with its end; nothing when there are none.
    fn take(&mut self) -> Option<(u64, Bytes)> {
        let only = if self.pieces.len() > 1 { None } else { Some(self.pieces.pop()?) };
        let joined = only.unwrap_or_else(|| {
            let mut joined = Vec::with_capacity(self.len);
            self.pieces.drain(..).for_each(|piece| joined.extend_from_slice(&piece));
            joined.into()
        });
        self.len = 0;
        Some((self.end, joined))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ from their neighbours.
    fn bytes(from: usize, len: usize) -> Bytes {
        (from..from + len).map(|at| (at % 251) as u8).collect()
    }

    fn filled(lens: &[usize]) -> Hot {
        let mut hot = Hot::default();
        hot.begin(Offset::ZERO);
        for len in lens {
            hot.push(bytes(hot.end as usize, *len));
        }
        hot
    }

    fn read(hot: &Hot) -> Vec<u8> {
        hot.read(Offset::ZERO, Offset::new(hot.end), usize::MAX).unwrap().concat()
    }

    #[test]
    fn small_pieces_are_joined_whenever_they_are_settled_and_large_ones_are_not_copied() {
        let lens = [256; 1000];
        let whole = bytes(0, 256_000);
        for step in [1, 3, 64, 1000] {
            let mut hot = filled(&lens);
            let mut clean = 0;
            for settled in (0..=lens.len()).step_by(step).chain([lens.len()]) {
                clean += hot.settle(256 * settled as u64);
                assert_eq!(clean, 256 * settled);
                assert_eq!(read(&hot), whole);
            }
            let longest = hot.clean.iter().map(|(_, piece)| piece.len()).max();
            assert!(longest <= Some(JOIN));
            // Two neighbours make at least one that is not small.
            assert!(hot.clean.len() <= 2 * whole.len() / SMALL + 1, "{} pieces", hot.clean.len());
        }

        let mut hot = filled(&[10, SMALL, 20, 30, SMALL + 1]);
        let large: Vec<_> = [1, 4].map(|at: usize| hot.fresh[at].1.as_ptr()).into();
        hot.settle(u64::MAX);
        let lens: Vec<_> = hot.clean.iter().map(|(_, piece)| piece.len()).collect();
        assert_eq!(lens, [10, SMALL, 50, SMALL + 1]);
        assert_eq!([1, 3].map(|at: usize| hot.clean[at].1.as_ptr()), *large);
    }

    #[test]
    fn what_is_dropped_is_not_read_and_what_is_fresh_stays() {
        let mut hot = filled(&[100, 100, 100]);
        assert_eq!(hot.settle(199), 100);
        assert_eq!(hot.settle(200), 100);
        assert_eq!(hot.drop_clean(), 200);
        assert_eq!(hot.drop_clean(), 0);
        assert!(hot.read(Offset::new(199), Offset::new(300), 1000).is_none());
        let rest = hot.read(Offset::new(200), Offset::new(300), 1000).unwrap();
        assert_eq!(rest.concat(), bytes(200, 100));
        assert_eq!(hot.settle(300), 100);
        assert_eq!(hot.clear(), 100);
        assert!(hot.is_empty() && hot.end() == 300);
        assert_eq!(hot.settle(300), 0);
    }
}
