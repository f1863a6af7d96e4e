//! The checkpointer: one thread folds durable events into the index, and maintains both when nothing is due.
//!
//! Invariants
//! - One checkpoint at a time.
//! - Log segments are recycled only after an index commit of this process that has their events returned. What an earlier
//!   process committed may be in the page cache only, if it was killed during the commit.
//! - A failed checkpoint loses nothing: its streams are dirty again, the log keeps their events, and the next checkpoint
//!   folds them in.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::{
    core::StoreCore,
    disk::Disk,
    error::io_error,
    index::checkpoint::RetainedTotals,
    queued_commit::QueuedCommit,
    sealer::{Sealer, ahead::SealedAhead},
    stats::add,
    wal::{Lsn, frame},
};
use crate::store::StoreError;

/// Commits wait when the memory that only a checkpoint frees is this many times the checkpoint size.
const THROTTLE_AT: usize = 4;
/// The largest payload of one event, bytes; the rest of a record is far smaller than what is left.
const LARGEST: usize = frame::MAX_RECORD - (1 << 20);
/// Bytes of the pages that a checkpoint rewrites for a changed stream, at most: its state, its last chunk, its name.
const PAGES_PER_STREAM: u64 = 16 << 10;
/// Records removed in one transaction on behalf of deleted streams.
pub(super) const PURGE: usize = 1024;
/// A checkpoint was large when it changed a stream per this many bytes of the checkpoint size.
const LARGE_BYTES_PER_STREAM: usize = 16 << 10;
/// Idle memory is released after once to twice this time.
const IDLE_AFTER: Duration = Duration::from_secs(20);
/// How often the checkpointer looks for room while the reserve is in use.
const FULL_DISK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a failed checkpoint: a disk that is full now is full a moment later.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(200);

pub(super) struct Checkpointer {
    core: Arc<StoreCore>,
    sealer: Arc<Sealer>,
    one_at_a_time: Mutex<()>,
    /// The last event that the index has.
    checkpointed: AtomicU64,
    /// This process has committed to the index.
    committed: AtomicBool,
    /// What deleted streams retain for forks; `None` until maintenance has counted it for the first time.
    retained: Mutex<Option<RetainedTotals<u64>>>,
    /// The opening replayed events, which the thread folds in first, so that openings do not pile up segments.
    replayed: bool,
    /// Why the last checkpoint failed.
    failure: Mutex<Option<StoreError>>,
    failing: AtomicBool,
    /// Wakes throttled callers when a checkpoint ends.
    ended: Notify,
    signal: Mutex<CheckpointSignal>,
    wake: Condvar,
}

#[derive(Default)]
struct CheckpointSignal {
    requested: bool,
    stop: bool,
}

