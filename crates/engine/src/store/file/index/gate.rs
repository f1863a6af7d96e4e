//! Who uses the LMDB environment when.
//!
//! Invariants
//! - Every transaction holds the environment shared. Who holds it alone may resize its map or open it anew: LMDB asks
//!   for no transaction to be active then.
//! - Nobody asks for it twice at a time: between the two, somebody may have begun to wait for being alone.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use heed::{CompactionOption, RoTxn, RwTxn, WithoutTls};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use super::{env::Environment, keys::Meta};
use crate::store::{
    StoreError,
    file::{
        disk::File,
        error::{index_error, io_error},
    },
};

/// How long being alone with the environment is waited for when it is not urgent.
const PATIENCE: Duration = Duration::from_millis(5);

/// The index, as long as the store is open.
pub(in crate::store::file) struct Index {
    /// `None` after it could not be opened anew; who needs it next tries again.
    open: RwLock<Option<Environment>>,
    dir: PathBuf,
    path: PathBuf,
    map_size: usize,
    /// The most streams that one checkpoint has changed since the last [`rest`](Self::rest).
    changed: AtomicUsize,
    /// There was a checkpoint of many since the environment was opened.
    swollen: AtomicBool,
}

/// The environment, held shared.
type Opened<'i> = MappedRwLockReadGuard<'i, Environment>;

/// A read transaction: a moment of the index. Keep it short; never across an `.await`.
pub(in crate::store::file) struct Reading<'i> {
    // Dropped in this order.
    pub(super) txn: RoTxn<'static, WithoutTls>,
    index: Opened<'i>,
}

impl Index {
    /// Opens the index in `dir`, which must be there; creates its databases when they are not.
    pub(in crate::store::file) fn open(dir: &Path, map_size: usize) -> Result<Self, StoreError> {
        let environment = Environment::open(dir, map_size)?;
        Ok(Index {
            path: environment.path().to_owned(),
            open: RwLock::new(Some(environment)),
            dir: dir.to_owned(),
            map_size,
            changed: AtomicUsize::new(0),
            swollen: AtomicBool::new(false),
        })
    }

