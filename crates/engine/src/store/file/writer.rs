//! The writer: one thread turns queued commits into one write and one sync, and acknowledges them.
//!
//! Invariants
//! - Order within a batch: written, synced, published to readers, acknowledged to sinks.
//! - After a failed sync the queue is poisoned: nothing is accepted until a restart.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Durability,
    checkpointer::Checkpointer,
    commit_queue::WriterStep,
    core::{StoreCore, fail},
    queued_commit::QueuedCommit,
    stats::add,
    wal::{
        Lsn,
        writer::{AppendError, WalWriter},
    },
};
use crate::store::{CommitSink, StoreError};

/// The longest wait for a batch to fill; shorter where syncs are faster.
const LONGEST_HOLD: Duration = Duration::from_micros(500);
/// A batch buffer with room for more commits than this is freed.
const KEEP_BATCH: usize = (1 << 20) / size_of::<QueuedCommit>();

pub(super) struct Writer {
    core: Arc<StoreCore>,
    checkpointer: Arc<Checkpointer>,
    state: Mutex<WriterState>,
}

struct WriterState {
    log: WalWriter,
    batch: Vec<QueuedCommit>,
    /// The sinks of the batch, each with the last version to acknowledge.
    acknowledged: Vec<(Arc<dyn CommitSink>, u64)>,
    synced_at: Instant,
    /// The last event that needs space found none.
    full: bool,
}

impl Writer {
    pub(super) fn new(
        core: Arc<StoreCore>,
        checkpointer: Arc<Checkpointer>,
        log: WalWriter,
    ) -> Self {
        let (batch, acknowledged) = (Vec::new(), Vec::new());
        let state =
            WriterState { log, batch, acknowledged, synced_at: Instant::now(), full: false };
        Writer { core, checkpointer, state: Mutex::new(state) }
    }

    /// The writer thread: writes batches until the queue is closed.
    pub(super) fn run(&self) {
        let patience = match self.core.options.durability {
            Durability::Interval(interval) => Some(interval),
            Durability::Fsync | Durability::Os => None,
        };
        let mut batch = Vec::new();
        let mut filling = Duration::ZERO;
        loop {
            match self.core.queue.next(&mut batch, patience) {
                WriterStep::Write => {
                    let (size, began) = (batch.len(), Instant::now());
                    self.write_batch(&mut self.state.lock(), &mut batch);
                    if size > 1 && self.core.options.durability == Durability::Fsync {
                        filling = self.wait_for_batch(size, began.elapsed(), filling);
                    }
                }
                WriterStep::Idle => {}
                WriterStep::End => return,
            }
            self.sync_if_due();
        }
    }

    /// The group-commit wait after a batch of `size`, which took `wrote` to write and sync; returns how long it took,
    /// to be passed in as `filling` next time.
    ///
    /// Callers that were acknowledged together commit again together. Syncing for the first of them would make the
    /// others wait for a second sync, and costs as much as one sync for all. A batch of one has nothing to wait for.
    fn wait_for_batch(&self, size: usize, wrote: Duration, filling: Duration) -> Duration {
        let written = Instant::now();
        // Where filling a batch takes longer than syncing it, half of the commits under way are written while the
        // callers of the other half prepare theirs: the disk does not idle, and fewer callers evict one another from
        // the processor's cache.
        let halves = filling > wrote;
        let all = size + self.core.queue.waiting();
        let target = if halves { all / 2 } else { size };
        self.core.queue.wait_for_batch(target, written + wrote.min(LONGEST_HOLD));
        written.elapsed()
    }

    /// Writes everything that is queued as one batch. Returns whether there was anything.
    pub(super) fn write_queued(&self) -> bool {
        let mut state = self.state.lock();
        let mut batch = std::mem::take(&mut state.batch);
        let next = self.core.queue.next(&mut batch, Some(Duration::ZERO));
        if next == WriterStep::Write {
            self.write_batch(&mut state, &mut batch);
        }
        state.batch = batch;
        next == WriterStep::Write
    }

