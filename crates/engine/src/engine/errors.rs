//! Store errors as rejections for the client, with the details in the log for the operator.

use std::time::Duration;

use durable_streams_protocol::Rejection;

use crate::store::StoreError;

/// `Retry-After` has whole seconds.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// The rejection for a store error. Logs it, unless the client's retry is all that is needed.
pub(super) fn rejection(error: StoreError) -> Rejection {
    match error {
        StoreError::Full { .. } | StoreError::Limit { .. } | StoreError::Room { .. } => {
            tracing::error!(%error, "no room to store; reads go on, appends are refused");
            Rejection::StorageFull
        }
        StoreError::Superseded => Rejection::Unavailable { reason: "recovering from a lost write" },
        StoreError::Closed => Rejection::ShuttingDown,
        StoreError::Poisoned { .. } => {
            tracing::error!(%error, "the store refuses writes");
            Rejection::Unavailable { reason: "storage failed; an operator must look" }
        }
        StoreError::Cold { retry_after, .. } => {
            // Of thousands of readers each fails; what talks to the object store logs the outage.
            tracing::debug!(%error, "a read of cold data failed");
            Rejection::ObjectStoreUnavailable { retry_after: retry_after.max(LEAST_WAIT) }
        }
        StoreError::Corrupt { .. } => {
            tracing::error!(%error, "stored data is damaged");
            Rejection::Damaged
        }
        StoreError::Io { .. } | StoreError::Locked { .. } | StoreError::Format { .. } => {
            tracing::error!(%error, "storage failed");
            Rejection::Unavailable { reason: "storage failed" }
        }
    }
}
