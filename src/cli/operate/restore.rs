//! `restore`: a data directory from a backup, or from what the object store has.

use std::path::PathBuf;

use clap::Args;
use durable_streams_engine::store::file::offline;

use super::{
    from_tier, keys,
    place::DataDirectoryArguments,
    progress::{ProgressDisplay, say_copied},
};
use crate::cli::error::CliError;
use crate::tier::CopyName;

#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreCommand {
    #[command(flatten)]
    place: DataDirectoryArguments,
    /// The backup; it is only read
    #[arg(value_name = "BACKUP", required_unless_present = "from_tier")]
    from: Option<PathBuf>,
    /// From the newest whole copy of the index in the object store that the configuration names (`tier`)
    #[arg(long, conflicts_with = "from", requires = "config")]
    from_tier: bool,
    /// With --from-tier: take the prefix over, too; the server that has it must be gone for good
    #[arg(long, requires = "from_tier")]
    take_over: bool,
    /// With --from-tier: from this copy, such as an older one
    #[arg(long, value_name = "NAME", requires = "from_tier")]
    copy: Option<CopyName>,
}

impl RestoreCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let Some(from) = self.from else {
            return from_tier::restore(self.place, self.copy, self.take_over);
        };
        let options = self.place.options()?;
        let mut progress = ProgressDisplay::begin();
        let found = offline::restore(&from, &options, &mut |step| progress.step(step))?;
        let took = progress.end();
        say_copied("restored", &found, &from, &options.dir, &took)?;
        Ok(keys::check(&options.dir)?)
    }
}
