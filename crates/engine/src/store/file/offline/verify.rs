//! Checking a whole data directory.

use std::{path::Path, sync::Arc};

use super::{
    OnProgress, OperationPhase, OperationStep, SegmentRange, VerifiedTotals, open_index,
    segments::{SegmentSource, check_segments, ranges_in},
};
use crate::store::{
    StoreError,
    file::{
        FileStoreOptions,
        disk::RealDisk,
        index::{handle::IndexHandle, scrub::ScrubRound, verify::IndexTotals},
        layout::Layout,
        places::StreamPlaces,
        segments::object_files::SegmentObjects,
        wal::{end_mark::EndMark, recovery},
    },
};

/// Problems that a report holds; further ones are only counted.
const KEPT: usize = 100;
/// Bytes of one slice of the check of pages.
const SLICE: u64 = 64 << 20;

/// The result of a check.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What the directory holds.
    pub found: VerifiedTotals,
    /// The first hundred problems; each a [`StoreError::Corrupt`].
    pub problems: Vec<StoreError>,
    /// The number of problems.
    pub count: u64,
    /// The first hundred ranges of streams that are in damaged parts of segments.
    pub damaged: Vec<SegmentRange>,
    /// The number of such ranges.
    pub damaged_count: u64,
}

impl VerifyReport {
    fn add(&mut self, problem: StoreError) {
        self.count += 1;
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        }
    }

    fn add_range(&mut self, range: SegmentRange) {
        // Blocks that follow each other.
        if let Some(last) = self.damaged.last_mut()
            && (last.segment, last.id, last.to) == (range.segment, range.id, range.from)
        {
            last.to = range.to;
            return;
        }
        self.damaged_count += 1;
        if self.damaged.len() < KEPT {
            self.damaged.push(range);
        }
    }

    /// Returns what the directory holds when there is no problem.
    ///
    /// # Errors
    /// The first problem.
    pub fn whole(self) -> Result<VerifiedTotals, StoreError> {
        self.problems.into_iter().next().map_or(Ok(self.found), Err)
    }
}

/// Checks every checksum, and that records fit together. Changes only lock files in the directory.
///
/// # Errors
/// [`StoreError::Locked`] while a server has the directory; [`StoreError::Format`], [`StoreError::Io`];
/// [`StoreError::Corrupt`] when the index cannot be opened at all.
pub fn verify(
    options: &FileStoreOptions,
    progress: &mut OnProgress<'_>,
) -> Result<VerifyReport, StoreError> {
    verify_with(options, None, progress)
}

/// The same, and checks every byte of the segments that are objects.
///
/// # Errors
/// As for [`verify`]; [`StoreError::Io`] when the object store does not answer.
pub fn verify_with(
    options: &FileStoreOptions,
    objects: Option<&Arc<dyn SegmentObjects>>,
    progress: &mut OnProgress<'_>,
) -> Result<VerifyReport, StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    match open_index(&layout, options) {
        Ok(index) => {
            let segments = SegmentSource { dir: &layout.segments, objects };
            check(&index, (&layout.wal, &segments), progress)
        }
        // A page on which others depend is damaged: that is what was to be found out.
        Err(problem @ StoreError::Corrupt { .. }) => {
            let mut report = VerifyReport::default();
            report.add(problem);
            Ok(report)
        }
        Err(error) => Err(error),
    }
}

/// Whether pages are damaged, which LMDB would not notice.
pub(super) fn has_damaged_pages(index: &IndexHandle) -> Result<bool, StoreError> {
    match index.check_structure() {
        Err(StoreError::Corrupt { .. }) => return Ok(true),
        checked => checked?,
    }
    let mut round = ScrubRound::of_pages();
    while index.scrub_slice(&mut round, SLICE, &mut |_| {})? {}
    Ok(round.pages() > 0)
}

/// Checks an index and the log after it.
pub(super) fn check(
    index: &IndexHandle,
    (wal, segments): (&Path, &SegmentSource<'_>),
    progress: &mut OnProgress<'_>,
) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport::default();
    let mut round = ScrubRound::of_pages();
    let mut problems = Vec::new();
    while index.scrub_slice(&mut round, SLICE, &mut |problem| problems.push(problem))? {}
    if round.pages() > 0 {
        // LMDB may end a process that meets such a page.
        problems.into_iter().for_each(|problem| report.add(problem));
        return Ok(report);
    }
    let total = index.records()?;
    let reading = index.read()?;
    let mut each = |done| progress(OperationStep { what: OperationPhase::Checking, done, total });
    let IndexTotals { streams, chunks, bytes, .. } =
        reading.verify(&mut each, &mut |problem| report.add(problem))?;
    let mut found = VerifiedTotals { streams, chunks, bytes, ..VerifiedTotals::default() };
    let damaged = check_segments(index, segments, &mut found, &mut |problem| report.add(problem))?;
    ranges_in(index, &damaged, &mut |range| report.add_range(range))?;
    report.found = found;
    if report.count == 0 {
        problems.into_iter().for_each(|problem| report.add(problem));
    }
    // Without it there is no telling where the log goes on.
    let Ok(meta) = reading.meta() else { return Ok(report) };
    report.found.lsn = meta.lsn;
    let base = |id| reading.state(id);
    let mut places = StreamPlaces::new(&base);
    let mut problems = Vec::new();
    let recovered = recovery::recover(&RealDisk, wal, meta.lsn, &mut |logged| {
        let followed = logged.event().and_then(|event| places.follow(logged, &event));
        problems.extend(followed.err());
        report.found.events += 1;
        report.found.lsn = logged.header.lsn;
        if report.found.events.is_multiple_of(1024) {
            progress(OperationStep {
                what: OperationPhase::Reading,
                done: report.found.events,
                total: 0,
            });
        }
        Ok(())
    });
    problems.into_iter().for_each(|problem| report.add(problem));
    if let Err(problem @ StoreError::Corrupt { .. }) = EndMark::read(&RealDisk, wal) {
        report.add(problem);
    }
    match recovered {
        Err(problem @ StoreError::Corrupt { .. }) => report.add(problem),
        recovered => drop(recovered?),
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::error::corrupt;

    #[test]
    fn a_report_keeps_a_hundred_problems_and_counts_all() {
        let mut report = VerifyReport::default();
        for n in 0..=KEPT {
            report.add(corrupt(Path::new("x"), n as u64, "it is damaged"));
        }
        assert_eq!((report.problems.len(), report.count), (100, 101));
        let first = report.problems[0].to_string();
        assert_ne!(first, report.problems[1].to_string());
        assert_eq!(report.whole().unwrap_err().to_string(), first);
        assert_eq!(VerifyReport::default().whole().unwrap(), VerifiedTotals::default());
    }

    #[test]
    fn ranges_that_follow_each_other_are_one() {
        let range = |segment, id, from, to| SegmentRange { segment, id, path: None, from, to };
        let mut report = VerifyReport::default();
        for (segment, id, from, to) in
            [(1, 7, 0, 10), (1, 7, 10, 15), (1, 7, 16, 20), (1, 8, 20, 30), (2, 8, 30, 40)]
        {
            report.add_range(range(segment, id, from, to));
        }
        let expected =
            [range(1, 7, 0, 15), range(1, 7, 16, 20), range(1, 8, 20, 30), range(2, 8, 30, 40)];
        assert_eq!((&report.damaged[..], report.damaged_count), (&expected[..], 4));
        (1..=KEPT as u64).for_each(|n| report.add_range(range(3, 9, n * 10, n * 10 + 5)));
        assert_eq!((report.damaged.len(), report.damaged_count), (100, 104));
    }
}
