//! The LMDB environment: opening it, and what it has.
//!
//! Invariant: its sync mode is LMDB's default, so a commit that returned is durable.

use std::path::{Path, PathBuf};

use heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls, types::Bytes,
};

use super::keys::{self, Meta};
use crate::store::{
    StoreError,
    file::error::{corrupt, index_error},
};

/// A database; what is in it is said where it is used.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// The environment and its databases.
pub(in crate::store::file) struct Environment {
    pub(super) env: Env<WithoutTls>,
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

/// Names of the databases, in the order of the fields of [`Environment`].
const NAMES: [&str; 8] =
    ["meta", "paths", "streams", "chunks", "producers", "deadlines", "forks", "purge"];

impl Environment {
    pub(super) fn open(dir: &Path, map_size: usize) -> Result<Self, StoreError> {
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
        Ok(Environment {
            env,
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
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tables(&self) -> [Table; NAMES.len()] {
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

    pub(super) fn meta(&self, txn: &RoTxn<'_>) -> Result<Meta, StoreError> {
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
