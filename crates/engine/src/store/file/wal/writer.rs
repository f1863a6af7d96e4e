//! Writing the log: a batch becomes one write and one sync.
//!
//! This is the seam under the file store's writer: a batch in, completions in order, and one failure loses everything
//! that follows. Another log may take its place; the seam is [`WalWriter::append`] and [`WalWriter::sync`].
//!
//! Invariants
//! - An event is durable when the sync that covers its frame returned.
//! - After a failed write the segment is abandoned: the next one begins with the first event that was lost, so nothing
//!   of the failed write counts.
//! - After a failed sync nothing is written again: the page cache may have dropped what it could not write, and a later
//!   sync would succeed all the same (Rebello et al., ATC '20).

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    Lsn,
    end_mark::EndMark,
    frame,
    recovery::{OldSegment, RecoveredLog},
    reserve,
    segment::{self, CreateError, WalSegment},
};
use crate::counters::DurationHistogram;
use crate::store::{
    StoreError,
    file::{disk::Disk, error::io_error, queued_commit::QueuedCommit},
};

/// The encode buffer is freed above this size, bytes.
const KEEP_BUFFER: usize = 4 << 20;

/// How an append failed.
pub(in crate::store::file) enum AppendError {
    /// Nothing of the batch counts; later ones may work.
    Lost(StoreError),
    /// It is unknown what is on disk; the log must not be used again.
    Unsure(StoreError),
}

/// The sealed segments and the spare file. The lock guards their names.
pub(in crate::store::file) struct OldSegments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    size: u64,
    files: Mutex<SegmentFiles>,
    /// The reserve was needed, and does not exist again yet.
    reserve_released: AtomicBool,
    /// The end of what is durable.
    end: Mutex<EndMark>,
    /// The last mark that was written.
    marked: Mutex<EndMark>,
}

struct SegmentFiles {
    sealed: VecDeque<OldSegment>,
    /// The first event of the active segment.
    active_first: Lsn,
}

pub(in crate::store::file) struct WalWriter {
    old: Arc<OldSegments>,
    active: WalSegment,
    /// Where the next frame goes.
    position: u64,
    /// The last write failed: the next batch begins a new segment.
    spoiled: bool,
    /// The next event.
    next: Lsn,
    /// Every event below is durable.
    synced: Lsn,
    /// The checksum of the last frame.
    last_crc: u32,
    sync_times: Arc<DurationHistogram>,
    buffer: Vec<u8>,
}

impl WalWriter {
    /// Begins a new segment after the recovered events, once those are durable.
    pub(in crate::store::file) fn begin(
        disk: Arc<dyn Disk>,
        dir: &Path,
        size: u64,
        recovered: RecoveredLog,
    ) -> Result<Self, StoreError> {
        recovered.make_durable(&*disk, dir)?;
        let RecoveredLog { sealed, mut empty, next, next_segment, last_crc, .. } = recovered;
        let remove = |segment: OldSegment| {
            let path = dir.join(segment::file_name(segment.number));
            disk.remove(&path).map_err(io_error("remove", &path))
        };
        let mut released = false;
        let release = || {
            // An earlier start may have used the reserve for a segment that it wrote nothing to. It is not the
            // log's only segment, so the log is whole without it.
            let unused = empty.take_if(|_| !sealed.is_empty());
            let removed = unused.is_some_and(|unused| remove(unused).is_ok());
            released = reserve::release(&*disk, dir) || removed;
            released
        };
        let active = create(&*disk, dir, (next_segment, next), size, release)
            .map_err(|(CreateError::Nothing(error) | CreateError::DirUnsure(error))| error)?;
        if let Some(empty) = empty {
            remove(empty)?;
        }
        let files = Mutex::new(SegmentFiles { sealed, active_first: next });
        let reserve_released = AtomicBool::new(released);
        let end = Mutex::new(EndMark { next, segment: active.number, crc: last_crc });
        let marked = Mutex::default();
        let old =
            OldSegments { disk, dir: dir.to_owned(), size, files, reserve_released, end, marked };
        Ok(WalWriter {
            old: Arc::new(old),
            active,
            position: segment::HEADER,
            spoiled: false,
            next,
            synced: next,
            last_crc,
            sync_times: Arc::default(),
            buffer: Vec::new(),
        })
    }

    pub(in crate::store::file) fn old_segments(&self) -> Arc<OldSegments> {
        self.old.clone()
    }

    /// The durations of the log's syncs.
    pub(in crate::store::file) fn sync_times(&self) -> Arc<DurationHistogram> {
        self.sync_times.clone()
    }

    /// Whether everything written is durable.
    pub(in crate::store::file) fn is_synced(&self) -> bool {
        self.synced == self.next
    }

