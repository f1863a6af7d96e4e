//! What lists segments, and what moves them between the local disk and an object store, needs of the file store; copies of
//! the index for that object store.

use std::{collections::BTreeSet, path::PathBuf};

use bytes::Bytes;

use super::{
    FileStore,
    disk::{Disk as _, File, RealDisk},
    error::io_error,
    offline::check_room,
    segments::{
        catalog::{SegmentPage, SegmentQuery},
        check::read_whole,
        held::SegmentHold,
        objects::{ColdPlace, SegmentInfo, SegmentPlace},
    },
};
use crate::store::{SegmentTotals, StoreError};

/// The name of the copy in the directory of the index.
const COPY: &str = "tier.new";

/// A copy of the index, and the segments that it may reference.
pub struct IndexCopy {
    /// The copy, not synced. Where the system allows it the file has no name any more, so no crash leaves it.
    pub file: File,
    /// Its size, bytes.
    pub bytes: u64,
    /// An event that it has, with all before.
    pub event: u64,
    /// How many segments it references, and perhaps a few more.
    pub segments: u64,
    /// Bytes of their files.
    pub segment_bytes: u64,
    /// Those of them that were no objects then, some 80 bytes for each.
    pub local: Vec<SegmentInfo>,
    /// Keeps their local files, whatever becomes of their streams.
    held: SegmentHold,
}

impl IndexCopy {
    /// The copy needs the local file of a segment no longer: its object is there, or its file is damaged.
    pub fn release(&mut self, number: u64) {
        self.held.release(number);
    }
}

/// Segments that are looked at in one read of the index.
const STEP: usize = 4096;

impl FileStore {
    /// The next segments after a number, in order, at most `max`.
    ///
    /// # Errors
    /// When the index cannot be read. A segment whose record is damaged is left out.
    pub fn segments_after(
        &self,
        after: Option<u64>,
        max: usize,
    ) -> Result<Vec<SegmentInfo>, StoreError> {
        let found = self.core.index.segments_after(after, max)?;
        let whole = found.into_iter().filter_map(|(number, record)| Some((number, record.ok()?)));
        Ok(whole.map(|(number, record)| SegmentInfo::new(number, &record)).collect())
    }

    /// The numbers of all segments that the index names in any way: objects of others may go.
    ///
    /// # Errors
    /// When the index cannot be read, and when a record of it is damaged, which may have named another one.
    pub fn segments_named(&self) -> Result<BTreeSet<u64>, StoreError> {
        self.core.index.read()?.segments_named()
    }

