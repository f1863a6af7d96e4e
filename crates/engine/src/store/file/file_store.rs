//! A data directory in use: opening, recovery, threads, and the implementation of `Store`.
//!
//! One file because all of it hands on to the parts that opening puts together.

use std::{
    ops::Bound,
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    thread,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    checkpointer::Checkpointer,
    commit_queue::CommitQueue,
    core::StoreCore,
    disk::{Disk, RealDisk, mode_open_to_others},
    disk_limit::{DiskLimit, LimitedDisk},
    error::io_error,
    index::{dropped::DroppedRanges, handle::IndexHandle},
    layout::Layout,
    memtable::Memtable,
    options::FileStoreOptions,
    places::StreamPlaces,
    queued_commit::QueuedCommit,
    read_pool::ReadPool,
    scrubber::Scrubber,
    sealer::Sealer,
    segments::{
        files::SegmentFiles,
        held::SegmentHold,
        objects::{self, FetchError},
    },
    snapshot::{SnapshotReads, bytes::FoundPiece},
    stats::StoreCounters,
    wal::{frame::FrameHeader, recovery, writer::WalWriter},
    writer::Writer,
};
use crate::store::{
    AppendEnd, BytePlaces, Commit, Committed, DamagedStream, DeadlineCursor, DiskStats, FilePart,
    FileStoreStats, LoadFor, LoadedStream, LogEpoch, MessageForm, Store, StoreError, StoreStats,
    StoredPage, StoredPiece, UsedAfter,
};
use durable_streams_protocol::{
    Offset, ProducerId, ProducerState, StreamEvent, StreamId, StreamPath, StreamState, Timestamp,
};

/// Ids whose incarnations must grow: more than a directory ever uses. Format 1 chose its first id without that.
const ID_ROOM: u64 = 1 << 40;

/// A data directory in use; it has the directory's lock.
pub struct FileStore {
    pub(super) core: Arc<StoreCore>,
    writer: Arc<Writer>,
    checkpointer: Arc<Checkpointer>,
    scrubber: Arc<Scrubber>,
    pub(super) sealer: Arc<Sealer>,
    /// `None` for a store without threads: its reads run on the caller's thread.
    read_pool: Option<ReadPool>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    pub(super) layout: Mutex<Option<Layout>>,
    /// Whether the replayed log deletes streams, whose bytes the totals still contain.
    replayed_deletions: bool,
}

impl FileStore {
    /// The data directory.
    pub fn directory(&self) -> &std::path::Path {
        &self.core.options.dir
    }

    /// Bytes that the file system of the data directory has free; `None` where it does not tell.
    pub fn free_bytes(&self) -> Option<u64> {
        self.core.disk.room(&self.core.options.dir)
    }

    /// Opens a data directory, or creates one, and starts the store's threads.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Format`], [`StoreError::Corrupt`], [`StoreError::Full`],
    /// [`StoreError::Io`]: each says what to do.
    pub fn open(options: FileStoreOptions) -> Result<Self, StoreError> {
        let mut store = Self::open_on(Arc::new(RealDisk), options)?;
        store.read_pool = Some(ReadPool::start());
        if store.replayed_deletions {
            // Only a checkpoint takes a deleted stream's bytes off the totals, from which limits are counted on.
            // The checkpointer would begin one now in any case, and repeats it if it fails.
            let _ = store.checkpointer.checkpoint();
        }
        let (writer, checkpointer) = (store.writer.clone(), store.checkpointer.clone());
        *store.threads.lock() = vec![
            store.core.spawn("store-write", move || writer.run())?,
            store.core.spawn("store-fold", move || checkpointer.run())?,
        ];
        let scrubber = store.scrubber.clone();
        let thread = thread::Builder::new().name("store-scrub".into());
        let thread = thread.spawn(move || scrubber.run());
        let thread = thread.map_err(io_error("start a thread for", &store.core.options.dir))?;
        store.threads.lock().push(thread);
        let sealer = store.sealer.clone();
        let thread = thread::Builder::new().name("store-seal".into());
        let thread = thread.spawn(move || sealer.run());
        let thread = thread.map_err(io_error("start a thread for", &store.core.options.dir))?;
        store.threads.lock().push(thread);
        Ok(store)
    }

