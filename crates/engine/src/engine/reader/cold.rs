//! Bytes that are in an object store, which may not answer.

use durable_streams_protocol::{Offset, Rejection, StreamCore};

use super::{dropped::readable, read_lineage};
use crate::store::AnyStore;

/// Whether the bytes that a read from `from` begins with can be read, where some are in an object store.
pub(super) async fn check_cold(
    store: &AnyStore,
    core: &StreamCore,
    from: Offset,
    tail: Offset,
) -> Result<(), Rejection> {
    let (from, end) = readable(store, core, from, tail);
    read_lineage(store, core, from, end, 1).await.map(drop)
}
