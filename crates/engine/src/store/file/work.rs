//! The two workers: one writes the log, one folds it into the index.
//!
//! Invariants
//! - Order within a batch: written, synced, shown to readers, told to sinks.
//! - Log segments are given back only after the index commit that has their events returned.
//! - A worker that panics poisons the store: nothing is acknowledged any more.
//!
//! One file because its threads share one order of writing, telling and checkpointing.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::{
    Counters, Durability, FileStoreOptions, FileStoreStats,
    disk::Disk,
    error::io_error,
    index::{checkpoint::Kept, gate::Index},
    queue::{Next, Queue},
    recent::Recent,
    stats::{add, get},
    wal::{
        Lsn, frame,
        writer::{AppendError, Log, OldSegments},
    },
};
use crate::counters::Durations;
use crate::store::{Commit, CommitSink, DiskStats, StoreError};

/// Commits wait when the memory that only a checkpoint frees is this many times the checkpoint size.
const THROTTLE_AT: usize = 4;
/// The largest payload of one event, bytes; the rest of a record is far smaller than what is left.
const LARGEST: usize = frame::MAX_RECORD - (1 << 20);
/// What a batch waits for its company at most; less where syncs are faster.
const LONGEST_HOLD: Duration = Duration::from_micros(500);
/// Records removed in one transaction on behalf of deleted streams.
pub(super) const PURGE: usize = 1024;
/// A checkpoint was large when it changed a stream per this many bytes of the checkpoint size.
const MANY: usize = 16 << 10;
/// How long memory is kept that nobody needs, once to twice.
const REST: Duration = Duration::from_secs(20);
/// A batch buffer larger than this is given back.
const KEEP_BATCH: usize = 64 << 10;

/// What the threads share.
pub(super) struct Work {
    disk: Arc<dyn Disk>,
    options: FileStoreOptions,
    pub(super) index: Index,
    pub(super) recent: Recent,
    pub(super) queue: Queue,
    writer: Mutex<Writer>,
    old: Arc<OldSegments>,
    sync_times: Arc<Durations>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    checkpointed: AtomicU64,
    /// What deleted streams keep for forks; not known until the first time there was leisure to look.
    kept: Mutex<Option<Kept<u64>>>,
    /// There were events to replay.
    replayed: bool,
    /// The last checkpoint failed like this.
    failure: Mutex<Option<StoreError>>,
    failing: AtomicBool,
    /// Tells throttled callers to look again.
    relieved: Notify,
    signal: (Mutex<Signal>, Condvar),
    counters: Counters,
}

/// The writer's own things.
struct Writer {
    log: Log,
    batch: Vec<Commit>,
    told: Vec<(Arc<dyn CommitSink>, u64)>,
    synced_at: Instant,
}

/// To the checkpointer.
#[derive(Default)]
struct Signal {
    now: bool,
    stop: bool,
}

