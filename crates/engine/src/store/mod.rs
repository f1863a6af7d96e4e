//! Stores: they make events durable in order and give bytes back. They know no protocol rule.
//!
//! # Contract
//! - Events of one stream become durable in the order in which they were committed, all of an event or
//!   none of it.
//! - [`AnyStore::commit`] queues and returns; [`CommitSink::committed`] is called once the event, and every
//!   event before it, is durable. Neither blocks on I/O, and no lock of the caller is taken by `commit`.
//! - [`AnyStore::load`], [`AnyStore::read`], [`AnyStore::due`] and [`AnyStore::list`] show durable state
//!   only, and all durable state from the moment its sink was called.
//! - When events are lost to an error (a full disk), the log epoch moves on: every queued event fails, and
//!   a commit with an older epoch is refused as [`StoreError::Superseded`]. So no event can become durable
//!   whose predecessor did not. The caller reloads the stream and decides again.
//! - After a failed sync nothing is accepted again ([`StoreError::Poisoned`]); reads go on.
//! - A deleted stream's bytes stay readable until readers that began before are done or notice; its path is
//!   free at once.

pub mod file;
mod memory;
mod shrink;

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;

pub use file::{FileStore, FileStoreOptions, FileStoreStats};
pub use memory::MemoryStore;
pub(crate) use shrink::ShrinkSparse;

use crate::counters::HistogramSnapshot;
use durable_streams_protocol::{Offset, StreamEvent, StreamId, StreamPath, StreamState, Timestamp};

/// Counts the times that queued events were lost. A commit carries the epoch under which its stream's state
/// was loaded or last known to be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEpoch(pub u64);

/// One event to make durable.
pub struct Commit {
    /// The stream. For `Created`, an id from [`AnyStore::next_id`].
    pub id: StreamId,
    /// What happened.
    pub event: StreamEvent,
    /// See [`LogEpoch`].
    pub epoch: LogEpoch,
    /// The caller's number for this event; given back to the sink.
    pub version: u64,
    /// Who is told.
    pub sink: Arc<dyn CommitSink>,
}

/// Hears what became of commits, on a thread of the store. Must not block.
pub trait CommitSink: Send + Sync {
    /// The event with this version, and all before it, are durable.
    fn committed(&self, version: u64);
    /// The event with this version is lost; so is everything decided on top of it.
    fn failed(&self, version: u64, error: StoreError);
}

/// What `commit` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Durable already; the sink is not called.
    Now,
    /// Queued; the sink will be called.
    Queued,
}

/// What a stream is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its state is all that is needed.
    Look,
    /// Its bytes will be asked for next.
    Read,
}

/// A stream as stored.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its state.
    pub state: StreamState,
    /// Streams whose `Created` event names this one as source and that are not deleted.
    pub forks: Vec<StreamId>,
}

/// What a store holds, for limits and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Streams, soft-deleted ones included.
    pub streams: u64,
    /// Payload bytes of those streams.
    pub bytes: u64,
}

/// How a store on disk is doing, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Counts.
    pub files: FileStoreStats,
    /// Events per write to the log.
    pub batches: HistogramSnapshot,
    /// Nanoseconds per sync of the log.
    pub syncs: HistogramSnapshot,
}

/// Trouble of ours, as opposed to a client's mistake.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Decided on state that was lost; load the stream again.
    #[error("the state this was decided on was lost")]
    Superseded,
    /// No room. Appends may work again when there is.
    #[error("no space left in {path}")]
    Full {
        /// Where.
        path: PathBuf,
    },
    /// An earlier failure leaves it unknown what is on disk; restart to recover.
    #[error("writes are refused since an earlier failure ({reason}); restart to recover")]
    Poisoned {
        /// What failed.
        reason: Arc<str>,
    },
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged{place}: {found}", place = at_byte(*.offset))]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where in it; 0 when it is the file as a whole, or not known.
        offset: u64,
        /// What is wrong.
        found: Arc<str>,
    },
    /// An operation failed.
    #[error("cannot {operation} {path}: {source}{advice}", advice = advice(.source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// Another process has the data directory.
    #[error("{path} is in use by another process{pid}; stop it, or choose another data directory", pid = named(*.holder))]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The process, as it knows itself: in a container that is not the number outside.
        holder: Option<u32>,
    },
    /// The data directory is not what this version reads and writes.
    #[error("{path} {found}")]
    Format {
        /// The data directory.
        path: PathBuf,
        /// What it is, and what to do.
        found: Arc<str>,
    },
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

