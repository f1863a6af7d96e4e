//! The segment files of a data directory: opening them, checking them, removing them.
//!
//! Invariants
//! - No file is opened or read with a lock or a transaction held.
//! - While a backup copies files, none is removed; nor is one that a copy of the index has uploaded, until it was.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    check::open_checked,
    direct::{CheckedBlocks, KnownExtents},
    format::{self, SegmentFooter},
    held::{HeldFiles, SegmentHold},
    object_files::{ObjectDisk, SegmentObjects},
};
use crate::store::{
    StoreError,
    file::{
        disk::{Disk, DiskFile},
        error::{corrupt, io_error},
        index::{extents::ExtentRecord, keys::IndexMeta},
        layout::{TIER_IDENTITY, keys_dir},
    },
};

/// The most segment files that are open for reads at a time; each takes a descriptor and what it has of its footer.
const OPEN: usize = 64;

/// Bytes that open files have of their footers at most, unless one alone has more: a checksum per 64 KiB of data, and where
/// JSON messages end.
const OPEN_BYTES: usize = 32 << 20;

/// Removed segments that are remembered for the object store; others are found there by a list of its objects.
const MOST_FREED: usize = 65_536;

/// Why an extent was not read.
pub(in crate::store::file) enum SegmentReadError {
    /// There is no such file. It may have been removed since the index was read.
    Missing(StoreError),
    Failed(StoreError),
}

/// Tells whether the index has a segment, by its number or by its footer.
type IsKnown<'k> = dyn Fn(u64, Option<&SegmentFooter>) -> Result<bool, StoreError> + 'k;

/// A segment file that is open for reads, with the checksums of its blocks.
pub(super) struct OpenSegment {
    pub(super) file: Box<dyn DiskFile>,
    /// Without extents, which the index has.
    pub(super) footer: SegmentFooter,
    pub(super) checked: CheckedBlocks,
}

/// The segment files of a data directory.
pub(in crate::store::file) struct SegmentFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Open files, the one used last at the end.
    open: Mutex<Vec<(u64, Arc<OpenSegment>)>>,
    /// Files that stay for now although nothing needs them.
    pub(super) held: Mutex<HeldFiles>,
    /// Segments whose objects may go.
    freed: Mutex<Vec<u64>>,
    /// The lowest number that no file of this directory had.
    next: AtomicU64,
    pub(super) known: KnownExtents,
    /// Bytes handed out as parts of files.
    pub(super) parts: AtomicU64,
    /// What reads segments without a local file from their objects.
    objects: Option<Arc<ObjectDisk>>,
    /// What clients get is compared with checksums.
    pub(super) checks_reads: bool,
}

impl SegmentFiles {
    pub(in crate::store::file) fn new(disk: Arc<dyn Disk>, dir: &Path, next: u64) -> Self {
        SegmentFiles {
            disk,
            dir: dir.to_owned(),
            open: Mutex::default(),
            held: Mutex::default(),
            freed: Mutex::default(),
            next: AtomicU64::new(next),
            known: KnownExtents::default(),
            parts: AtomicU64::new(0),
            objects: None,
            checks_reads: true,
        }
    }

    /// The same, and what clients get is compared with checksums, or is not.
    pub(in crate::store::file) fn checking_reads(self, checks_reads: bool) -> Self {
        SegmentFiles { checks_reads, ..self }
    }

    /// Those of a directory, and the objects of the others.
    pub(in crate::store::file) fn with_objects(
        objects: Arc<dyn SegmentObjects>,
        dir: &Path,
        next: u64,
    ) -> Self {
        let disk = Arc::new(ObjectDisk::new(objects));
        SegmentFiles { objects: Some(disk.clone()), ..Self::new(disk, dir, next) }
    }

    /// Whether segments without a local file are read from their objects.
    pub(in crate::store::file) fn reads_objects(&self) -> bool {
        self.objects.is_some()
    }

    /// Reads a segment from its object from now on, if objects are read: its local file is of no use.
    pub(in crate::store::file) fn prefer_object(&self, number: u64) {
        if let Some(disk) = &self.objects {
            disk.prefer(number);
        }
    }

