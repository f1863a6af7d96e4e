//! Sealed segments: immutable files with bytes that have left the index. Format: docs/storage.md, "Sealed segments".
//!
//! | module | what it is |
//! |---|---|
//! | `format` | a segment file as bytes: writing, parsing, checking; no I/O |
//! | `files`, `reads`, `check`, `draft`, `rewrite` | the files of a data directory: reading, checking, writing them |
//! | `held` | files that stay while a backup or a copy of the index needs them |
//! | `cold`, `objects` | what the store needs of an object store; segments that are there |
//! | `object_files` | such segments as files, for commands |
//! | `catalog` | the list of all segments, with the streams that have bytes in them |

pub mod catalog;
pub(super) mod check;
pub mod cold;
pub(super) mod direct;
pub(super) mod draft;
pub(super) mod files;
pub mod format;
pub(super) mod held;
pub mod object_files;
pub mod objects;
mod reads;
pub(super) mod rewrite;
