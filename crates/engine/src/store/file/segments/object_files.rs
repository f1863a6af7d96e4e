//! Segments that are objects, read as files: for commands, which may wait, and have no server beside them.

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use parking_lot::Mutex;

use super::format::number_of;
use crate::store::file::disk::{Disk, DiskFile, RealDisk};

/// Opens the objects of segments.
pub trait SegmentObjects: Send + Sync + 'static {
    /// The object of a segment, for reads.
    ///
    /// # Errors
    /// `NotFound` where there is none, though the object store is; others when it does not answer.
    fn open(&self, number: u64) -> io::Result<Box<dyn DiskFile>>;
}

/// The real disk, on which segments without a local file are read from their objects.
pub(in crate::store::file) struct ObjectDisk {
    objects: Arc<dyn SegmentObjects>,
    /// Segments whose local files are of no use.
    preferred: Mutex<BTreeSet<u64>>,
}

impl ObjectDisk {
    pub(super) fn new(objects: Arc<dyn SegmentObjects>) -> Self {
        ObjectDisk { objects, preferred: Mutex::default() }
    }

    /// Reads a segment from its object from now on, also where there is a local file.
    pub(super) fn prefer(&self, number: u64) {
        self.preferred.lock().insert(number);
    }
}

impl Disk for ObjectDisk {
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(number) = number_of(name) else { return RealDisk.open_to_read(path) };
        if self.preferred.lock().contains(&number) {
            return self.objects.open(number);
        }
        match RealDisk.open_to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.objects.open(number),
            opened => opened,
        }
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path, create)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        RealDisk.lock(path)
    }

    fn room(&self, dir: &Path) -> Option<u64> {
        RealDisk.room(dir)
    }
}
