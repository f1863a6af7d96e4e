//! The bytes of one stream that are in memory: without gaps, up to the durable tail.
//!
//! Starts and ends in this file are positions in the stream.
//!
//! Measured: joining small pieces and dropping idle ones is part of 630 -> 25 bytes per idle stream; not copying large
//! pieces is part of 25,000 -> 500 page faults a second (docs/benchmarks.md).

use std::collections::VecDeque;

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamState};

use crate::store::{
    ShrinkSparse,
    file::append_ends::{AppendEnds, AppendLens, EndsAround},
};

/// Small clean pieces are joined up to this size, so that a busy stream does not keep many of them, bytes.
const JOIN: usize = 64 << 10;
/// A piece of this size is not small: joining it would copy much and save little memory, bytes.
const SMALL: usize = 8 << 10;

#[derive(Default)]
pub(super) struct TailCache {
    /// Pieces that are in the index as well, each with its end.
    clean: VecDeque<(u64, Bytes)>,
    /// Pieces after those, which the index may not have yet.
    fresh: VecDeque<(u64, Bytes)>,
    /// Where the clean pieces begin.
    start: u64,
    /// Where the fresh pieces begin.
    indexed: u64,
    /// Where they end.
    end: u64,
    /// Where appends end in the clean bytes; `None` while each clean piece is one append. A fresh piece always is.
    clean_ends: Option<Box<AppendEnds>>,
    /// The messages of the stream delimit themselves: nothing is noted about appends.
    json: bool,
}

impl TailCache {
    /// A stream's own bytes, all that it keeps, and the lengths of its appends as far as they are known.
    pub(super) fn indexed(state: &StreamState, bytes: Bytes, lens: &[u8]) -> Self {
        let (start, json) = (state.first_kept(), state.core.content_type.is_json());
        let mut cache = TailCache::at(start.position());
        cache.json = json;
        cache.push(bytes);
        cache.mark_indexed(cache.end);
        let one_append = || AppendLens(lens).eq([cache.end - cache.start]);
        if !json && !one_append() {
            let known_from = state.delimited_from.position().max(start.position());
            let mut ends = AppendEnds::beginning_at(known_from);
            AppendLens(lens).for_each(|len| ends.push(len));
            cache.clean_ends = Some(Box::new(ends));
        }
        cache
    }

    /// No bytes yet; the first ones will be those at `position`.
    pub(super) fn at(position: u64) -> Self {
        TailCache { start: position, indexed: position, end: position, ..TailCache::default() }
    }

