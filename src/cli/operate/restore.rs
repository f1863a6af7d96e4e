//! `restore`: a data directory from a backup.

use std::path::PathBuf;

use clap::Args;
use durable_streams_engine::store::file::offline;

use super::{
    keys,
    place::DataDirectoryArguments,
    progress::{ProgressDisplay, say_copied},
};
use crate::cli::error::CliError;

#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreCommand {
    #[command(flatten)]
    place: DataDirectoryArguments,
    /// The backup; it is only read
    #[arg(value_name = "BACKUP")]
    from: PathBuf,
}

impl RestoreCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let options = self.place.options()?;
        let mut progress = ProgressDisplay::begin();
        let found = offline::restore(&self.from, &options, &mut |step| progress.step(step))?;
        let took = progress.end();
        say_copied("restored", &found, &self.from, &options.dir, &took)?;
        Ok(keys::check(&options.dir)?)
    }
}
