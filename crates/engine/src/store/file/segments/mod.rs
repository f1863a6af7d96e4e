//! Sealed segments: immutable files with bytes that have left the index. Format: docs/storage.md, "Sealed segments".
//!
//! | module | what it is |
//! |---|---|
//! | `format` | a segment file as bytes: writing, parsing, checking; no I/O |
//! | `cold` | what the store needs of an object store |

pub mod cold;
pub mod format;
