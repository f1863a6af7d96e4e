//! `repair`: reports what damage in log and index costs; with `--apply`, drops the damaged part.

use std::io::{self, Write};

use clap::Args;
use durable_streams_engine::store::file::offline::{
    self, IndexDamage, LogDamage, LostEvents, LostPart, LostRecords,
};

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
    /// Read every object of the object store that the configuration names (`tier`), too, and drop what is damaged or missing
    /// there
    #[arg(long, requires = "config")]
    cold: bool,
}

impl RepairCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let (options, objects) = self.place.with_objects(self.cold)?;
        let mut progress = ProgressDisplay::begin();
        let log = offline::repair(&options, self.apply)?;
        let mut each = |step| progress.step(step);
        let objects = objects.as_ref();
        let index = offline::repair_index_with(&options, self.apply, objects, &mut each)?;
        let took = progress.end();
        let dir = options.dir;
        let mut out = io::stdout().lock();
        if let Some(damage) = &log {
            describe(&mut out, damage)?;
        }
        if let Some(damage) = &index {
            describe_index(&mut out, damage)?;
        }
        if log.is_none() && index.is_none() {
            writeln!(out, "{} needs no repair; checked in {took}", dir.display())?;
            return Ok(());
        }
        if !self.apply {
            return Err(OperateError::NeedsRepair { dir }.into());
        }
        let last =
            log.map_or(String::new(), |log| format!("; its last event is {}", log.first_lost - 1));
        writeln!(
            out,
            "repaired {} in {took}{last}; what was dropped is beside log and index, in files that end in .dropped",
            dir.display(),
        )?;
        Ok(())
    }
}

fn describe_index(out: &mut impl Write, damage: &IndexDamage) -> io::Result<()> {
    writeln!(out, "the index is damaged")?;
    for LostRecords { id, path, part, .. } in &damage.lost {
        let path = path.as_deref().unwrap_or("its path is not known");
        write!(out, "lost: stream {id} ({path}): ")?;
        match part {
            LostPart::Stream { bytes } => {
                writeln!(
                    out,
                    "all of it; {} can be read still, and are dropped",
                    ByteCount(*bytes)
                )?;
            }
            LostPart::Bytes { from, to } => {
                writeln!(out, "the bytes from position {from} to {to}: {}", ByteCount(to - from))?;
            }
            LostPart::AppendEnds { before } => {
                writeln!(out, "where appends before position {before} end; no bytes")?;
            }
            LostPart::Producers { count: lost } => {
                let producers = count(*lost, "producer");
                writeln!(out, "{producers}, whose next append is taken for their first one")?;
            }
            _ => writeln!(out, "{part:?}")?,
        }
    }
    for name in &damage.rewritten {
        writeln!(out, "written again from the states of the streams, at no loss: {name}")?;
    }
    Ok(())
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