impl Work {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: FileStoreOptions,
        index: Index,
        recent: Recent,
        log: Log,
        checkpointed: Lsn,
    ) -> Self {
        let (old, sync_times) = (log.old_segments(), log.sync_times());
        let replayed = recent.lsn() > checkpointed;
        let synced_at = Instant::now();
        let writer = Writer { log, batch: Vec::new(), told: Vec::new(), synced_at };
        Work {
            disk,
            options,
            index,
            recent,
            queue: Queue::default(),
            writer: Mutex::new(writer),
            old,
            sync_times,
            checkpointing: Mutex::default(),
            checkpointed: AtomicU64::new(checkpointed),
            kept: Mutex::default(),
            replayed,
            failure: Mutex::default(),
            failing: AtomicBool::new(false),
            relieved: Notify::new(),
            signal: <(Mutex<Signal>, Condvar)>::default(),
            counters: Counters::default(),
        }
    }

    pub(super) fn options(&self) -> &FileStoreOptions {
        &self.options
    }

    fn limit(&self) -> usize {
        self.options.checkpoint_size.saturating_mul(THROTTLE_AT)
    }

    /// Refuses what the log cannot hold, and everything when memory is full and checkpoints fail, so that
    /// it is not filled further.
    pub(super) fn admit(&self, commit: &Commit) -> Result<(), StoreError> {
        if commit.event.data().is_some_and(|data| data.len() > LARGEST) {
            let error = std::io::Error::other(format!("it has more than {LARGEST} bytes"));
            return Err(io_error("write an event to", &self.options.dir)(error));
        }
        self.has_room()
    }

    /// Whether memory can take more: it cannot when it is full and checkpoints fail.
    pub(super) fn has_room(&self) -> Result<(), StoreError> {
        if self.failing.load(Ordering::Relaxed) && self.recent.pending() > self.limit() {
            let failure = self.failure.lock().clone();
            return failure.map_or(Ok(()), Err);
        }
        Ok(())
    }

    pub(super) async fn throttle(&self) {
        while self.recent.pending() > self.limit() && !self.failing.load(Ordering::Relaxed) {
            let relieved = self.relieved.notified();
            if self.recent.pending() <= self.limit() || self.failing.load(Ordering::Relaxed) {
                return;
            }
            // Those who wait commit nothing, so no batch would ask.
            self.ask_for_checkpoint();
            relieved.await;
        }
    }

    /// Writes everything that is queued as one batch. Gives whether there was anything.
    pub(super) fn write_queued(&self) -> bool {
        let mut writer = self.writer.lock();
        let mut batch = std::mem::take(&mut writer.batch);
        let next = self.queue.next(&mut batch, Some(Duration::ZERO));
        if next == Next::Write {
            self.write_batch(&mut writer, &mut batch);
        }
        writer.batch = batch;
        next == Next::Write
    }

    fn write_batch(&self, writer: &mut Writer, batch: &mut Vec<Commit>) {
        let started = Instant::now();
        let sync = match self.options.durability {
            Durability::Fsync => true,
            Durability::Interval(interval) => writer.synced_at.elapsed() >= interval,
            Durability::Os => false,
        };
        match writer.log.append(batch, sync) {
            Ok((first, bytes)) => {
                let counters = &self.counters;
                add(&counters.written, bytes);
                add(&counters.batches, 1);
                add(&counters.events, batch.len() as u64);
                counters.batch_sizes.observe(batch.len() as u64);
                if sync {
                    writer.synced_at = Instant::now();
                    add(&counters.syncs, 1);
                }
                add(&counters.write_nanos, started.elapsed().as_nanos() as u64);
                self.publish(writer, first, batch);
            }
            Err(AppendError::Lost(error)) => {
                tracing::warn!(%error, events = batch.len(), "cannot write the log");
                let queued = self.queue.lose();
                fail(batch.drain(..).chain(queued), &error);
            }
            Err(AppendError::Unsure(error)) => {
                let queued = self.poison(&error);
                fail(batch.drain(..).chain(queued), &poisoned_by(&error));
            }
        }
        if batch.capacity() * size_of::<Commit>() > KEEP_BATCH * 16 {
            *batch = Vec::new();
        }
    }

    /// Shows a durable batch to readers, then tells the sinks: each run of commits of one sink once.
    fn publish(&self, writer: &mut Writer, first: Lsn, batch: &mut Vec<Commit>) {
        let told = &mut writer.told;
        let events = batch.drain(..).map(|commit| {
            match told.last_mut() {
                Some((sink, version)) if Arc::ptr_eq(sink, &commit.sink) => {
                    *version = commit.version;
                }
                _ => told.push((commit.sink, commit.version)),
            }
            (commit.id, commit.event)
        });
        self.recent.publish(first, events);
        for (sink, version) in writer.told.drain(..) {
            sink.committed(version);
        }
        if self.recent.is_due(self.options.checkpoint_size) {
            self.ask_for_checkpoint();
        }
    }

    fn poison(&self, error: &StoreError) -> Vec<Commit> {
        tracing::error!(%error, "cannot sync the log; no more writes until a restart");
        self.queue.poison(&error.to_string())
    }

    /// Syncs what the durability setting left unsynced.
    fn sync_if_due(&self) {
        let Durability::Interval(interval) = self.options.durability else { return };
        let mut writer = self.writer.lock();
        if writer.log.is_synced() || writer.synced_at.elapsed() < interval {
            return;
        }
        self.sync_log(&mut writer);
    }

    fn sync_log(&self, writer: &mut Writer) {
        writer.synced_at = Instant::now();
        match writer.log.sync() {
            Ok(()) => add(&self.counters.syncs, 1),
            Err(AppendError::Lost(error) | AppendError::Unsure(error)) => {
                let queued = self.poison(&error);
                fail(queued.into_iter(), &poisoned_by(&error));
            }
        }
    }

    fn ask_for_checkpoint(&self) {
        let mut signal = self.signal.0.lock();
        if !signal.now {
            signal.now = true;
            self.signal.1.notify_one();
        }
    }

    /// Tells the checkpointer to end.
    pub(super) fn stop(&self) {
        self.signal.0.lock().stop = true;
        self.signal.1.notify_all();
    }

    /// Folds everything that is shown to readers into the index.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let _one = self.checkpointing.lock();
        let done = self.fold();
        if let Err(error) = &done {
            tracing::warn!(%error, "cannot checkpoint; the log is kept, and it will be tried again");
            add(&self.counters.checkpoint_failures, 1);
        }
        *self.failure.lock() = done.clone().err();
        self.failing.store(done.is_err(), Ordering::Relaxed);
        self.relieved.notify_waiters();
        done
    }

    fn fold(&self) -> Result<(), StoreError> {
        let started = Instant::now();
        let mark = self.recent.mark();
        let before_commit = || self.disk.before_index_commit();
        if mark.lsn > self.checkpointed.load(Ordering::Relaxed) {
            let events_of = |id| self.recent.events(id, mark.lsn);
            match self.index.checkpoint(&before_commit, mark.lsn, &mark.dirty, &events_of) {
                Ok(folded) => {
                    self.recent.settle(&mark.dirty, mark.lsn, folded.freed);
                    if let Some(kept) = &mut *self.kept.lock() {
                        kept.add(folded.kept);
                    }
                }
                Err(error) => {
                    self.recent.unmark(mark.dirty);
                    return Err(full_or(error, &*self.disk, self.index.path()));
                }
            }
            self.checkpointed.store(mark.lsn, Ordering::Relaxed);
            add(&self.counters.checkpoints, 1);
            add(&self.counters.checkpoint_nanos, started.elapsed().as_nanos() as u64);
        }
        self.old.recycle(mark.lsn)?;
        Ok(())
    }

    /// What is left to do when nothing presses: room for deleted streams, a spare segment.
    fn tidy(&self) {
        let before_commit = || self.disk.before_index_commit();
        loop {
            match self.index.purge_some(&before_commit, PURGE) {
                Ok(true) if !self.signal.0.lock().stop => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot remove the data of deleted streams yet");
                    break;
                }
            }
        }
        self.old.prepare_spare();
        self.look_at_kept();
    }

    /// Gives back memory that nobody has needed since the call before.
    pub(super) fn rest(&self) {
        self.recent.rest();
        if let Err(error) = self.index.rest(self.options.checkpoint_size / MANY) {
            tracing::error!(%error, "cannot open the index again; it will be tried when it is needed");
        }
    }

    /// Counts once what checkpoints keep track of from then on.
    fn look_at_kept(&self) {
        let _one = self.checkpointing.lock();
        let mut kept = self.kept.lock();
        if kept.is_none() {
            // Damage is told by those who need the stream.
            *kept = self.index.kept().ok();
        }
    }

    /// Ends the store: everything queued is written, everything written folded in.
    pub(super) fn finish(&self, threads: Vec<JoinHandle<()>>) {
        self.stop();
        for thread in threads {
            let _ = thread.join();
        }
        while self.write_queued() {}
        if self.queue.poisoned().is_none() {
            self.sync_log(&mut self.writer.lock());
        }
        // A failure was told; the log has everything.
        let _ = self.checkpoint();
    }

    pub(super) fn disk_stats(&self) -> DiskStats {
        DiskStats {
            files: self.stats(),
            batches: self.counters.batch_sizes.snapshot(),
            syncs: self.sync_times.snapshot(),
        }
    }

    pub(super) fn stats(&self) -> FileStoreStats {
        let counters = &self.counters;
        let kept = self.kept.lock().unwrap_or_default();
        let size = self.index.size();
        let lag = self.recent.lsn() - self.checkpointed.load(Ordering::Relaxed);
        FileStoreStats {
            wal_written_bytes: get(&counters.written),
            wal_reserved_bytes: self.old.reserved(),
            batches: get(&counters.batches),
            events: get(&counters.events),
            syncs: get(&counters.syncs),
            write_time: Duration::from_nanos(get(&counters.write_nanos)),
            checkpoints: get(&counters.checkpoints),
            checkpoint_failures: get(&counters.checkpoint_failures),
            checkpoint_time: Duration::from_nanos(get(&counters.checkpoint_nanos)),
            checkpoint_lag_events: lag,
            pending_bytes: self.recent.pending() as u64,
            index_bytes: size,
            index_free_bytes: self.index.live_size().map_or(0, |live| size.saturating_sub(live)),
            kept_streams: kept.streams,
            kept_bytes: kept.bytes,
            poisoned: self.queue.poisoned().is_some(),
        }
    }
}