impl Checkpointer {
    pub(super) fn new(core: Arc<StoreCore>, sealer: Arc<Sealer>, checkpointed: Lsn) -> Self {
        let replayed = core.memtable.lsn() > checkpointed;
        Checkpointer {
            core,
            sealer,
            one_at_a_time: Mutex::default(),
            checkpointed: AtomicU64::new(checkpointed),
            committed: AtomicBool::new(false),
            retained: Mutex::default(),
            replayed,
            failure: Mutex::default(),
            failing: AtomicBool::new(false),
            ended: Notify::new(),
            signal: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    fn limit(&self) -> usize {
        let usual = self.core.options.checkpoint_size.saturating_mul(THROTTLE_AT);
        let limit = self.core.limit.map(|limit| limit.pending(&self.core.options));
        limit.map_or(usual, |limit| limit.min(usual))
    }

    /// Refuses what a limited index may have no room for. What waits for a checkpoint counts twice, since pages are half
    /// full at worst; and each changed stream counts with the pages that a checkpoint writes anew.
    fn has_disk(&self) -> Result<(), StoreError> {
        let Some(limit) = self.core.limit else { return Ok(()) };
        let used = self.core.index_used.load(Ordering::Relaxed);
        let anew = (self.core.memtable.dirty() as u64).saturating_mul(PAGES_PER_STREAM).min(used);
        let needed = anew.saturating_add(2 * self.core.memtable.pending() as u64);
        // Free pages may not lie together as chunks need them, so a checkpoint may fail all the same.
        if needed <= self.core.index_room.load(Ordering::Relaxed) && !self.is_failing_for_room() {
            return Ok(());
        }
        // What waits may take less, and deletes among it make room.
        if needed > 0 {
            self.request();
        }
        Err(StoreError::Limit { path: self.core.options.dir.clone(), limit: limit.total })
    }

    fn is_failing_for_room(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
            && matches!(*self.failure.lock(), Some(StoreError::Full { .. }))
    }

    /// Refuses an event that the log cannot hold; and every event that does not free space while the reserve is
    /// released, or when [`has_room`](Self::has_room) fails.
    pub(super) fn admit(&self, queued: &QueuedCommit) -> Result<(), StoreError> {
        if queued.commit.event.data().is_some_and(|data| data.len() > LARGEST) {
            let error = std::io::Error::other(format!("it has more than {LARGEST} bytes"));
            return Err(io_error("write an event to", &self.core.options.dir)(error));
        }
        if queued.frees_space() {
            return Ok(());
        }
        if self.core.old_segments.is_reserve_released() {
            return Err(StoreError::Full { path: self.core.options.dir.clone() });
        }
        self.has_room()
    }

    /// Whether memory and disk can take more events: not when the limit on disk use is reached, and not when memory is
    /// full and checkpoints fail.
    pub(super) fn has_room(&self) -> Result<(), StoreError> {
        self.has_disk()?;
        if self.failing.load(Ordering::Relaxed) && self.core.memtable.pending() > self.limit() {
            let failure = self.failure.lock().clone();
            return failure.map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// Waits while memory is full, unless checkpoints fail: then commits are refused instead.
    pub(super) async fn throttle(&self) {
        let full =
            || self.core.memtable.pending() > self.limit() && !self.failing.load(Ordering::Relaxed);
        while full() {
            let ended = self.ended.notified();
            if !full() {
                return;
            }
            // Throttled callers commit nothing, so the writer would never request the checkpoint.
            self.request();
            ended.await;
        }
    }

    /// Makes the thread begin a checkpoint now.
    pub(super) fn request(&self) {
        let mut signal = self.signal.lock();
        if !signal.requested {
            signal.requested = true;
            self.wake.notify_one();
        }
    }

    /// Makes the thread end.
    pub(super) fn stop(&self) {
        self.signal.lock().stop = true;
        self.wake.notify_all();
    }

    /// The checkpointer thread.
    pub(super) fn run(&self) {
        let mut due = self.replayed;
        let mut released = Instant::now();
        loop {
            if !due || self.checkpoint().is_ok() {
                self.run_maintenance();
            }
            if released.elapsed() >= IDLE_AFTER {
                self.release_idle_memory();
                released = Instant::now();
            }
            let mut signal = self.signal.lock();
            // A request that came during the checkpoint may be early for the next one.
            signal.requested &= self.core.memtable.is_due(self.core.options.checkpoint_size);
            if !signal.requested && !signal.stop {
                self.wake.wait_for(&mut signal, self.interval());
            }
            if signal.stop {
                return;
            }
            signal.requested = false;
            due = true;
            if self.failing.load(Ordering::Relaxed) {
                // Not cut short by requests: while memory is full, each append makes one.
                self.wake.wait_while_for(&mut signal, |signal| !signal.stop, PAUSE_AFTER_FAILURE);
            }
        }
    }

    /// The longest time until the next checkpoint.
    fn interval(&self) -> Duration {
        let interval = self.core.options.checkpoint_interval;
        // While appends are refused, the checkpointer alone notices that there is room again.
        let waiting = self.core.old_segments.is_reserve_released();
        if waiting { interval.min(FULL_DISK_INTERVAL) } else { interval }
    }

    /// Folds everything that is published into the index.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let _one = self.one_at_a_time.lock();
        let mut done = self.checkpoint_once();
        let is_full = |done: &Result<(), StoreError>| matches!(done, Err(StoreError::Full { .. }));
        let (index, limited) = (&self.core.index, self.core.limit.is_some());
        let deletes = is_full(&done) && self.core.memtable.names.lock().has_deletions();
        if deletes && (limited || self.core.old_segments.release_reserve()) {
            done = index.with_reserve(|| self.checkpoint_once());
        }
        let before_commit = || self.core.disk.before_index_commit();
        if is_full(&done) && index.with_reserve(|| index.age_free_pages(&before_commit)).is_ok() {
            done = self.checkpoint_once();
        }
        self.note_room();
        if let Err(error) = &done {
            tracing::warn!(%error, "cannot checkpoint; the log is kept, and it will be tried again");
            add(&self.core.counters.checkpoint_failures, 1);
        }
        self.core.old_segments.mark_end();
        *self.failure.lock() = done.clone().err();
        self.failing.store(done.is_err(), Ordering::Relaxed);
        self.ended.notify_waiters();
        done
    }

    fn checkpoint_once(&self) -> Result<(), StoreError> {
        let StoreCore { disk, index, memtable, counters, old_segments, .. } = &*self.core;
        let started = Instant::now();
        let sealed = memtable.seal();
        let before_commit = || disk.before_index_commit();
        let confirm =
            !self.committed.load(Ordering::Relaxed) && old_segments.can_recycle(sealed.lsn);
        if confirm || sealed.lsn > self.checkpointed.load(Ordering::Relaxed) {
            let events_of = |id| memtable.events(id, sealed.lsn);
            let ahead = self.sealer.seal_ahead(&sealed.dirty, &events_of);
            let segments = ahead.as_ref().map_or(&[][..], |ahead| &ahead.segments);
            let events = (&sealed.dirty[..], &events_of as &dyn Fn(_) -> _);
            match index.checkpoint(&before_commit, sealed.lsn, events, segments) {
                Ok(folded) => {
                    if let Some(ahead) = ahead {
                        ahead.committed(&folded.referenced);
                    }
                    memtable.evict_folded(&sealed.dirty, &folded.json, sealed.lsn, folded.freed);
                    if let Some(retained) = &mut *self.retained.lock() {
                        retained.add(folded.retained);
                    }
                }
                Err(error) => {
                    ahead.into_iter().for_each(SealedAhead::failed);
                    memtable.reopen(sealed.dirty);
                    return Err(full_or(error, &**disk, index.path()));
                }
            }
            self.committed.store(true, Ordering::Relaxed);
            self.checkpointed.store(sealed.lsn, Ordering::Relaxed);
            add(&counters.checkpoints, 1);
            add(&counters.checkpoint_nanos, started.elapsed().as_nanos() as u64);
        }
        old_segments.recycle(sealed.lsn)
    }

    /// Work that can wait: removing the data of deleted streams, preparing the log's reserve and spare file.
    pub(super) fn run_maintenance(&self) {
        let before_commit = || self.core.disk.before_index_commit();
        loop {
            let index = &self.core.index;
            match index.with_reserve(|| index.purge_some(&before_commit, PURGE)) {
                Ok(purged) => {
                    if purged.any {
                        self.core.segments.forget_extents();
                    }
                    self.core.segments.remove(&purged.freed);
                    if !purged.more || self.signal.lock().stop {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot remove the data of deleted streams yet");
                    break;
                }
            }
        }
        self.note_room();
        self.core.old_segments.prepare_files();
        self.count_retained();
    }

    /// Notes how much room a limited index has.
    pub(super) fn note_room(&self) {
        let Some(limit) = self.core.limit else { return };
        if let Ok((used, grown)) = self.core.index.extent() {
            let most = limit.index - limit.index_reserve;
            // Half of the free pages, since they do not lie together.
            let room = most.saturating_sub(grown) + grown.min(most).saturating_sub(used) / 2;
            self.core.index_used.store(used, Ordering::Relaxed);
            self.core.index_room.store(room, Ordering::Relaxed);
        }
    }

    /// Frees memory that was not used since the previous call.
    pub(super) fn release_idle_memory(&self) {
        self.core.memtable.release_idle();
        let large = self.core.options.checkpoint_size / LARGE_BYTES_PER_STREAM;
        if let Err(error) = self.core.index.release_idle_memory(large) {
            tracing::error!(%error, "cannot open the index again; it will be tried when it is needed");
        }
    }

    /// Counts what deleted streams retain, once; checkpoints keep the count from then on.
    fn count_retained(&self) {
        let _one = self.one_at_a_time.lock();
        let mut retained = self.retained.lock();
        if retained.is_none() {
            // Damage is reported to the caller that needs the stream.
            *retained = self.core.index.retained().ok();
        }
    }

    pub(super) fn checkpointed(&self) -> Lsn {
        self.checkpointed.load(Ordering::Relaxed)
    }

    /// What deleted streams retain for forks, as far as it is known.
    pub(super) fn retained(&self) -> RetainedTotals<u64> {
        self.retained.lock().unwrap_or_default()
    }
}

/// LMDB reports a write that the file system cut short as an I/O error, whatever the reason. With next to no space left,
/// a full disk is the reason.
fn full_or(error: StoreError, disk: &dyn Disk, path: &Path) -> StoreError {
    const NEXT_TO_NONE: u64 = 1 << 20;
    /// EIO, the same number on every Unix. On Windows `room` is not known.
    const CUT_SHORT: i32 = 5;
    let StoreError::Io { source, .. } = &error else { return error };
    let full = source.raw_os_error() == Some(CUT_SHORT)
        && path.parent().and_then(|dir| disk.room(dir)).is_some_and(|room| room < NEXT_TO_NONE);
    if full { StoreError::Full { path: path.to_owned() } } else { error }
}

#[cfg(test)]
mod tests;
