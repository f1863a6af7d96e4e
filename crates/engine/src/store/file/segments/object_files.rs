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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::file::segments::{files::SegmentFiles, format::file_name};

    /// Objects with their numbers as bytes, which count how often they are opened.
    #[derive(Default)]
    struct Numbers(AtomicU64);

    struct NumberFile(u64);

    impl DiskFile for NumberFile {
        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
            let whole = self.0.to_string();
            let rest = whole.as_bytes().get(offset as usize..).unwrap_or_default();
            let len = rest.len().min(bytes.len());
            bytes[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }

        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.0.to_string().len() as u64)
        }

        fn allocate(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl SegmentObjects for Numbers {
        fn open(&self, number: u64) -> io::Result<Box<dyn DiskFile>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(NumberFile(number)))
        }
    }

    #[test]
    fn an_object_is_read_where_there_is_no_local_file_or_it_is_of_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Arc::new(Numbers::default());
        let disk = ObjectDisk::new(objects.clone());
        let path = |number| dir.path().join(file_name(number));
        std::fs::write(path(1), "local").unwrap();
        let read = |path: &Path| {
            let mut bytes = [0; 9];
            let read = disk.open_to_read(path)?.read_at(0, &mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
        };
        assert_eq!(read(&path(1)).unwrap(), "local");
        assert_eq!(objects.0.load(Ordering::Relaxed), 0);
        assert_eq!(read(&path(12)).unwrap(), "12");
        disk.prefer(1);
        assert_eq!(read(&path(1)).unwrap(), "1");
        // What is no segment has no object.
        let missing = read(&dir.path().join("other")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(objects.0.load(Ordering::Relaxed), 2);
        // A local file that cannot be opened is not a missing one.
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path(7), path(7)).unwrap();
            assert!(read(&path(7)).is_err());
            assert_eq!(objects.0.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn the_segments_of_a_directory_read_objects_where_they_are_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let files = SegmentFiles::with_objects(Arc::new(Numbers::default()), dir.path(), 5);
        assert!(files.reads_objects());
        std::fs::write(files.path(1), "local").unwrap();
        let len = || files.disk().open_to_read(&files.path(1)).unwrap().len().unwrap();
        assert_eq!(len(), 5);
        files.prefer_object(1);
        assert_eq!(len(), 1);
        let local = SegmentFiles::new(Arc::new(RealDisk), dir.path(), 5);
        local.prefer_object(1);
        assert_eq!(local.disk().open_to_read(&local.path(1)).unwrap().len().unwrap(), 5);
    }

    #[test]
    fn everything_else_is_that_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = ObjectDisk::new(Arc::new(Numbers::default()));
        let folder = dir.path().join("a/b");
        disk.create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("file"), "text").unwrap();
        assert_eq!(disk.list(&folder).unwrap(), ["file"]);
        assert_eq!(disk.read(&folder.join("file")).unwrap(), b"text");
        disk.sync_dir(&folder).unwrap();
        assert!(disk.sync_dir(&folder.join("none")).is_err());
        disk.remove(&folder.join("file")).unwrap();
        assert_eq!(disk.list(&folder).unwrap(), [""; 0]);
        let lock = folder.join("lock");
        let held = disk.lock(&lock).unwrap();
        assert!(held.is_some() && disk.lock(&lock).unwrap().is_none());
        let (room, real) = (disk.room(&folder), RealDisk.room(&folder));
        assert_eq!((room.is_some(), room > Some(1)), (real.is_some(), real > Some(1)));
    }
}