fn at_byte(offset: u64) -> String {
    if offset == 0 { String::new() } else { format!(" at byte {offset}") }
}

fn named(holder: Option<u32>) -> String {
    holder.map_or(String::new(), |pid| format!(" (process {pid})"))
}

/// What to do about an error of the operating system, where its own words do not say.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; let the user of this process read and write there",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is mounted read-only: mount it for writing, or choose another directory"
        }
        _ => "",
    }
}

/// Any of the stores. A `match`, not a trait object: reads and commits are hot.
pub enum AnyStore {
    /// In memory; nothing survives the process.
    Memory(MemoryStore),
    /// On disk; what is acknowledged survives.
    File(FileStore),
}

impl AnyStore {
    /// An id that no stream has had.
    pub fn next_id(&self) -> StreamId {
        match self {
            AnyStore::Memory(store) => store.next_id(),
            AnyStore::File(store) => store.next_id(),
        }
    }

    /// The present log epoch.
    pub fn epoch(&self) -> LogEpoch {
        match self {
            AnyStore::Memory(_) => LogEpoch(0),
            AnyStore::File(store) => store.epoch(),
        }
    }

    /// The stream at a path, soft-deleted ones included.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    pub async fn load(
        &self,
        path: &StreamPath,
        purpose: Purpose,
    ) -> Result<Option<Loaded>, StoreError> {
        match self {
            AnyStore::Memory(store) => Ok(store.load(path)),
            AnyStore::File(store) => store.load(path, purpose).await,
        }
    }

    /// Queues an event. Commits of one stream are made durable in call order.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Poisoned`], [`StoreError::Closed`]; the event is not queued.
    pub fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        match self {
            AnyStore::Memory(store) => {
                store.commit(commit);
                Ok(Committed::Now)
            }
            AnyStore::File(store) => store.commit(commit).map(|()| Committed::Queued),
        }
    }

    /// Waits while more is committed than the store can put away; to be awaited before `commit`, without
    /// any lock. Returns at once almost always.
    pub async fn throttle(&self) {
        match self {
            AnyStore::Memory(_) => {}
            AnyStore::File(store) => store.throttle().await,
        }
    }

    /// Own bytes of stream `id` from `from`, at most to `to` and, once there are some, no more than `max`
    /// bytes in all: one or more whole pieces of memory, shared, not copied. Empty only when there are none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    pub async fn read(
        &self,
        id: StreamId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        match self {
            AnyStore::Memory(store) => Ok(store.read(id, from, to, max)),
            AnyStore::File(store) => store.read(id, from, to, max).await,
        }
    }

    /// Paths of streams whose stored deadline is not after `now`, of soft-deleted ones those without forks;
    /// at most `max`. The caller decides what to do with each.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    pub async fn due(&self, now: Timestamp, max: usize) -> Result<Vec<StreamPath>, StoreError> {
        match self {
            AnyStore::Memory(store) => Ok(store.due(now, max)),
            AnyStore::File(store) => store.due(now, max).await,
        }
    }

    /// Paths after `after` in byte order, soft-deleted streams included; at most `max`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Io`].
    pub async fn list(
        &self,
        after: Option<&StreamPath>,
        max: usize,
    ) -> Result<Vec<StreamPath>, StoreError> {
        match self {
            AnyStore::Memory(store) => Ok(store.list(after, max)),
            AnyStore::File(store) => store.list(after, max).await,
        }
    }

    /// Whether a commit could succeed now.
    ///
    /// # Errors
    /// Why not: [`StoreError::Full`], [`StoreError::Poisoned`], [`StoreError::Closed`].
    pub fn writable(&self) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(_) => Ok(()),
            AnyStore::File(store) => store.writable(),
        }
    }

    /// How log and index are doing; `None` for a store that has none.
    pub fn disk_stats(&self) -> Option<DiskStats> {
        match self {
            AnyStore::Memory(_) => None,
            AnyStore::File(store) => Some(store.disk_stats()),
        }
    }

    /// What the store holds.
    pub fn stats(&self) -> StoreStats {
        match self {
            AnyStore::Memory(store) => store.stats(),
            AnyStore::File(store) => store.stats(),
        }
    }

    /// Flushes what is queued and ends background work. Commits are refused from now on.
    pub async fn close(&self) {
        match self {
            AnyStore::Memory(_) => {}
            AnyStore::File(store) => store.close().await,
        }
    }
}
