//! `verify`: everything that can be wrong with a data directory, by file, place and stream.
//!
//! LMDB trusts its pages: where their structure is damaged, reading them may end the process. So the work is done by a
//! process of its own, and its end is a finding like others.

use std::{
    io::Write,
    process::{Command, ExitStatus},
};

use clap::Args;
use durable_streams_engine::store::file::{
    MAP_FAULT_EXIT,
    offline::{self, SegmentRange, VerifiedTotals, VerifyReport},
};

use super::{
    error::OperateError,
    keys,
    place::DataDirectoryArguments,
    progress::{ByteCount, ProgressDisplay, count},
};
use crate::cli::error::CliError;

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyCommand {
    #[command(flatten)]
    place: DataDirectoryArguments,
    /// Read every object of the object store that the configuration names (`tier`), too
    #[arg(long, requires = "config")]
    cold: bool,
    /// Do the work
    #[arg(long, hide = true)]
    in_this_process: bool,
}

impl VerifyCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        if !self.in_this_process {
            return self.delegate();
        }
        end_with_parent();
        self.verify()
    }

    /// Has another process do it, which also says what it found.
    fn delegate(self) -> Result<(), CliError> {
        let dir = self.place.options()?.dir;
        let mut arguments = std::env::args_os().skip(1);
        let mut worker = Command::new(std::env::current_exe()?);
        worker.args(arguments.next()).arg("--in-this-process").args(arguments);
        let status = worker.status()?;
        match status.code() {
            Some(0) => Ok(()),
            // It has said which part of the index cannot be read.
            Some(MAP_FAULT_EXIT) => Err(OperateError::Damaged { dir, count: 1 }.into()),
            Some(code) => std::process::exit(code),
            None => {
                let signal = signal(status).unwrap_or_default();
                Err(OperateError::Unreadable { dir, signal }.into())
            }
        }
    }

    fn verify(self) -> Result<(), CliError> {
        let (options, objects) = self.place.with_objects(self.cold)?;
        let mut progress = ProgressDisplay::begin();
        let mut each = |step| progress.step(step);
        let report = offline::verify_with(&options, objects.as_ref(), &mut each)?;
        let took = progress.end();
        let mut out = std::io::stdout().lock();
        for problem in &report.problems {
            writeln!(out, "{problem}")?;
        }
        say_damaged(&mut out, &report)?;
        let keys = keys::check(&options.dir);
        if let Err(problem) = &keys {
            writeln!(out, "{problem}")?;
        }
        let unsaid = report.count - report.problems.len() as u64;
        if unsaid > 0 {
            writeln!(out, "and {unsaid} more")?;
        }
        let VerifiedTotals { streams, chunks, bytes, events, lsn, .. } = report.found;
        writeln!(
            out,
            "checked {} with {} in {}, and {} in the log, up to event {lsn}, in {took}{}: {}",
            count(streams, "stream"),
            ByteCount(bytes),
            count(chunks, "chunk"),
            count(events, "event"),
            if self.cold { String::new() } else { unread(&report.found) },
            if report.count == 0 && keys.is_ok() { "all is well" } else { "there is damage" },
        )?;
        match report.count + u64::from(keys.is_err()) {
            0 => Ok(()),
            count => Err(OperateError::Damaged { dir: options.dir, count }.into()),
        }
    }
}

/// The ranges of streams that are in damaged parts of segments.
pub(super) fn say_damaged(out: &mut impl Write, report: &VerifyReport) -> std::io::Result<()> {
    for SegmentRange { segment, id, path, from, to, .. } in &report.damaged {
        let path = path.as_deref().unwrap_or("its path is not known");
        writeln!(
            out,
            "not readable: stream {id} ({path}): from position {from} to {to}, in segment {segment}"
        )?;
    }
    match report.damaged_count.saturating_sub(report.damaged.len() as u64) {
        0 => Ok(()),
        more => writeln!(out, "and {} more", count(more, "range")),
    }
}

/// What was not read, as it is in the object store.
fn unread(found: &VerifiedTotals) -> String {
    if found.objects == 0 {
        return String::new();
    }
    let (objects, bytes) = (count(found.objects, "segment"), ByteCount(found.object_bytes));
    format!(", but for {objects} with {bytes} in the object store, which --cold reads")
}

/// Has the system kill this process when the one that started it ends: a `verify` that was killed must not keep the lock
/// of the directory. Elsewhere than on Linux the worker ends when its work does.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        tracing::debug!(%error, "this process may outlive its parent");
    }
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// Elsewhere the end of a process is a number, whatever brought it.
#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}
