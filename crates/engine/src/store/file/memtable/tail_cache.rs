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

    /// Bytes of the fresh pieces.
    pub(super) fn unindexed(&self) -> u64 {
        self.end - self.indexed
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
        let indexed = self.fresh.partition_point(|(piece, _)| *piece <= end);
        if indexed == 1 && self.fresh.len() == 1 && self.clean.is_empty() {
            // The usual case with many streams: nothing to join, nothing to allocate.
            self.indexed = self.end;
            std::mem::swap(&mut self.clean, &mut self.fresh);
            return self.clean_len();
        }
        let was = self.clean_len();
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
mod tests;