    /// Opens on the given disk without any thread: events are written by [`step`](Self::step) and folded in by
    /// [`checkpoint`](Self::checkpoint), so that a test decides what happens when.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_on(disk: Arc<dyn Disk>, options: FileStoreOptions) -> Result<Self, StoreError> {
        let layout = Layout::open(&*disk, &options.dir)?;
        Self::open_locked(disk, options, layout)
    }

    pub(super) fn open_locked(
        disk: Arc<dyn Disk>,
        options: FileStoreOptions,
        layout: Layout,
    ) -> Result<Self, StoreError> {
        layout.upgrade(&*disk)?;
        // Segments from before the limit, unless they have one of their own.
        let count = options.max_disk.is_some()
            && options.segments.is_none_or(|segments| segments.max_local.is_none());
        let sealed = if count { sealed_bytes(&*disk, &layout.segments)? } else { 0 };
        let limit = DiskLimit::of(&options, sealed);
        let disk = match limit {
            Some(limit) => Arc::new(LimitedDisk::new(disk, &layout.wal, limit.log)),
            None => disk,
        };
        let index = IndexHandle::open_limited(&layout.index, options.map_size, limit)?;
        disk.sync_dir(&layout.index).map_err(io_error("sync", &layout.index))?;
        let sealed = index.migrate(&|| disk.before_index_commit())?;
        if sealed > 0 {
            tracing::info!(sealed, "the index has the new format");
        }
        index.check_counts(&mut |error| {
            tracing::error!(%error, "the index is damaged; restore a backup, or see what `repair` would drop");
        })?;
        let meta = index.read()?.meta()?;
        let memtable =
            Memtable::new(meta.lsn, meta.next_id, meta.streams, meta.bytes, options.cache);
        let (mut replayed, mut replayed_deletions) = (0_u64, false);
        let reading = index.read()?;
        let base = |id| reading.state(id);
        let mut places = StreamPlaces::new(&base);
        let recovered = recovery::recover(&*disk, &layout.wal, meta.lsn, &mut |logged| {
            replayed += 1;
            let event = logged.event()?;
            replayed_deletions |= matches!(event, StreamEvent::Deleted { .. });
            let place = places.follow(logged, &event)?;
            let FrameHeader { lsn, id, .. } = logged.header;
            memtable.publish(lsn, std::iter::once((id, place, event)));
            Ok(())
        })?;
        drop(reading);
        memtable.reserve_incarnations(ID_ROOM);
        let dropped = index.read()?.dropped().unwrap_or_else(|error| {
            tracing::error!(%error, "readers cannot go on behind the ranges that `repair` has dropped");
            DroppedRanges::default()
        });
        let log = WalWriter::begin(disk.clone(), &layout.wal, options.wal_segment, recovered)?;
        if let Some(mode) = mode_open_to_others(&options.dir) {
            let dir = options.dir.display();
            tracing::warn!(
                "every user of this machine may look into {dir} (mode {mode:04o}); run chmod -R go-rwx {dir}"
            );
        }
        tracing::info!(
            dir = %options.dir.display(),
            streams = memtable.totals().0,
            replayed,
            "opened the file store"
        );
        let segments = SegmentFiles::new(disk.clone(), &layout.segments, meta.next_segment);
        let segments = Arc::new(segments.checking_reads(options.check_segment_reads));
        let core = Arc::new(StoreCore {
            disk,
            options,
            limit,
            index_room: AtomicU64::new(0),
            index_used: AtomicU64::new(0),
            index,
            segments,
            cold: OnceLock::new(),
            memtable,
            dropped,
            queue: CommitQueue::default(),
            old_segments: log.old_segments(),
            counters: StoreCounters { sync_times: log.sync_times(), ..StoreCounters::default() },
        });
        let sealer = Arc::new(Sealer::new(core.clone()));
        let checkpointer = Arc::new(Checkpointer::new(core.clone(), sealer.clone(), meta.lsn));
        checkpointer.note_room();
        sealer.sweep()?;
        core.report_missing_segments()?;
        Ok(FileStore {
            scrubber: Arc::new(Scrubber::new(core.clone())),
            sealer,
            writer: Arc::new(Writer::new(core.clone(), checkpointer.clone(), log)),
            checkpointer,
            core,
            read_pool: None,
            threads: Mutex::default(),
            layout: Mutex::new(Some(layout)),
            replayed_deletions,
        })
    }

    /// Runs a read that may wait for the disk, on the pool if there is one; `bytes`: how many it reads at most.
    async fn pooled<T: Send + 'static>(
        &self,
        bytes: usize,
        read: impl FnOnce(SnapshotReads<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.read_pool {
            None => read(self.core.reads()),
            Some(pool) => {
                let core = self.core.clone();
                pool.run(bytes, move || read(core.reads())).await
            }
        }
    }

    /// Bytes in memory, and where the others are.
    fn found(
        &self,
        wanted: WantedBytes,
    ) -> impl Future<Output = Result<Vec<FoundPiece>, StoreError>> {
        let WantedBytes { id, from, to, max } = wanted;
        self.pooled(wanted.most(), move |reads| reads.read(id, from, to, max))
    }

    /// The bytes of what was found, fetched where they are in objects.
    async fn fetched(
        &self,
        wanted: WantedBytes,
        mut in_objects: Vec<FoundPiece>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let mut missing = None;
        loop {
            match objects::fetch(self.core.cold.get(), in_objects).await {
                // It was deleted with the stream since the index was read: look again.
                Err(error) if error.is_missing() && missing != Some(error.file) => {
                    missing = Some(error.file);
                }
                fetched => return fetched.map_err(FetchError::into_error),
            }
            match objects::local(self.found(wanted).await?) {
                Ok(found) => return Ok(found),
                Err(again) => in_objects = again,
            }
        }
    }

    /// The store's counters and sizes now.
    pub fn file_stats(&self) -> FileStoreStats {
        let (scrub, seal) = (self.scrubber.stats(), self.sealer.stats());
        FileStoreStats::collect(&self.core, &self.checkpointer, scrub, seal)
    }

    /// Writes everything that is queued, for a store without threads. Returns whether there was anything.
    pub fn step(&self) -> bool {
        self.writer.write_queued()
    }

    /// Folds everything that is durable into the index now.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`]; nothing is lost, and a later try may work.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.checkpointer.checkpoint()
    }

    /// Removes the data of deleted streams and prepares the log's reserve and spare file. A store with threads does so
    /// after each checkpoint.
    pub fn maintain(&self) {
        self.checkpointer.run_maintenance();
    }

    /// Checks the whole index now, as fast as it can be read. Returns the number of damaged things, each of which is logged. A
    /// store with threads does so in the background.
    pub fn scrub(&self) -> u64 {
        self.scrubber.round(None).unwrap_or_default()
    }

    /// Moves what is due from the index into sealed segments now; returns how many bytes. A store with threads does so in
    /// the background.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`]; the bytes stay in the index then.
    pub fn seal(&self) -> Result<u64, StoreError> {
        self.sealer.seal_due()
    }

    /// Keeps sealed segments from being removed while a backup copies those that its index references.
    pub fn hold_segments(&self) -> SegmentHold {
        self.core.segments.hold()
    }

    /// Frees memory that was not used since the previous call: cached bytes that the index has, too, and what large
    /// checkpoints left in LMDB. A store with threads does so every twenty seconds.
    pub fn release_idle_memory(&self) {
        self.checkpointer.release_idle_memory();
    }
}