    /// The stream is a JSON stream. Returns how many bytes less the clean pieces take.
    pub(super) fn note_json(&mut self) -> usize {
        self.json = true;
        self.clean_ends.take().map_or(0, |ends| ends.memory())
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

    /// Returns `None` when the bytes at `from` are not cached.
    pub(super) fn read(&self, from: Offset, to: Offset, max: usize) -> Option<Vec<Bytes>> {
        let (from, to) = (from.position(), to.position());
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

    /// The end of the last append after `from` and up to `limit`, else of the next one; at most `to`, which is after
    /// `limit`. Returns `None` when the appends around `limit` are not cached or not known.
    pub(super) fn append_end(&self, from: Offset, to: Offset, limit: Offset) -> Option<Offset> {
        let limit = limit.position();
        if self.json || !(self.start..self.end).contains(&limit) {
            return None;
        }
        let around = if limit >= self.indexed {
            ends_around(self.indexed, &self.fresh, limit)
        } else if let Some(ends) = &self.clean_ends {
            ends.around(limit)?
        } else {
            ends_around(self.start, &self.clean, limit)
        };
        let end = around.page_end(from.position())?;
        Some(Offset::new(end).min(to))
    }

    /// Every piece up to `end` is in the index now: it becomes clean, and small ones are joined. Returns how many
    /// bytes more the clean pieces take.
    pub(super) fn mark_indexed(&mut self, end: u64) -> usize {
        let was = self.clean_len();
        let indexed = self.fresh.partition_point(|(piece, _)| *piece <= end);
        if indexed == 1 && self.fresh.len() == 1 && self.clean.is_empty() {
            // The usual case with many streams: nothing to join, nothing to allocate.
            self.indexed = self.end;
            std::mem::swap(&mut self.clean, &mut self.fresh);
            return self.clean_len() - was;
        }
        self.note_clean_ends(indexed);
        let last_is_small = self.clean.back().is_some_and(|(_, last)| last.len() < SMALL);
        let last = if last_is_small { self.clean.pop_back() } else { None };
        let mut run = SmallRun::default();
        for (end, data) in last.into_iter().chain(self.fresh.drain(..indexed)) {
            let small = data.len() < SMALL;
            if !small || run.len + data.len() > JOIN {
                self.clean.extend(run.take());
            }
            if small {
                run.add(end, data);
            } else {
                self.clean.push_back((end, data));
            }
            self.indexed = end;
        }
        self.clean.extend(run.take());
        self.clean.shrink_if_sparse();
        self.fresh.shrink_if_sparse();
        self.clean_len() - was
    }

    /// Notes the ends of the first `indexed` fresh pieces, which are about to become clean and may be joined.
    fn note_clean_ends(&mut self, indexed: usize) {
        if self.json || indexed == 0 {
            return;
        }
        let TailCache { clean, clean_ends, fresh, start, .. } = self;
        let ends = clean_ends.get_or_insert_with(|| {
            let mut ends = Box::new(AppendEnds::beginning_at(*start));
            clean.iter().for_each(|(_, piece)| ends.push(piece.len() as u64));
            ends
        });
        fresh.iter().take(indexed).for_each(|(_, piece)| ends.push(piece.len() as u64));
    }

    /// What the clean pieces take, bytes.
    pub(super) fn clean_len(&self) -> usize {
        let ends = self.clean_ends.as_ref().map_or(0, |ends| ends.memory());
        (self.indexed - self.start) as usize + ends
    }

    /// Drops the clean pieces. Returns how many bytes they took.
    pub(super) fn drop_clean(&mut self) -> usize {
        let clean = self.clean_len();
        self.start = self.indexed;
        self.clean.clear();
        self.clean.shrink_if_sparse();
        self.clean_ends = None;
        clean
    }

    /// Drops everything, for a deleted stream. Returns how many clean bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        let clean = self.drop_clean();
        self.fresh.clear();
        self.start = self.end;
        self.indexed = self.end;
        clean
    }
}

/// The ends around `limit` of pieces that begin at `start` and are one append each.
fn ends_around(start: u64, pieces: &VecDeque<(u64, Bytes)>, limit: u64) -> EndsAround {
    let next = pieces.partition_point(|(end, _)| *end <= limit);
    let end = |at: usize| pieces.get(at).map(|(end, _)| *end);
    EndsAround { last: next.checked_sub(1).and_then(end).unwrap_or(start), next: end(next) }
}

/// Small pieces that follow one another.
#[derive(Default)]
struct SmallRun {
    pieces: Vec<Bytes>,
    len: usize,
    end: u64,
}

impl SmallRun {
    fn add(&mut self, end: u64, piece: Bytes) {
        self.len += piece.len();
        self.end = end;
        self.pieces.push(piece);
    }

    /// Joins the pieces into one without spare capacity, and returns it with its end; `None` when there are none.
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

    fn filled(lens: &[usize]) -> TailCache {
        let mut cache = TailCache::default();
        for len in lens {
            cache.push(bytes(cache.end as usize, *len));
        }
        cache
    }

    fn read(cache: &TailCache) -> Vec<u8> {
        cache.read(Offset::ZERO, Offset::new(cache.end), usize::MAX).unwrap().concat()
    }

    #[test]
    fn small_pieces_are_joined_once_they_are_indexed_and_large_ones_are_not_copied() {
        let lens = [256; 1000];
        let whole = bytes(0, 256_000);
        for step in [1, 3, 64, 1000] {
            let mut cache = filled(&lens);
            let mut clean = 0;
            for indexed in (0..=lens.len()).step_by(step).chain([lens.len()]) {
                clean += cache.mark_indexed(256 * indexed as u64);
                assert_eq!(clean, cache.clean_len());
                assert_eq!(cache.indexed, 256 * indexed as u64);
                assert_eq!(read(&cache), whole);
            }
            let longest = cache.clean.iter().map(|(_, piece)| piece.len()).max();
            assert!(longest <= Some(JOIN));
            // Two neighbours make at least one that is not small.
            assert!(
                cache.clean.len() <= 2 * whole.len() / SMALL + 1,
                "{} pieces",
                cache.clean.len()
            );
        }

        let mut cache = filled(&[10, SMALL, 20, 30, SMALL + 1]);
        let large: Vec<_> = [1, 4].map(|at: usize| cache.fresh[at].1.as_ptr()).into();
        cache.mark_indexed(u64::MAX);
        let lens: Vec<_> = cache.clean.iter().map(|(_, piece)| piece.len()).collect();
        assert_eq!(lens, [10, SMALL, 50, SMALL + 1]);
        assert_eq!([1, 3].map(|at: usize| cache.clean[at].1.as_ptr()), *large);
    }

