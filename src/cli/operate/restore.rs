//! `restore`: a data directory from a backup.

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::{
    CliError, Place,
    progress::{Bytes, Progress, count},
};
use crate::store::file::offline::{self, Verified};

#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    #[command(flatten)]
    place: Place,
    /// The backup; it is only read
    #[arg(value_name = "BACKUP")]
    from: PathBuf,
}

impl Restore {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let options = self.place.options()?;
        let mut progress = Progress::begin();
        let found = offline::restore(&self.from, &options, &mut |step| progress.step(step))?;
        let took = progress.end();
        let Verified { streams, bytes, lsn, .. } = found;
        writeln!(
            std::io::stdout(),
            "restored {} with {} up to event {lsn} from {} to {} in {took}; every checksum matches",
            count(streams, "stream"),
            Bytes(bytes),
            self.from.display(),
            options.dir.display(),
        )?;
        Ok(())
    }
}
