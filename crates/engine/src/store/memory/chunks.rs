//! The bytes of one stream in memory.

use bytes::Bytes;
use durable_streams_protocol::Offset;

use crate::store::ShrinkSparse;

/// A stream's own bytes as the pieces that were appended, each with the position of its start, without gaps. Trims cut the
/// first ones off.
#[derive(Default)]
pub(super) struct StreamChunks(Vec<(u64, Bytes)>);

impl StreamChunks {
    pub(super) fn push(&mut self, start: Offset, data: Bytes) {
        if !data.is_empty() {
            self.0.push((start.position(), data));
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(_, data)| data.len() as u64).sum()
    }

    /// Drops the bytes before `kept`. Returns how many.
    pub(super) fn trim(&mut self, kept: Offset) -> u64 {
        let before = self.len();
        let whole =
            self.0.partition_point(|(start, data)| start + data.len() as u64 <= kept.position());
        self.0.drain(..whole);
        self.0.shrink_if_sparse();
        if let Some((start, data)) = self.0.first_mut()
            && *start < kept.position()
        {
            // Trims lie between appends; format 1 alone did not keep where those end.
            let _ = data.split_to((kept.position() - *start) as usize);
            *start = kept.position();
        }
        before - self.len()
    }

    /// The end of the last append after `from` and up to `limit`, else of the next one; at most `to`.
    pub(super) fn append_end(&self, from: Offset, to: Offset, limit: Offset) -> Option<Offset> {
        let end_of = |(start, data): &(u64, Bytes)| Offset::new(start + data.len() as u64);
        let next = self.0.partition_point(|piece| end_of(piece) <= limit);
        let last = next.checked_sub(1).and_then(|last| self.0.get(last)).map(end_of);
        let end = last.filter(|last| *last > from).or_else(|| self.0.get(next).map(end_of))?;
        Some(end.min(to))
    }

    pub(super) fn read(&self, from: Offset, to: Offset, max: usize) -> Vec<Bytes> {
        let (from, to) = (from.position(), to.position());
        if self.0.first().is_none_or(|(start, _)| from < *start) {
            // Nothing is there, or it was trimmed.
            return Vec::new();
        }
        let first = self.0.partition_point(|(start, data)| start + data.len() as u64 <= from);
        let mut pieces = Vec::new();
        let mut room = max;
        for (start, data) in self.0.iter().skip(first) {
            if *start >= to || room == 0 {
                break;
            }
            let skip = from.saturating_sub(*start) as usize;
            let until = (to - start).min(data.len() as u64) as usize;
            let end = until.min(skip.saturating_add(room));
            room -= end - skip;
            pieces.push(data.slice(skip..end));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 100;

    /// Appends of 5, 1, 20 and 7 bytes, the first at 100 as in a fork, and all bytes.
    fn filled() -> (StreamChunks, Vec<u8>, Vec<u64>) {
        let (mut chunks, mut all, mut ends) = (StreamChunks::default(), Vec::new(), vec![START]);
        for len in [5_u64, 0, 1, 20, 7] {
            let start = START + all.len() as u64;
            let data: Vec<u8> = (start..start + len).map(|at| at as u8).collect();
            chunks.push(Offset::new(start), data.clone().into());
            all.extend(data);
            if len > 0 {
                ends.push(start + len);
            }
        }
        (chunks, all, ends)
    }

    #[test]
    fn every_range_is_read_and_trimmed_to_the_byte() {
        let tail = START + 33;
        for kept in START..=tail {
            let (mut chunks, all, ends) = filled();
            assert_eq!(chunks.trim(Offset::new(kept)), kept - START);
            assert_eq!(chunks.len(), tail - kept);
            assert_eq!(chunks.trim(Offset::new(kept)), 0, "it was trimmed");
            for from in START - 1..=tail {
                for to in from + 1..=tail {
                    for max in [1, 4, 5, 6, 25, 99] {
                        let read = chunks.read(Offset::new(from), Offset::new(to), max);
                        assert!(read.iter().all(|piece| !piece.is_empty()));
                        let end = to.min(from + max as u64);
                        let expected = if from < kept || kept == tail {
                            &[][..]
                        } else {
                            &all[(from - START) as usize..(end - START) as usize]
                        };
                        assert_eq!(
                            read.concat(),
                            expected,
                            "{from} to {to}, {max}, from {kept} on"
                        );
                    }
                }
            }
            let ends: Vec<u64> = ends.into_iter().filter(|end| *end > kept).collect();
            for from in kept..tail {
                for limit in from..tail {
                    let fits = ends.iter().rev().find(|end| **end > from && **end <= limit);
                    let next = ends.iter().find(|end| **end > limit);
                    let (from, limit) = (Offset::new(from), Offset::new(limit));
                    let found = chunks.append_end(from, Offset::new(tail), limit);
                    assert_eq!(found.map(Offset::position), fits.or(next).copied());
                    let near = limit.advance(1);
                    let expected = fits.or(next).copied().map(|end| end.min(near.position()));
                    let found = chunks.append_end(from, near, limit);
                    assert_eq!(found.map(Offset::position), expected);
                }
            }
        }
    }
}
