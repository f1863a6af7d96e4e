//! Tests of the log below the store: of single bytes, on a disk that fills up.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use durable_streams_protocol::{Appended, StreamEvent, StreamId, Timestamp};
use parking_lot::Mutex;

use super::{
    Lsn, frame,
    recovery::{self, RecoveredLog},
    segment,
    writer::{AppendError, WalWriter},
};
use crate::store::{
    Commit, CommitSink, EventPlace, LogEpoch, StoreError,
    file::{
        disk::{Disk, DiskFile, RealDisk},
        queued_commit::QueuedCommit,
    },
};

mod reading;
mod recovering;
mod room;
mod writing;

struct NoSink;

impl CommitSink for NoSink {
    fn committed(&self, _: u64) {}
    fn failed(&self, _: u64, _: StoreError) {}
}

fn commit(id: u64, event: StreamEvent) -> Commit {
    let (epoch, place) = (LogEpoch::default(), EventPlace::default());
    Commit { id: StreamId(id), event, place, epoch, version: 0, sink: Arc::new(NoSink) }
}

fn append_of(bytes: usize) -> StreamEvent {
    StreamEvent::Appended(Appended {
        at: Timestamp::default(),
        data: vec![b'x'; bytes].into(),
        terminators: 0,
        producer: None,
        stream_seq: None,
        close: false,
    })
}

/// Bytes of the frame of an append, beside its data.
const APPEND: usize = frame::HEADER + 9 + 3;
/// Bytes of the frame of a touch or a deletion.
const TOUCH: usize = frame::HEADER + 9;

fn append(bytes: usize) -> QueuedCommit {
    QueuedCommit::alone(commit(1, append_of(bytes)))
}

fn touch() -> QueuedCommit {
    QueuedCommit::alone(commit(1, StreamEvent::Touched { at: Timestamp::default() }))
}

fn deletion() -> QueuedCommit {
    QueuedCommit::alone(commit(1, StreamEvent::Deleted { at: Timestamp::default() }))
}

/// The real disk with less room, whose writes and syncs of files are noted.
#[derive(Clone, Default)]
struct SmallDisk(Arc<SmallDiskState>);

struct SmallDiskState {
    /// Bytes that files of one directory may have together.
    capacity: AtomicU64,
    /// What it says when it is asked.
    room: Mutex<Option<u64>>,
    done: Mutex<Vec<Done>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Wrote(String, u64, usize),
    Synced(String),
    SyncedNames,
}

impl Default for SmallDiskState {
    fn default() -> Self {
        let capacity = AtomicU64::new(u64::MAX);
        SmallDiskState { capacity, room: Mutex::default(), done: Mutex::default() }
    }
}

impl SmallDisk {
    fn set_capacity(&self, bytes: u64) {
        self.0.capacity.store(bytes, Ordering::Relaxed);
    }

    fn set_room(&self, room: Option<u64>) {
        *self.0.room.lock() = room;
    }

    fn done(&self) -> Vec<Done> {
        std::mem::take(&mut self.0.done.lock())
    }
}

struct SmallFile {
    disk: SmallDisk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl SmallFile {
    fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let used = fs::read_dir(self.path.parent().unwrap())?.map(|entry| entry?.metadata());
        let used: u64 = used.map(|of| of.map(|of| of.len())).sum::<io::Result<u64>>()?;
        let own = self.file.len()?;
        let fits = len <= own || used - own + len <= self.disk.0.capacity.load(Ordering::Relaxed);
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

impl Disk for SmallDisk {
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
        let file = RealDisk.open(path, create)?;
        Ok(Box::new(SmallFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.done.lock().push(Done::SyncedNames);
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        RealDisk.lock(path)
    }

    fn room(&self, _: &Path) -> Option<u64> {
        *self.0.room.lock()
    }
}

impl DiskFile for SmallFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.grow(offset + bytes.len() as u64)?;
        self.disk.0.done.lock().push(Done::Wrote(self.name(), offset, bytes.len()));
        self.file.write_at(offset, bytes)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.grow(len)?;
        self.file.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.0.done.lock().push(Done::Synced(self.name()));
        self.file.sync()
    }
}

fn recover(disk: &SmallDisk, dir: &Path, checkpoint: Lsn) -> Result<RecoveredLog, StoreError> {
    recovery::recover(disk, dir, checkpoint, &mut |_| Ok(()))
}

/// A new log, or one that goes on, with segments of `size` bytes.
fn begin(disk: &SmallDisk, dir: &Path, size: u64) -> Result<WalWriter, StoreError> {
    WalWriter::begin(Arc::new(disk.clone()), dir, size, recover(disk, dir, 0)?)
}

fn write(log: &mut WalWriter, batch: &[QueuedCommit]) -> Result<(Lsn, u64), StoreError> {
    log.append(batch, true).map_err(|(AppendError::Lost(error) | AppendError::Unsure(error))| error)
}

/// The numbers of the segments, each with its length.
fn segments(dir: &Path) -> Vec<(u64, u64)> {
    let numbers = segment::numbers_in(&RealDisk, dir).unwrap().into_iter();
    numbers.map(|number| (number, len(dir, &segment::file_name(number)).unwrap())).collect()
}

fn len(dir: &Path, name: &str) -> Option<u64> {
    fs::metadata(dir.join(name)).ok().map(|of| of.len())
}
