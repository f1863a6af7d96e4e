//! What can be chosen about a file store. Nobody needs to.

use std::{path::PathBuf, time::Duration};

/// When an append counts as durable, and so is acknowledged and shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on stable storage. Survives everything that the disk survives.
    #[default]
    Fsync,
    /// Once the operating system has it; synced every so often. A crash of the process loses nothing, a
    /// power cut or a crash of the system may lose what was acknowledged in the last interval.
    Interval(Duration),
    /// Once the operating system has it; it decides when to write. A crash of the process loses nothing, a
    /// power cut or a crash of the system may lose what was acknowledged since the last checkpoint.
    Os,
}

/// The options of a file store.
#[derive(Clone, Debug)]
pub struct FileStoreOptions {
    /// The data directory; created when it is not there.
    pub dir: PathBuf,
    /// See [`Durability`].
    pub durability: Durability,
    /// Address space reserved for the index, bytes; grows by itself when it is not enough.
    pub map_size: usize,
    /// The longest time between two checkpoints when there is something to fold in.
    pub checkpoint_interval: Duration,
    /// Memory in use by events that are not in the index, bytes, at which a checkpoint begins at once; a quarter
    /// of it while few streams changed. At four times this, appends wait for it.
    pub checkpoint_size: usize,
    /// Size of a log segment, bytes, reserved when it is created.
    pub wal_segment: u64,
    /// Memory for bytes that are in the index and were written or read lately, bytes.
    pub cache: usize,
}

impl FileStoreOptions {
    /// The defaults, for a data directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        FileStoreOptions {
            dir: dir.into(),
            durability: Durability::Fsync,
            map_size: if cfg!(target_pointer_width = "64") { 1 << 40 } else { 1 << 30 },
            checkpoint_interval: Duration::from_secs(5),
            checkpoint_size: 64 << 20,
            wal_segment: 64 << 20,
            cache: 64 << 20,
        }
    }
}
