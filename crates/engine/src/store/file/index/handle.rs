//! The handle of the LMDB environment: shared by transactions, exclusive for resizing its map and reopening it.
//!
//! Invariants
//! - Every transaction holds the lock shared. Resizing the map and reopening hold it exclusively, since LMDB requires
//!   that no transaction is active then.
//! - A thread that holds the lock shared does not take it again: a thread that waits for it exclusively would block the
//!   second acquisition, and wait for the first one for ever.
//!
//! Measured: reopening after large checkpoints is part of 630 -> 25 bytes per idle stream (docs/benchmarks.md).

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use heed::{CompactionOption, RoTxn, RwTxn, WithoutTls};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use super::{env::IndexEnvironment, keys::IndexMeta};
use crate::store::{
    StoreError,
    file::{
        disk::File,
        error::{index_error, io_error},
    },
};

/// How long [`release_idle_memory`](IndexHandle::release_idle_memory) waits for transactions to end.
const PATIENCE: Duration = Duration::from_millis(5);

pub(in crate::store::file) struct IndexHandle {
    /// `None` after it could not be reopened; the next transaction tries again.
    open: RwLock<Option<IndexEnvironment>>,
    dir: PathBuf,
    path: PathBuf,
    map_size: usize,
    /// The most streams that one checkpoint changed since the last
    /// [`release_idle_memory`](Self::release_idle_memory).
    largest: AtomicUsize,
    /// There was a large checkpoint since the environment was opened.
    bloated: AtomicBool,
}

/// The environment, held shared.
type SharedEnvironment<'i> = MappedRwLockReadGuard<'i, IndexEnvironment>;

/// A read transaction: the index at one moment. Keep it short; never across an `.await`.
pub(in crate::store::file) struct ReadTxn<'i> {
    // Fields are dropped in this order: the transaction ends before the lock is released.
    pub(super) txn: RoTxn<'static, WithoutTls>,
    index: SharedEnvironment<'i>,
}

impl IndexHandle {
    /// Opens the index in `dir`, which must exist; creates missing databases.
    pub(in crate::store::file) fn open(dir: &Path, map_size: usize) -> Result<Self, StoreError> {
        let environment = IndexEnvironment::open(dir, map_size)?;
        Ok(IndexHandle {
            path: environment.path().to_owned(),
            open: RwLock::new(Some(environment)),
            dir: dir.to_owned(),
            map_size,
            largest: AtomicUsize::new(0),
            bloated: AtomicBool::new(false),
        })
    }

