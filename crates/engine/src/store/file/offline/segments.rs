//! Segments of a data directory that no server has open: listing, checking, copying them.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use durable_streams_protocol::StreamId;

use super::{VerifiedTotals, open_index};
use crate::store::{
    FileStoreOptions, SegmentTotals, StoreError,
    file::{
        disk::{Disk as _, DiskFile, RealDisk},
        error::{copy_error, corrupt, io_error},
        index::{
            extents::{ExtentRecord, SegmentPlace, SegmentRecord},
            handle::{IndexHandle, ReadTxn},
        },
        layout::{Layout, OBJECTS},
        segments::{
            catalog::{SegmentPage, SegmentQuery},
            check::SegmentCheck,
            files::{SegmentFiles, missing},
            format::{BLOCK, SealedExtent, file_name},
            object_files::SegmentObjects,
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

/// Extents that are looked at in one step.
const STEP: usize = 4096;

/// Bytes of an object that are copied at a time.
const PIECE: usize = 1 << 20;

/// A range of a stream's own bytes that is in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentRange {
    /// The number of the segment.
    pub segment: u64,
    /// The stream's id.
    pub id: u64,
    /// The stream's path, if it is known.
    pub path: Option<String>,
    /// The first position.
    pub from: u64,
    /// The position after the last one.
    pub to: u64,
}

/// Where segments are: the directory of the files, and the objects, if they are read.
pub(super) struct SegmentSource<'s> {
    pub(super) dir: &'s Path,
    pub(super) objects: Option<&'s Arc<dyn SegmentObjects>>,
}

impl<'s> SegmentSource<'s> {
    /// The files alone.
    pub(super) fn local(dir: &'s Path) -> Self {
        SegmentSource { dir, objects: None }
    }

    /// For reads.
    pub(super) fn files(&self) -> SegmentFiles {
        match self.objects {
            Some(objects) => SegmentFiles::with_objects(objects.clone(), self.dir, 1),
            None => files_in(self.dir),
        }
    }
}

/// The segment files in a directory, for reads.
pub(super) fn files_in(dir: &Path) -> SegmentFiles {
    SegmentFiles::new(Arc::new(RealDisk), dir, 1)
}

/// Parts of segments that cannot be read, as ranges of their files.
pub(super) type DamagedParts = BTreeMap<u64, Vec<Range<u64>>>;

/// Checks every byte of every segment file, and of every object if they are read, and that extents and files fit together.
/// Counts the segments in `totals`.
pub(super) fn check_segments(
    index: &IndexHandle,
    source: &SegmentSource<'_>,
    totals: &mut VerifiedTotals,
    problem: &mut dyn FnMut(StoreError),
) -> Result<DamagedParts, StoreError> {
    let (reading, mut damaged) = (index.read()?, DamagedParts::new());
    for (number, record) in reading.segments_after(None, usize::MAX)? {
        // A damaged record was reported with the others.
        let Ok(record) = record else { continue };
        totals.segments += 1;
        if !record.place.is_local() {
            totals.objects += 1;
            totals.object_bytes += record.file_len;
        }
        let (name, mut copies) = (file_name(number), Vec::new());
        if record.place.is_local() {
            let path = source.dir.join(&name);
            copies.push((RealDisk.open_to_read(&path), path));
        }
        if let Some(objects) = source.objects.filter(|_| record.place != SegmentPlace::Local) {
            copies.push((objects.open(number), object_path(number)));
        }
        for (opened, path) in copies {
            let mut damage = |error, part| {
                problem(error);
                damaged.entry(number).or_default().push(part);
            };
            match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    damage(missing(&path), 0..u64::MAX);
                }
                Err(error) => return Err(io_error("open", &path)(error)),
                Ok(file) => {
                    match check_segment(&reading, file, &path, (number, &record), &mut damage) {
                        Err(error @ StoreError::Corrupt { .. }) => damage(error, 0..u64::MAX),
                        checked => checked?,
                    }
                }
            }
        }
    }
    Ok(damaged)
}

/// How an object is named in what is said of it.
fn object_path(number: u64) -> PathBuf {
    PathBuf::from(format!("object {}", file_name(number)))
}

