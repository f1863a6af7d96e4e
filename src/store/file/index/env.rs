//! The LMDB environment: opening, transactions, growth.
//!
//! Invariants
//! - Every transaction holds the gate, and the map is only resized while the gate is closed: LMDB asks for
//!   no transaction to be active then.
//! - Sync mode is LMDB's default: a commit that returned is durable.

use std::path::{Path, PathBuf};

use heed::{
    CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn,
    WithoutTls, types::Bytes,
};
use parking_lot::{RwLock, RwLockReadGuard};

use super::keys::{self, Meta};
use crate::store::{
    StoreError,
    file::{
        disk::File,
        error::{corrupt, index_error, io_error},
    },
};

/// A database; what is in it is said where it is used.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// The environment and its databases.
pub(in crate::store::file) struct Index {
    env: Env<WithoutTls>,
    gate: RwLock<()>,
    path: PathBuf,
    pub(super) meta: Table,
    pub(super) paths: Table,
    pub(super) streams: Table,
    pub(super) chunks: Table,
    pub(super) producers: Table,
    pub(super) deadlines: Table,
    pub(super) forks: Table,
    pub(super) purge: Table,
}

/// Names of the databases, in the order of the fields of [`Index`].
const NAMES: [&str; 8] =
    ["meta", "paths", "streams", "chunks", "producers", "deadlines", "forks", "purge"];

/// A read transaction: a moment of the index. Keep it short; never across an `.await`.
pub(in crate::store::file) struct Reading<'i> {
    // Dropped in this order.
    pub(super) txn: RoTxn<'i, WithoutTls>,
    pub(super) index: &'i Index,
    _gate: RwLockReadGuard<'i, ()>,
}

impl Index {
    /// Opens the index in `dir`, which must be there; creates its databases when they are not.
    pub(in crate::store::file) fn open(dir: &Path, map_size: usize) -> Result<Self, StoreError> {
        let path = dir.join("data.mdb");
        // With thread-local readers LMDB is called when a thread ends, and writes to its reader table: after
        // the index was closed that is a segmentation fault, and who waits for a scope of threads, or for
        // what they send, does not wait for that.
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(round_up(map_size)).max_dbs(NAMES.len() as u32).max_readers(512);
        #[expect(unsafe_code, reason = "heed asks for it where LMDB maps the file")]
        // SAFETY: the data directory is locked, so that no other process changes the file; within this
        // process heed gives out one environment per path. The flag only turns read-ahead off.
        let env = unsafe {
            options.flags(EnvFlags::NO_READ_AHEAD);
            options.open(dir)
        }
        .map_err(index_error("open", &path))?;
        check_length(&env, &path)?;
        let txn = env.write_txn().map_err(index_error("open", &path))?;
        let tables = env
            .create_databases_and_commit(txn, |opener, txn| {
                let mut tables = Vec::with_capacity(NAMES.len());
                for name in NAMES {
                    tables.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
                }
                let tables: [_; NAMES.len()] =
                    tables.try_into().map_err(|_| heed::Error::Mdb(heed::MdbError::DbsFull))?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
            })
            .map_err(index_error("open", &path))?
            .unwrap_commit();
        let [meta, paths, streams, chunks, producers, deadlines, forks, purge] = tables;
        let gate = RwLock::new(());
        Ok(Index {
            env,
            gate,
            path,
            meta,
            paths,
            streams,
            chunks,
            producers,
            deadlines,
            forks,
            purge,
        })
    }

    /// The file.
    pub(in crate::store::file) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file in use.
    pub(in crate::store::file) fn size(&self) -> u64 {
        self.env.real_disk_size().unwrap_or(0)
    }

    /// Bytes of the file that hold records; the rest is free pages, which later commits use.
    pub(in crate::store::file) fn live_size(&self) -> Result<u64, StoreError> {
        let reading = self.read()?;
        let mut live = self.env.unnamed_database_stat().non_free_page_size();
        for table in self.tables() {
            let stat = table.stat(&reading.txn).map_err(index_error("read", &self.path))?;
            live += stat.non_free_page_size();
        }
        Ok(live as u64)
    }

