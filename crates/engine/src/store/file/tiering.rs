//! What moves segments between the local disk and an object store needs of the file store.

use std::path::PathBuf;

use super::{
    FileStore,
    segments::objects::{ColdPlace, SegmentInfo, SegmentPlace},
};
use crate::store::StoreError;

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

    /// Reads what is in objects from there, from now on. Only the first call counts.
    pub fn read_objects_from(&self, place: ColdPlace) {
        let _ = self.core.cold.set(place);
    }

    /// The local file of a segment.
    pub fn segment_path(&self, number: u64) -> PathBuf {
        self.core.segments.path(number)
    }

    /// Notes that a segment's object is there and verified. Returns whether there still is such a segment; its object is of
    /// no use otherwise.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`]; the index may or may not have it then.
    pub fn note_object(&self, number: u64) -> Result<bool, StoreError> {
        let places = (SegmentPlace::Local, SegmentPlace::Both);
        let core = &*self.core;
        core.index.move_segment(&|| core.disk.before_index_commit(), number, places)
    }

    /// Removes the local file of a segment whose object is there. Returns whether there was such a segment.
    ///
    /// # Errors
    /// As for [`note_object`](Self::note_object).
    pub fn drop_local(&self, number: u64) -> Result<bool, StoreError> {
        let places = (SegmentPlace::Both, SegmentPlace::Object);
        let core = &*self.core;
        let moved = core.index.move_segment(&|| core.disk.before_index_commit(), number, places)?;
        if moved {
            core.segments.remove_local(&[number]);
        }
        Ok(moved)
    }

    /// Segments that no stream has bytes of any more, since the last call: their objects may go, if they have any.
    pub fn freed_segments(&self) -> Vec<u64> {
        self.core.segments.take_freed()
    }
}
