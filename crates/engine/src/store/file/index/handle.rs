//! The handle of the LMDB environment: shared by transactions, exclusive for resizing its map and reopening it.
//!
//! Invariants
//! - Every transaction holds the lock shared. Resizing the map and reopening hold it exclusively, since LMDB requires
//!   that no transaction is active then.
//! - A thread that holds the lock shared does not take it again: a thread that waits for it exclusively would block the
//!   second acquisition, and wait for the first one for ever.
//!
//! LMDB refuses every transaction after a meta page could not be written or synced. [`IndexHandle`] then opens the
//! environment again, as of the last commit; where the disk takes no writes any more, for reads only, until it does.
//!
//! One file because every use of the environment depends on whether its thread holds the lock shared or exclusively.
//!
//! Measured: reopening after large checkpoints is part of 630 -> 25 bytes per idle stream (docs/benchmarks.md).

mod map_size;

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

#[cfg(unix)]
use std::os::fd::OwnedFd as OwnedPipe;
#[cfg(windows)]
use std::os::windows::io::OwnedHandle as OwnedPipe;

use heed::{CompactionOption, RoTxn, RwTxn, WithoutTls};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

use self::map_size::map_bytes;
use super::{backoff::ReopenBackoff, env::IndexEnvironment, keys::IndexMeta, scrub::IndexHealth};
use crate::store::{
    StoreError,
    file::{
        disk::File,
        disk_limit::DiskLimit,
        error::{corrupt, index_error, io_error},
    },
};

/// How long [`release_idle_memory`](IndexHandle::release_idle_memory) waits for transactions to end.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long reopening a failed index waits for transactions to end.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);