    fn tables(&self) -> [Table; NAMES.len()] {
        [
            self.meta,
            self.paths,
            self.streams,
            self.chunks,
            self.producers,
            self.deadlines,
            self.forks,
            self.purge,
        ]
    }

    /// Records in all databases.
    pub(in crate::store::file) fn records(&self) -> Result<u64, StoreError> {
        let reading = self.read()?;
        let mut records = 0;
        for table in self.tables() {
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
        let info = self.env.info();
        let page = u64::from(self.env.unnamed_database_stat().page_size);
        let used = (info.last_page_number as u64).saturating_mul(page);
        if used.saturating_mul(2) > info.map_size as u64 {
            self.grow()?;
        }
        let _gate = self.gate.read();
        let mut file = file.try_clone().map_err(io_error("write", path))?;
        let copied = self.env.copy_to_file(&mut file, CompactionOption::Enabled);
        copied.map_err(index_error("copy the index to", path))
    }

    pub(in crate::store::file) fn read(&self) -> Result<Reading<'_>, StoreError> {
        let gate = self.gate.read();
        let txn = self.env.read_txn().map_err(index_error("read", &self.path))?;
        Ok(Reading { txn, index: self, _gate: gate })
    }

    /// Runs `change` in a write transaction and commits it; grows the map and starts over when it is full.
    ///
    /// `before_commit` runs when everything is written but not committed.
    pub(in crate::store::file) fn write<T>(
        &self,
        before_commit: &dyn Fn() -> std::io::Result<()>,
        mut change: impl FnMut(&mut RwTxn<'_>) -> Result<T, WriteError>,
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
        change: &mut impl FnMut(&mut RwTxn<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let _gate = self.gate.read();
        let mut txn = self.env.write_txn()?;
        let done = change(&mut txn)?;
        before_commit().map_err(|e| WriteError::Store(io_error("commit", &self.path)(e)))?;
        txn.commit()?;
        Ok(done)
    }

    fn grow(&self) -> Result<(), StoreError> {
        let _gate = self.gate.write();
        let size = self.env.info().map_size.saturating_mul(2);
        #[expect(unsafe_code, reason = "LMDB does not check for active transactions")]
        // SAFETY: every transaction holds the gate shared, and it is held alone here.
        let resized = unsafe { self.env.resize(size) };
        resized.map_err(index_error("grow", &self.path))
    }

    pub(in crate::store::file) fn meta(&self, txn: &RoTxn<'_>) -> Result<Meta, StoreError> {
        let value = self.meta.get(txn, keys::META).map_err(index_error("read", &self.path))?;
        let Some(value) = value else {
            // Entity tags carry ids, and clients keep those for longer than a data directory may live:
            // a new directory must not give a known id to another stream.
            let next_id = (fastrand::u64(..1 << 31) << 32) + 1;
            return Ok(Meta { next_id, next_node: 1, ..Meta::default() });
        };
        keys::open(keys::META, value)
            .and_then(Meta::decode)
            .ok_or_else(|| self.damaged("the meta record"))
    }

    /// Damage in a record.
    pub(super) fn damaged(&self, what: &str) -> StoreError {
        corrupt(&self.path, 0, &format!("{what} is damaged"))
    }
}

impl Reading<'_> {
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

/// Refuses a file that is cut: touching what is missing would end the process.
fn check_length(env: &Env<WithoutTls>, path: &Path) -> Result<(), StoreError> {
    // LMDB may leave out the last pages of a transaction when it freed them again.
    const SLACK: u64 = 1 << 20;
    let length = env.real_disk_size().map_err(index_error("look at", path))?;
    let page = u64::from(env.unnamed_database_stat().page_size);
    let used = (env.info().last_page_number as u64).saturating_add(1).saturating_mul(page);
    if length.saturating_add(SLACK) < used {
        return Err(corrupt(
            path,
            length,
            &format!("the file ends here and has {used} bytes in use"),
        ));
    }
    Ok(())
}

fn round_up(size: usize) -> usize {
    const UNIT: usize = 64 << 10;
    size.clamp(1 << 20, usize::MAX / 2).next_multiple_of(UNIT)
}
