//! `backup`: a copy of a data directory, of a running server or a stopped one.

use std::path::PathBuf;

use clap::Args;
use durable_streams_engine::store::{
    FileStoreOptions, StoreError,
    file::{
        Destination,
        offline::{self, OperationPhase, OperationStep, VerifiedTotals},
    },
};

use super::{
    error::OperateError,
    keys,
    place::DataDirectoryArguments,
    progress::{ProgressDisplay, say_copied},
};
use crate::cli::error::CliError;
use crate::server::backup_socket::client::copy_index;

#[derive(Debug, Args)]
pub(in crate::cli) struct BackupCommand {
    #[command(flatten)]
    place: DataDirectoryArguments,
    /// Where to: a directory that is empty or does not exist yet, on any file system
    #[arg(value_name = "DESTINATION")]
    to: PathBuf,
}

impl BackupCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let options = self.place.options()?;
        let mut progress = ProgressDisplay::begin();
        let direct = offline::backup(&options, &self.to, &mut |step| progress.step(step));
        let found = match direct {
            // A server, most likely.
            Err(StoreError::Locked { path, holder }) if path == options.dir => {
                beside(&options, holder, &self.to, &mut progress)?
            }
            direct => direct?,
        };
        let took = progress.end();
        say_copied("backed up", &found, &options.dir, &self.to, &took)?;
        Ok(keys::check(&self.to)?)
    }
}

/// By way of the server that has the directory.
fn beside(
    options: &FileStoreOptions,
    holder: Option<u32>,
    to: &std::path::Path,
    progress: &mut ProgressDisplay,
) -> Result<VerifiedTotals, CliError> {
    let to = Destination::prepare(to)?;
    let file = to.index_file()?;
    let copied = copy_index(&options.dir, &file, &mut |done, total| {
        progress.step(OperationStep { what: OperationPhase::Copying, done, total });
    });
    copied.map_err(|error| OperateError::Server { error, holder })?;
    let mut each = |step| progress.step(step);
    Ok(to.complete(&options.dir, options.map_size, &mut each)?)
}
