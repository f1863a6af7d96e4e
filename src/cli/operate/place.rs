//! The data directory that a command works on.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use durable_streams_engine::store::FileStoreOptions;
use durable_streams_engine::store::file::segments::object_files::SegmentObjects;

use super::error::OperateError;
use crate::cli::error::CliError;
use crate::config::{Config, ConfigSources};
use crate::server::{store_options, tier_options};
use crate::tier::{ObjectFiles, TierOptions};

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
    /// And the objects of its segments, when they are wanted.
    pub(super) fn with_objects(
        self,
        wanted: bool,
    ) -> Result<(FileStoreOptions, Option<Arc<dyn SegmentObjects>>), CliError> {
        let (options, tier) = self.with_tier()?;
        if !wanted {
            return Ok((options, None));
        }
        let tier = tier.ok_or(OperateError::NoTier)?;
        let objects =
            ObjectFiles::of_directory(tier, &options.dir).map_err(OperateError::Objects)?;
        Ok((options, Some(Arc::new(objects))))
    }

    pub(super) fn options(self) -> Result<FileStoreOptions, CliError> {
        Ok(self.with_tier()?.0)
    }

    /// And the object store, if the configuration has one.
    pub(super) fn with_tier(self) -> Result<(FileStoreOptions, Option<TierOptions>), CliError> {
        let Some(file) = self.config else {
            return Ok((FileStoreOptions::new(self.data_dir.unwrap_or_default()), None));
        };
        let config = Config::load(&ConfigSources::of_file(Some(file)))?;
        let mut options = store_options(&config);
        if let Some(dir) = self.data_dir {
            let with = options.get_or_insert_with(|| FileStoreOptions::new(&dir));
            with.dir = dir;
        }
        let options = options.ok_or(OperateError::InMemory)?;
        Ok((options, tier_options(&config)))
    }
}
