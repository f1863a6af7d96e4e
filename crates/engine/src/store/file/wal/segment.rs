//! Segments: the files of the log. Format: docs/storage.md, "Segment".
//!
//! Invariants
//! - A file with a segment's name has a whole, synced header: it is written under the name [`SPARE`] and renamed after the
//!   sync. So a wrong header is damage, never the result of a crash.
//! - A segment holds the events from its `first` up to the next segment's `first`; later frames are left over from a
//!   failed write and are not part of the log.

use std::path::{Path, PathBuf};

use super::Lsn;
use crate::store::{
    StoreError,
    file::{
        disk::{Disk, DiskFile},
        error::{corrupt, io_error},
    },
};

/// Bytes before the first frame.
pub(in crate::store::file) const HEADER: u64 = 32;
const MAGIC: [u8; 8] = *b"DSlog\0\0\x01";
/// The file that becomes the next segment.
pub(in crate::store::file) const SPARE: &str = "spare";

/// The file name of a segment.
pub(in crate::store::file) fn file_name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// The segments in a directory, in order.
pub(in crate::store::file) fn numbers_in(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Vec<u64>, StoreError> {
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The segment that a file name names.
pub(in crate::store::file) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// An open segment.
pub(in crate::store::file) struct WalSegment {
    pub(in crate::store::file) number: u64,
    /// The first event that may be in it.
    pub(in crate::store::file) first: Lsn,
    pub(in crate::store::file) path: PathBuf,
    pub(in crate::store::file) file: Box<dyn DiskFile>,
    /// Bytes reserved on disk.
    pub(in crate::store::file) allocated: u64,
}

pub(in crate::store::file) fn header(number: u64, first: Lsn) -> [u8; HEADER as usize] {
    let mut out = [0; HEADER as usize];
    out[..8].copy_from_slice(&MAGIC);
    out[8..16].copy_from_slice(&number.to_le_bytes());
    out[16..24].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

impl WalSegment {
    /// Opens a segment and checks its header.
    pub(in crate::store::file) fn open(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
    ) -> Result<Self, StoreError> {
        let path = dir.join(file_name(number));
        let file = disk.open(&path, false).map_err(io_error("open", &path))?;
        let mut head = [0; HEADER as usize];
        file.read_at(0, &mut head).map_err(io_error("read", &path))?;
        let mut word = [0; 8];
        word.copy_from_slice(&head[16..24]);
        let first = Lsn::from_le_bytes(word);
        if head[..8] != MAGIC {
            return Err(corrupt(&path, 0, "this is not a log segment of this version"));
        }
        if head != header(number, first) {
            return Err(corrupt(&path, 8, "the segment's header is damaged"));
        }
        let allocated = file.len().map_err(io_error("look at", &path))?;
        Ok(WalSegment { number, first, path, file, allocated })
    }

    /// Makes the spare file the segment `number`, durably. Every event before `first` must be durable already.
    ///
    /// An error is only final when [`DirUnsure`](CreateError::DirUnsure): otherwise nothing happened.
    pub(in crate::store::file) fn create(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        first: Lsn,
        size: u64,
    ) -> Result<Self, CreateError> {
        let spare = dir.join(SPARE);
        let path = dir.join(file_name(number));
        let fill = || -> std::io::Result<(Box<dyn DiskFile>, u64)> {
            let file = disk.open(&spare, true)?;
            file.allocate(size)?;
            file.write_at(0, &header(number, first))?;
            file.sync()?;
            let allocated = file.len()?;
            Ok((file, allocated))
        };
        let (file, allocated) = match fill() {
            Ok(filled) => filled,
            Err(error) => {
                // Its contents are unknown now; the next try begins with a new file.
                let _ = disk.remove(&spare);
                return Err(CreateError::Nothing(io_error("prepare", &path)(error)));
            }
        };
        disk.rename(&spare, &path)
            .map_err(|e| CreateError::Nothing(io_error("create", &path)(e)))?;
        disk.sync_dir(dir).map_err(|e| CreateError::DirUnsure(io_error("sync", dir)(e)))?;
        Ok(WalSegment { number, first, path, file, allocated })
    }
}

pub(in crate::store::file) enum CreateError {
    /// There is no new segment; a later try may work.
    Nothing(StoreError),
    /// It is unknown whether there is a new segment after a crash.
    DirUnsure(StoreError),
}

/// Creates an empty log whose first event is `first`; segment `number` must not have been used.
pub(in crate::store::file) fn begin_log(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    first: Lsn,
) -> Result<(), StoreError> {
    match WalSegment::create(disk, dir, number, first, HEADER) {
        Ok(_) => Ok(()),
        Err(CreateError::Nothing(error) | CreateError::DirUnsure(error)) => Err(error),
    }
}

/// Prepares the spare file, so that the next segment costs little. Errors are left to [`WalSegment::create`].
pub(in crate::store::file) fn prepare_spare(disk: &dyn Disk, dir: &Path, size: u64) {
    let spare = dir.join(SPARE);
    let filled = disk.open(&spare, true).and_then(|file| {
        let len = file.len()?;
        let missing = size.saturating_sub(len);
        // Without enough room, a try would take what little is left from other writers for a moment.
        if disk.room(dir).is_some_and(|room| room < missing) {
            return Ok(false);
        }
        if missing > 0 {
            file.allocate(size)?;
            file.sync()?;
        }
        // One oversized event must not keep its room for ever.
        Ok(len <= size.saturating_mul(2))
    });
    if !matches!(filled, Ok(true)) {
        let _ = disk.remove(&spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_twenty_digits_are_a_number() {
        assert_eq!(number_of(&file_name(7)), Some(7));
        assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
        for other in [
            "7.wal",
            "0000000000000000000a.wal",
            "+0000000000000000007.wal",
            "000000000000000000007.wal",
            "00000000000000000007.seg",
            "99999999999999999999.wal",
        ] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