    fn environment(&self) -> Result<SharedEnvironment<'_>, StoreError> {
        loop {
            if let Ok(open) = RwLockReadGuard::try_map(self.open.read(), Option::as_ref) {
                return Ok(open);
            }
            let mut open = self.open.write();
            if open.is_none() {
                *open = Some(IndexEnvironment::open(&self.dir, self.map_size)?);
            }
        }
    }

    /// Notes that a checkpoint changed so many streams.
    pub(super) fn note_checkpoint_size(&self, streams: usize) {
        self.largest.fetch_max(streams, Ordering::Relaxed);
    }

    /// Frees what checkpoints of more than `large` streams have left: LMDB keeps the memory of all pages that its
    /// largest transaction changed, and the map's pages stay resident, until the environment is closed. So this
    /// reopens it, unless there was a large checkpoint since the previous call.
    ///
    /// # Errors
    /// When it cannot be reopened; the next transaction tries again.
    pub(in crate::store::file) fn release_idle_memory(
        &self,
        large: usize,
    ) -> Result<(), StoreError> {
        if self.largest.swap(0, Ordering::Relaxed) > large {
            self.bloated.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if !self.bloated.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A long read, such as a backup's, is not waited for: new transactions would queue behind this one.
        let Some(mut open) = self.open.try_write_for(PATIENCE) else { return Ok(()) };
        let size = open.as_ref().map_or(0, |open| open.env.info().map_size);
        // A process can have an environment open once only.
        *open = None;
        *open = Some(IndexEnvironment::open(&self.dir, self.map_size.max(size))?);
        self.bloated.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(in crate::store::file) fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file, bytes.
    pub(in crate::store::file) fn size(&self) -> u64 {
        self.environment().map_or(0, |open| open.env.real_disk_size().unwrap_or(0))
    }

    /// Bytes of the file that hold records; the rest is free pages, which later commits use.
    pub(in crate::store::file) fn used_size(&self) -> Result<u64, StoreError> {
        let reading = self.read()?;
        let mut used = reading.index.env.unnamed_database_stat().non_free_page_size();
        for table in reading.index.tables() {
            let stat = table.stat(&reading.txn).map_err(index_error("read", &self.path))?;
            used += stat.non_free_page_size();
        }
        Ok(used as u64)
    }

    /// Records in all databases.
    pub(in crate::store::file) fn records(&self) -> Result<u64, StoreError> {
        let reading = self.read()?;
        let mut records = 0;
        for table in reading.index.tables() {
            records += table.len(&reading.txn).map_err(index_error("read", &self.path))?;
        }
        Ok(records)
    }

    /// Copies the index as of one moment, without free pages, into an empty file; does not sync it. Transactions go
    /// on meanwhile, but LMDB reuses no page of that moment until the copy ends, so the index grows by what
    /// checkpoints write.
    pub(in crate::store::file) fn copy_into(
        &self,
        file: &File,
        path: &Path,
    ) -> Result<(), StoreError> {
        // The map cannot grow during the copy; a checkpoint that needed it to would wait. So grow it first.
        let open = self.environment()?;
        let info = open.env.info();
        let page = u64::from(open.env.unnamed_database_stat().page_size);
        drop(open);
        let used = (info.last_page_number as u64).saturating_mul(page);
        if used.saturating_mul(2) > info.map_size as u64 {
            self.grow()?;
        }
        let open = self.environment()?;
        let mut file = file.try_clone().map_err(io_error("write", path))?;
        let copied = open.env.copy_to_file(&mut file, CompactionOption::Enabled);
        copied.map_err(index_error("copy the index to", path))
    }

    pub(in crate::store::file) fn read(&self) -> Result<ReadTxn<'_>, StoreError> {
        let index = self.environment()?;
        let txn = index.env.clone().static_read_txn();
        Ok(ReadTxn { txn: txn.map_err(index_error("read", &self.path))?, index })
    }

    /// Runs `change` in a write transaction and commits it; grows the map and starts over when it is full.
    /// `before_commit` runs right before the commit.
    pub(in crate::store::file) fn write<T>(
        &self,
        before_commit: &dyn Fn() -> std::io::Result<()>,
        mut change: impl FnMut(&IndexEnvironment, &mut RwTxn<'_>) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        loop {
            match self.try_write(before_commit, &mut change) {
                Err(WriteError::IndexHandle(heed::Error::Mdb(heed::MdbError::MapFull))) => {
                    self.grow()?
                }
                Err(WriteError::IndexHandle(error)) => {
                    return Err(index_error("write", &self.path)(error));
                }
                Err(WriteError::Store(error)) => return Err(error),
                Ok(done) => return Ok(done),
            }
        }
    }

    fn try_write<T>(
        &self,
        before_commit: &dyn Fn() -> std::io::Result<()>,
        change: &mut impl FnMut(&IndexEnvironment, &mut RwTxn<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let open = self.environment()?;
        let mut txn = open.env.write_txn()?;
        let done = change(&open, &mut txn)?;
        before_commit().map_err(|e| WriteError::Store(io_error("commit", &self.path)(e)))?;
        txn.commit()?;
        Ok(done)
    }

    fn grow(&self) -> Result<(), StoreError> {
        let open = self.open.write();
        // A reopened environment has a larger map.
        let Some(open) = &*open else { return Ok(()) };
        let size = open.env.info().map_size.saturating_mul(2);
        #[expect(unsafe_code, reason = "LMDB does not check for active transactions")]
        // SAFETY: every transaction holds the lock shared, and it is held exclusively here.
        let resized = unsafe { open.env.resize(size) };
        resized.map_err(index_error("grow", &self.path))
    }
}

impl ReadTxn<'_> {
    pub(super) fn index(&self) -> &IndexEnvironment {
        &self.index
    }

    pub(in crate::store::file) fn meta(&self) -> Result<IndexMeta, StoreError> {
        self.index.meta(&self.txn)
    }
}

/// An error inside a write transaction.
pub(in crate::store::file) enum WriteError {
    IndexHandle(heed::Error),
    Store(StoreError),
}

impl From<heed::Error> for WriteError {
    fn from(error: heed::Error) -> Self {
        WriteError::IndexHandle(error)
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        WriteError::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{IndexHandle, Ordering};

    #[test]
    fn it_is_reopened_after_a_large_checkpoint_and_by_the_next_reader_if_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let (here, away) = (dir.path().join("here"), dir.path().join("away"));
        fs::create_dir(&here).unwrap();
        let index = IndexHandle::open(&here, 1 << 20).unwrap();
        let many = 10;
        index.note_checkpoint_size(many);
        fs::rename(&here, &away).unwrap();
        index.release_idle_memory(many).unwrap();
        index.note_checkpoint_size(many + 1);
        index.release_idle_memory(many).expect("it does nothing right after a large one");
        index.release_idle_memory(many).expect_err("reopening fails, since it was moved");
        assert!(index.bloated.load(Ordering::Relaxed));
        assert!(index.read().is_err());
        assert_eq!(index.size(), 0);
        fs::rename(&away, &here).unwrap();
        assert_eq!(index.read().unwrap().meta().unwrap().streams, 0);
        index.release_idle_memory(many).unwrap();
        assert!(!index.bloated.load(Ordering::Relaxed));
    }

    #[test]
    fn a_long_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
        index.note_checkpoint_size(2);
        index.release_idle_memory(1).unwrap();
        let reading = index.read().unwrap();
        index.release_idle_memory(1).unwrap();
        assert!(index.bloated.load(Ordering::Relaxed));
        drop(reading);
        index.release_idle_memory(1).unwrap();
        assert!(!index.bloated.load(Ordering::Relaxed));
    }
}
