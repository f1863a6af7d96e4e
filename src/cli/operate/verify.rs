//! `verify`: everything that can be wrong with a data directory, by file, place and stream.

use std::io::Write;

use clap::Args;

use super::{
    CliError, OperateError, Place,
    progress::{Bytes, Progress, count},
};
use crate::store::file::offline::{self, Verified};

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    place: Place,
}

impl Verify {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let options = self.place.options()?;
        let mut progress = Progress::begin();
        let report = offline::verify(&options, &mut |step| progress.step(step))?;
        let took = progress.end();
        let mut out = std::io::stdout().lock();
        for problem in &report.problems {
            writeln!(out, "{problem}")?;
        }
        let unsaid = report.count - report.problems.len() as u64;
        if unsaid > 0 {
            writeln!(out, "and {unsaid} more")?;
        }
        let Verified { streams, chunks, bytes, events, lsn, .. } = report.found;
        writeln!(
            out,
            "checked {} with {} in {}, and {} in the log, up to event {lsn}, in {took}: {}",
            count(streams, "stream"),
            Bytes(bytes),
            count(chunks, "chunk"),
            count(events, "event"),
            if report.count == 0 { "all is well" } else { "there is damage" },
        )?;
        match report.count {
            0 => Ok(()),
            count => Err(OperateError::Damaged { dir: options.dir, count }.into()),
        }
    }
}