    /// Every answer of [`TailCache::append_end`] against a list of the ends.
    fn check_ends(cache: &TailCache, ends: &[u64], known_from: u64) {
        let tail = cache.end;
        for from in (0..tail).step_by(7).chain(ends.iter().copied()).filter(|from| *from < tail) {
            for within in [0, 1, 5, 99, 100, 101, 4000] {
                let (at, limit) = (Offset::new(from), Offset::new(from + within));
                if limit >= Offset::new(tail) {
                    continue;
                }
                let last = ends.iter().rev().find(|end| **end > from && **end <= from + within);
                let next = ends.iter().find(|end| **end > from + within);
                let expected = last.or(next).map(|end| Offset::new(*end));
                let expected = expected.filter(|_| limit >= Offset::new(known_from));
                assert_eq!(
                    cache.append_end(at, Offset::new(tail), limit),
                    expected,
                    "{from} {within}"
                );
            }
        }
    }

    #[test]
    fn ends_of_appends_survive_the_joining_of_pieces() {
        let lens: Vec<usize> = (0..300).map(|n| 1 + n * n % 150).collect();
        let ends: Vec<u64> = lens
            .iter()
            .scan(0, |end, len| {
                *end += *len as u64;
                Some(*end)
            })
            .collect();
        for step in [1, 7, 300] {
            let mut cache = filled(&lens);
            let mut clean = 0;
            check_ends(&cache, &ends, 0);
            for upto in (0..lens.len()).step_by(step).skip(1).chain([lens.len()]) {
                clean += cache.mark_indexed(ends[upto - 1]);
                assert_eq!(clean, cache.clean_len());
                if upto % 50 < step {
                    check_ends(&cache, &ends, 0);
                }
            }
            check_ends(&cache, &ends, 0);
            cache.push(bytes(0, 500));
            let dropped_to = cache.indexed;
            cache.drop_clean();
            let ends = [&ends[..], &[cache.end]].concat();
            check_ends(&cache, &ends, dropped_to);
        }
        let mut json = filled(&lens);
        json.note_json();
        json.mark_indexed(ends[150]);
        assert!(json.clean_ends.is_none());
        assert_eq!(json.append_end(Offset::ZERO, Offset::new(9), Offset::new(5)), None);
    }

    #[test]
    fn bytes_of_unknown_appends_have_an_end_where_known_ones_begin() {
        let mut cache = TailCache::default();
        cache.push(bytes(0, 1000));
        cache.mark_indexed(1000);
        cache.clean_ends = Some(Box::new(AppendEnds::beginning_at(1000)));
        (0..10).for_each(|n| cache.push(bytes(n, 100)));
        let ends: Vec<u64> = (10..=20).map(|n| n * 100).collect();
        check_ends(&cache, &ends, 1000);
        cache.mark_indexed(1500);
        check_ends(&cache, &ends, 1000);
    }

    #[test]
    fn what_is_dropped_is_not_read_and_what_is_fresh_stays() {
        let mut cache = filled(&[100, 100, 100]);
        // So that only bytes are counted.
        cache.json = true;
        assert_eq!(cache.mark_indexed(199), 100);
        assert_eq!(cache.mark_indexed(200), 100);
        assert_eq!(cache.drop_clean(), 200);
        assert_eq!(cache.drop_clean(), 0);
        assert!(cache.read(Offset::new(199), Offset::new(300), 1000).is_none());
        let rest = cache.read(Offset::new(200), Offset::new(300), 1000).unwrap();
        assert_eq!(rest.concat(), bytes(200, 100));
        assert_eq!(cache.mark_indexed(300), 100);
        assert_eq!(cache.clear(), 100);
        assert!(cache.is_empty() && cache.end() == 300);
        assert_eq!(cache.mark_indexed(300), 0);
    }
}
