//! Why segments were not moved.

use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::segments::cold::ColdError;

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Another server has the prefix. Nothing is uploaded or deleted any more.
    #[error(
        "another server has taken the prefix over: nothing is uploaded or deleted any more; stop this server"
    )]
    Superseded,
    /// The object store failed. What is local stays.
    #[error("the object store: {0}")]
    Cold(#[from] ColdError),
    /// The index failed.
    #[error("the index: {0}")]
    Store(#[from] StoreError),
    /// An object that a copy of the index may reference was not there. Its segment is uploaded again.
    #[error(
        "the object of a segment is missing, and the copy of the index that was under way may need it"
    )]
    LostObject,
    /// The copy of the index cannot be read again.
    #[error("the copy of the index: {0}")]
    Copy(#[from] std::io::Error),
}
