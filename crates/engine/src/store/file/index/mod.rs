//! The index: LMDB, the home of every stream. Written by checkpoints only. See docs/storage.md, "The index".

pub(super) mod checkpoint;
mod env;
pub(super) mod gate;
pub(super) mod keys;
pub(super) mod paths;
pub(super) mod records;
pub(super) mod streams;
pub(super) mod verify;
