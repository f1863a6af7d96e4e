//! The index: LMDB, which holds every stream up to the last checkpoint. See docs/storage.md, "The index".

mod appends;
mod backoff;
pub(super) mod checkpoint;
mod env;
pub(super) mod handle;
pub(super) mod keys;
mod migrate;
pub(super) mod paths;
pub(super) mod records;
pub(super) mod streams;
pub(super) mod verify;
