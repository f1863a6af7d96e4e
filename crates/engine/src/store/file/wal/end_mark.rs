//! The end mark: how far the log was durable at the last checkpoint or clean stop. Format: docs/storage.md, "End mark".
//!
//! Without it, damage in the last batch that was synced could not be told from a batch that a crash has torn.
//!
//! Invariant: a mark is written after the sync of what it names, so whatever a mark says was durable once.

use std::path::Path;

use super::Lsn;
use crate::store::{
    StoreError,
    file::{
        disk::Disk,
        error::{corrupt, io_error},
    },
};

/// The file beside the segments.
pub(in crate::store::file) const NAME: &str = "end";
const MAGIC: [u8; 8] = *b"DSend\0\0\x01";
const SIZE: usize = 32;
/// Two marks, written in turn, so that a torn write leaves one; on pages of their own.
const SLOTS: [u64; 2] = [0, 4096];

/// The end of the durable log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store::file) struct EndMark {
    /// Every event below was durable.
    pub(in crate::store::file) next: Lsn,
    /// The segment that was written then.
    pub(in crate::store::file) segment: u64,
    /// The checksum of the last event's frame; 0 when it is not known.
    pub(in crate::store::file) crc: u32,
}

impl EndMark {
    fn encode(&self) -> [u8; SIZE] {
        let mut out = [0; SIZE];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.next.to_le_bytes());
        out[16..24].copy_from_slice(&self.segment.to_le_bytes());
        out[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let crc = u32::from_le_bytes(bytes.get(24..28)?.try_into().ok()?);
        let mark = EndMark { next: u64_at(8)?, segment: u64_at(16)?, crc };
        (bytes == mark.encode()).then_some(mark)
    }

    /// The newest mark in a log's directory; `None` when there is none, as in format 1 and in a new log.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file has no whole mark; [`StoreError::Io`].
    pub(in crate::store::file) fn read(
        disk: &dyn Disk,
        dir: &Path,
    ) -> Result<Option<Self>, StoreError> {
        let path = dir.join(NAME);
        let bytes = match disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(io_error("read", &path))?,
        };
        let newest = marks(&bytes).into_iter().flatten().max_by_key(|mark| mark.next);
        // A file of zeros is one whose first mark was not written any more.
        if newest.is_none() && bytes.iter().any(|byte| *byte != 0) {
            let found = "the mark of the log's end is damaged; the next checkpoint writes it again";
            return Err(corrupt(&path, 0, found));
        }
        Ok(newest)
    }

    /// Writes the mark durably, in the place of the older one.
    pub(in crate::store::file) fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
    ) -> Result<(), StoreError> {
        let path = dir.join(NAME);
        let write = || {
            let known = disk.read(&path);
            let file = disk.open(&path, true)?;
            let [first, second] = marks(known.as_deref().unwrap_or_default());
            let older = usize::from(first.map(|mark| mark.next) > second.map(|mark| mark.next));
            file.write_at(SLOTS[older], &self.encode())?;
            file.sync()?;
            if known.is_err() { disk.sync_dir(dir) } else { Ok(()) }
        };
        write().map_err(io_error("write", &path))
    }

    /// Removes the marks of a log that `repair` has cut.
    pub(in crate::store::file) fn remove(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(NAME);
        match disk.remove(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(io_error("remove", &path)),
        }
    }
}

fn marks(bytes: &[u8]) -> [Option<EndMark>; 2] {
    SLOTS.map(|slot| EndMark::decode(bytes.get(slot as usize..slot as usize + SIZE)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::disk::RealDisk;

    #[test]
    fn the_newest_whole_mark_counts() {
        let dir = tempfile::tempdir().unwrap();
        let read = || EndMark::read(&RealDisk, dir.path());
        assert_eq!(read().unwrap(), None);
        let mark = |next| EndMark { next, segment: 3, crc: 7 };
        for next in 1..6 {
            mark(next).write(&RealDisk, dir.path()).unwrap();
            assert_eq!(read().unwrap(), Some(mark(next)));
        }
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..SIZE).chain(4096..4096 + SIZE) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            // The fifth mark is in the first place.
            assert_eq!(read().unwrap(), Some(mark(if at < SIZE { 4 } else { 5 })), "byte {at}");
            flipped[(at + 4096) % 8192] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(read(), Err(StoreError::Corrupt { .. })), "byte {at}");
        }
        EndMark::remove(&RealDisk, dir.path()).unwrap();
        EndMark::remove(&RealDisk, dir.path()).unwrap();
        assert_eq!(read().unwrap(), None);
    }
}
