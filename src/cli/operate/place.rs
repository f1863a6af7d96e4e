//! The data directory that a command works on.

use std::path::PathBuf;

use clap::Args;
use durable_streams_engine::store::FileStoreOptions;

use super::error::OperateError;
use crate::cli::error::CliError;
use crate::config::{Config, ConfigSources};
use crate::server::store_options;

/// The data directory to work on. The configuration file names it and its sizes.
#[derive(Debug, Args)]
pub(super) struct DataDirectoryArguments {
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

/// The options of the store in a directory, or in the one that a configuration file names.
pub(in crate::cli) fn data_directory(
    data_dir: Option<PathBuf>,
    config: Option<PathBuf>,
) -> Result<FileStoreOptions, CliError> {
    DataDirectoryArguments { data_dir, config }.options()
}

impl DataDirectoryArguments {
    pub(super) fn options(self) -> Result<FileStoreOptions, CliError> {
        let Some(file) = self.config else {
            return Ok(FileStoreOptions::new(self.data_dir.unwrap_or_default()));
        };
        let sources = ConfigSources::of_file(Some(file));
        let mut options = store_options(&Config::load(&sources)?);
        if let Some(dir) = self.data_dir {
            let with = options.get_or_insert_with(|| FileStoreOptions::new(&dir));
            with.dir = dir;
        }
        options.ok_or_else(|| OperateError::InMemory.into())
    }
}
