//! Segments that are objects: where, and reading them.

use std::{fmt, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    cold::{ColdError, ColdStore},
    format::file_name,
};
pub use crate::store::file::index::extents::SegmentPlace;
use crate::store::{
    StoreError,
    file::{error::corrupt, index::extents::SegmentRecord, snapshot::bytes::FoundPiece},
};

/// The object store of a file store.
#[derive(Clone)]
pub struct ColdPlace {
    /// The object store. What it returns is checked already.
    pub store: Arc<dyn ColdStore>,
    /// What the names of this store's objects begin with.
    pub prefix: String,
}

impl ColdPlace {
    /// The name of a segment's object.
    pub fn name(&self, number: u64) -> String {
        format!("{}{}", self.prefix, file_name(number))
    }
}

impl fmt::Debug for ColdPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdPlace").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A segment: how large it is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number, which no other one ever has.
    pub number: u64,
    /// Size of the file, bytes.
    pub file_len: u64,
    /// Bytes of data in it.
    pub data: u64,
    /// Those that a stream still has.
    pub live: u64,
    /// Where it is.
    pub place: SegmentPlace,
}

impl SegmentInfo {
    pub(in crate::store::file) fn new(number: u64, record: &SegmentRecord) -> Self {
        let SegmentRecord { file_len, data, live, place, .. } = *record;
        SegmentInfo { number, file_len, data, live, place }
    }
}

/// Bytes of a segment's object were not read.
#[derive(Debug)]
pub(in crate::store::file) struct FetchError {
    /// The number of the segment.
    pub(in crate::store::file) file: u64,
    /// The name of its object; `None` when no object store is configured.
    name: Option<String>,
    error: ColdError,
}

impl FetchError {
    /// Whether the object is not there.
    pub(in crate::store::file) fn is_missing(&self) -> bool {
        self.error == ColdError::NotFound
    }

    pub(in crate::store::file) fn into_error(self) -> StoreError {
        let name = self.name.unwrap_or_default();
        match self.error {
            ColdError::NotFound | ColdError::Damaged(_) => {
                corrupt(Path::new(&name), 0, &self.error.to_string())
            }
            ColdError::Unavailable { reason, .. } | ColdError::Refused(reason) => {
                StoreError::Cold { reason: reason.into() }
            }
        }
    }
}

/// Reads what is in objects. Holds no lock and no transaction, and no thread of the store.
pub(in crate::store::file) async fn fetch(
    cold: Option<&ColdPlace>,
    found: Vec<FoundPiece>,
) -> Result<Vec<Bytes>, FetchError> {
    let mut bytes = Vec::with_capacity(found.len());
    for piece in found {
        bytes.push(match piece {
            FoundPiece::Bytes(bytes) => bytes,
            FoundPiece::Object { file, range } => {
                let Some(cold) = cold else {
                    let reason =
                        "segments are objects, and no object store is configured: set tier.url";
                    return Err(FetchError {
                        file,
                        name: None,
                        error: ColdError::Refused(reason.into()),
                    });
                };
                let name = cold.name(file);
                let read = cold.store.get(&name, range).await;
                read.map_err(|error| FetchError { file, name: Some(name), error })?
            }
        });
    }
    Ok(bytes)
}
