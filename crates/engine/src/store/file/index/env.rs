//! The LMDB environment: opening it, and what it has.
//!
//! Invariant: its sync mode is LMDB's default, so a commit that returned is durable.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls, types::Bytes,
};

use super::{
    counts::RecordCounts,
    keys::{self, IndexMeta},
    pages::PageFile,
};
use crate::store::{
    StoreError,
    file::error::{corrupt, index_error},
};

/// A database; docs/storage.md describes each.
pub(super) type IndexTable = Database<'static, Bytes, Bytes>;

/// The environment and its databases.
pub(in crate::store::file) struct IndexEnvironment {
    pub(super) env: Env<WithoutTls>,
    path: PathBuf,
    pub(super) meta: IndexTable,
    pub(super) paths: IndexTable,
    pub(super) streams: IndexTable,
    pub(super) chunks: IndexTable,
    pub(super) appends: IndexTable,
    pub(super) producers: IndexTable,
    pub(super) deadlines: IndexTable,
    pub(super) forks: IndexTable,
    pub(super) purge: IndexTable,
    pub(super) dropped: IndexTable,
    pub(super) extents: IndexTable,
    pub(super) segment_files: IndexTable,
    /// Every record of `paths` has a checksum; see `migrate`.
    pub(super) paths_sealed: AtomicBool,
    /// The file, for checks that LMDB does not make.
    pub(super) pages: PageFile,
    pub(super) counts: RecordCounts,
}

/// Names of the databases, in the order of the fields of [`IndexEnvironment`].
pub(super) const NAMES: [&str; 12] = [
    "meta",
    "paths",
    "streams",
    "chunks",
    "appends",
    "producers",
    "deadlines",
    "forks",
    "purge",
    "dropped",
    "extents",
    "segment_files",
];

/// The longest index, bytes, that is read from the disk as a whole when it is opened, while the start goes on. Searches look at
/// one page after the other, and the kernel reads none ahead for them.
///
/// Measured: see docs/benchmarks.md, cold catch-up.
const READ_AHEAD: u64 = 64 << 20;

