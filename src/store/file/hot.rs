//! The bytes of one stream that are in memory: without gaps, up to the durable tail.
//!
//! They are counted from the first byte that was ever put here (`end` and the like). Where in the stream
//! that is may be learnt later; see [`Hot::ends_at`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::{protocol::Offset, store::Spare};

/// Clean pieces are joined up to this size, so that a hot stream does not keep many small ones.
const JOIN: usize = 64 << 10;

/// See the module.
#[derive(Default)]
pub(super) struct Hot {
    /// Each piece with its end.
    pieces: VecDeque<(u64, Bytes)>,
    /// Where the pieces begin.
    start: u64,
    /// Where they end.
    end: u64,
    /// Up to where they are in the index as well.
    clean: u64,
    /// The stream's position of count 0; negative for bytes that came after much was there already.
    origin: Option<i128>,
}

impl Hot {
    /// Bytes of the index up to `tail`, the stream's tail.
    pub(super) fn clean(bytes: Bytes, tail: Offset) -> Self {
        let mut hot = Hot::default();
        hot.push(bytes);
        hot.clean = hot.end;
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
            self.pieces.push_back((self.end, data));
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// `None` when `from` is not here, or it is not known whether it is.
    pub(super) fn read(&self, from: Offset, to: Offset, max: usize) -> Option<Vec<Bytes>> {
        let origin = self.origin?;
        let from = u64::try_from(i128::from(from.position()) - origin).ok()?;
        let to = u64::try_from(i128::from(to.position()) - origin).ok()?;
        if from < self.start || self.pieces.is_empty() {
            return None;
        }
        let first = self.pieces.partition_point(|(end, _)| *end <= from);
        let (mut found, mut next, mut room) = (Vec::new(), from, max);
        for (end, data) in self.pieces.range(first..) {
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

    /// Everything up to `end` is in the index now. Gives how many bytes became clean.
    pub(super) fn settle(&mut self, end: u64) -> usize {
        let was = self.clean.max(self.start);
        let now = end.max(was).min(self.end);
        self.clean = now;
        self.join(was, now);
        (now - was) as usize
    }

    /// Copies small pieces between two counts into larger ones.
    fn join(&mut self, from: u64, to: u64) {
        let first = self.pieces.partition_point(|(end, _)| *end <= from);
        let last = self.pieces.partition_point(|(end, _)| *end <= to);
        if last.saturating_sub(first) < 2 {
            return;
        }
        let mut joined: Vec<(u64, Bytes)> = Vec::new();
        let mut gathered = BytesMut::new();
        let mut reached = from;
        for (end, data) in self.pieces.range(first..last) {
            if gathered.len() + data.len() > JOIN && !gathered.is_empty() {
                joined.push((reached, gathered.split().freeze()));
            }
            if data.len() >= JOIN {
                joined.push((*end, data.clone()));
            } else {
                gathered.extend_from_slice(data);
            }
            reached = *end;
        }
        if !gathered.is_empty() {
            joined.push((reached, gathered.freeze()));
        }
        let rest = self.pieces.split_off(last);
        self.pieces.truncate(first);
        self.pieces.extend(joined);
        self.pieces.extend(rest);
        self.pieces.give_back();
    }

    /// Drops what is in the index as well. Gives how many bytes that were.
    pub(super) fn drop_clean(&mut self) -> usize {
        let was = self.start;
        while let Some((end, _)) = self.pieces.front().filter(|(end, _)| *end <= self.clean) {
            self.start = *end;
            self.pieces.pop_front();
        }
        (self.start - was) as usize
    }

    /// Drops everything, for a stream that is gone. Gives how many clean bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        let clean = self.clean.saturating_sub(self.start) as usize;
        self.pieces.clear();
        self.start = self.end;
        self.clean = self.end;
        clean
    }
}
