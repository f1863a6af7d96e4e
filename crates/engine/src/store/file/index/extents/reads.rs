//! Looking up extents and segment files.

use std::{collections::BTreeSet, ops::Bound};

use durable_streams_protocol::{Offset, StreamId};

use super::{ExtentEntry, ExtentRecord, SegmentEntry, SegmentRecord};
use crate::store::{
    StoreError,
    file::{
        error::index_error,
        index::{handle::ReadTxn, keys},
        segments::format::SealedExtent,
    },
};

/// A step of a walk over the extents of all streams.
pub(in crate::store::file) struct ExtentStep {
    /// Damaged ones are left out.
    pub(in crate::store::file) extents: Vec<(StreamId, ExtentRecord)>,
    /// The key of the last record; `None` at the end of all.
    pub(in crate::store::file) last: Option<Vec<u8>>,
}

impl ReadTxn<'_> {
    /// See [`IndexHandle::segments_after`].
    pub(in crate::store::file) fn segments_after(
        &self,
        after: Option<u64>,
        max: usize,
    ) -> Result<Vec<SegmentEntry>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let after = after.map(u64::to_be_bytes);
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let range = (from, Bound::Unbounded);
        let (mut found, mut walk) = (Vec::new(), keys::Ascending::begin(from));
        for record in index.segment_files.range(&self.txn, &range).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            if found.len() == max {
                break;
            }
            let Some(number) = keys::number(key).filter(|_| walk.admits(key)) else { continue };
            let damaged = || index.damaged(&format!("the record of segment {number}"));
            let record = SegmentRecord::open(key, value).map(|(_, record)| record);
            found.push((number, record.ok_or_else(damaged)));
        }
        Ok(found)
    }

    /// The numbers of all segments that a record or an extent names.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a record or an extent is damaged: it may have named another one.
    pub(in crate::store::file) fn segments_named(&self) -> Result<BTreeSet<u64>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let mut named = BTreeSet::new();
        for (number, record) in self.segments_after(None, usize::MAX)? {
            record?;
            named.insert(number);
        }
        for record in index.extents.iter(&self.txn).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            let extent =
                ExtentRecord::open(key, value).ok_or_else(|| index.damaged("an extent"))?;
            named.insert(extent.1.file);
        }
        Ok(named)
    }

    /// The extents of all streams behind a key, in the order of streams and positions: those of at most `max` records.
    pub(in crate::store::file) fn extents_after(
        &self,
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<ExtentStep, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let (mut found, mut last, mut seen) = (Vec::new(), None, 0);
        let mut walk = keys::Ascending::begin(from);
        for record in index.extents.range(&self.txn, &range).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            if seen == max {
                return Ok(ExtentStep { extents: found, last: last.map(<[u8]>::to_vec) });
            }
            if walk.admits(key) {
                seen += 1;
                last = Some(key);
                found.extend(ExtentRecord::open(key, value));
            }
        }
        Ok(ExtentStep { extents: found, last: None })
    }

    /// A segment file's record.
    pub(in crate::store::file) fn segment(
        &self,
        number: u64,
    ) -> Result<Option<SegmentRecord>, StoreError> {
        self.index().segment(&self.txn, number)
    }

    /// The extents of a stream, in order; a damaged one is `None`.
    pub(in crate::store::file) fn extents(
        &self,
        id: StreamId,
    ) -> Result<Vec<ExtentEntry>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let mut found = Vec::new();
        for record in index.extents.prefix_iter(&self.txn, &keys::id(id)).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            found.push((key.to_vec(), ExtentRecord::open(key, value).map(|(_, extent)| extent)));
        }
        Ok(found)
    }

    /// Whether a stream has one of these extents in a file, as far as the index can be read.
    pub(in crate::store::file) fn is_in_use(&self, file: u64, extents: &[SealedExtent]) -> bool {
        extents.iter().any(|sealed| {
            let (id, end) = (StreamId(sealed.stream), sealed.start + sealed.len);
            match self.extents_between(id, sealed.start, end) {
                Ok(found) => found.iter().any(|extent| extent.file == file),
                Err(_) => true,
            }
        })
    }

    /// The record of the file that an extent is in.
    pub(in crate::store::file) fn file_of(
        &self,
        extent: &ExtentRecord,
    ) -> Result<SegmentRecord, StoreError> {
        let record = self.segment(extent.file)?;
        let missing = || self.index().missing(&format!("the record of segment {}", extent.file));
        record.ok_or_else(missing)
    }

    /// The whole extents of a stream that begin from `start` on and before `end`.
    pub(in crate::store::file) fn extents_between(
        &self,
        id: StreamId,
        start: u64,
        end: u64,
    ) -> Result<Vec<ExtentRecord>, StoreError> {
        let index = self.index();
        let failed = index_error("read", index.path());
        let bound = |at| keys::chunk(id, Offset::new(at));
        let (first, last) = (bound(start), bound(end));
        let range = (Bound::Included(first.as_slice()), Bound::Excluded(last.as_slice()));
        let mut found = Vec::new();
        for record in index.extents.range(&self.txn, &range).map_err(&failed)? {
            let (key, value) = record.map_err(&failed)?;
            found.extend(ExtentRecord::open(key, value).map(|(_, extent)| extent));
        }
        Ok(found)
    }

    /// Up to which position sealed segments have a stream's bytes; `None` when they have none.
    pub(in crate::store::file) fn sealed_to(
        &self,
        id: StreamId,
    ) -> Result<Option<Offset>, StoreError> {
        let last = self.index().last_extent(&self.txn, id, Offset::new(u64::MAX))?;
        Ok(last.map(|extent| Offset::new(extent.end)))
    }

    /// The extent of a stream that holds a position.
    pub(in crate::store::file) fn extent_at(
        &self,
        id: StreamId,
        at: u64,
    ) -> Result<Option<ExtentRecord>, StoreError> {
        self.index().extent_at(&self.txn, id, Offset::new(at))
    }
}
