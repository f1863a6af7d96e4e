//! What the writer's and the checkpointer's threads share, and reads use: queue, memtable, index.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    thread::{self, JoinHandle},
};

use super::{
    FileStoreOptions,
    commit_queue::CommitQueue,
    disk::Disk,
    disk_limit::DiskLimit,
    error::io_error,
    index::{dropped::DroppedRanges, handle::IndexHandle},
    memtable::Memtable,
    queued_commit::QueuedCommit,
    segments::{
        files::{SegmentFiles, missing},
        format::number_of,
        objects::{ColdPlace, SegmentPlace},
    },
    snapshot::SnapshotReads,
    stats::StoreCounters,
    wal::writer::OldSegments,
};
use crate::store::StoreError;

pub(super) struct StoreCore {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: FileStoreOptions,
    pub(super) limit: Option<DiskLimit>,
    /// Bytes that a limited index has for more records, and bytes that hold some, at the last checkpoint.
    pub(super) index_room: AtomicU64,
    pub(super) index_used: AtomicU64,
    pub(super) index: IndexHandle,
    pub(super) segments: Arc<SegmentFiles>,
    /// The object store that segments go to, once the server has opened it.
    pub(super) cold: OnceLock<ColdPlace>,
    pub(super) memtable: Memtable,
    pub(super) dropped: DroppedRanges,
    pub(super) queue: CommitQueue,
    pub(super) old_segments: Arc<OldSegments>,
    pub(super) counters: StoreCounters,
}

impl StoreCore {
    pub(super) fn reads(&self) -> SnapshotReads<'_> {
        let StoreCore { index, segments, memtable, .. } = self;
        SnapshotReads { index, segments, memtable }
    }

    /// Says which sealed segments are not there: their streams go on, and ranges of them are refused.
    pub(super) fn report_missing_segments(&self) -> Result<(), StoreError> {
        let names = self.segments.names()?;
        let there: HashSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        for (number, record) in self.index.segments_after(None, usize::MAX)? {
            // What is in the object store, too, is read there.
            let only_local = record.is_ok_and(|record| record.place == SegmentPlace::Local);
            if only_local && !there.contains(&number) {
                let error = missing(&self.segments.path(number));
                tracing::error!(%error, "bytes of streams are missing");
            }
        }
        Ok(())
    }

    /// Starts a thread; should it panic, the store is poisoned: nothing is acknowledged any more.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, StoreError> {
        let guard = PoisonOnPanic(self.clone());
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let _guard = guard;
            run();
        });
        thread.map_err(io_error("start a thread for", &self.options.dir))
    }
}

/// Fails the sinks of `commits`.
pub(super) fn fail(commits: impl IntoIterator<Item = QueuedCommit>, error: &StoreError) {
    for QueuedCommit { commit, .. } in commits {
        commit.sink.failed(commit.version, error.clone());
    }
}

struct PoisonOnPanic(Arc<StoreCore>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        const REASON: &str = "a thread of the store panicked";
        if thread::panicking() {
            let queued = self.0.queue.poison(REASON);
            fail(queued, &StoreError::Poisoned { reason: REASON.into() });
        }
    }
}