    fn write_batch(&self, state: &mut WriterState, batch: &mut Vec<QueuedCommit>) {
        let started = Instant::now();
        let sync = match self.core.options.durability {
            Durability::Fsync => true,
            Durability::Interval(interval) => state.synced_at.elapsed() >= interval,
            Durability::Os => false,
        };
        match state.log.append(batch, sync) {
            Ok((first, bytes)) => {
                state.full &= batch.iter().all(QueuedCommit::frees_space);
                let counters = &self.core.counters;
                add(&counters.written, bytes);
                add(&counters.batches, 1);
                add(&counters.events, batch.len() as u64);
                counters.batch_sizes.observe(batch.len() as u64);
                if sync {
                    state.synced_at = Instant::now();
                    add(&counters.syncs, 1);
                }
                add(&counters.write_nanos, started.elapsed().as_nanos() as u64);
                self.publish(state, first, batch);
            }
            Err(AppendError::Lost(error)) => {
                tracing::warn!(%error, events = batch.len(), "cannot write the log");
                state.full = matches!(error, StoreError::Full { .. });
                if state.full {
                    // A batch is lost as a whole. With the reserve in use appends are refused at once, so a delete
                    // that comes again is accepted.
                    if batch.iter().any(QueuedCommit::frees_space) {
                        self.core.old_segments.release_reserve();
                    }
                    self.checkpointer.request();
                }
                let queued = self.core.queue.fail_all();
                fail(batch.drain(..).chain(queued), &error);
            }
            Err(AppendError::Unsure(error)) => {
                let queued = self.poison(&error);
                fail(batch.drain(..).chain(queued), &poisoned_by(&error));
            }
        }
        if batch.capacity() > KEEP_BATCH {
            *batch = Vec::new();
        }
    }

    /// Shows a durable batch to readers, then acknowledges it: each run of commits of one sink once.
    fn publish(&self, state: &mut WriterState, first: Lsn, batch: &mut Vec<QueuedCommit>) {
        let acknowledged = &mut state.acknowledged;
        let events = batch.drain(..).map(|QueuedCommit { commit, .. }| {
            match acknowledged.last_mut() {
                Some((sink, version)) if Arc::ptr_eq(sink, &commit.sink) => {
                    *version = commit.version;
                }
                _ => acknowledged.push((commit.sink, commit.version)),
            }
            (commit.id, commit.place, commit.event)
        });
        self.core.memtable.publish(first, events);
        for (sink, version) in state.acknowledged.drain(..) {
            sink.committed(version);
        }
        // A checkpoint recycles segments, and after deletes the index needs less room.
        if self.core.memtable.is_due(self.core.options.checkpoint_size)
            || state.full
            || self.core.old_segments.is_reserve_released()
        {
            self.checkpointer.request();
        }
    }

    fn poison(&self, error: &StoreError) -> Vec<QueuedCommit> {
        tracing::error!(%error, "cannot sync the log; no more writes until a restart");
        self.core.queue.poison(&error.to_string())
    }

    /// Syncs what `interval` durability left unsynced.
    fn sync_if_due(&self) {
        let Durability::Interval(interval) = self.core.options.durability else { return };
        let mut state = self.state.lock();
        if !state.log.is_synced() && state.synced_at.elapsed() >= interval {
            self.sync_log(&mut state);
        }
    }

    fn sync_log(&self, state: &mut WriterState) {
        state.synced_at = Instant::now();
        match state.log.sync() {
            Ok(()) => add(&self.core.counters.syncs, 1),
            Err(AppendError::Lost(error) | AppendError::Unsure(error)) => {
                let queued = self.poison(&error);
                fail(queued, &poisoned_by(&error));
            }
        }
    }

    /// Writes and syncs everything that is queued. The writer thread has ended.
    pub(super) fn finish(&self) {
        while self.write_queued() {}
        if self.core.queue.poisoned().is_none() {
            self.sync_log(&mut self.state.lock());
            self.core.old_segments.mark_end();
        }
    }
}

fn poisoned_by(error: &StoreError) -> StoreError {
    StoreError::Poisoned { reason: error.to_string().into() }
}