/// A range of a stream's own bytes, of which at most `max` are read.
#[derive(Clone, Copy)]
struct WantedBytes {
    id: StreamId,
    from: Offset,
    to: Offset,
    max: usize,
}

impl WantedBytes {
    fn most(&self) -> usize {
        self.max.min(self.to.position().saturating_sub(self.from.position()) as usize)
    }
}

/// Sizes of the files of sealed segments together.
fn sealed_bytes(disk: &dyn Disk, dir: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for name in disk.list(dir).unwrap_or_default() {
        let path = dir.join(name);
        let len = disk.open_to_read(&path).and_then(|file| file.len());
        bytes += len.map_err(io_error("look at", &path))?;
    }
    Ok(bytes)
}

impl Store for FileStore {
    fn next_id(&self) -> StreamId {
        self.core.memtable.next_id()
    }

    fn epoch(&self) -> LogEpoch {
        self.core.queue.epoch()
    }

    async fn load(
        &self,
        path: &StreamPath,
        purpose: LoadFor,
    ) -> Result<Option<LoadedStream>, StoreError> {
        if let Some(found) = self.core.reads().load_unindexed(path) {
            return Ok(Some(found));
        }
        let path = path.clone();
        self.pooled(0, move |reads| reads.load(&path, purpose)).await
    }

