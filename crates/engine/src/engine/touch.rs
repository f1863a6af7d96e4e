//! Sliding expiry (§5.1): when a stream was last used, and when the store hears of it.

use std::sync::Arc;

use durable_streams_protocol::{Expiry, StreamEvent, Timestamp};

use super::{
    Engine, Ticket,
    cell::{Inner, StreamCell},
};
use crate::store::StoreError;

impl Engine {
    /// Pushes a sliding expiry back. The store hears of it only now and then, and whoever is answered
    /// waits for that: so a crash makes a stream expire early by a twentieth of its TTL, or a second when
    /// that is more, and never by a long silence before its last access.
    pub(super) fn touch(
        &self,
        cell: &Arc<StreamCell>,
        inner: &mut Inner,
        now: Timestamp,
    ) -> Option<Ticket> {
        let stored = inner.stored_touch;
        let state = inner.assigned.as_mut()?;
        let Expiry::Ttl(seconds) = state.core.expiry else { return None };
        state.touched = state.touched.max(now);
        let early = now.millis() < stored.millis().saturating_add(touch_slack_millis(seconds));
        // A refused commit would make the cell load its stream again, with every read anew.
        if early || self.store.writable().is_err() {
            return None;
        }
        let id = state.core.id;
        // When it is lost, the next touch tries again.
        inner.commit(cell, &self.store, id, StreamEvent::Touched { at: now }, None).ok().flatten()
    }

    /// Tells the store the newest touch, if it does not know it yet. Nobody waits for it.
    pub(super) fn store_touch(
        &self,
        cell: &Arc<StreamCell>,
        inner: &mut Inner,
    ) -> Result<(), StoreError> {
        let Some((id, at)) = inner.unstored_touch() else { return Ok(()) };
        inner.commit(cell, &self.store, id, StreamEvent::Touched { at }, None).map(|_| ())
    }
}

/// Waits until a touch is stored. One that cannot be stored is no reason to refuse a read.
pub(super) async fn touched(stored: Option<Ticket>) {
    if let Some(ticket) = stored {
        ticket.resolved().await;
    }
}

/// How far the stored touch of a stream with this TTL may lag behind, milliseconds.
fn touch_slack_millis(ttl_seconds: u64) -> u64 {
    (ttl_seconds.saturating_mul(1000) / 20).clamp(1_000, 60_000)
}