impl IndexEnvironment {
    /// Opens an index, or makes one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a page is damaged that others depend on, unless `damaged` is set.
    pub(super) fn open(dir: &Path, map_size: usize, damaged: bool) -> Result<Self, StoreError> {
        let (env, pages) = Self::map(dir, map_size, damaged, EnvFlags::empty())?;
        let path = pages.path.clone();
        let failed = index_error("open", &path);
        // The last commit may be in the page cache only, if a process was killed, or failed, while it committed.
        env.force_sync().map_err(index_error("sync", &path))?;
        let txn = env.write_txn().map_err(&failed)?;
        let tables = env
            .create_databases_and_commit(txn, |opener, txn| {
                let mut tables = Vec::with_capacity(NAMES.len());
                for name in NAMES {
                    tables.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
                }
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(all(tables)?))
            })
            .map_err(&failed)?
            .unwrap_commit();
        let index = Self::of(env, pages, tables);
        index.begin()?;
        Ok(index)
    }

    /// Opens an index that this process had open, for reads only, on a disk that takes no writes any more. There is no other
    /// process, so readers need no table. Its last commit may be one that failed: what it says is in the log as well.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub(super) fn open_for_reads(dir: &Path, map_size: usize) -> Result<Self, StoreError> {
        let flags = EnvFlags::READ_ONLY | EnvFlags::NO_LOCK;
        let (env, pages) = Self::map(dir, map_size, false, flags)?;
        let path = pages.path.clone();
        let failed = index_error("open", &path);
        let txn = env.clone().static_read_txn().map_err(&failed)?;
        let tables = env
            .open_databases_and_commit(txn, |opener, txn| {
                let mut tables = Vec::with_capacity(NAMES.len());
                for name in NAMES {
                    tables.extend(opener.open_database::<Bytes, Bytes>(txn, Some(name))?);
                }
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(all(tables)?))
            })
            .map_err(&failed)?
            .unwrap_commit();
        let index = Self::of(env, pages, tables);
        let txn = index.env.read_txn().map_err(&failed)?;
        index.note_format(&txn)?;
        drop(txn);
        Ok(index)
    }

    /// Maps the file of an index.
    fn map(
        dir: &Path,
        map_size: usize,
        damaged: bool,
        flags: EnvFlags,
    ) -> Result<(Env<WithoutTls>, PageFile), StoreError> {
        let path = dir.join("data.mdb");
        PageFile::check_sizes(&path)?;
        // With thread-local readers, LMDB runs a destructor at the end of each reading thread, which writes to its
        // reader table. If the environment was closed before, that is a segmentation fault. Waiting for the results
        // of a thread, or for a thread scope, does not wait for such destructors.
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(round_up(map_size)).max_dbs(NAMES.len() as u32).max_readers(512);
        #[expect(unsafe_code, reason = "heed asks for it where LMDB maps the file")]
        // SAFETY: the data directory is locked, so that no other process changes the file; within this
        // process heed opens one environment per path. One flag only turns read-ahead off; without a table of readers
        // there is no writer, which could overwrite what they read.
        let env = unsafe {
            options.flags(EnvFlags::NO_READ_AHEAD | flags);
            options.open(dir)
        }
        .map_err(index_error("open", &path))?;
        check_length(&env, &path)?;
        let pages = PageFile::open(&path, env.unnamed_database_stat().page_size as usize)?;
        pages.read_ahead(READ_AHEAD);
        if !damaged {
            pages.check_structure(env.info().last_txn_id as u64)?;
        }
        Ok((env, pages))
    }

    fn of(env: Env<WithoutTls>, pages: PageFile, tables: [IndexTable; NAMES.len()]) -> Self {
        let [meta, paths, streams, chunks, appends, producers, deadlines, forks, purge, ..] =
            tables;
        let [.., dropped, extents, segment_files] = tables;
        IndexEnvironment {
            env,
            path: pages.path.clone(),
            meta,
            paths,
            streams,
            chunks,
            appends,
            producers,
            deadlines,
            forks,
            purge,
            dropped,
            extents,
            segment_files,
            paths_sealed: AtomicBool::new(true),
            pages,
            counts: RecordCounts::default(),
        }
    }

    /// Writes the first meta record into an index without records; learns the format of any other.
    fn begin(&self) -> Result<(), StoreError> {
        let failed = index_error("open", &self.path);
        let mut txn = self.env.write_txn().map_err(&failed)?;
        if self.meta.is_empty(&txn).map_err(&failed)? {
            for table in self.tables() {
                if !table.is_empty(&txn).map_err(&failed)? {
                    return Err(self.missing("the meta record"));
                }
            }
            self.put_meta(&mut txn, &mut IndexMeta::fresh()).map_err(&failed)?;
            return txn.commit().map_err(&failed);
        }
        self.note_format(&txn)
    }

    /// Learns the format, and how many records there are.
    fn note_format(&self, txn: &RoTxn<'_>) -> Result<(), StoreError> {
        // Damage is an error for each caller that needs the record.
        let format = self.meta(txn).map_or(keys::FORMAT, |meta| meta.format);
        self.paths_sealed.store(format == keys::FORMAT, Ordering::Release);
        self.note_counts(txn)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tables(&self) -> [IndexTable; NAMES.len()] {
        [
            self.meta,
            self.paths,
            self.streams,
            self.chunks,
            self.appends,
            self.producers,
            self.deadlines,
            self.forks,
            self.purge,
            self.dropped,
            self.extents,
            self.segment_files,
        ]
    }

    pub(super) fn meta(&self, txn: &RoTxn<'_>) -> Result<IndexMeta, StoreError> {
        let value = self.meta.get(txn, keys::META).map_err(index_error("read", &self.path))?;
        let value = value.ok_or_else(|| self.missing("the meta record"))?;
        keys::open(keys::META, value)
            .and_then(IndexMeta::decode)
            .ok_or_else(|| self.damaged("the meta record"))
    }

    pub(super) fn missing(&self, what: &str) -> StoreError {
        corrupt(&self.path, 0, &format!("{what} is missing; restore a backup"))
    }

    pub(super) fn damaged(&self, what: &str) -> StoreError {
        corrupt(&self.path, 0, &format!("{what} is damaged"))
    }
}

/// The databases, if none is missing.
fn all<'e>(
    tables: Vec<Database<'e, Bytes, Bytes>>,
) -> heed::Result<[Database<'e, Bytes, Bytes>; NAMES.len()]> {
    tables.try_into().map_err(|_| heed::Error::Mdb(heed::MdbError::DbsFull))
}

/// Refuses a file that is cut: accessing the missing pages through the map would end the process (SIGBUS).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_whole_units_and_at_least_a_mebibyte() {
        const MIB: usize = 1 << 20;
        let sizes = [0, MIB - 1, MIB, MIB + 1, MIB + (64 << 10), usize::MAX].map(round_up);
        let last = (usize::MAX / 2).next_multiple_of(64 << 10);
        assert_eq!(sizes, [MIB, MIB, MIB, MIB + (64 << 10), MIB + (64 << 10), last]);
    }
}
