//! Checking a whole data directory.

use std::{collections::HashSet, path::Path};

use durable_streams_protocol::{StreamEvent, StreamId};

use super::{Phase, Progress, Step, Verified, open_index};
use crate::store::{
    StoreError,
    file::{
        FileStoreOptions,
        disk::RealDisk,
        error::corrupt,
        index::{gate::Index, verify::Indexed},
        layout::Layout,
        wal::recovery,
    },
};

/// Problems that are kept; of others only the number is.
const KEPT: usize = 100;

/// What a check found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What is there.
    pub found: Verified,
    /// What is wrong, the first hundred of it; each a [`StoreError::Corrupt`].
    pub problems: Vec<StoreError>,
    /// How much is wrong.
    pub count: u64,
}

impl Report {
    fn add(&mut self, problem: StoreError) {
        self.count += 1;
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        }
    }

    /// What is there, when nothing is wrong.
    ///
    /// # Errors
    /// The first problem.
    pub fn whole(self) -> Result<Verified, StoreError> {
        self.problems.into_iter().next().map_or(Ok(self.found), Err)
    }
}

/// Checks every checksum and how records fit together. Needs to write in the directory for its lock, and
/// changes nothing that counts.
///
/// # Errors
/// [`StoreError::Locked`] while a server has the directory; [`StoreError::Format`], [`StoreError::Io`];
/// [`StoreError::Corrupt`] when the index cannot be opened at all.
pub fn verify(
    options: &FileStoreOptions,
    progress: &mut Progress<'_>,
) -> Result<Report, StoreError> {
    let layout = Layout::open_existing(&RealDisk, &options.dir)?;
    let index = open_index(&layout, options)?;
    check(&index, &layout.wal, progress)
}

/// Checks an index and the log after it.
pub(super) fn check(
    index: &Index,
    wal: &Path,
    progress: &mut Progress<'_>,
) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let total = index.records()?;
    let reading = index.read()?;
    let mut each = |done| progress(Step { what: Phase::Checking, done, total });
    let Indexed { streams, chunks, bytes } =
        reading.verify(&mut each, &mut |problem| report.add(problem))?;
    report.found = Verified { streams, chunks, bytes, ..Verified::default() };
    // Without it there is no telling where the log goes on.
    let Ok(meta) = reading.meta() else { return Ok(report) };
    report.found.lsn = meta.lsn;
    let mut log = Log::default();
    let mut problems = Vec::new();
    let recovered = recovery::recover(&RealDisk, wal, meta.lsn, &mut |lsn, id, event| {
        let known = |id| reading.state(id).map_or(true, |state| state.is_some());
        if let Err(problem) = event().and_then(|event| log.follow(wal, lsn, id, &event, &known)) {
            problems.push(problem);
        }
        report.found.events += 1;
        report.found.lsn = lsn;
        if report.found.events.is_multiple_of(1024) {
            progress(Step { what: Phase::Reading, done: report.found.events, total: 0 });
        }
        Ok(())
    });
    problems.into_iter().for_each(|problem| report.add(problem));
    match recovered {
        Err(problem @ StoreError::Corrupt { .. }) => report.add(problem),
        recovered => drop(recovered?),
    }
    Ok(report)
}

/// Which streams the log made and ended. As long as the log since the last checkpoint.
#[derive(Default)]
struct Log {
    created: HashSet<StreamId>,
    deleted: HashSet<StreamId>,
}

impl Log {
    /// Refuses an event of a stream that is not there.
    fn follow(
        &mut self,
        wal: &Path,
        lsn: u64,
        id: StreamId,
        event: &StreamEvent,
        indexed: &dyn Fn(StreamId) -> bool,
    ) -> Result<(), StoreError> {
        if matches!(event, StreamEvent::Created(_)) {
            self.created.insert(id);
            return Ok(());
        }
        let there = self.created.contains(&id) || indexed(id);
        if self.deleted.contains(&id) || !there {
            let what = format!("event {lsn} is of stream {}, which is not there", id.0);
            return Err(corrupt(wal, 0, &what));
        }
        if matches!(event, StreamEvent::Deleted { .. }) {
            self.deleted.insert(id);
        }
        Ok(())
    }
}
