//! The hand-over of bytes from chunks to a segment file, in one commit.

use std::{
    io,
    ops::{Bound, Range},
};

use bytes::Bytes;
use durable_streams_protocol::{Offset, StreamId};
use heed::RwTxn;

use super::{ExtentRecord, SegmentRecord};
use crate::store::{
    StoreError,
    file::index::{
        env::IndexEnvironment,
        handle::{IndexHandle, WriteError},
        keys,
    },
};

/// An extent of a segment file that is durable and not referenced yet.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::file) struct NewExtent {
    pub(in crate::store::file) id: StreamId,
    pub(in crate::store::file) extent: ExtentRecord,
    /// The extent that had these bytes, when they come from another segment file; they come from chunks otherwise.
    pub(in crate::store::file) replaces: Option<ExtentRecord>,
}

/// A segment file that is durable and not referenced yet.
pub(in crate::store::file) struct NewSegment {
    pub(in crate::store::file) number: u64,
    /// `live` is what the hand-over finds.
    pub(in crate::store::file) record: SegmentRecord,
    pub(in crate::store::file) extents: Vec<NewExtent>,
}

/// What a hand-over has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store::file) struct HandedOver {
    /// Bytes that the segment file now has for streams. With 0 nothing references it.
    pub(in crate::store::file) live: u64,
    /// Files without live bytes, which the caller removes.
    pub(in crate::store::file) freed: Vec<u64>,
}

impl IndexHandle {
    /// References a segment file and removes the chunks, or extents, that had its bytes. What is not as it was when the file
    /// was written is left as it is: a stream that was deleted, bytes that have left.
    ///
    /// # Errors
    /// The index is unchanged then, unless the error was the commit's: then the caller has to look.
    pub(in crate::store::file) fn hand_over(
        &self,
        before_commit: &dyn Fn() -> io::Result<()>,
        segment: &NewSegment,
    ) -> Result<HandedOver, StoreError> {
        self.write(before_commit, |index, txn| {
            let mut done = HandedOver::default();
            for new in &segment.extents {
                if index.take_over(txn, new, &mut done.freed)? {
                    done.live += new.extent.len();
                }
            }
            if done.live > 0 {
                let record = SegmentRecord { live: done.live, ..segment.record };
                index.put_segment(txn, segment.number, &record)?;
            }
            let mut meta = index.meta(txn)?;
            meta.next_segment = meta.next_segment.max(segment.number + 1);
            index.put_meta(txn, &mut meta)?;
            Ok(done)
        })
    }
}

/// New bytes of a stream that segments have.
pub(in crate::store::file::index) struct ReferencedAhead<'d> {
    /// The numbers of those segments.
    pub(in crate::store::file::index) segments: Vec<u64>,
    /// Where they end, and the new bytes behind them.
    pub(in crate::store::file::index) end: Offset,
    pub(in crate::store::file::index) rest: &'d [&'d Bytes],
}

impl IndexEnvironment {
    /// References the segments, durable files with an extent each, that have the first of a stream's new bytes, which begin at
    /// `end`. The first of them may have all of its chunks as well, which are removed then. What is not as it was when the file was
    /// written is not referenced: after a commit that failed and was made all the same, these bytes are in the index already.
    pub(in crate::store::file::index) fn reference_ahead<'d>(
        &self,
        txn: &mut RwTxn<'_>,
        (id, mut end): (StreamId, Offset),
        mut rest: &'d [&'d Bytes],
        segments: &[NewSegment],
    ) -> Result<ReferencedAhead<'d>, WriteError> {
        let mut referenced = Vec::new();
        for NewSegment { number, record, extents } in segments {
            let [NewExtent { id: of, extent, .. }] = extents[..] else { continue };
            if of != id {
                continue;
            }
            let mut to = end.position();
            let held = rest.iter().take_while(|bytes| {
                let next = to + bytes.len() as u64;
                let fits = next <= extent.end;
                to = if fits { next } else { to };
                fits
            });
            let (_, later) = rest.split_at(held.count());
            if extent.start > end.position() || extent.end != to || to == end.position() {
                break;
            }
            if extent.start < end.position() {
                match self.chunks_of(txn, id, extent.start..end.position())? {
                    Some((chunks, behind)) if behind.is_empty() => {
                        for key in chunks {
                            self.chunks.delete(txn, &key)?;
                        }
                    }
                    _ => break,
                }
            }
            self.put_extent(txn, id, &extent)?;
            self.put_segment(txn, *number, record)?;
            referenced.push(*number);
            (end, rest) = (Offset::new(to), later);
        }
        Ok(ReferencedAhead { segments: referenced, end, rest })
    }

    /// Returns whether the extent took over its bytes.
    fn take_over(
        &self,
        txn: &mut RwTxn<'_>,
        new: &NewExtent,
        freed: &mut Vec<u64>,
    ) -> Result<bool, WriteError> {
        if self.streams.get(txn, &keys::id(new.id))?.is_none() {
            return Ok(false);
        }
        if let Some(before) = &new.replaces {
            let start = Offset::new(before.start);
            // A read of the damaged range reports it.
            if self.extent_at(txn, new.id, start).ok().flatten() != Some(*before) {
                return Ok(false);
            }
            self.put_extent(txn, new.id, &new.extent)?;
            self.release(txn, before.file, before.len(), freed)?;
            return Ok(true);
        }
        let range = new.extent.start..new.extent.end;
        let Some((chunks, rest)) = self.chunks_of(txn, new.id, range)? else { return Ok(false) };
        for key in chunks {
            self.chunks.delete(txn, &key)?;
        }
        if !rest.is_empty() {
            let key = keys::chunk(new.id, Offset::new(new.extent.end));
            let mut value = Vec::with_capacity(rest.len() + 4);
            keys::seal(&key, &rest, &mut value);
            self.chunks.put(txn, &key, &value)?;
        }
        self.put_extent(txn, new.id, &new.extent)?;
        Ok(true)
    }

    /// The keys of the chunks that hold exactly a range of a stream's bytes, and what the last one has behind it; `None`
    /// when there are no such chunks.
    #[expect(clippy::type_complexity, reason = "keys of chunks, and bytes")]
    fn chunks_of(
        &self,
        txn: &RwTxn<'_>,
        id: StreamId,
        range: Range<u64>,
    ) -> Result<Option<(Vec<Vec<u8>>, Vec<u8>)>, WriteError> {
        let (mut next, end) = (range.start, range.end);
        let (first, last) = (keys::chunk(id, Offset::new(next)), keys::chunk(id, Offset::new(end)));
        let range = (Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice()));
        let (mut keys, mut rest) = (Vec::new(), Vec::new());
        for record in self.chunks.range(txn, &range)? {
            let (key, value) = record?;
            let at = keys::unpair(key).map(|(_, at)| at);
            if at != Some(next) || next >= end {
                return Ok(None);
            }
            let len = value.len().saturating_sub(4) as u64;
            if next + len > end {
                let Some(contents) = keys::open(key, value) else { return Ok(None) };
                rest = contents.get((end - next) as usize..).unwrap_or_default().to_vec();
            }
            next += len;
            keys.push(key.to_vec());
        }
        // A changed key misleads the search for others: what is not found would stay, to be sealed again and again.
        for key in &keys {
            if self.chunks.get(txn, key)?.is_none() {
                return Ok(None);
            }
        }
        Ok((next >= end).then_some((keys, rest)))
    }
}
