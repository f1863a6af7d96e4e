//! The secrets beside a store: a copy without them, or with others, would not do.

use std::path::Path;

use durable_streams_engine::store::file::keys_dir;
use durable_streams_subscriptions::{KeyError, KeyFile};

/// Checks the keys of subscriptions in a data directory.
///
/// # Errors
/// The server would not start on this directory, or with keys that nobody knows.
pub(super) fn check(dir: &Path) -> Result<(), KeyError> {
    KeyFile::in_directory(&keys_dir(dir)).check()
}
