//! The control socket where there is none: only Unix hands open files from one process to another over a socket.

use std::{path::Path, sync::Arc};

use durable_streams_engine::Engine;

/// Nothing.
pub(super) struct BackupSocket;

impl BackupSocket {
    /// There is no socket on this system.
    pub(super) fn open(_: &Path, _: &Arc<Engine>) -> Option<Self> {
        None
    }
}

/// Asking the server that has a data directory.
pub mod client {
    use std::path::Path;

    use durable_streams_engine::store::file::disk::File;

    /// Why there is no copy.
    #[derive(Debug, thiserror::Error)]
    pub enum BackupSocketError {
        /// There is no way to ask.
        #[error("backups while the server runs are not possible on this system; stop it first")]
        Unsupported,
    }

    /// Nothing.
    pub struct BackupConnection;

    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn copy_index(
        _: &Path,
        _: &File,
        _: &mut dyn FnMut(u64, u64),
    ) -> Result<BackupConnection, BackupSocketError> {
        Err(BackupSocketError::Unsupported)
    }
}