fn fail(commits: impl Iterator<Item = Commit>, error: &StoreError) {
    for commit in commits {
        commit.sink.failed(commit.version, error.clone());
    }
}

fn poisoned_by(error: &StoreError) -> StoreError {
    StoreError::Poisoned { reason: error.to_string().into() }
}

/// LMDB calls a write that the file system cut short an I/O error, whatever the reason. With next to no room
/// left, the reason is that.
fn full_or(error: StoreError, disk: &dyn Disk, path: &Path) -> StoreError {
    const NEXT_TO_NONE: u64 = 1 << 20;
    /// EIO, the same number on every Unix. Windows does not come here: it does not say what room is left.
    const CUT_SHORT: i32 = 5;
    let StoreError::Io { source, .. } = &error else { return error };
    let full = source.raw_os_error() == Some(CUT_SHORT)
        && path.parent().and_then(|dir| disk.room(dir)).is_some_and(|room| room < NEXT_TO_NONE);
    if full { StoreError::Full { path: path.to_owned() } } else { error }
}

/// Poisons the store when its thread ends by a panic.
struct Guard(Arc<Work>);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = StoreError::Poisoned { reason: "a thread of the store panicked".into() };
            fail(self.0.queue.poison("a thread of the store panicked").into_iter(), &error);
        }
    }
}