fn check_segment(
    reading: &ReadTxn<'_>,
    file: Box<dyn DiskFile>,
    path: &Path,
    (number, record): (u64, &SegmentRecord),
    damage: &mut dyn FnMut(StoreError, Range<u64>),
) -> Result<(), StoreError> {
    let mut check = SegmentCheck::of(file, path, number, record)?;
    loop {
        match check.slice(path) {
            Ok(0) => break,
            Err(StoreError::Corrupt { path, offset, found }) => {
                check.resume_behind(offset);
                let block = offset..offset + BLOCK as u64;
                damage(StoreError::Corrupt { path, offset, found }, block);
            }
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
                let part = extent.offset..extent.offset + extent.len();
                damage(corrupt(path, extent.offset, &what), part);
            }
        }
    }
    if live != record.live {
        let what = format!("streams have {live} bytes of it and should have {}", record.live);
        damage(corrupt(path, 0, &what), 0..0);
    }
    Ok(())
}

/// The streams that have bytes in parts of segments, and which.
pub(super) fn ranges_in(
    index: &IndexHandle,
    parts: &DamagedParts,
    each: &mut dyn FnMut(SegmentRange),
) -> Result<(), StoreError> {
    if parts.is_empty() {
        return Ok(());
    }
    let (reading, mut after) = (index.read()?, None::<Vec<u8>>);
    loop {
        let step = reading.extents_after(after.as_deref(), STEP)?;
        for (id, extent) in step.extents {
            for part in parts.get(&extent.file).into_iter().flatten() {
                let place = extent.offset..extent.offset + extent.len();
                let (first, end) = (part.start.max(place.start), part.end.min(place.end));
                if first >= end {
                    continue;
                }
                let state = reading.state(id).ok().flatten();
                each(SegmentRange {
                    segment: extent.file,
                    id: id.0,
                    path: state.map(|state| state.core.path.as_str().to_owned()),
                    from: extent.start + (first - place.start),
                    to: extent.start + (end - place.start),
                });
            }
        }
        match step.last {
            None => return Ok(()),
            last => after = last,
        }
    }
}

fn lies_in(extent: &ExtentRecord, sealed: &SealedExtent) -> bool {
    extent.end <= sealed.start + sealed.len
        && extent.offset == sealed.offset + (extent.start - sealed.start)
}

/// Copies the segments that an index references from files, and from objects, if they are read; in the index those are local
/// from then on, and no objects: the server may have deleted those when the copy is used. The others are listed in a file.
pub(super) fn copy_segments(
    index: &IndexHandle,
    from: &SegmentSource<'_>,
    to: &SegmentSource<'_>,
) -> Result<(), StoreError> {
    let mut listed = String::new();
    for (number, record) in index.segments_after(None, usize::MAX)? {
        let name = file_name(number);
        let path = to.dir.join(&name);
        if let Ok(record) = &record
            && !record.place.is_local()
        {
            let Some(objects) = from.objects else {
                listed.push_str(&format!("{name} {}\n", record.file_len));
                continue;
            };
            copy_object(&**objects, number, &path)?;
            let places = (SegmentPlace::Object, SegmentPlace::Local);
            index.move_segment(&|| Ok(()), number, places)?;
            continue;
        }
        let from = from.dir.join(&name);
        match RealDisk::copy(&from, &path, &mut |_| {}) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(&from));
            }
            copied => copied.map_err(copy_error(&from, &path))?,
        }
    }
    if listed.is_empty() {
        return Ok(());
    }
    let path = to.dir.with_file_name(OBJECTS);
    let written = RealDisk::create_file(&path).and_then(|mut file| {
        file.write_all(listed.as_bytes())?;
        file.sync_all()
    });
    written.map_err(io_error("write", &path))
}

/// Writes the bytes of an object to a file, which is checked with the others.
fn copy_object(objects: &dyn SegmentObjects, number: u64, to: &Path) -> Result<(), StoreError> {
    let name = object_path(number);
    let object = objects.open(number).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(&name),
        _ => io_error("open", &name)(error),
    })?;
    let mut file = RealDisk::create_file(to).map_err(io_error("create", to))?;
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    loop {
        let read = object.read_at(at, &mut piece).map_err(io_error("read", &name))?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        file.write_all(bytes).map_err(io_error("write", to))?;
        at += read as u64;
    }
    file.sync_all().map_err(io_error("sync", to))
}

/// Renames the segment files that an index does not reference, so that an operator can look at them.
pub(super) fn set_aside_unreferenced(index: &IndexHandle, dir: &Path) -> Result<(), StoreError> {
    use crate::store::file::segments::format::number_of;
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

#[cfg(test)]
mod tests;
