//! Segment files of a data directory that no server has open: listing, checking, copying them.

use std::{path::Path, sync::Arc};

use durable_streams_protocol::StreamId;

use super::open_index;
use crate::store::{
    FileStoreOptions, SegmentTotals, StoreError,
    file::{
        disk::RealDisk,
        error::{copy_error, corrupt, io_error},
        index::{
            extents::{ExtentRecord, SegmentRecord},
            handle::{IndexHandle, ReadTxn},
        },
        layout::Layout,
        segments::{
            catalog::{SegmentPage, SegmentQuery},
            check::SegmentCheck,
            files::{SegmentFiles, missing},
            format::{SealedExtent, file_name},
        },
    },
};

/// The segments of a data directory, as pages.
pub struct StoppedSegments {
    index: IndexHandle,
    _layout: Layout,
}

impl StoppedSegments {
    /// Opens the index of a data directory that no server has open.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while a server has the directory; [`StoreError::Format`], [`StoreError::Io`],
    /// [`StoreError::Corrupt`].
    pub fn open(options: &FileStoreOptions) -> Result<Self, StoreError> {
        let layout = Layout::open_existing(&RealDisk, &options.dir)?;
        Ok(StoppedSegments { index: open_index(&layout, options)?, _layout: layout })
    }

    /// A page of them.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn page(&self, query: &SegmentQuery) -> Result<SegmentPage, StoreError> {
        SegmentPage::read(&self.index, query)
    }

    /// What they take, by place, in the order of
    /// [`SegmentPlace::ALL`](crate::store::file::segments::objects::SegmentPlace::ALL).
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn totals(&self) -> Result<[SegmentTotals; 3], StoreError> {
        self.index.segment_totals()
    }
}

/// The segment files in a directory, for reads.
pub(super) fn files_in(dir: &Path) -> SegmentFiles {
    SegmentFiles::new(Arc::new(RealDisk), dir, 1)
}

/// Checks every byte of every segment file, and that extents and files fit together. Returns how many files there are.
pub(super) fn check_segments(
    index: &IndexHandle,
    dir: &Path,
    problem: &mut dyn FnMut(StoreError),
) -> Result<u64, StoreError> {
    let (reading, mut files) = (index.read()?, 0);
    for (number, record) in reading.segments_after(None, usize::MAX)? {
        // A damaged record was reported with the others.
        let Ok(record) = record else { continue };
        files += 1;
        if !record.place.is_local() {
            continue;
        }
        let path = dir.join(file_name(number));
        match check_segment(&reading, &path, number, &record, problem) {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                problem(missing(&path));
            }
            Err(error @ StoreError::Corrupt { .. }) => problem(error),
            checked => checked?,
        }
    }
    Ok(files)
}

fn check_segment(
    reading: &ReadTxn<'_>,
    path: &Path,
    number: u64,
    record: &SegmentRecord,
    problem: &mut dyn FnMut(StoreError),
) -> Result<(), StoreError> {
    let mut check = SegmentCheck::begin(&RealDisk, path, number, record)?;
    loop {
        match check.slice(path) {
            Ok(0) => break,
            Err(error @ StoreError::Corrupt { .. }) => problem(error),
            checked => drop(checked?),
        }
    }
    let mut live = 0;
    for sealed in &check.footer.extents {
        let (id, end) = (StreamId(sealed.stream), sealed.start + sealed.len);
        for extent in reading.extents_between(id, sealed.start, end)? {
            if extent.file != number {
                continue;
            }
            live += extent.len();
            if !lies_in(&extent, sealed) {
                let what = format!("it does not hold what stream {} should have there", id.0);
                problem(corrupt(path, extent.offset, &what));
            }
        }
    }
    if live != record.live {
        let what = format!("streams have {live} bytes of it and should have {}", record.live);
        problem(corrupt(path, 0, &what));
    }
    Ok(())
}

fn lies_in(extent: &ExtentRecord, sealed: &SealedExtent) -> bool {
    extent.end <= sealed.start + sealed.len
        && extent.offset == sealed.offset + (extent.start - sealed.start)
}

/// Copies the segment files that an index references.
pub(super) fn copy_segments(index: &IndexHandle, from: &Path, to: &Path) -> Result<(), StoreError> {
    for (number, record) in index.segments_after(None, usize::MAX)? {
        if record.is_ok_and(|record| !record.place.is_local()) {
            continue;
        }
        let name = file_name(number);
        let (from, to) = (from.join(&name), to.join(&name));
        match RealDisk::copy(&from, &to, &mut |_| {}) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(&from));
            }
            copied => copied.map_err(copy_error(&from, &to))?,
        }
    }
    Ok(())
}

/// Renames the segment files that an index does not reference, so that an operator can look at them.
pub(super) fn set_aside_unreferenced(index: &IndexHandle, dir: &Path) -> Result<(), StoreError> {
    use crate::store::file::{disk::Disk as _, segments::format::number_of};
    let reading = index.read()?;
    for name in files_in(dir).names()? {
        let Some(number) = number_of(&name) else { continue };
        if reading.segment(number)?.is_none() {
            let (from, to) = (dir.join(&name), dir.join(format!("{name}.dropped")));
            RealDisk.rename(&from, &to).map_err(io_error("rename", &from))?;
        }
    }
    Ok(())
}
