//! Whether the object store can be read now.

use std::sync::atomic::{AtomicBool, Ordering};

use durable_streams_engine::store::file::segments::cold::ColdError;

/// Whether the last read has failed for want of the object store.
#[derive(Debug, Default)]
pub(super) struct ReadOutage(AtomicBool);

impl ReadOutage {
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes how a read has ended, and logs each change. An object that is missing or damaged is logged with its name, by
    /// its reader.
    pub(super) fn note(&self, error: Option<&ColdError>) {
        match error {
            None if self.0.swap(false, Ordering::Relaxed) => {
                tracing::info!("the object store can be read again");
            }
            Some(error @ (ColdError::Unavailable { .. } | ColdError::Refused(_)))
                if !self.0.swap(true, Ordering::Relaxed) =>
            {
                tracing::error!(%error, "reads of older data are refused until the object store can be read again");
            }
            _ => {}
        }
    }
}
