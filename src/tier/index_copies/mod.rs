//! Copies of the index in the object store, from which a lost data directory is built again. Format: docs/storage.md.
//!
//! | module | what it is |
//! |---|---|
//! | `manifest` | what a copy is called, and what it says of itself |
//! | `kept` | which copies there are, and which objects wait for their end |
//! | `writer` | making one |
//! | `reader` | finding and fetching one, and taking the prefix over |

mod kept;
mod manifest;
mod reader;
mod writer;

pub(super) use kept::{KeptCopies, look};
pub use manifest::{CopyName, IndexManifest};
pub use reader::{CopyError, TierCopies};
pub(super) use writer::IndexCopier;
