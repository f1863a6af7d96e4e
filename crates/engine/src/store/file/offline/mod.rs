//! What operators do with a data directory that no server has open, and backups of one that does.
//!
//! | module | what it is |
//! |---|---|
//! | here | how far an operation is, and what a directory holds |
//! | `backup` | backup, from files or from a serving store; restore |
//! | `verify` | every checksum, and how records fit together |
//! | `compact` | the index without its free pages |
//! | `repair` | dropping what comes after damage in the log |

mod backup;
mod compact;
mod repair;
mod verify;

use std::{path::Path, sync::mpsc, thread, time::Duration};

pub use backup::{backup, restore};
pub use compact::{Compacted, compact};
pub use repair::{Damage, Lost, repair};
pub use verify::{Report, verify};

use super::{
    FileStoreOptions,
    disk::{Disk, File, RealDisk},
    index::gate::Index,
    layout::Layout,
};
use crate::store::{
    StoreError,
    file::error::{corrupt, io_error},
};

/// What a data directory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Streams in the index.
    pub streams: u64,
    /// Chunks of bytes, each with its checksum.
    pub chunks: u64,
    /// Payload bytes in the index.
    pub bytes: u64,
    /// Events in the log that the index does not have.
    pub events: u64,
    /// The number of the last event, in index or log.
    pub lsn: u64,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done.
    pub what: Phase,
    /// How much of it is done.
    pub done: u64,
    /// How much there is, roughly.
    pub total: u64,
}

/// The parts of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Copying the index; counts bytes.
    Copying,
    /// Checking the index; counts records.
    Checking,
    /// Reading the log; counts events.
    Reading,
    /// Removing what deleted streams left; counts rounds, with no total.
    Purging,
}

/// Gets each [`Step`].
pub type Progress<'p> = dyn FnMut(Step) + 'p;

/// How often a copy is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Opens an index that must be there: LMDB would make an empty one.
fn open_index(layout: &Layout, options: &FileStoreOptions) -> Result<Index, StoreError> {
    let path = layout.index.join("data.mdb");
    match RealDisk.open(&path, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(corrupt(&path, 0, "the index is gone; restore a backup"))
        }
        Err(error) => Err(io_error("open", &path)(error)),
        Ok(_) => Index::open(&layout.index, options.map_size),
    }
}

/// Copies the index into an empty file, and says how far it is meanwhile.
fn copy_index(
    index: &Index,
    file: &File,
    path: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), StoreError> {
    let total = index.live_size()?;
    thread::scope(|scope| {
        let (done, copied) = mpsc::channel();
        scope.spawn(move || done.send(index.copy_into(file, path)));
        loop {
            match copied.recv_timeout(LOOK) {
                Ok(copied) => return copied,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let done = file.metadata().map_or(0, |metadata| metadata.len());
                    progress(Step { what: Phase::Copying, done, total });
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
