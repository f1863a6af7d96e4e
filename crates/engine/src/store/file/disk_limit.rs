//! `max_disk`: a limit on what the log, its reserve and the index may take together.
//!
//! The log has a share, beyond which its files do not grow: to the writer that looks like a full disk. The index has the
//! rest as the largest size of its map, which LMDB never exceeds. Appends are refused before either is used up, so that
//! deletes can still be written and folded in.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    FileStoreOptions,
    disk::{Disk, DiskFile},
    wal::end_mark,
};

/// The least that only deletes may use of the index, bytes.
const LEAST_RESERVE: u64 = 8 << 20;

/// How a limit is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskLimit {
    /// What log and index may take together, bytes.
    pub(super) total: u64,
    /// The log's share, with its reserve and its spare file.
    pub(super) log: u64,
    /// The index's share.
    pub(super) index: u64,
    /// The part of the index's share that only deletes may use.
    pub(super) index_reserve: u64,
}

impl DiskLimit {
    /// `sealed`: bytes of sealed segments, which were made without the limit.
    pub(super) fn of(options: &FileStoreOptions, sealed: u64) -> Option<Self> {
        let total = options.max_disk?;
        // What waits for a checkpoint takes no more in the log than in memory.
        let most = (options.checkpoint_size as u64).saturating_mul(4);
        let segments = options.wal_segment.saturating_mul(FileStoreOptions::LEAST_LOG_SEGMENTS);
        let log = (total / 4).min(most.saturating_add(segments)).max(segments);
        let index = total.saturating_sub(log).saturating_sub(sealed).max(LEAST_RESERVE * 2);
        let index_reserve = (index / 16).max(LEAST_RESERVE);
        Some(DiskLimit { total, log, index, index_reserve })
    }

    /// The most events that may wait for a checkpoint, in bytes of memory, so that the log's share suffices.
    pub(super) fn pending(&self, options: &FileStoreOptions) -> usize {
        let kept = options.wal_segment.saturating_mul(FileStoreOptions::LEAST_LOG_SEGMENTS - 1);
        usize::try_from(self.log.saturating_sub(kept)).unwrap_or(usize::MAX)
    }
}

/// A disk on which the files of one directory do not grow beyond a limit together.
pub(super) struct LimitedDisk {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    limit: u64,
}

struct LimitedFile {
    file: Box<dyn DiskFile>,
    limits: Arc<LimitedDisk>,
}

impl LimitedDisk {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, limit: u64) -> Self {
        LimitedDisk { disk, dir: dir.to_owned(), limit }
    }

    fn used(&self) -> io::Result<u64> {
        let mut used = 0;
        for name in self.disk.list(&self.dir)? {
            match self.disk.open(&self.dir.join(name), false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => used += opened?.len()?,
            }
        }
        Ok(used)
    }

    fn left(&self) -> io::Result<u64> {
        Ok(self.limit.saturating_sub(self.used()?))
    }
}

impl Disk for LimitedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path, create)?;
        // The mark is small, and needed most when the disk is full.
        if path.parent() != Some(&*self.dir) || path.ends_with(end_mark::NAME) {
            return Ok(file);
        }
        let limits = LimitedDisk::new(self.disk.clone(), &self.dir, self.limit);
        Ok(Box::new(LimitedFile { file, limits: Arc::new(limits) }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open_to_read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.disk.lock(path)
    }

    fn room(&self, dir: &Path) -> Option<u64> {
        let room = self.disk.room(dir);
        if dir != self.dir {
            return room;
        }
        let left = self.left().ok()?;
        Some(room.map_or(left, |room| room.min(left)))
    }

    fn before_index_commit(&self) -> io::Result<()> {
        self.disk.before_index_commit()
    }
}

impl LimitedFile {
    fn grow(&self, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.file.len()?);
        let fits = more == 0 || more <= self.limits.left()?;
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

impl DiskFile for LimitedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.grow(len)?;
        self.file.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::disk::RealDisk;