/// Starts the two workers.
pub(super) fn start(work: &Arc<Work>) -> Result<Vec<JoinHandle<()>>, StoreError> {
    let spawn = |name: &str, run: fn(&Work)| {
        let guard = Guard(work.clone());
        let thread = thread::Builder::new().name(name.into()).spawn(move || run(&guard.0));
        thread.map_err(|e| io_error("start a thread for", &work.options.dir)(e))
    };
    Ok(vec![spawn("store-write", write_loop)?, spawn("store-fold", fold_loop)?])
}

fn write_loop(work: &Work) {
    let patience = match work.options.durability {
        Durability::Interval(interval) => Some(interval),
        Durability::Fsync | Durability::Os => None,
    };
    let mut batch = Vec::new();
    let mut gathering = Duration::ZERO;
    loop {
        match work.queue.next(&mut batch, patience) {
            Next::Write => {
                let (answered, began) = (batch.len(), Instant::now());
                work.write_batch(&mut work.writer.lock(), &mut batch);
                // Those who were answered together ask again together: syncing for the first of them would
                // make the others wait for a second sync, and costs as much as syncing for all. A lone
                // append has no company to wait for.
                if answered > 1 && work.options.durability == Durability::Fsync {
                    let (wrote, written) = (began.elapsed(), Instant::now());
                    // Where asking takes longer than syncing, half of all who are under way are written while
                    // the others ask: nobody waits for the disk, and fewer push one another out of the cache.
                    let halves = gathering > wrote;
                    let all = answered + work.queue.waiting();
                    let company = if halves { all / 2 } else { answered };
                    work.queue.gather(company, written + wrote.min(LONGEST_HOLD));
                    gathering = written.elapsed();
                }
            }
            Next::Idle => {}
            Next::End => return,
        }
        work.sync_if_due();
    }
}

fn fold_loop(work: &Work) {
    // What the opening replayed is folded in first, so that openings do not pile up segments.
    let mut due = work.replayed;
    let mut rested = Instant::now();
    loop {
        if !due || work.checkpoint().is_ok() {
            work.tidy();
        }
        if rested.elapsed() >= REST {
            work.rest();
            rested = Instant::now();
        }
        let mut signal = work.signal.0.lock();
        // Asked for while this one was made, it may be early for the next.
        signal.now &= work.recent.is_due(work.options.checkpoint_size);
        if !signal.now && !signal.stop {
            work.signal.1.wait_for(&mut signal, work.options.checkpoint_interval);
        }
        if signal.stop {
            return;
        }
        signal.now = false;
        due = true;
        // A disk that is full now is full a moment later.
        if work.failing.load(Ordering::Relaxed) {
            work.signal.1.wait_for(&mut signal, Duration::from_millis(200));
        }
    }
}