    pub(in crate::store::file) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(in crate::store::file) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether segments of this directory may be in an object store.
    pub(in crate::store::file) fn may_be_objects(&self) -> bool {
        let data_dir = self.dir.parent().unwrap_or(&self.dir);
        self.disk.read(&keys_dir(data_dir).join(TIER_IDENTITY)).is_ok()
    }

    /// Whether this directory has had segments.
    pub(in crate::store::file) fn any(&self) -> bool {
        self.next.load(Ordering::Relaxed) > IndexMeta::FIRST_SEGMENT
    }

    pub(in crate::store::file) fn part_bytes(&self) -> u64 {
        self.parts.load(Ordering::Relaxed)
    }

    /// A number that no file has had.
    pub(in crate::store::file) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// No file may get this number or a lower one from now on.
    pub(in crate::store::file) fn note_number(&self, number: u64) {
        self.next.fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// Keeps files from being removed until the hold is dropped.
    pub(in crate::store::file) fn hold(self: &Arc<Self>) -> SegmentHold {
        SegmentHold::all(self.clone())
    }

    /// The file of an extent, whose footer has this checksum.
    pub(super) fn open_as(
        &self,
        extent: &ExtentRecord,
        footer_crc: u32,
    ) -> Result<Arc<OpenSegment>, SegmentReadError> {
        let segment = self.open(extent.file)?;
        if segment.footer.trailer.footer_crc != footer_crc {
            return Err(SegmentReadError::Failed(another(&self.path(extent.file))));
        }
        Ok(segment)
    }

    /// Where `len` bytes of an extent from position `from` of its stream on are in their file.
    pub(super) fn place(
        &self,
        segment: &OpenSegment,
        extent: &ExtentRecord,
        from: u64,
        len: usize,
    ) -> Result<Range<u64>, SegmentReadError> {
        let at = extent.offset + (from - extent.start);
        let range = at..at + len as u64;
        if range.end > segment.footer.data_end() {
            let what = "its data ends before the bytes of a stream";
            return Err(SegmentReadError::Failed(corrupt(&self.path(extent.file), at, what)));
        }
        Ok(range)
    }

    /// A file that is open already.
    pub(super) fn opened(&self, number: u64) -> Option<Arc<OpenSegment>> {
        let mut open = self.open.lock();
        let at = open.iter().position(|(known, _)| *known == number)?;
        let found = open.remove(at);
        let segment = found.1.clone();
        open.push(found);
        Some(segment)
    }

    /// An open file: from the cache, or opened and checked up to its footer.
    fn open(&self, number: u64) -> Result<Arc<OpenSegment>, SegmentReadError> {
        if let Some(segment) = self.opened(number) {
            return Ok(segment);
        }
        let path = self.path(number);
        let opened = open_checked(&*self.disk, &path, number);
        let (file, mut footer) = opened.map_err(|error| match error {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                SegmentReadError::Missing(missing(&path))
            }
            error => SegmentReadError::Failed(error),
        })?;
        footer.extents = Vec::new();
        let checked = CheckedBlocks::none_of(footer.block_crcs.len());
        let segment = Arc::new(OpenSegment { file, footer, checked });
        let mut open = self.open.lock();
        if !open.iter().any(|(known, _)| *known == number) {
            open.push((number, segment.clone()));
            let sizes: Vec<_> = open.iter().map(|(_, segment)| segment.footer.size()).collect();
            open.drain(..too_many(&sizes));
        }
        Ok(segment)
    }

    /// Removes files that the index does not reference any more, durably, and notes that their objects may go, too. Those
    /// that cannot be removed now, the next start removes.
    pub(in crate::store::file) fn remove(&self, numbers: &[u64]) {
        let mut freed = self.freed.lock();
        let room = MOST_FREED.saturating_sub(freed.len());
        freed.extend(numbers.iter().take(room));
        drop(freed);
        self.remove_local(numbers);
    }