    /// Whether bytes of streams are in an object store only.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has_objects(&self) -> Result<bool, StoreError> {
        let all = self.core.index.segments_after(None, usize::MAX)?;
        Ok(all.iter().any(|(_, record)| record.as_ref().is_ok_and(|r| !r.place.is_local())))
    }

    /// A page of the list of segments. Walks the index; to be called where that may take seconds.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list_segments(&self, query: &SegmentQuery) -> Result<SegmentPage, StoreError> {
        SegmentPage::read(&self.core.index, query)
    }

    /// What segments take, by place, in the order of [`SegmentPlace::ALL`].
    ///
    /// # Errors
    /// When the index cannot be read. A segment whose record is damaged counts nothing.
    pub fn segment_totals(&self) -> Result<[SegmentTotals; 3], StoreError> {
        self.core.index.segment_totals()
    }

    /// Reads what is in objects from there, from now on. Only the first call counts.
    pub fn read_objects_from(&self, place: ColdPlace) {
        let _ = self.core.cold.set(place);
    }

    /// Whether an object store is there to read from.
    pub(crate) fn reads_objects(&self) -> bool {
        self.core.cold.get().is_some()
    }

    /// The local file of a segment.
    pub fn segment_path(&self, number: u64) -> PathBuf {
        self.core.segments.path(number)
    }

    /// Whether the index has a segment of this number.
    ///
    /// # Errors
    /// When the index cannot be read. A damaged record is one.
    pub fn has_segment(&self, number: u64) -> Result<bool, StoreError> {
        match self.core.index.read()?.segment(number) {
            Err(StoreError::Corrupt { .. }) => Ok(true),
            found => Ok(found?.is_some()),
        }
    }

    /// Whether the index has noted the object of a segment.
    ///
    /// # Errors
    /// When the index cannot be read, or the segment's record is damaged.
    pub fn is_object(&self, number: u64) -> Result<bool, StoreError> {
        let record = self.core.index.read()?.segment(number)?;
        Ok(record.is_some_and(|record| record.place != SegmentPlace::Local))
    }

    /// The bytes of a segment's local file, in parts, each of which was compared with its checksums after it was read; `None`
    /// when there is no such file any more.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file is damaged, or is another one; [`StoreError::Io`].
    pub fn segment_file(&self, number: u64) -> Result<Option<Vec<Bytes>>, StoreError> {
        let core = &*self.core;
        let record = || {
            let record = core.index.read()?.segment(number)?;
            Ok::<_, StoreError>(record.filter(|record| record.place.is_local()))
        };
        let Some(found) = record()? else { return Ok(None) };
        match read_whole(core.segments.disk(), &core.segments.path(number), number, &found) {
            Ok(parts) => Ok(Some(parts)),
            // It was removed since its record was read.
            Err(_) if record()?.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of the local file of a segment that an [`IndexCopy`] holds, also when no stream has bytes of it any more.
    ///
    /// # Errors
    /// As for [`segment_file`](Self::segment_file).
    pub fn held_segment_file(&self, segment: &SegmentInfo) -> Result<Vec<Bytes>, StoreError> {
        let files = &self.core.segments;
        read_whole(files.disk(), &files.path(segment.number), segment.number, &segment.record())
    }

    /// Notes that a segment's object is there and verified. Returns whether there still is such a segment; its object is of
    /// no use otherwise.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`]; the index may or may not have it then.
    pub fn note_object(&self, number: u64) -> Result<bool, StoreError> {
        let places = (SegmentPlace::Local, SegmentPlace::Both);
        let core = &*self.core;
        let was = core.index.move_segment(&|| core.disk.before_index_commit(), number, places)?;
        Ok(was.is_some())
    }

    /// Removes the local file of a segment whose object is there. Returns whether there was such a segment.
    ///
    /// The index notes it first: a crash behind that leaves a file, which the next start removes. The other way round it
    /// would leave a segment whose file is missing.
    ///
    /// # Errors
    /// As for [`note_object`](Self::note_object).
    pub fn drop_local(&self, number: u64) -> Result<bool, StoreError> {
        let places = (SegmentPlace::Both, SegmentPlace::Object);
        let core = &*self.core;
        let was = core.index.move_segment(&|| core.disk.before_index_commit(), number, places)?;
        let moved = was == Some(SegmentPlace::Both);
        if moved {
            core.segments.remove_local(&[number]);
        }
        Ok(moved)
    }

    /// Notes that the object of a segment is not there, so that its local file is uploaded again.
    ///
    /// # Errors
    /// As for [`note_object`](Self::note_object).
    pub fn note_lost_object(&self, number: u64) -> Result<(), StoreError> {
        let places = (SegmentPlace::Both, SegmentPlace::Local);
        let core = &*self.core;
        core.index.move_segment(&|| core.disk.before_index_commit(), number, places).map(drop)
    }

    /// The first segments that are objects only and are to be rewritten, at most `max`; none where nothing is sealed.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn sparse_objects(&self, max: usize) -> Result<Vec<SegmentInfo>, StoreError> {
        let core = &*self.core;
        if self.sealer.options().is_none() {
            return Ok(Vec::new());
        }
        let now = (core.options.clock.0)();
        let all = self.segments_after(None, usize::MAX)?.into_iter();
        let sparse = all.filter(|info| !info.place.is_local() && info.is_to_be_rewritten(now));
        Ok(sparse.take(max).collect())
    }

    /// Writes the local file of a segment again, from the bytes of its object. The sealer then rewrites what is live of it.
    /// Returns whether there is such a segment without a file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes are not those of the segment; else as for [`note_object`](Self::note_object).
    pub fn bring_back(&self, number: u64, parts: &[Bytes]) -> Result<bool, StoreError> {
        self.sealer.bring_back(number, parts)
    }

    /// Moves what is live of a local segment to another number, because the object store has other bytes under its name: an
    /// object is never replaced, since a deletion whose answer was lost may take effect later. The old number is freed.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`] and [`StoreError::Corrupt`].
    pub fn renew_segment(&self, number: u64) -> Result<(), StoreError> {
        self.sealer.renew(number)
    }

    /// Whether segments are kept for a backup that copies them, or for a copy of the index that has just begun.
    pub fn holds_segments(&self) -> bool {
        self.core.segments.is_held()
    }

    /// Numbers new segments from this one on, at least: those below may be the names of objects that another server has made,
    /// which went on from a copy of this directory.
    pub fn number_segments_from(&self, first: u64) {
        self.core.segments.note_number(first.saturating_sub(1));
    }

    /// The last event that is durable.
    pub fn last_event(&self) -> u64 {
        self.core.memtable.lsn()
    }

    /// Folds everything that is durable now into the index and copies the index into a file in the data directory. Appends
    /// and reads go on; nothing is sealed meanwhile, and no local file of a segment removed. Afterwards the files of those
    /// that are no objects stay until the copy [releases](IndexCopy::release) them or is dropped. The copy ends with an
    /// error once `wanted` returns false.
    ///
    /// # Errors
    /// [`StoreError::Room`], [`StoreError::Full`] and [`StoreError::Io`].
    pub fn copy_index_for_objects(
        &self,
        wanted: &dyn Fn() -> bool,
    ) -> Result<IndexCopy, StoreError> {
        let index = &self.core.index;
        let path = index.path().with_file_name(COPY);
        check_room(index, path.parent().unwrap_or(&path))?;
        match RealDisk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path)(error));
            }
            _ => {}
        }
        let file = RealDisk::create_file(&path).map_err(io_error("create", &path))?;
        #[cfg(unix)]
        RealDisk.remove(&path).map_err(io_error("remove", &path))?;
        self.checkpoint()?;
        let mut held = self.hold_segments();
        // A segment that the copy references is in the list: none is handed over between the two.
        let sealing = self.sealer.pause();
        let event = index.read()?.meta()?.lsn;
        let (mut segments, mut segment_bytes, mut local) = (0, 0, Vec::new());
        let mut after = None;
        loop {
            let step = self.segments_after(after, STEP)?;
            let Some(last) = step.last() else { break };
            after = Some(last.number);
            segments += step.len() as u64;
            segment_bytes += step.iter().map(|segment| segment.file_len).sum::<u64>();
            local.extend(step.into_iter().filter(|segment| segment.place == SegmentPlace::Local));
        }
        index.copy_into(&file, &path, wanted)?;
        drop(sealing);
        held.narrow(local.iter().map(|segment| segment.number).collect());
        let bytes = file.metadata().map_err(io_error("look at", &path))?.len();
        Ok(IndexCopy { file, bytes, event, segments, segment_bytes, local, held })
    }

    /// Segments that no stream has bytes of any more, since the last call: their objects may go, if they have any.
    pub fn freed_segments(&self) -> Vec<u64> {
        self.core.segments.take_freed()
    }
}