    fn environment(&self) -> Result<Opened<'_>, StoreError> {
        loop {
            if let Ok(open) = RwLockReadGuard::try_map(self.open.read(), Option::as_ref) {
                return Ok(open);
            }
            let mut open = self.open.write();
            if open.is_none() {
                *open = Some(Environment::open(&self.dir, self.map_size)?);
            }
        }
    }

    /// A checkpoint has changed so many streams.
    pub(super) fn has_changed(&self, streams: usize) {
        self.changed.fetch_max(streams, Ordering::Relaxed);
    }

    /// Gives back what checkpoints of more than `many` streams have left: LMDB keeps the memory of all pages that its
    /// largest transaction has changed, and the map's pages stay resident, until the environment is closed. So it is
    /// opened anew, when the checkpoints since the last call were smaller.
    ///
    /// # Errors
    /// It cannot be opened now; who needs it next tries again.
    pub(in crate::store::file) fn rest(&self, many: usize) -> Result<(), StoreError> {
        if self.changed.swap(0, Ordering::Relaxed) > many {
            self.swollen.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if !self.swollen.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Who reads for long, as a backup does, is not waited for: others would wait with this.
        let Some(mut open) = self.open.try_write_for(PATIENCE) else { return Ok(()) };
        let size = open.as_ref().map_or(0, |open| open.env.info().map_size);
        // A process can have an environment open once only.
        *open = None;
        *open = Some(Environment::open(&self.dir, self.map_size.max(size))?);
        self.swollen.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The file.
    pub(in crate::store::file) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file in use.
    pub(in crate::store::file) fn size(&self) -> u64 {
        self.environment().map_or(0, |open| open.env.real_disk_size().unwrap_or(0))
    }

    /// Bytes of the file that hold records; the rest is free pages, which later commits use.
    pub(in crate::store::file) fn live_size(&self) -> Result<u64, StoreError> {
        let reading = self.read()?;
        let mut live = reading.index.env.unnamed_database_stat().non_free_page_size();
        for table in reading.index.tables() {
            let stat = table.stat(&reading.txn).map_err(index_error("read", &self.path))?;
            live += stat.non_free_page_size();
        }
        Ok(live as u64)
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

    /// Writes a copy without free pages into an empty file, not synced: one moment of the index, while others
    /// go on. Pages of that moment are not used again until the copy is done, so meanwhile the index grows by
    /// what checkpoints write.
    pub(in crate::store::file) fn copy_into(
        &self,
        file: &File,
        path: &Path,
    ) -> Result<(), StoreError> {
        // The map cannot grow during the copy, and who needs it to would wait. So there is room first.
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

    pub(in crate::store::file) fn read(&self) -> Result<Reading<'_>, StoreError> {
        let index = self.environment()?;
        let txn = index.env.clone().static_read_txn();
        Ok(Reading { txn: txn.map_err(index_error("read", &self.path))?, index })
    }

    /// Runs `change` in a write transaction and commits it; grows the map and starts over when it is full.
    ///
    /// `before_commit` runs when everything is written but not committed.
    pub(in crate::store::file) fn write<T>(
        &self,
        before_commit: &dyn Fn() -> std::io::Result<()>,
        mut change: impl FnMut(&Environment, &mut RwTxn<'_>) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        loop {
            match self.try_write(before_commit, &mut change) {
                Err(WriteError::Index(heed::Error::Mdb(heed::MdbError::MapFull))) => self.grow()?,
                Err(WriteError::Index(error)) => {
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
        change: &mut impl FnMut(&Environment, &mut RwTxn<'_>) -> Result<T, WriteError>,
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
        // Whoever opens it again finds room.
        let Some(open) = &*open else { return Ok(()) };
        let size = open.env.info().map_size.saturating_mul(2);
        #[expect(unsafe_code, reason = "LMDB does not check for active transactions")]
        // SAFETY: every transaction holds the environment shared, and it is held alone here.
        let resized = unsafe { open.env.resize(size) };
        resized.map_err(index_error("grow", &self.path))
    }
}

impl Reading<'_> {
    pub(super) fn index(&self) -> &Environment {
        &self.index
    }

    pub(in crate::store::file) fn meta(&self) -> Result<Meta, StoreError> {
        self.index.meta(&self.txn)
    }
}

/// An error inside a write transaction.
pub(in crate::store::file) enum WriteError {
    /// LMDB's.
    Index(heed::Error),
    /// Ours.
    Store(StoreError),
}

impl From<heed::Error> for WriteError {
    fn from(error: heed::Error) -> Self {
        WriteError::Index(error)
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

    use super::{Index, Ordering};

    #[test]
    fn it_is_opened_anew_after_a_large_checkpoint_and_by_the_next_reader_if_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let (here, away) = (dir.path().join("here"), dir.path().join("away"));
        fs::create_dir(&here).unwrap();
        let index = Index::open(&here, 1 << 20).unwrap();
        let many = 10;
        index.has_changed(many);
        fs::rename(&here, &away).unwrap();
        index.rest(many).unwrap();
        index.has_changed(many + 1);
        index.rest(many).expect("a large one has just been");
        index.rest(many).expect_err("it is opened anew, and is not there");
        assert!(index.swollen.load(Ordering::Relaxed));
        assert!(index.read().is_err());
        assert_eq!(index.size(), 0);
        fs::rename(&away, &here).unwrap();
        assert_eq!(index.read().unwrap().meta().unwrap().streams, 0);
        index.rest(many).unwrap();
        assert!(!index.swollen.load(Ordering::Relaxed));
    }

    #[test]
    fn who_reads_for_long_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), 1 << 20).unwrap();
        index.has_changed(2);
        index.rest(1).unwrap();
        let reading = index.read().unwrap();
        index.rest(1).unwrap();
        assert!(index.swollen.load(Ordering::Relaxed));
        drop(reading);
        index.rest(1).unwrap();
        assert!(!index.swollen.load(Ordering::Relaxed));
    }
}
