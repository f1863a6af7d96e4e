//! Operations on a data directory that no server has open, and backups of a serving store.
//!
//! | module | what it is |
//! |---|---|
//! | here | progress of an operation; what a directory holds |
//! | `backup` | backup from files or from a serving store; restore |
//! | `from_objects` | a data directory from an index copy and objects |
//! | `verify` | every checksum, and how records fit together |
//! | `compact` | the index without its free pages |
//! | `repair` | dropping the log's events after damage |
//! | `segments` | sealed segments: listing, checking and copying them |
//! | `repair_index` | dropping what is damaged in the index |

mod backup;
mod compact;
mod from_objects;
mod repair;
mod repair_index;
mod segments;
mod verify;

use std::{path::Path, sync::mpsc, thread, time::Duration};

pub use backup::{BackupContents, backup, backup_with, restore};
pub use compact::{CompactedIndex, compact};
pub use from_objects::IndexFromObjects;
pub use repair::{LogDamage, LostEvents, repair};
pub use repair_index::{repair_index, repair_index_with};
pub use segments::{SegmentRange, StoppedSegments};
pub use verify::{VerifyReport, verify, verify_with};

use super::{
    FileStoreOptions,
    disk::{Disk, File, RealDisk},
    index::handle::IndexHandle,
    layout::Layout,
};
pub use crate::store::file::index::leave_out::LeftOut;
pub use crate::store::file::index::repair::{IndexDamage, LostPart, LostRecords};
use crate::store::{
    StoreError,
    file::error::{corrupt, io_error},
};

/// A data directory that no server and no other command can open until this is dropped.
pub struct HeldDirectory {
    _layout: Layout,
}

impl HeldDirectory {
    /// Locks a directory, and makes it a data directory if it is empty or missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when it is in use, [`StoreError::Format`] when it is something else; [`StoreError::Io`].
    pub fn lock(dir: &Path) -> Result<Self, StoreError> {
        Ok(HeldDirectory { _layout: Layout::open(&RealDisk, dir)? })
    }
}

/// What a data directory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedTotals {
    /// Streams in the index.
    pub streams: u64,
    /// Chunks of bytes, each with its checksum.
    pub chunks: u64,
    /// Payload bytes in the index and in sealed segments.
    pub bytes: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Segments that are in an object store only, and their bytes.
    pub objects: u64,
    /// Bytes of those segments.
    pub object_bytes: u64,
    /// Events in the log that the index does not have.
    pub events: u64,
    /// LSN of the last event, in index or log.
    pub lsn: u64,
}

/// The progress of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationStep {
    /// The current part of the operation.
    pub what: OperationPhase,
    /// Work done, in the unit of the phase.
    pub done: u64,
    /// All work of the phase, roughly; 0 when unknown.
    pub total: u64,
}

/// The parts of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationPhase {
    /// Copying the index; counts bytes.
    Copying,
    /// Checking the index; counts records.
    Checking,
    /// Reading the log; counts events.
    Reading,
    /// Removing the data of deleted streams; counts transactions, without a total.
    Purging,
}

/// Receives the progress of an operation.
pub type OnProgress<'p> = dyn FnMut(OperationStep) + 'p;

/// Room beside the pages of an index that is written a second time, bytes.
const ROOM_BESIDE: u64 = 1 << 20;
/// How often a copy reports progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Opens an index that must exist; LMDB would create an empty one.
fn open_index(layout: &Layout, options: &FileStoreOptions) -> Result<IndexHandle, StoreError> {
    open_index_as(layout, options, false)
}

/// Opens an index of which, if `damaged` is set, pages may be damaged.
fn open_index_as(
    layout: &Layout,
    options: &FileStoreOptions,
    damaged: bool,
) -> Result<IndexHandle, StoreError> {
    let path = layout.index.join("data.mdb");
    match RealDisk.open(&path, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(corrupt(&path, 0, "the index is gone; restore a backup"))
        }
        Err(error) => Err(io_error("open", &path)(error)),
        Ok(_) if damaged => IndexHandle::open_damaged(&layout.index, options.map_size),
        Ok(_) => IndexHandle::open(&layout.index, options.map_size),
    }
}

/// Checks that the disk has room for a second index beside the first.
///
/// # Errors
/// [`StoreError::Room`].
pub(super) fn check_room(index: &IndexHandle, dir: &Path) -> Result<(), StoreError> {
    // The pages of the copy, and those that completing and checking it may take.
    let needed = index.used_size()?.saturating_add(ROOM_BESIDE);
    match RealDisk.room(dir) {
        Some(room) if room < needed => Err(StoreError::Room { path: dir.to_owned(), needed, room }),
        _ => Ok(()),
    }
}

/// Copies the index into an empty file, and reports progress meanwhile.
fn copy_index(
    index: &IndexHandle,
    file: &File,
    path: &Path,
    progress: &mut OnProgress<'_>,
) -> Result<(), StoreError> {
    let total = index.used_size()?;
    thread::scope(|scope| {
        let (done, copied) = mpsc::channel();
        scope.spawn(move || done.send(index.copy_into(file, path, &|| true)));
        loop {
            match copied.recv_timeout(REPORT_EVERY) {
                Ok(copied) => return copied,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let done = file.metadata().map_or(0, |metadata| metadata.len());
                    progress(OperationStep { what: OperationPhase::Copying, done, total });
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(io_error("copy", path)(std::io::Error::other(
                        "the copying thread panicked",
                    )));
                }
            }
        }
    })
}
