//! `compact`: the index without its free pages.

use std::io::Write;

use clap::Args;
use durable_streams_engine::store::file::offline;

use super::{
    place::DataDirectoryArguments,
    progress::{ByteCount, ProgressDisplay, count},
};
use crate::cli::error::CliError;

#[derive(Debug, Args)]
pub(in crate::cli) struct CompactCommand {
    #[command(flatten)]
    place: DataDirectoryArguments,
}

impl CompactCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let options = self.place.options()?;
        let mut progress = ProgressDisplay::begin();
        let done = offline::compact(&options, &mut |step| progress.step(step))?;
        let took = progress.end();
        writeln!(
            std::io::stdout(),
            "compacted the index of {} with {} up to event {} from {} ({} bytes) to {} ({} bytes) in {took}",
            options.dir.display(),
            count(done.streams, "stream"),
            done.lsn,
            ByteCount(done.before),
            done.before,
            ByteCount(done.after),
            done.after,
        )?;
        Ok(())
    }
}