    /// Whether no file is removed now.
    pub(in crate::store::file) fn is_held(&self) -> bool {
        self.held.lock().holds_all()
    }

    /// A file that the index did not need any more is there again: it is not removed with what a hold has kept.
    pub(in crate::store::file) fn need_again(&self, number: u64) {
        self.held.lock().need(number);
    }

    /// The segments that were removed since the last call, at most [`MOST_FREED`]: their objects may go.
    pub(in crate::store::file) fn take_freed(&self) -> Vec<u64> {
        std::mem::take(&mut *self.freed.lock())
    }

    /// Removes local files that the index does not reference any more.
    pub(in crate::store::file) fn remove_local(&self, numbers: &[u64]) {
        if numbers.is_empty() {
            return;
        }
        let numbers = self.held.lock().free_of(numbers);
        self.open.lock().retain(|(known, _)| !numbers.contains(known));
        for number in numbers {
            let path = self.path(number);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let path = path.display();
                    tracing::warn!(%error, "cannot remove {path}, which nothing needs; the next start removes it");
                }
                _ => {}
            }
        }
    }

    /// Removes what the index does not reference: files that a crash has left, or a failure. `is_known` tells whether the
    /// index has a file's record or, given its footer, one of its extents: a damaged key must not cost the file.
    ///
    /// # Errors
    /// When the directory, or the index, cannot be read. A file that cannot be removed stays.
    pub(in crate::store::file) fn sweep(&self, is_known: &IsKnown<'_>) -> Result<(), StoreError> {
        let mut orphans = Vec::new();
        for name in self.names()? {
            if let Some(number) = format::number_of(&name) {
                self.note_number(number);
                if is_known(number, None)? {
                    continue;
                }
                let path = self.path(number);
                match open_checked(&*self.disk, &path, number) {
                    Ok((_, footer)) if is_known(number, Some(&footer))? => {
                        let error = corrupt(&path, 0, "the index has extents of it and no record");
                        tracing::error!(%error, "the index is damaged");
                    }
                    Ok(_) => orphans.push(number),
                    Err(error) => {
                        tracing::warn!(%error, "a file in the directory of segments is none, and is left alone");
                    }
                }
            } else if let Some(digits) = name.strip_suffix(NEW) {
                digits.parse().into_iter().for_each(|number| self.note_number(number));
                let _ = self.disk.remove(&self.dir.join(name));
            }
        }
        self.remove_local(&orphans);
        Ok(())
    }

    /// Names in the directory, which a directory without segments may lack.
    pub(in crate::store::file) fn names(&self) -> Result<Vec<String>, StoreError> {
        match self.disk.list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(io_error("list", &self.dir)),
        }
    }

    pub(in crate::store::file) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format::file_name(number))
    }

    /// The name under which a file is written.
    pub(in crate::store::file) fn new_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}{NEW}"))
    }
}

/// How many of the files that were opened first are to be closed; each has so many bytes of its footer in memory.
fn too_many(sizes: &[usize]) -> usize {
    let last = sizes.len().saturating_sub(1);
    let within = |from: &usize| {
        let kept = sizes.get(*from..).unwrap_or_default();
        kept.len() <= OPEN && kept.iter().sum::<usize>() <= OPEN_BYTES
    };
    (0..last).find(within).unwrap_or(last)
}

/// The end of the name of a file that is being written.
const NEW: &str = ".new";

/// Damage: a file is not there that the index references.
pub(in crate::store::file) fn missing(path: &Path) -> StoreError {
    corrupt(path, 0, "the file is missing; restore a backup, or see what `repair` would drop")
}

/// Damage: a file is there under the name of another.
pub(in crate::store::file) fn another(path: &Path) -> StoreError {
    corrupt(path, 0, "it is another file than the one that the index has")
}

impl SegmentReadError {
    pub(in crate::store::file) fn into_error(self) -> StoreError {
        match self {
            SegmentReadError::Missing(error) | SegmentReadError::Failed(error) => error,
        }
    }
}

#[cfg(test)]
mod tests;
