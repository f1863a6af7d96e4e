//! Announcement of wakes in a wake stream (§7.2): append, commit the outcome.

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_protocol::{
    Append, ContentType, StreamPath, TenantId, Timestamp, stored_path,
    subscription::{DeliveryAttempt, DeliveryConfig, WakeEvent, WakePhase, json},
};

use super::{
    SubscriptionsInner,
    cell::{OpenSubscription, SubscriptionCell},
};

impl SubscriptionsInner {
    /// The event for the wake stream.
    pub(super) fn wake_event(&self, subscription: &OpenSubscription, now: Timestamp) -> Vec<u8> {
        json(&WakeEvent {
            kind: "wake",
            subscription_id: subscription.state.id(),
            stream: subscription.state.first_pending().map_or("", |path| path.as_str()),
            generation: subscription.state.generation(),
            ts: now.millis(),
        })
    }

    /// Appends the wake in flight to the wake stream and commits the outcome.
    pub(super) async fn announce(
        self: Arc<Self>,
        cell: Arc<SubscriptionCell>,
        attempt: DeliveryAttempt,
        event: Bytes,
    ) {
        let wake_stream = {
            let guard = cell.lock().await;
            match guard.as_ref().map(|subscription| &subscription.state.config().delivery) {
                Some(DeliveryConfig::PullWake { wake_stream }) => wake_stream.clone(),
                _ => return,
            }
        };
        let appended = self.append_wake(cell.name.tenant.as_ref(), &wake_stream, event).await;
        if let Err(error) = &appended {
            tracing::warn!(
                subscription = cell.name.id.as_str(),
                tenant = cell.name.tenant(),
                wake_stream = wake_stream.as_str(),
                error,
                "wake not announced"
            );
        }
        let mut guard = cell.lock().await;
        let Some(subscription) = guard.as_mut() else { return };
        if subscription.in_flight == Some(attempt) {
            subscription.in_flight = None;
        }
        self.deliveries.count(appended.is_ok());
        subscription.outcomes.note(self.engine.now(), None, appended.as_ref().err().cloned());
        let now = self.engine.steady_now();
        if self.refresh(subscription).await.is_ok() {
            let random = fastrand::u32(..);
            let events =
                subscription.state.announced(attempt.generation, appended.is_ok(), now, random);
            if let Err(error) = self.commit(subscription, &events).await {
                tracing::warn!(subscription = cell.name.id.as_str(), tenant = cell.name.tenant(), %error, "announcement not stored");
            }
        }
        let announced =
            subscription.state.wake().is_some_and(|wake| wake.phase == WakePhase::Announced);
        drop(guard);
        if !announced {
            self.queue(&cell);
        }
    }

    /// Appends to a wake stream. Wakes are JSON, so a stream of another kind is not touched: it belongs to a
    /// client that stores something else in it.
    async fn append_wake(
        &self,
        tenant: Option<&TenantId>,
        wake_stream: &StreamPath,
        event: Bytes,
    ) -> Result<(), String> {
        let stored = stored_path(tenant, wake_stream).map_err(|error| error.to_string())?;
        let view = self.engine.head(&stored).await.map_err(|error| error.to_string())?;
        let content_type = view.core.content_type.clone();
        if !content_type.is_json() {
            return Err(not_json(&content_type));
        }
        let append = Append {
            content_type: Some(Ok(content_type)),
            stream_seq: None,
            producer: None,
            close: false,
        };
        let appended = self.engine.append_system(&stored, &append, event).await;
        appended.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// Why a stream cannot be a wake stream.
pub(super) fn not_json(content_type: &ContentType) -> String {
    format!(
        "the wake stream is {}, and wakes are JSON; name a stream of application/json",
        content_type.as_str()
    )
}