    #[test]
    fn the_shares_are_the_whole_and_deletes_have_a_part() {
        for mib in [64, 512, 4096, 1 << 20] {
            for (checkpoint_size, wal_segment) in [(1 << 20, 1 << 20), (64 << 20, 8 << 20)] {
                let options = FileStoreOptions {
                    max_disk: Some(mib << 20),
                    checkpoint_size,
                    wal_segment,
                    ..FileStoreOptions::new("")
                };
                let limit = DiskLimit::of(&options, 0).unwrap();
                assert_eq!(limit.log + limit.index, limit.total, "{limit:?}");
                assert!(
                    limit.index_reserve >= LEAST_RESERVE && limit.index >= limit.log,
                    "{limit:?}"
                );
                assert!(limit.pending(&options) as u64 >= wal_segment, "{limit:?}");
            }
        }
    }

    #[test]
    fn the_log_has_a_quarter_at_most_and_what_is_sealed_counts_for_the_index() {
        let of = |total: u64, checkpoint_size: usize, wal_segment: u64, sealed: u64| {
            let options = FileStoreOptions {
                max_disk: Some(total << 20),
                checkpoint_size: checkpoint_size << 20,
                wal_segment: wal_segment << 20,
                ..FileStoreOptions::new("")
            };
            let limit = DiskLimit::of(&options, sealed << 20).unwrap();
            let shares = [limit.log, limit.index, limit.index_reserve].map(|bytes| bytes >> 20);
            (shares, limit.pending(&options) >> 20)
        };
        // A quarter; four checkpoints and four segments; four segments.
        assert_eq!(of(64, 64, 1, 0), ([16, 48, 8], 13));
        assert_eq!(of(1024, 3, 2, 0), ([20, 1004, 62], 14));
        assert_eq!(of(64, 64, 8, 0), ([32, 32, 8], 8));
        // The index has some room, also where none is left.
        assert_eq!(of(1024, 3, 2, 504), ([20, 500, 31], 14));
        assert_eq!(of(64, 64, 1, 60), ([16, 16, 8], 13));
    }

    #[test]
    fn all_but_the_growth_of_files_is_up_to_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("new/wal");
        let disk = LimitedDisk::new(Arc::new(RealDisk), &wal, 10_000);
        assert!(disk.sync_dir(&wal).is_err(), "it is not there");
        disk.create_dir_all(&wal).unwrap();
        disk.sync_dir(&wal).unwrap();
        assert!(disk.lock(&wal.join("lock")).unwrap().is_some());
        let file = disk.open(&wal.join("1.wal"), true).unwrap();
        file.write_at(0, b"bytes").unwrap();
        assert_eq!(
            (file.len().unwrap(), disk.read(&wal.join("1.wal")).unwrap()),
            (5, b"bytes".to_vec())
        );
        assert!(disk.read(&wal.join("2.wal")).is_err());
    }

    #[test]
    fn the_mark_of_the_end_has_no_limit_and_what_cannot_be_looked_at_has_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let disk = LimitedDisk::new(Arc::new(RealDisk), dir.path(), 10_000);
        let open = |name: &str| disk.open(&dir.path().join(name), true).unwrap();
        open("1.wal").allocate(10_000).unwrap();
        assert!(open("2.wal").allocate(1).is_err());
        open(end_mark::NAME).allocate(8192).unwrap();
        open("1.wal").allocate(10_000).unwrap();
        // It was removed since it was listed.
        #[cfg(unix)]
        std::os::unix::fs::symlink("gone", dir.path().join("3.wal")).unwrap();
        assert_eq!(disk.room(dir.path()), Some(0));
        disk.create_dir_all(&dir.path().join("4.wal")).unwrap();
        assert_eq!(disk.room(dir.path()), None);
        assert!(open("2.wal").allocate(1).is_err());
    }

    #[test]
    fn files_do_not_grow_beyond_the_limit_together() {
        let dir = tempfile::tempdir().unwrap();
        let disk = LimitedDisk::new(Arc::new(RealDisk), dir.path(), 10_000);
        let open = |name: &str| disk.open(&dir.path().join(name), true).unwrap();
        open("a").allocate(6000).unwrap();
        let second = open("b");
        assert_eq!(second.allocate(5000).unwrap_err().kind(), io::ErrorKind::StorageFull);
        second.allocate(4000).unwrap();
        assert_eq!(disk.room(dir.path()), Some(0));
        disk.remove(&dir.path().join("a")).unwrap();
        second.allocate(10_000).unwrap();
        // Elsewhere there is no limit.
        let other = tempfile::tempdir().unwrap();
        disk.open(&other.path().join("c"), true).unwrap().allocate(20_000).unwrap();
    }
}
