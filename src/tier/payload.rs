//! Names and bytes of objects: what is sent, and what arrives.

use bytes::{Bytes, BytesMut};
use durable_streams_engine::store::file::segments::cold::ColdError;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetResult, GetResultPayload, PutPayload};

use super::failure::classify;

/// The body of an answer, of which no more than `most` bytes and one part of it are taken.
pub(super) async fn collect(found: GetResult, most: u64) -> Result<Bytes, ColdError> {
    if let GetResultPayload::File(..) = &found.payload {
        // Only the range is read.
        return found.bytes().await.map_err(|error| classify(&error));
    }
    let mut parts = found.into_stream();
    let Some(first) = parts.try_next().await.map_err(|error| classify(&error))? else {
        return Ok(Bytes::new());
    };
    let mut bytes: Option<BytesMut> = None;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| classify(&error))?;
        let bytes = bytes.get_or_insert_with(|| {
            let mut bytes = BytesMut::with_capacity(most as usize);
            bytes.extend_from_slice(&first);
            bytes
        });
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > most {
            break;
        }
    }
    Ok(bytes.map_or(first, BytesMut::freeze))
}

/// Whether `found` are the bytes of the payload from `from` on.
pub(super) fn has_at(payload: &PutPayload, from: u64, mut found: &[u8]) -> bool {
    let mut skip = from as usize;
    for part in payload.iter() {
        let Some(part) = part.get(skip..) else {
            skip -= part.len();
            continue;
        };
        skip = 0;
        let (now, later) = found.split_at(found.len().min(part.len()));
        if now != &part[..now.len()] {
            return false;
        }
        found = later;
    }
    found.is_empty()
}

pub(super) fn path(name: &str) -> Result<Path, ColdError> {
    Path::parse(name)
        .map_err(|error| ColdError::Refused(format!("not a name of an object: {error}")))
}