    async fn damaged(&self, path: &StreamPath) -> Result<Option<DamagedStream>, StoreError> {
        let (path, checkpointer) = (path.clone(), self.checkpointer.clone());
        self.pooled(0, move |reads| {
            // Events that wait for a checkpoint would belong before the deletion. It takes them for lost.
            let found = reads.damaged(&path)?;
            if found.is_some_and(|found| reads.memtable.has_pending(found.id)) {
                checkpointer.checkpoint()?;
                return reads.damaged(&path);
            }
            Ok(found)
        })
        .await
    }

    async fn producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> Result<Option<ProducerState>, StoreError> {
        if let Some(known) = self.core.memtable.producer(id, producer) {
            return Ok(Some(known));
        }
        let producer = producer.clone();
        self.pooled(0, move |reads| reads.producer(id, &producer)).await
    }

    async fn producers(
        &self,
        id: StreamId,
        after: Option<&ProducerId>,
        max: usize,
    ) -> Result<Vec<(ProducerId, ProducerState)>, StoreError> {
        let after = after.cloned();
        self.pooled(0, move |reads| reads.producers(id, after.as_ref(), max)).await
    }

    fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let queued = QueuedCommit::alone(commit);
        self.checkpointer.admit(&queued)?;
        self.core.queue.push([queued]).map(|()| Committed::Queued)
    }

    fn commit_pair(&self, first: Commit, second: Commit) -> Result<Committed, StoreError> {
        let pair = QueuedCommit::pair(first, second);
        for queued in &pair {
            self.checkpointer.admit(queued)?;
        }
        self.core.queue.push(pair).map(|()| Committed::Queued)
    }

    async fn throttle(&self) {
        self.checkpointer.throttle().await;
    }

    async fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        if let Some(found) = self.core.memtable.read(id, from, to, max) {
            return Ok(found);
        }
        let wanted = WantedBytes { id, from, to, max };
        match objects::local(self.found(wanted).await?) {
            Ok(found) => Ok(found),
            // Boxed: a small read's future has no room for it.
            Err(in_objects) => Box::pin(self.fetched(wanted, in_objects)).await,
        }
    }

    async fn file_part(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
        form: MessageForm,
    ) -> Result<Option<FilePart>, StoreError> {
        if !self.core.segments.any() {
            return Ok(None);
        }
        if let Some(part) = self.core.segments.known_part(id, from, to, max, form) {
            return Ok(Some(part));
        }
        self.pooled(max, move |reads| reads.file_part(id, from, to, max, form)).await
    }

    async fn read_or_part(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
        part: usize,
        form: MessageForm,
    ) -> Result<StoredPiece, StoreError> {
        if !self.core.segments.any() {
            return self.read(id, from, to, max).await.map(StoredPiece::Bytes);
        }
        if let Some(part) = self.core.segments.known_part(id, from, to, part, form) {
            return Ok(StoredPiece::File(part));
        }
        if let Some(found) = self.core.memtable.read(id, from, to, max) {
            return Ok(StoredPiece::Bytes(found));
        }
        let wanted = WantedBytes { id, from, to, max };
        let either = move |reads: SnapshotReads<'_>| {
            Ok(match reads.file_part(id, from, to, part, form)? {
                Some(part) => Err(part),
                None => Ok(reads.read(id, from, to, max)?),
            })
        };
        let found = match self.pooled(wanted.most(), either).await? {
            Ok(found) => found,
            Err(part) => return Ok(StoredPiece::File(part)),
        };
        let bytes = match objects::local(found) {
            Ok(found) => found,
            Err(in_objects) => self.fetched(wanted, in_objects).await?,
        };
        Ok(StoredPiece::Bytes(bytes))
    }

    fn dropped(&self, id: StreamId, from: Offset, to: Offset) -> Option<(Offset, Offset)> {
        self.core.dropped.next(id, from, to)
    }

    async fn append_end(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        within: u64,
    ) -> Result<AppendEnd, StoreError> {
        let limit = from.advance(within);
        if to <= limit {
            return Ok(AppendEnd::At(to));
        }
        if let Some(end) = self.core.memtable.append_end(id, from, to, limit) {
            return Ok(AppendEnd::At(end));
        }
        self.pooled(0, move |reads| reads.append_end(id, from, to, limit)).await
    }

    async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<StreamPath>, StoreError> {
        self.pooled(0, move |reads| reads.due(now, max)).await
    }

    async fn used_after(
        &self,
        time: Timestamp,
        from: DeadlineCursor,
        max: usize,
    ) -> Result<UsedAfter, StoreError> {
        self.pooled(0, move |reads| reads.used_after(time, from, max)).await
    }

    async fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        let after = after.cloned();
        self.pooled(0, move |reads| reads.list(after.as_ref(), max)).await
    }

    async fn list_states(
        &self,
        from: Bound<&StreamPath>,
        prefix: &str,
        max: usize,
    ) -> Result<StoredPage, StoreError> {
        let (from, prefix) = (from.cloned(), prefix.to_owned());
        self.pooled(0, move |reads| reads.list_states(from.as_ref(), &prefix, max)).await
    }

    async fn state_of(&self, id: StreamId) -> Result<Option<StreamState>, StoreError> {
        self.pooled(0, move |reads| reads.state_of(id)).await
    }

    async fn places(&self, id: StreamId) -> Result<Option<BytePlaces>, StoreError> {
        self.pooled(0, move |reads| reads.places(id)).await
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.checkpointer.has_room()?;
        self.core.index.available()?;
        if self.core.index.health().names_may_miss() {
            return Err(self.core.index.hidden_names());
        }
        self.core.queue.accepts()
    }

    fn stats(&self) -> StoreStats {
        let (streams, bytes) = self.core.memtable.totals();
        StoreStats { streams, bytes }
    }

    fn disk_stats(&self) -> Option<DiskStats> {
        Some(DiskStats {
            files: self.file_stats(),
            batches: self.core.counters.batch_sizes.snapshot(),
            syncs: self.core.counters.sync_times.snapshot(),
        })
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.core.queue.close();
        self.scrubber.stop();
        self.sealer.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        let (writer, checkpointer) = (self.writer.clone(), self.checkpointer.clone());
        let closer = thread::Builder::new().name("store-close".into()).spawn(move || {
            checkpointer.stop();
            for thread in threads {
                let _ = thread.join();
            }
            writer.finish();
            // A failure was logged, and the log has everything.
            let _ = checkpointer.checkpoint();
            // The caller may open the directory again once this returns, so nothing here may hold the environment.
            drop((writer, checkpointer));
            let _ = done.send(());
        });
        if closer.is_ok() {
            let _ = closed.await;
        }
        if let Some(pool) = &self.read_pool {
            pool.close();
        }
        // From here on another process may lock the directory.
        drop(self.layout.lock().take());
    }
}

/// Ends the threads. Everything queued is written, but not folded in: the next opening does that.
impl Drop for FileStore {
    fn drop(&mut self) {
        self.core.queue.close();
        self.checkpointer.stop();
        self.scrubber.stop();
        self.sealer.stop();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        if let Some(pool) = &self.read_pool {
            pool.close();
        }
    }
}

#[cfg(test)]
mod tests;
