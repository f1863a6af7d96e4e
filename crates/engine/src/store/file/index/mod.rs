//! The index: LMDB, which holds every stream up to the last checkpoint. See docs/storage.md, "The index".

mod appends;
mod backoff;
pub(super) mod checkpoint;
mod counts;
pub(super) mod dropped;
mod env;
pub(super) mod extents;
pub(super) mod handle;
pub(super) mod keys;
pub(super) mod leave_out;
mod migrate;
mod pages;
pub(super) mod paths;
mod producers;
pub(super) mod records;
pub(super) mod repair;
pub(super) mod scrub;
pub(super) mod streams;
#[cfg(test)]
pub(in crate::store::file) mod tests;
pub(super) mod verify;