pub(in crate::store::file) struct IndexHandle {
    /// `None` after it could not be reopened.
    open: RwLock<Option<IndexEnvironment>>,
    dir: PathBuf,
    path: PathBuf,
    map_size: usize,
    /// The largest map, and the part of it that only deletes may use; see `disk_limit`.
    limit: Option<(usize, usize)>,
    /// Deletes are being folded in or purged.
    reserve_open: AtomicBool,
    /// The most streams that one checkpoint changed since the last
    /// [`release_idle_memory`](Self::release_idle_memory).
    largest: AtomicUsize,
    /// There was a large checkpoint since the environment was opened.
    bloated: AtomicBool,
    /// The environment must be reopened: LMDB refuses transactions, or reopening failed.
    failed: AtomicBool,
    /// It is open for reads only, since the disk takes no writes: it must be reopened before the next one.
    reads_only: AtomicBool,
    backoff: Mutex<ReopenBackoff>,
    reopenings: AtomicU64,
    /// Opened for `repair` or `verify`: the structure is not checked.
    damaged: bool,
    health: IndexHealth,
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
        Self::open_limited(dir, map_size, None)
    }

    /// Opens the index with a map that never exceeds what `limit` gives it.
    pub(in crate::store::file) fn open_limited(
        dir: &Path,
        map_size: usize,
        limit: Option<DiskLimit>,
    ) -> Result<Self, StoreError> {
        let limit = limit.map(|limit| (map_bytes(limit.index), map_bytes(limit.index_reserve)));
        let map_size = limit.map_or(map_size, |(most, reserve)| map_size.min(most - reserve));
        Self::open_with(dir, map_size, limit, false)
    }

    /// Opens an index of which pages may be damaged. Searching it may end the process.
    pub(in crate::store::file) fn open_damaged(
        dir: &Path,
        map_size: usize,
    ) -> Result<Self, StoreError> {
        Self::open_with(dir, map_size, None, true)
    }

    fn open_with(
        dir: &Path,
        map_size: usize,
        limit: Option<(usize, usize)>,
        damaged: bool,
    ) -> Result<Self, StoreError> {
        let environment = IndexEnvironment::open(dir, map_size, damaged)?;
        Ok(IndexHandle {
            path: environment.path().to_owned(),
            open: RwLock::new(Some(environment)),
            dir: dir.to_owned(),
            map_size,
            limit,
            reserve_open: AtomicBool::new(false),
            largest: AtomicUsize::new(0),
            bloated: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            reads_only: AtomicBool::new(false),
            backoff: Mutex::default(),
            reopenings: AtomicU64::new(0),
            damaged,
            health: IndexHealth::default(),
        })
    }

    /// What scrubs have found since the opening.
    pub(in crate::store::file) fn health(&self) -> &IndexHealth {
        &self.health
    }

    pub(super) fn environment(&self) -> Result<SharedEnvironment<'_>, StoreError> {
        loop {
            if !self.failed.load(Ordering::Acquire)
                && let Ok(open) = RwLockReadGuard::try_map(self.open.read(), Option::as_ref)
            {
                return Ok(open);
            }
            let reopened = self.reopen();
            // Unless it is open for reads at least.
            if self.failed.load(Ordering::Acquire) {
                reopened?;
            }
        }
    }

    /// Opens the environment again after it failed, for reads only if the disk takes no writes; not more often than the
    /// backoff allows.
    ///
    /// # Errors
    /// Why it is not open for writes.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut backoff = self.backoff.lock();
        if let Some(error) = backoff.refusal() {
            return Err(error);
        }
        let Some(mut open) = self.open.try_write_for(REOPEN_PATIENCE) else {
            let busy = std::io::Error::other("it failed, and a long read of it goes on");
            return Err(io_error("open", &self.path)(busy));
        };
        let reads_only = self.reads_only.load(Ordering::Acquire);
        if open.is_some() && !self.failed.load(Ordering::Acquire) && !reads_only {
            return Ok(());
        }
        let error = match self.replace(&mut open) {
            Ok(()) => {
                tracing::warn!(index = %self.path.display(), "opened the index again after a failure");
                backoff.succeeded();
                self.reopenings.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => error,
        };
        backoff.failed(error.clone());
        match IndexEnvironment::open_for_reads(&self.dir, self.map_size) {
            Ok(environment) => {
                if !reads_only {
                    tracing::error!(%error, "cannot open the index again for writing; reads go on");
                }
                *open = Some(environment);
                self.reads_only.store(true, Ordering::Release);
                self.failed.store(false, Ordering::Release);
            }
            Err(_) => tracing::error!(%error, "cannot open the index again"),
        }
        Err(error)
    }

    /// Closes the environment and opens it again, with a map of at least the present size.
    fn replace(&self, open: &mut Option<IndexEnvironment>) -> Result<(), StoreError> {
        let size = open.as_ref().map_or(0, |open| open.env.info().map_size);
        self.failed.store(true, Ordering::Release);
        // A process can have an environment open once only.
        *open = None;
        *open = Some(IndexEnvironment::open(&self.dir, self.map_size.max(size), self.damaged)?);
        self.reads_only.store(false, Ordering::Release);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    /// Notes whether LMDB refuses transactions from now on.
    fn note_failure(&self, error: &heed::Error) {
        if matches!(error, heed::Error::Mdb(heed::MdbError::Panic)) {
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Whether write transactions are possible; tries to reopen a failed index.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::store::file) fn available(&self) -> Result<(), StoreError> {
        let open = !self.failed.load(Ordering::Acquire) && !self.reads_only.load(Ordering::Acquire);
        if open { Ok(()) } else { self.reopen() }
    }

    /// How often the index was opened again after a failure.
    pub(in crate::store::file) fn reopenings(&self) -> u64 {
        self.reopenings.load(Ordering::Relaxed)
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
        self.replace(&mut open)?;
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
    /// checkpoints write. Ends with an error once `wanted` returns false.
    pub(in crate::store::file) fn copy_into(
        &self,
        file: &File,
        path: &Path,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        // The map cannot grow during the copy; a checkpoint that needed it to would wait. So grow it first.
        let open = self.environment()?;
        let info = open.env.info();
        let page = u64::from(open.env.unnamed_database_stat().page_size);
        drop(open);
        let used = (info.last_page_number as u64).saturating_mul(page);
        if used.saturating_mul(2) > info.map_size as u64
            && let Err(error) = self.grow()
            && self.limit.is_none()
        {
            return Err(error);
        }
        let failed = io_error("copy the index to", path);
        let (reader, writer) = std::io::pipe().map_err(&failed)?;
        thread::scope(|scope| {
            let copying = thread::Builder::new().spawn_scoped(scope, move || {
                let mut writer = File::from(OwnedPipe::from(writer));
                let open = self.environment()?;
                let copied = open.env.copy_to_file(&mut writer, CompactionOption::Enabled);
                copied.map_err(index_error("copy", &self.path))
            });
            let copying = copying.map_err(&failed)?;
            pump(reader, file, wanted).map_err(&failed)?;
            copying.join().unwrap_or_else(|_| {
                Err(failed(std::io::Error::other("the copying thread panicked")))
            })
        })
    }

    /// Damage: a record is not there that another one calls for.
    pub(in crate::store::file) fn missing(&self, what: &str) -> StoreError {
        corrupt(&self.path, 0, &format!("{what} is missing; restore a backup"))
    }

    /// Damage: `what` is not as it was written.
    pub(in crate::store::file) fn damaged(&self, what: &str) -> StoreError {
        corrupt(&self.path, 0, &format!("{what} is damaged"))
    }

    /// Damage: a path that is not found may be one of those that are missing.
    pub(in crate::store::file) fn hidden_names(&self) -> StoreError {
        let what = "names are missing in the index, so a stream that is not found may exist: restore a backup, or see \
                    what `repair` would write again";
        corrupt(&self.path, 0, what)
    }

    pub(in crate::store::file) fn read(&self) -> Result<ReadTxn<'_>, StoreError> {
        let index = self.environment()?;
        let txn = index.env.clone().static_read_txn().inspect_err(|error| self.note_failure(error));
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
        self.available()?;
        let open = self.environment()?;
        let mut txn = open.env.write_txn().inspect_err(|error| self.note_failure(error))?;
        open.note_counts(&txn)?;
        let done = change(&open, &mut txn)?;
        before_commit().map_err(|e| WriteError::Store(io_error("commit", &self.path)(e)))?;
        if let Err(error) = txn.commit() {
            // LMDB does not say whether the meta page is what failed; the next transaction would meet it.
            if let Err(refused) = open.env.read_txn() {
                self.note_failure(&refused);
            }
            return Err(error.into());
        }
        Ok(done)
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

/// Moves what LMDB writes to a pipe into the file. LMDB cannot be told to end a copy, but it ends when the pipe is closed.
fn pump(
    mut pipe: std::io::PipeReader,
    mut file: &File,
    wanted: &dyn Fn() -> bool,
) -> std::io::Result<()> {
    const PIECE: usize = 256 << 10;
    let mut piece = vec![0; PIECE];
    loop {
        let read = match pipe.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok(());
        }
        if !wanted() {
            return Err(std::io::Error::other("the command that asked for it has ended"));
        }
        file.write_all(piece.get(..read).unwrap_or_default())?;
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
mod tests;
