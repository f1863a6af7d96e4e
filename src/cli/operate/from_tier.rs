//! `restore --from-tier`: a data directory from the object store alone.

use std::collections::BTreeSet;
use std::io::{self, Write};

use durable_streams_engine::Clock;
use durable_streams_engine::store::file::Destination;
use durable_streams_engine::store::file::disk::File;
use durable_streams_engine::store::file::offline::{
    IndexFromObjects, OperationPhase, OperationStep, SegmentRange, VerifiedTotals, VerifyReport,
};
use durable_streams_engine::store::file::segments::objects::SegmentInfo;
use durable_streams_protocol::Timestamp;
use tokio::runtime::Runtime;

use super::{
    error::OperateError,
    place::DataDirectoryArguments,
    progress::{ByteCount, ElapsedTime, ProgressDisplay, count},
};
use crate::cli::error::CliError;
use crate::tier::{CopyError, CopyName, IndexManifest, TierCopies, TierOptions};

/// Segments that are looked at in one read of the index.
const STEP: usize = 4096;

/// Missing objects, and ranges in them, that are said one by one.
const MOST_SAID: usize = 100;

/// Ranges of streams whose objects are missing.
#[derive(Default)]
struct LostRanges {
    first: Vec<SegmentRange>,
    count: u64,
}

/// The copies, and what runs requests to them.
struct CopySource {
    copies: TierCopies,
    runtime: Runtime,
    location: String,
}

pub(super) fn restore(
    place: DataDirectoryArguments,
    wanted: Option<CopyName>,
    take_over: bool,
) -> Result<(), CliError> {
    let (options, tier) = place.with_tier()?;
    let tier = tier.ok_or(OperateError::NoTier)?;
    let source = CopySource::connect(tier)?;
    let mut progress = ProgressDisplay::begin();
    let owner = source.run(source.copies.owner())?;
    let to = Destination::prepare(&options.dir)?;
    let copy = source.fetch(&to.index_file()?, wanted, &mut progress)?;
    if let Some((_, owner)) = owner.as_ref().filter(|(_, owner)| *owner != copy.identity)
        && wanted.is_none()
    {
        let (copied, owner) = (copy.identity.clone(), owner.clone());
        return Err(source.failed(CopyError::Other { copied, owner }).into());
    }
    let index = to.open_index(options.map_size)?;
    let report = index.check(&mut |step| progress.step(step))?;
    let (dir, segments) = (index.dir().to_owned(), all_segments(&index)?);
    copy.adopt(&dir).map_err(|error| source.failed(error))?;
    if take_over {
        // From here on its owner deletes nothing any more, so that what is there stays there.
        let seen = owner.map_or(0, |(epoch, _)| epoch);
        source.run(source.copies.take_over(&dir, seen, Clock::System.now()))?;
    }
    let missing = source.run(source.copies.missing(&copy, &segments))?;
    source.run(source.copies.is_there(&copy))?;
    let lost = ranges(&index, &missing)?;
    index.finish()?;
    let took = progress.end();
    source.say(&copy, &report, &took)?;
    say_lost(&report, &lost, &missing)?;
    if !take_over {
        writeln!(
            io::stdout(),
            "the prefix still belongs to the server that made the copy: when that one is gone for good, run \
             `durable-streams-server tier take-over` before the start"
        )?;
    }
    match report.count + missing.len() as u64 {
        0 => Ok(()),
        count => Err(OperateError::RestoredInPart { dir, count }.into()),
    }
}

impl CopySource {
    fn connect(tier: TierOptions) -> Result<Self, CliError> {
        let location = tier.location.to_string();
        let copies = TierCopies::connect(tier).map_err(|error| OperateError::Copies {
            location: location.clone(),
            error: error.into(),
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(CopySource { copies, runtime, location })
    }

    fn run<T, E: Into<CopyError>>(
        &self,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, OperateError> {
        self.runtime.block_on(request).map_err(|error| self.failed(error.into()))
    }

    fn failed(&self, error: CopyError) -> OperateError {
        OperateError::Copies { location: self.location.clone(), error }
    }

    /// Writes the newest whole copy, or the one that is wanted, to a file.
    fn fetch(
        &self,
        file: &File,
        wanted: Option<CopyName>,
        progress: &mut ProgressDisplay,
    ) -> Result<IndexManifest, CliError> {
        let names = match wanted {
            Some(name) => vec![name],
            None => self.run(self.copies.newest_first())?,
        };
        for name in names {
            match self.fetch_one(name, file, progress) {
                Ok(copy) => return Ok(copy),
                Err(
                    error @ (CopyError::Manifest
                    | CopyError::Damaged
                    | CopyError::Gone
                    | CopyError::Format(_)),
                ) if wanted.is_none() => {
                    writeln!(io::stdout(), "the copy {name} cannot be used: {error}")?;
                }
                Err(error) => return Err(self.failed(error).into()),
            }
        }
        Err(OperateError::NoCopy { location: self.location.clone() }.into())
    }

    fn fetch_one(
        &self,
        name: CopyName,
        file: &File,
        progress: &mut ProgressDisplay,
    ) -> Result<IndexManifest, CopyError> {
        self.runtime.block_on(async {
            let copy = self.copies.manifest(name).await?;
            let total = copy.bytes;
            let mut each = |done| {
                progress.step(OperationStep { what: OperationPhase::Copying, done, total });
            };
            self.copies.fetch(&copy, file, &mut each).await?;
            Ok(copy)
        })
    }

    fn say(
        &self,
        copy: &IndexManifest,
        report: &VerifyReport,
        took: &ElapsedTime,
    ) -> io::Result<()> {
        let VerifiedTotals { streams, bytes, lsn, .. } = report.found;
        writeln!(
            io::stdout(),
            "restored {} with {} up to event {lsn} from {}, copy {} of {}, in {took}; what was acknowledged after that copy \
             began is lost",
            count(streams, "stream"),
            ByteCount(bytes),
            self.location,
            copy.name(),
            Timestamp::from_millis(copy.made_at),
        )
    }
}

fn all_segments(index: &IndexFromObjects) -> Result<Vec<SegmentInfo>, CliError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let step = index.segments_after(after, STEP)?;
        let Some(last) = step.last() else { return Ok(all) };
        after = Some(last.number);
        all.extend(step);
    }
}

fn ranges(index: &IndexFromObjects, missing: &BTreeSet<u64>) -> Result<LostRanges, CliError> {
    let mut found = LostRanges::default();
    index.ranges_in(missing, &mut |range| {
        found.count += 1;
        if found.first.len() < MOST_SAID {
            found.first.push(range);
        }
    })?;
    Ok(found)
}

/// What cannot be read of the restored streams.
fn say_lost(report: &VerifyReport, lost: &LostRanges, missing: &BTreeSet<u64>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    for number in missing.iter().take(MOST_SAID) {
        writeln!(out, "the object of segment {number} is missing, or has another size")?;
    }
    for SegmentRange { segment, id, path, from, to, .. } in &lost.first {
        let path = path.as_deref().unwrap_or("its path is not known");
        writeln!(
            out,
            "not readable: stream {id} ({path}): from position {from} to {to}, in segment {segment}"
        )?;
    }
    match lost.count.saturating_sub(MOST_SAID as u64) {
        0 => Ok(()),
        more => writeln!(out, "and {}", count(more, "more range")),
    }
}