    /// Writes a batch, and syncs it if `sync` is set. Returns the LSN of its first event and its size in bytes.
    pub(in crate::store::file) fn append(
        &mut self,
        batch: &[QueuedCommit],
        sync: bool,
    ) -> Result<(Lsn, u64), AppendError> {
        if self.spoiled {
            self.rotate(batch)?;
        }
        let mut last_crc = self.encode(batch);
        if self.position + self.buffer.len() as u64 > self.active.allocated {
            if self.position > segment::HEADER {
                self.rotate(batch)?;
                last_crc = self.encode(batch);
            }
            let needed = self.position + self.buffer.len() as u64;
            let active = &mut self.active;
            if needed > active.allocated {
                let grown = active.file.allocate(needed);
                grown.map_err(|e| AppendError::Lost(io_error("grow", &active.path)(e)))?;
                active.allocated = needed;
            }
        }
        if let Err(error) = self.active.file.write_at(self.position, &self.buffer) {
            self.spoiled = true;
            return Err(AppendError::Lost(io_error("write", &self.active.path)(error)));
        }
        let (first, bytes) = (self.next, self.buffer.len() as u64);
        self.position += bytes;
        self.last_crc = last_crc;
        self.next += batch.len() as u64;
        if self.buffer.capacity() > KEEP_BUFFER {
            self.buffer = Vec::new();
        }
        if sync {
            self.sync()?;
        }
        Ok((first, bytes))
    }

    /// Makes everything written durable.
    pub(in crate::store::file) fn sync(&mut self) -> Result<(), AppendError> {
        if self.synced < self.next {
            let began = Instant::now();
            let synced = self.active.file.sync();
            self.sync_times.observe_duration(began.elapsed());
            synced.map_err(|e| AppendError::Unsure(io_error("sync", &self.active.path)(e)))?;
            self.synced = self.next;
            *self.old.end.lock() =
                EndMark { next: self.next, segment: self.active.number, crc: self.last_crc };
        }
        Ok(())
    }

    /// Encodes a batch. Returns the checksum of its last frame.
    fn encode(&mut self, batch: &[QueuedCommit]) -> u32 {
        self.buffer.clear();
        let (number, synced, mut crc) = (self.active.number, self.synced, 0);
        for (lsn, queued) in (self.next..).zip(batch) {
            crc = frame::encode(&mut self.buffer, number, lsn, synced, queued);
        }
        crc
    }

    /// Begins a new segment, for `batch`.
    fn rotate(&mut self, batch: &[QueuedCommit]) -> Result<(), AppendError> {
        self.sync()?;
        let mut files = self.old.files.lock();
        let OldSegments { disk, dir, size, .. } = &*self.old;
        let frees = || batch.iter().all(QueuedCommit::frees_space);
        let release = || frees() && self.old.release_reserve();
        let new = create(&**disk, dir, (self.active.number + 1, self.next), *size, release);
        let new = new.map_err(|error| match error {
            CreateError::Nothing(error) => AppendError::Lost(error),
            CreateError::DirUnsure(error) => AppendError::Unsure(error),
        })?;
        files.sealed.push_back(OldSegment { number: self.active.number, first: self.active.first });
        files.active_first = self.next;
        drop(files);
        self.active = new;
        self.position = segment::HEADER;
        self.spoiled = false;
        Ok(())
    }
}

/// Creates a segment: of the usual size, else a small one, else a small one in the room that `release` makes.
fn create(
    disk: &dyn Disk,
    dir: &Path,
    (number, first): (u64, Lsn),
    size: u64,
    release: impl FnOnce() -> bool,
) -> Result<WalSegment, CreateError> {
    let small = reserve::small_segment(size);
    let create = |size| WalSegment::create(disk, dir, number, first, size);
    match create(size) {
        Err(CreateError::Nothing(StoreError::Full { .. })) => match create(small) {
            Err(CreateError::Nothing(StoreError::Full { .. })) if release() => create(small),
            created => created,
        },
        created => created,
    }
}

impl SegmentFiles {
    /// The oldest segment, if its events are all up to `checkpoint`.
    fn recyclable(&self, checkpoint: Lsn) -> Option<OldSegment> {
        let oldest = self.sealed.front().copied()?;
        let end = self.sealed.get(1).map_or(self.active_first, |following| following.first);
        (end <= checkpoint + 1).then_some(oldest)
    }
}

impl OldSegments {
    /// Bytes reserved by the log, roughly: every segment counts with the usual size.
    pub(in crate::store::file) fn reserved(&self) -> u64 {
        (self.files.lock().sealed.len() as u64 + 1) * self.size
    }

    /// Whether there is a segment whose events are all up to `checkpoint`.
    pub(in crate::store::file) fn can_recycle(&self, checkpoint: Lsn) -> bool {
        self.files.lock().recyclable(checkpoint).is_some()
    }

