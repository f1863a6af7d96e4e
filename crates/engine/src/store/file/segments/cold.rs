//! Where sealed segments go when they leave the disk: what the store needs of an object store.

use std::{ops::Range, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// What the index knows of a segment's file: it tells the segment's object from every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SealedFile {
    /// The number of the segment.
    pub number: u64,
    /// Size of the file, bytes.
    pub len: u64,
    /// Bytes of data in it.
    pub data: u64,
    /// The checksum of its footer.
    pub footer_crc: u32,
}

/// Objects that are created once, read in ranges, and deleted. They never change.
///
/// No call is awaited with a lock or a transaction held.
pub trait ColdStore: Send + Sync + 'static {
    /// Creates the object from a file. Succeeds also when an object of this name has the same bytes already: the answer
    /// of an earlier attempt may have been lost.
    ///
    /// # Errors
    /// [`ColdError::Damaged`] when the object exists with other bytes; the others as they say.
    fn put(&self, name: &str, file: PathBuf) -> BoxFuture<'_, Result<(), ColdError>>;

    /// Bytes of an object: exactly `range`, as the object store returns them.
    ///
    /// # Errors
    /// [`ColdError`]; fewer or more bytes than `range` are [`ColdError::Damaged`].
    fn get(&self, name: &str, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ColdError>>;

    /// Deletes an object; succeeds when there is none.
    ///
    /// # Errors
    /// [`ColdError`], but not [`ColdError::NotFound`].
    fn delete(&self, name: &str) -> BoxFuture<'_, Result<(), ColdError>>;

    /// Names that begin with `prefix` and come after `after` in byte order, each with its size in bytes; one page of
    /// them, which is empty only when there are no more.
    ///
    /// # Errors
    /// [`ColdError`], but not [`ColdError::NotFound`].
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<(String, u64)>, ColdError>>;
}

/// Reads segments that are objects, and checks what it reads.
pub trait ColdSegments: Send + Sync + 'static {
    /// Bytes of the data of a segment: exactly `range` of its file, all of which were compared with the checksums of its
    /// footer, and the footer with the checksum that the index has of it.
    ///
    /// # Errors
    /// [`ColdError`]; bytes that do not match, and another segment's object under this name, are [`ColdError::Damaged`].
    fn get_segment(
        &self,
        name: &str,
        segment: SealedFile,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, ColdError>>;
}

/// Why an operation on cold objects failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColdError {
    /// There is no object of this name.
    #[error("there is no such object")]
    NotFound,
    /// It may work later: the network, an overloaded or failing object store.
    #[error("the object store is unavailable: {reason}")]
    Unavailable {
        /// The least time to wait before another try.
        retry_after: Duration,
        /// What the object store answered.
        reason: String,
    },
    /// It will not work until an operator acts: credentials, permissions, a missing bucket.
    #[error("the object store refuses: {0}")]
    Refused(String),
    /// What the object has is not what was put.
    #[error("the object is damaged: {0}")]
    Damaged(String),
}
