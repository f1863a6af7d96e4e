//! Segments that are objects: where, and reading them.

use std::{fmt, ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_protocol::Timestamp;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    cold::{ColdError, ColdSegments, SealedFile},
    format::file_name,
};
pub use crate::store::file::index::extents::SegmentPlace;
use crate::store::{
    StoreError,
    file::{error::corrupt, index::extents::SegmentRecord, snapshot::bytes::FoundPiece},
};

/// Objects that one read reads at once.
const AT_ONCE: usize = 4;

/// When a reader may try again whose read an operator must make possible first.
const REFUSED: Duration = Duration::from_secs(30);

/// The object store of a file store.
#[derive(Clone)]
pub struct ColdPlace {
    /// The object store.
    pub store: Arc<dyn ColdSegments>,
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
    /// The checksum of its footer.
    pub footer_crc: u32,
    /// Where it is.
    pub place: SegmentPlace,
    /// When it was sealed, by the server's clock; `None` where that was not noted.
    pub sealed_at: Option<Timestamp>,
}

/// From this age on a segment is rewritten however little that frees, so that bytes that no stream has leave it in this time.
const LONGEST_DEAD: Duration = Duration::from_secs(30 * 24 * 3600);

impl SegmentInfo {
    /// Whether what is live of it is to be written again: where that is less than half, and where the rest has been there for
    /// 30 days at least. `now` is of the clock that it was sealed by, and zero where there is none.
    pub fn is_to_be_rewritten(&self, now: Timestamp) -> bool {
        let sealed = self.sealed_at.map_or(0, Timestamp::millis);
        let age = Duration::from_millis(now.millis().saturating_sub(sealed));
        self.live < self.data / 2 || (self.live < self.data && age >= LONGEST_DEAD)
    }

    pub(in crate::store::file) fn new(number: u64, record: &SegmentRecord) -> Self {
        let SegmentRecord { file_len, data, live, footer_crc, place, sealed_at } = *record;
        SegmentInfo { number, file_len, data, live, footer_crc, place, sealed_at }
    }

    /// Its record in the index.
    pub(in crate::store::file) fn record(&self) -> SegmentRecord {
        let SegmentInfo { file_len, data, live, footer_crc, place, sealed_at, .. } = *self;
        SegmentRecord { file_len, data, live, footer_crc, place, sealed_at }
    }

    /// What tells its file from every other one.
    pub fn sealed_file(&self) -> SealedFile {
        let SegmentInfo { number, file_len: len, data, footer_crc, .. } = *self;
        SealedFile { number, len, data, footer_crc }
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
            ColdError::Unavailable { retry_after, reason } => {
                StoreError::Cold { retry_after, reason: reason.into() }
            }
            ColdError::Refused(reason) => {
                StoreError::Cold { retry_after: REFUSED, reason: reason.into() }
            }
        }
    }
}

/// The pieces, when none of them is in an object.
///
/// # Errors
/// All of them, when one is.
pub(in crate::store::file) fn local(found: Vec<FoundPiece>) -> Result<Vec<Bytes>, Vec<FoundPiece>> {
    if found.iter().any(|piece| matches!(piece, FoundPiece::Object { .. })) {
        return Err(found);
    }
    let bytes = found.into_iter().filter_map(|piece| match piece {
        FoundPiece::Bytes(bytes) => Some(bytes),
        FoundPiece::Object { .. } => None,
    });
    Ok(bytes.collect())
}

/// Reads what is in objects. Holds no lock and no transaction, and no thread of the store.
pub(in crate::store::file) async fn fetch(
    cold: Option<&ColdPlace>,
    found: Vec<FoundPiece>,
) -> Result<Vec<Bytes>, FetchError> {
    let pieces = found.into_iter().map(|piece| async move {
        match piece {
            FoundPiece::Bytes(bytes) => Ok(bytes),
            FoundPiece::Object { file, range } => fetch_object(cold, file, range).await,
        }
    });
    stream::iter(pieces).buffered(AT_ONCE).try_collect().await
}

async fn fetch_object(
    cold: Option<&ColdPlace>,
    segment: SealedFile,
    range: Range<u64>,
) -> Result<Bytes, FetchError> {
    let file = segment.number;
    let Some(cold) = cold else {
        let reason = "segments are objects, and no object store is configured: set tier.url";
        return Err(FetchError { file, name: None, error: ColdError::Refused(reason.into()) });
    };
    let name = cold.name(file);
    let len = range.end - range.start;
    let read = cold.store.get_segment(&name, segment, range).await.and_then(|bytes| {
        let whole = bytes.len() as u64 == len;
        whole.then_some(bytes).ok_or_else(|| ColdError::Damaged("a read of it was short".into()))
    });
    read.map_err(|error| FetchError { file, name: Some(name), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_is_told_from_one_that_may_be_there() {
        let failed = |error| FetchError { file: 1, name: Some("segments/a".into()), error };
        let later = Duration::from_secs(7);
        let unavailable = ColdError::Unavailable { retry_after: later, reason: "busy".into() };
        for (error, missing, cold) in [
            (ColdError::NotFound, true, None),
            (ColdError::Damaged("short".into()), false, None),
            (unavailable, false, Some(later)),
            (ColdError::Refused("no rights".into()), false, Some(REFUSED)),
        ] {
            assert_eq!(failed(error.clone()).is_missing(), missing, "{error}");
            let (said, error) = (error.to_string(), failed(error).into_error());
            match (&error, cold) {
                (StoreError::Cold { retry_after, .. }, Some(time)) => {
                    assert_eq!(*retry_after, time)
                }
                (StoreError::Corrupt { .. }, None) => assert!(error.to_string().contains(&said)),
                _ => panic!("{error}"),
            }
        }
    }
}
