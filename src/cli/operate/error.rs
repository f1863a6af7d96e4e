//! Why a command on a data directory failed.

use std::path::PathBuf;

use durable_streams_engine::store::StoreError;

use crate::server::backup_socket::client::BackupSocketError;
use crate::tier::{CopyError, ObjectFilesError};

/// Why a command on a data directory failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// There is no data directory.
    #[error(
        "error: the configuration has no data_dir, so the streams are in memory; use --data-dir to name one"
    )]
    InMemory,
    /// The store says.
    #[error("error: {0}")]
    Store(#[from] StoreError),
    /// The server that holds the directory's lock did not make the copy.
    #[error("error: {error}{}", process(.holder))]
    Server {
        /// What happened.
        error: BackupSocketError,
        /// The process that has the directory.
        holder: Option<u32>,
    },
    /// `verify` found something.
    #[error("error: {count} found in {dir}; restore a backup, or see what `repair` would drop", count = problems(*.count))]
    Damaged {
        /// The data directory.
        dir: PathBuf,
        /// How much is wrong.
        count: u64,
    },
    /// LMDB ended the process that read the index.
    #[error(
        "error: the index in {dir} cannot be read: its structure is damaged, and reading it ended with signal {signal}; \
         restore a backup"
    )]
    Unreadable {
        /// The data directory.
        dir: PathBuf,
        /// The signal.
        signal: i32,
    },
    /// There is no object store.
    #[error("error: this needs an object store: a configuration (--config) with `tier`")]
    NoTier,
    /// The objects of segments cannot be read.
    #[error("error: {0}")]
    Objects(ObjectFilesError),
    /// A copy of the index in the object store cannot be used.
    #[error("error: the object store {location}: {error}")]
    Copies {
        /// The bucket or directory.
        location: String,
        /// Why.
        error: CopyError,
    },
    /// There is no whole copy.
    #[error(
        "error: the object store {location} has no whole copy of an index; check tier.url, and that tier.index_interval was \
         not 0s"
    )]
    NoCopy {
        /// The bucket or directory.
        location: String,
    },
    /// The object store lacks something.
    #[error(
        "error: {dir} was restored, but for what is listed ({count}): reads of that fail; `repair --cold` \
         would drop it",
        count = problems(*.count)
    )]
    RestoredInPart {
        /// The data directory.
        dir: PathBuf,
        /// How much is wrong.
        count: u64,
    },
    /// `repair` found damage and ran without `--apply`.
    #[error(
        "error: {dir} needs repair; nothing was changed. Restore a backup, or drop what is listed with --apply"
    )]
    NeedsRepair {
        /// The data directory.
        dir: PathBuf,
    },
}

fn process(holder: &Option<u32>) -> String {
    holder.map_or(String::new(), |pid| format!(" (process {pid})"))
}

fn problems(count: u64) -> String {
    if count == 1 { "1 problem".to_owned() } else { format!("{count} problems") }
}
