//! `repair`: reports what damage in the log costs; with `--apply`, drops the damaged part.

use std::io::{self, Write};

use clap::Args;
use durable_streams_engine::store::file::offline::{self, LogDamage, LostEvents};

use super::{
    error::OperateError,
    place::DataDirectoryArguments,
    progress::{ByteCount, ProgressDisplay, count},
};
use crate::cli::error::CliError;

#[derive(Debug, Args)]
pub(in crate::cli) struct RepairCommand {
    #[command(flatten)]
    place: DataDirectoryArguments,
    /// Drop it, for good
    #[arg(long)]
    apply: bool,
}

impl RepairCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let options = self.place.options()?;
        let progress = ProgressDisplay::begin();
        let damage = offline::repair(&options, self.apply)?;
        let took = progress.end();
        let dir = options.dir;
        let mut out = io::stdout().lock();
        let Some(damage) = damage else {
            writeln!(out, "the log of {} needs no repair; read in {took}", dir.display())?;
            return Ok(());
        };
        describe(&mut out, &damage)?;
        if !self.apply {
            return Err(OperateError::NeedsRepair { dir }.into());
        }
        writeln!(
            out,
            "repaired {} in {took}: its last event is {}; what was dropped is beside the log, in files that end in \
             .dropped",
            dir.display(),
            damage.first_lost - 1
        )?;
        Ok(())
    }
}

fn describe(out: &mut impl Write, damage: &LogDamage) -> io::Result<()> {
    writeln!(out, "{} at byte {}: {}", damage.path.display(), damage.offset, damage.found)?;
    writeln!(out, "lost: every event from {} on", damage.first_lost)?;
    let Some(last) = damage.last_found else {
        return writeln!(out, "no whole event was found behind the damage");
    };
    let events: u64 = damage.lost.iter().map(|lost| lost.events).sum();
    writeln!(
        out,
        "of those, {} up to {last} can be read still, and are dropped:",
        count(events, "event")
    )?;
    for LostEvents { id, path, events, bytes, .. } in &damage.lost {
        let path = path.as_deref().unwrap_or("its path is not known");
        let events = count(*events, "event");
        writeln!(out, "  stream {id} ({path}): {events} with {}", ByteCount(*bytes))?;
    }
    for segment in &damage.segments {
        writeln!(out, "taken out of the log: {}", segment.display())?;
    }
    Ok(())
}
