//! A data directory whose index was copied from an object store, and whose segments are objects there.

use std::{collections::BTreeSet, path::Path};

use super::{
    OnProgress, SegmentRange, VerifyReport,
    segments::{DamagedParts, SegmentSource, ranges_in},
    verify,
};
use crate::store::{
    StoreError,
    file::{
        destination::Destination, disk::RealDisk, error::corrupt, index::handle::IndexHandle,
        segments::objects::SegmentInfo, wal::segment,
    },
};

/// An unfinished data directory whose index was written and whose segments are objects. Dropping it removes it.
pub struct IndexFromObjects {
    // Closed before the directory is removed.
    index: IndexHandle,
    to: Destination,
}

impl Destination {
    /// Goes on with an index that was written to [`index_file`](Self::index_file).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is no index; the directory is removed then, as it is with every error.
    pub fn open_index(self, map_size: usize) -> Result<IndexFromObjects, StoreError> {
        let index = IndexHandle::open(self.index(), map_size)?;
        Ok(IndexFromObjects { index, to: self })
    }
}

impl IndexFromObjects {
    /// The data directory.
    pub fn dir(&self) -> &Path {
        self.to.dir()
    }

    /// Notes that all segments are in the object store only, begins an empty log behind the index, and checks the index. What
    /// is in the objects is not read.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the index cannot be used at all; [`StoreError::Full`], [`StoreError::Io`].
    pub fn check(&self, progress: &mut OnProgress<'_>) -> Result<VerifyReport, StoreError> {
        // LMDB may end a process that meets such a page.
        if verify::has_damaged_pages(&self.index)? {
            let what = "pages of it are damaged, and were when it was copied; choose an older copy";
            return Err(corrupt(&self.to.index_path(), 0, what));
        }
        self.index.move_all_to_objects()?;
        let last = self.index.read()?.meta()?.lsn;
        segment::begin_log(&RealDisk, self.to.wal(), 1, last + 1)?;
        let segments = SegmentSource::local(self.to.segments());
        verify::check(&self.index, (self.to.wal(), &segments), progress)
    }

    /// The next segments after a number, in order, at most `max`. Those whose records are damaged are left out.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn segments_after(
        &self,
        after: Option<u64>,
        max: usize,
    ) -> Result<Vec<SegmentInfo>, StoreError> {
        let found = self.index.segments_after(after, max)?;
        let whole = found.into_iter().filter_map(|(number, record)| Some((number, record.ok()?)));
        Ok(whole.map(|(number, record)| SegmentInfo::new(number, &record)).collect())
    }

    /// The streams that have bytes in these segments, and which.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn ranges_in(
        &self,
        segments: &BTreeSet<u64>,
        each: &mut dyn FnMut(SegmentRange),
    ) -> Result<(), StoreError> {
        let whole = |number: &u64| (*number, std::iter::once(0..u64::MAX).collect());
        let parts: DamagedParts = segments.iter().map(whole).collect();
        ranges_in(&self.index, &parts, each)
    }

    /// Makes it a data directory. No new segment has a number, and no new stream an id, that the lost server may have used
    /// after the copy: its objects may be there, and clients may know its streams.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn finish(self) -> Result<(), StoreError> {
        let IndexFromObjects { index, to } = self;
        index.skip_numbers()?;
        drop(index);
        to.finish()
    }
}
