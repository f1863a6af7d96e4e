//! A checkpointer without a store around it.

use super::*;
use crate::test_events;

struct NoSink;

impl CommitSink for NoSink {
    fn committed(&self, _: u64) {}
    fn failed(&self, _: u64, _: StoreError) {}
}

/// The real disk, on which commits of the index can fail.
#[derive(Default)]
pub(super) struct TestDisk {
    pub(super) room: Mutex<Option<u64>>,
    /// The kind of error that the next commits end with.
    pub(super) failing: Mutex<Option<io::ErrorKind>>,
    pub(super) commits: AtomicU64,
}

impl Disk for TestDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path, create)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        RealDisk.lock(path)
    }

    fn room(&self, _: &Path) -> Option<u64> {
        *self.room.lock()
    }

    fn before_index_commit(&self) -> io::Result<()> {
        self.commits.fetch_add(1, Relaxed);
        self.failing.lock().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

pub(super) struct Rig {
    pub(super) disk: Arc<TestDisk>,
    pub(super) checkpointer: Arc<Checkpointer>,
    /// Holds the segment of the log that is written.
    _log: WalWriter,
    pub(super) dir: tempfile::TempDir,
}

pub(super) const LIMIT: DiskLimit =
    DiskLimit { total: 99 << 20, log: 1 << 20, index: 32 << 20, index_reserve: 8 << 20 };

impl Rig {
    pub(super) fn new(limit: Option<DiskLimit>) -> Self {
        Self::sealing(limit, SegmentOptions::DEFAULT)
    }

    pub(super) fn sealing(limit: Option<DiskLimit>, segments_of: SegmentOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(TestDisk::default());
        let [index, wal, segments] = ["index", "wal", "segments"].map(|name| dir.path().join(name));
        [&index, &wal, &segments].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
        let options = FileStoreOptions {
            map_size: 8 << 20,
            wal_segment: 10_000,
            checkpoint_size: 50_000,
            segments: Some(segments_of),
            checkpoint_interval: Duration::from_secs(3600),
            ..FileStoreOptions::new(dir.path())
        };
        let index = IndexHandle::open_limited(&index, options.map_size, limit).unwrap();
        let recovered = recovery::recover(&*disk, &wal, 0, &mut |_| Ok(())).unwrap();
        let log = WalWriter::begin(disk.clone(), &wal, options.wal_segment, recovered).unwrap();
        let core = StoreCore {
            memtable: Memtable::new(0, 1, 0, 0, options.cache),
            disk: disk.clone(),
            options,
            limit,
            index_room: AtomicU64::new(0),
            index_used: AtomicU64::new(0),
            index,
            segments: Arc::new(SegmentFiles::new(disk.clone(), &segments, 1)),
            cold: std::sync::OnceLock::new(),
            dropped: DroppedRanges::default(),
            queue: CommitQueue::default(),
            old_segments: log.old_segments(),
            counters: StoreCounters::default(),
        };
        let core = Arc::new(core);
        let sealer = Arc::new(Sealer::new(core.clone()));
        let checkpointer = Arc::new(Checkpointer::new(core, sealer, 0));
        Rig { disk, checkpointer, _log: log, dir }
    }

    pub(super) fn core(&self) -> &StoreCore {
        &self.checkpointer.core
    }

    /// Events that are durable, each where its stream ends.
    pub(super) fn publish(&self, events: impl IntoIterator<Item = (StreamId, u64, StreamEvent)>) {
        let events = events
            .into_iter()
            .map(|(id, position, event)| (id, EventPlace { events: 0, position }, event));
        let memtable = &self.core().memtable;
        memtable.publish(memtable.lsn() + 1, events);
    }

    /// A stream with so many bytes of events.
    pub(super) fn pend(&self, bytes: usize) {
        let data = Bytes::from(vec![b'x'; bytes - CREATION]);
        self.publish([(ONE, 0, created("/a", data, None))]);
        assert_eq!(self.core().memtable.pending(), bytes);
    }

    pub(super) fn fail(&self, error: Option<StoreError>) {
        self.checkpointer.failing.store(error.is_some(), Relaxed);
        *self.checkpointer.failure.lock() = error;
    }

    pub(super) fn is_requested(&self) -> bool {
        std::mem::take(&mut self.checkpointer.signal.lock().requested)
    }

    pub(super) fn streams(&self) -> u64 {
        self.core().index.read().unwrap().meta().unwrap().streams
    }
}

pub(super) fn full() -> StoreError {
    StoreError::Full { path: "here".into() }
}

pub(super) fn damaged() -> StoreError {
    StoreError::Corrupt { path: "there".into(), offset: 0, found: "damage".into() }
}

pub(super) fn created(name: &str, data: Bytes, fork: Option<ForkPoint>) -> StreamEvent {
    StreamEvent::Created(Box::new(Created {
        fork,
        ..test_events::creation(Timestamp::from_millis(1), StreamPath::new(name).unwrap(), data)
    }))
}

pub(super) fn appended(data: Bytes, producer: Option<Producer>) -> StreamEvent {
    StreamEvent::Appended(Appended {
        at: Timestamp::from_millis(1),
        data,
        terminators: 0,
        producer,
        stream_seq: None,
        close: false,
    })
}

pub(super) const fn deleted() -> StreamEvent {
    StreamEvent::Deleted { at: Timestamp::from_millis(2) }
}

pub(super) fn queued(event: StreamEvent) -> QueuedCommit {
    let (epoch, place, sink) = (LogEpoch(0), EventPlace::default(), Arc::new(NoSink));
    QueuedCommit::alone(Commit { id: ONE, event, place, epoch, version: 0, sink })
}
