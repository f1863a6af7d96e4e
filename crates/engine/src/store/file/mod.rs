//! The store on disk: a write-ahead log with group commit in front of LMDB.
//!
//! An append costs its share of one sequential write and one sync. Checkpoints fold the log into the index
//! in the background. Memory follows what is active; opening costs the log since the last checkpoint.
//! Format and recovery: docs/storage.md.
//!
//! | module | what it is |
//! |---|---|
//! | `layout`, `disk`, `disk_limit` | the directory; the disk, as tests may replace it; a limit on its use |
//! | `commit_queue`, `queued_commit`, `writer`, `wal` | group commit; commits that wait, alone or in pairs; the writer's thread; the log |
//! | `places` | whether a log's events join the index |
//! | `memtable`, `append_ends` | events that the index does not have yet; cached tails; where appends end in them |
//! | `checkpointer`, `index` | the checkpointer's thread; LMDB |
//! | `scrubber` | the thread that looks for damage in the index |
//! | `sealer` | the thread that moves bytes from the index into sealed segments |
//! | `segments` | sealed segments: immutable files with bytes that have left the index |
//! | `tiering` | what moves segments to an object store needs of the store |
//! | `snapshot`, `read_pool` | reads over index and memtable; the threads that run them |
//! | `map_fault` | what a process says that cannot read the index |
//! | `file_store`, `core` | the store; what its parts share |
//! | `offline`, `destination` | verify, back up, restore, compact, repair; unfinished data directories |

mod append_ends;
mod checkpointer;
mod commit_queue;
mod core;
mod destination;
pub mod disk;
mod disk_limit;
mod error;
mod file_store;
mod index;
mod layout;
mod map_fault;
mod memtable;
pub mod offline;
mod options;
mod places;
mod queued_commit;
mod read_pool;
mod scrubber;
mod sealer;
pub mod segments;
mod snapshot;
mod stats;
mod tiering;
mod wal;
mod writer;

pub use destination::Destination;
pub use file_store::FileStore;
pub use layout::{FORMAT, TIER_IDENTITY, keys_dir};
pub use map_fault::{MAP_FAULT_EXIT, report_map_faults, report_map_faults_as_json};
pub use options::{Durability, FileStoreOptions, SegmentOptions, WallClock};
pub use segments::held::SegmentHold;
pub use tiering::IndexCopy;
