//! The store on disk: a write-ahead log with group commit in front of LMDB.
//!
//! An append costs its share of one sequential write and one sync. Checkpoints fold the log into the index
//! in the background. Memory follows what is active; opening costs the log since the last checkpoint.
//! Format and recovery: docs/storage.md.
//!
//! | module | what it is |
//! |---|---|
//! | `layout`, `disk` | the directory; the disk, as tests may replace it |
//! | `queue`, `wal` | what waits to be written; the log |
//! | `recent`, `hot`, `names` | what is in the log and not in the index; bytes worth keeping |
//! | `index` | LMDB |
//! | `lookup`, `readers` | reading both; on threads of its own |
//! | `offline`, `destination` | verify, back up, restore, compact, repair; directories in the making |
//! | `work` | the writer's and the checkpointer's threads |

mod destination;
pub mod disk;
mod error;
mod hot;
mod index;
mod layout;
mod lookup;
mod names;
pub mod offline;
mod options;
mod queue;
mod readers;
mod recent;
mod stats;
mod wal;
mod work;

use std::{sync::Arc, thread};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use destination::Destination;
pub use layout::{FORMAT, keys_dir};
pub use options::{Durability, FileStoreOptions};
pub use stats::FileStoreStats;

use disk::{Disk, RealDisk};
use index::gate::Index;
use layout::Layout;
use lookup::Lookup;
use readers::Readers;
use recent::Recent;
use stats::Counters;
use wal::{recovery, writer::Log};
use work::Work;

use super::{Commit, DiskStats, Loaded, LogEpoch, Purpose, StoreError, StoreStats};
use durable_streams_protocol::{Offset, StreamId, StreamPath, Timestamp};

/// See the module.
pub struct FileStore {
    work: Arc<Work>,
    readers: Option<Readers>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    layout: Mutex<Option<Layout>>,
}

impl FileStore {
    /// Opens a data directory, or makes one, and starts the threads that serve it.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Format`], [`StoreError::Corrupt`], [`StoreError::Full`],
    /// [`StoreError::Io`]: each says what to do.
    pub fn open(options: FileStoreOptions) -> Result<Self, StoreError> {
        let mut store = Self::open_on(Arc::new(RealDisk), options)?;
        store.readers = Some(Readers::start());
        *store.threads.lock() = work::start(&store.work)?;
        Ok(store)
    }

    /// Opens without any thread: events are written by [`step`](Self::step) and folded in by
    /// [`checkpoint`](Self::checkpoint), so that tests decide what happens when, on a disk of theirs.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_on(disk: Arc<dyn Disk>, options: FileStoreOptions) -> Result<Self, StoreError> {
        let layout = Layout::open(&*disk, &options.dir)?;
        Self::open_locked(disk, options, layout)
    }

    fn open_locked(
        disk: Arc<dyn Disk>,
        options: FileStoreOptions,
        layout: Layout,
    ) -> Result<Self, StoreError> {
        let index = Index::open(&layout.index, options.map_size)?;
        disk.sync_dir(&layout.index).map_err(error::io_error("sync", &layout.index))?;
        let meta = index.read()?.meta()?;
        let recent = Recent::new(meta.lsn, meta.next_id, meta.streams, meta.bytes, options.cache);
        let mut replayed = 0_u64;
        let recovered = recovery::recover(&*disk, &layout.wal, meta.lsn, &mut |lsn, id, event| {
            replayed += 1;
            recent.publish(lsn, std::iter::once((id, event()?)));
            Ok(())
        })?;
        let log = Log::begin(disk.clone(), &layout.wal, options.wal_segment, recovered)?;
        tracing::info!(
            dir = %options.dir.display(),
            streams = recent.totals().0,
            replayed,
            "opened the file store"
        );
        let work = Work::new(disk, options, index, recent, log, meta.lsn);
        Ok(FileStore {
            work: Arc::new(work),
            readers: None,
            threads: Mutex::default(),
            layout: Mutex::new(Some(layout)),
        })
    }

    fn lookup(work: &Work) -> Lookup<'_> {
        Lookup { index: &work.index, recent: &work.recent }
    }

    /// Looks without blocking; `bytes`: how many it may read.
    async fn look<T: Send + 'static>(
        &self,
        bytes: usize,
        look: impl FnOnce(Lookup<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.readers {
            None => look(Self::lookup(&self.work)),
            Some(readers) => {
                let work = self.work.clone();
                readers.run(bytes, move || look(Self::lookup(&work))).await
            }
        }
    }

    pub(super) fn next_id(&self) -> StreamId {
        self.work.recent.next_id()
    }

    pub(super) fn epoch(&self) -> LogEpoch {
        self.work.queue.epoch()
    }

    pub(super) async fn load(
        &self,
        path: &StreamPath,
        purpose: Purpose,
    ) -> Result<Option<Loaded>, StoreError> {
        if let Some(found) = Self::lookup(&self.work).load_recent(path) {
            return Ok(Some(found));
        }
        let path = path.clone();
        self.look(0, move |lookup| lookup.load(&path, purpose)).await
    }

    pub(super) fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.work.admit(&commit)?;
        self.work.queue.push(commit)
    }

    pub(super) async fn throttle(&self) {
        self.work.throttle().await;
    }

    pub(super) async fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        if let Some(found) = self.work.recent.read(id, from, to, max) {
            return Ok(found);
        }
        let bytes = max.min(to.position().saturating_sub(from.position()) as usize);
        self.look(bytes, move |lookup| lookup.read(id, from, to, max)).await
    }

    pub(super) async fn due(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        self.look(0, move |lookup| lookup.due(now, max)).await
    }

    pub(super) async fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        let after = after.cloned();
        self.look(0, move |lookup| lookup.list(after.as_ref(), max)).await
    }

    pub(super) fn stats(&self) -> StoreStats {
        let (streams, bytes) = self.work.recent.totals();
        StoreStats { streams, bytes }
    }

    /// What the store does, for metrics.
    pub fn file_stats(&self) -> FileStoreStats {
        self.work.stats()
    }

    pub(super) fn disk_stats(&self) -> DiskStats {
        self.work.disk_stats()
    }

    pub(super) fn writable(&self) -> Result<(), StoreError> {
        self.work.has_room()?;
        self.work.queue.accepts()
    }

    /// Writes everything that is queued, for a store without threads. Gives whether there was anything.
    pub fn step(&self) -> bool {
        self.work.write_queued()
    }

    /// Folds everything that is durable into the index now.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`]; nothing is lost, and a later try may work.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.work.checkpoint()
    }

    /// Gives back memory that was not needed since the call before: bytes that are in the index, too, and what large
    /// checkpoints left with it. A store with threads does so every twenty seconds.
    pub fn rest(&self) {
        self.work.rest();
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.work.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let work = self.work.clone();
        let closer = thread::Builder::new().name("store-close".into()).spawn(move || {
            work.finish(threads);
            // The environment must not outlive the answer: the directory may be opened anew then.
            drop(work);
            let _ = done.send(());
        });
        if closer.is_ok() {
            let _ = closed.await;
        }
        if let Some(readers) = &self.readers {
            readers.close();
        }
        // Others may have the directory now.
        drop(self.layout.lock().take());
    }
}

/// Ends the threads. What is queued is written, but not folded in: the next opening does that.
impl Drop for FileStore {
    fn drop(&mut self) {
        self.work.queue.close();
        self.work.stop();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        if let Some(readers) = &self.readers {
            readers.close();
        }
    }
}
