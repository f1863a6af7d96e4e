//! What operators do with a data directory: `backup`, `restore`, `verify`, `compact`, `repair`.
//!
//! Each ends with one line of figures on standard output and exit code 0, or with what is wrong on standard error and
//! exit code 1. Progress goes to standard error.

mod backup;
mod compact;
mod progress;
mod repair;
mod restore;
mod verify;

use std::path::PathBuf;

use clap::Args;

pub(super) use backup::BackupCommand;
pub(super) use compact::CompactCommand;
pub(super) use repair::RepairCommand;
pub(super) use restore::RestoreCommand;
pub(super) use verify::VerifyCommand;

use super::CliError;
use crate::{
    config::{Config, ConfigFlag, ConfigSources},
    server::{backup_socket::client::BackupSocketError, store_options},
};
use durable_streams_engine::store::{FileStoreOptions, StoreError};

/// The data directory to work on. The configuration file names it and its sizes.
#[derive(Debug, Args)]
struct DataDirectoryArguments {
    /// The data directory; replaces `data_dir`
    #[arg(
        long,
        value_name = "DIR",
        env = "DURABLE_STREAMS_DATA_DIR",
        required_unless_present = "config"
    )]
    data_dir: Option<PathBuf>,
    /// The server's YAML file, which names the data directory
    #[arg(long, short, value_name = "FILE", env = "DURABLE_STREAMS_CONFIG")]
    config: Option<PathBuf>,
}

impl DataDirectoryArguments {
    fn options(self) -> Result<FileStoreOptions, CliError> {
        let Some(file) = self.config else {
            return Ok(FileStoreOptions::new(self.data_dir.unwrap_or_default()));
        };
        let sources = ConfigSources {
            file: Some(file),
            environment: std::env::vars_os().collect(),
            flags: Vec::<ConfigFlag>::new(),
        };
        let mut options = store_options(&Config::load(&sources)?);
        if let Some(dir) = self.data_dir {
            let with = options.get_or_insert_with(|| FileStoreOptions::new(&dir));
            with.dir = dir;
        }
        options.ok_or_else(|| OperateError::InMemory.into())
    }
}

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

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        CliError::Operate(error.into())
    }
}