    /// Recycles the segments whose events are all up to `checkpoint`, which the index must have committed. One of them
    /// becomes the spare file, the others are removed.
    pub(in crate::store::file) fn recycle(&self, checkpoint: Lsn) -> Result<(), StoreError> {
        let mut files = self.files.lock();
        let spare = self.dir.join(segment::SPARE);
        let mut renamed = Ok(());
        let mut changed = false;
        while let Some(oldest) = files.recyclable(checkpoint) {
            let path = self.dir.join(segment::file_name(oldest.number));
            renamed = self.disk.rename(&path, &spare).map_err(io_error("rename", &path));
            if renamed.is_err() {
                break;
            }
            files.sealed.pop_front();
            changed = true;
        }
        // Before the spare file is written, its old name must be durably gone, also when a later segment could not
        // be recycled.
        if changed && let Err(error) = self.disk.sync_dir(&self.dir) {
            let _ = self.disk.remove(&spare);
            return Err(io_error("sync", &self.dir)(error));
        }
        renamed
    }

    /// Marks the end of what is durable, unless the last mark names it already. Without the mark, damage at the end would
    /// be taken for a torn batch.
    pub(in crate::store::file) fn mark_end(&self) {
        let mut marked = self.marked.lock();
        let end = *self.end.lock();
        if *marked == end {
            return;
        }
        match end.write(&*self.disk, &self.dir) {
            Ok(()) => *marked = end,
            Err(error) => tracing::warn!(%error, "cannot mark the end of the log"),
        }
    }

    /// Frees the reserve's space. Returns whether there was a reserve.
    pub(in crate::store::file) fn release_reserve(&self) -> bool {
        let released = reserve::release(&*self.disk, &self.dir);
        self.reserve_released.fetch_or(released, Ordering::Relaxed);
        released
    }

    /// Whether the reserve was needed: only events that free space are accepted.
    pub(in crate::store::file) fn is_reserve_released(&self) -> bool {
        self.reserve_released.load(Ordering::Relaxed)
    }

    /// Prepares the reserve and the spare file, so that a new segment costs little and a full disk shows up early.
    pub(in crate::store::file) fn prepare_files(&self) {
        let _names = self.files.lock();
        if reserve::ensure(&*self.disk, &self.dir, self.size)
            && self.reserve_released.swap(false, Ordering::Relaxed)
        {
            tracing::info!("{} has room again: all events are accepted", self.dir.display());
        }
        segment::prepare_spare(&*self.disk, &self.dir, self.size);
    }
}

#[cfg(test)]
mod tests {
    use durable_streams_protocol::{StreamEvent, StreamId, Timestamp};

    use super::*;
    use crate::store::{
        Commit, CommitSink, EventPlace, LogEpoch,
        file::{
            disk::RealDisk,
            wal::{reader::LoggedEvent, recovery},
        },
    };

    struct NoSink;

    impl CommitSink for NoSink {
        fn committed(&self, _: u64) {}
        fn failed(&self, _: u64, _: StoreError) {}
    }

    fn touch() -> QueuedCommit {
        let event = StreamEvent::Touched { at: Timestamp::from_millis(1) };
        let (id, epoch, place) = (StreamId(1), LogEpoch::default(), EventPlace::default());
        let sink = Arc::new(NoSink);
        QueuedCommit::alone(Commit { id, event, place, epoch, version: 0, sink })
    }

    /// Seven events, two in a segment: a frame takes 61 bytes.
    fn log(dir: &Path) -> WalWriter {
        let recovered = recovery::recover(&RealDisk, dir, 0, &mut |_| Ok(())).unwrap();
        let mut log = WalWriter::begin(Arc::new(RealDisk), dir, 32 + 122, recovered).unwrap();
        for _ in 0..7 {
            assert!(log.append(&[touch()], true).is_ok());
        }
        log
    }

    #[test]
    fn recycling_removes_every_checkpointed_segment_and_no_later_event() {
        for checkpoint in 0..=7 {
            let dir = tempfile::tempdir().unwrap();
            let log = log(dir.path());
            let old = log.old_segments();
            assert_eq!(old.can_recycle(checkpoint), checkpoint >= 2);
            old.recycle(checkpoint).unwrap();
            assert!(!old.can_recycle(checkpoint));
            let kept = segment::numbers_in(&RealDisk, dir.path()).unwrap();
            assert_eq!(kept, Vec::from_iter(checkpoint / 2 + 1..=4), "after {checkpoint}");
            let mut events = Vec::new();
            let mut each = |logged: &LoggedEvent<'_>| {
                events.push(logged.header.lsn);
                Ok(())
            };
            recovery::recover(&RealDisk, dir.path(), checkpoint, &mut each).unwrap();
            assert_eq!(events, Vec::from_iter(checkpoint + 1..=7), "after {checkpoint}");
        }
    }
}
