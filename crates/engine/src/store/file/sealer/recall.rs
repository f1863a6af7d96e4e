//! A segment that is an object only is brought back to the disk, so that what is live of it can be rewritten.

use bytes::Bytes;

use super::{ROOM, Sealer};
use crate::store::{
    StoreError,
    file::{
        core::StoreCore,
        error::{corrupt, io_error},
        index::extents::SegmentRecord,
        segments::{check::check_file, objects::SegmentPlace},
    },
};

impl Sealer {
    /// Writes the file of a segment again, from the bytes of its object, and notes that it is there. Returns whether there
    /// is such a segment without a file.
    ///
    /// No walk goes on meanwhile: its sweep would take the file for one that a crash has left.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes are others, [`StoreError::Full`] when the disk has no room for a few segments,
    /// [`StoreError::Io`]. The segment stays an object then, unless the error was the commit's.
    pub(in crate::store::file) fn bring_back(
        &self,
        number: u64,
        parts: &[Bytes],
    ) -> Result<bool, StoreError> {
        let _one = self.one_at_a_time.lock();
        let core = &*self.core;
        let record = core.index.read()?.segment(number)?;
        let Some(record) = record.filter(|record| record.place == SegmentPlace::Object) else {
            return Ok(false);
        };
        let room = core.disk.room(core.segments.dir());
        if room.is_some_and(|room| room < record.file_len.saturating_mul(ROOM)) {
            return Err(StoreError::Full { path: core.segments.dir().to_owned() });
        }
        // Its removal may wait for the end of a hold.
        core.segments.need_again(number);
        if let Err(error) = write(core, number, &record, parts) {
            let _ = core.disk.remove(&core.segments.new_path(number));
            core.segments.remove_local(&[number]);
            return Err(error);
        }
        let places = (SegmentPlace::Object, SegmentPlace::Both);
        let moved = core.index.move_segment(&|| core.disk.before_index_commit(), number, places);
        if moved.is_err() {
            // The failed commit may have been made.
            let _ = self.sweep();
        }
        let moved = moved? == Some(SegmentPlace::Object);
        if !moved {
            core.segments.remove_local(&[number]);
        }
        Ok(moved)
    }
}

/// Writes the file aside, syncs and checks it, and puts it durably under its name.
fn write(
    core: &StoreCore,
    number: u64,
    record: &SegmentRecord,
    parts: &[Bytes],
) -> Result<(), StoreError> {
    let (disk, segments) = (&*core.disk, &*core.segments);
    let (aside, path) = (segments.new_path(number), segments.path(number));
    let file = disk.open(&aside, true).map_err(io_error("create", &aside))?;
    let mut at = 0;
    for part in parts {
        file.write_at(at, part).map_err(io_error("write", &aside))?;
        at += part.len() as u64;
    }
    if at != record.file_len {
        return Err(corrupt(&aside, at, "the object has another size than the index says"));
    }
    file.sync().map_err(io_error("sync", &aside))?;
    check_file(disk, &aside, number, record)?;
    disk.rename(&aside, &path).map_err(io_error("rename", &aside))?;
    disk.sync_dir(segments.dir()).map_err(io_error("sync", segments.dir()))
}
