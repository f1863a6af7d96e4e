//! Delivery of wakes to webhooks (§7.1): wait for a permit, post, commit the outcome.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use durable_streams_protocol::{
    Timestamp,
    subscription::{
        DeliveryAttempt, DeliveryConfig, DeliveryOutcome, LinkRecord, StreamInfo, SubscriptionId,
        WakeNotice, WebhookTarget, json,
    },
};

use super::{
    SubscriptionsInner,
    cell::{OpenSubscription, SubscriptionCell},
    http::SEGMENT,
    lanes::{DeliveryPermit, LaneKey},
    webhook::{WebhookError, WebhookRequest, WebhookResponse, outcome},
};

/// A delivery that takes longer is slow; the next ones of its subscription use the retry lane.
const SLOW: Duration = Duration::from_secs(1);
/// How much longer than its timeout a post may run before the server drops it.
const GRACE: Duration = Duration::from_secs(1);

impl SubscriptionsInner {
    /// Waits for a permit to post. The wake is committed only once the permit is there, so its lease does not
    /// run while it waits.
    pub(super) fn wait_for_permit(
        self: &Arc<Self>,
        cell: &Arc<SubscriptionCell>,
        subscription: &OpenSubscription,
    ) {
        if cell.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let lane = self.lanes.lane(subscription.slow || subscription.state.retry().is_some());
        let state = &subscription.state;
        let key = LaneKey::of(state.tenant(), state.config());
        let (shared, cell) = (self.clone(), cell.clone());
        tokio::spawn(async move {
            let permit = lane.acquire(key).await;
            cell.waiting.store(false, Ordering::Release);
            if let Some(permit) = permit {
                shared.advance(cell, Some(permit)).await;
            }
        });
    }

    /// The request that delivers the wake in flight, and the tails that `{"done": true}` acknowledges.
    pub(super) fn prepare(
        &self,
        subscription: &OpenSubscription,
        now: Timestamp,
    ) -> Result<(WebhookRequest, Vec<LinkRecord>), String> {
        let state = &subscription.state;
        let (DeliveryConfig::Webhook { url }, Some(wake)) =
            (&state.config().delivery, state.wake())
        else {
            return Err("there is no wake to post".into());
        };
        let target = WebhookTarget::parse(url, &self.options.targets)?;
        let base =
            self.options.public_url.as_deref().ok_or("subscriptions.public_url is not set")?;
        let streams = state.stream_infos(self.options.max_wake_streams);
        let notice = WakeNotice {
            subscription_id: state.id(),
            wake_id: &wake.id,
            generation: state.generation(),
            streams: &streams,
            callback_url: callback_url(base, state.id()),
            callback_token: self.keys.token_key().issue(
                state.name(),
                state.generation(),
                &wake.id,
                now,
            ),
        };
        let body = json(&notice);
        let signature = self.keys.sign(now, &body);
        let lease = wake.lease_until.map_or(0, |until| until.millis().saturating_sub(now.millis()));
        let timeout = self.options.delivery_timeout.min(Duration::from_millis(lease));
        let max_response = self.options.max_answer;
        let request =
            WebhookRequest { target, body: body.into(), signature, timeout, max_response };
        Ok((request, snapshot(&streams)))
    }

    /// Posts a request. A client that overstays its timeout by `GRACE` is dropped, so it cannot keep its permit.
    async fn exchange(&self, request: WebhookRequest) -> Result<WebhookResponse, WebhookError> {
        let timeout = request.timeout;
        match tokio::time::timeout(timeout + GRACE, self.webhooks.post(request)).await {
            Ok(response) => response,
            Err(_) => Err(WebhookError::NoResponse("no answer in time".into())),
        }
    }

    /// Posts the wake in flight and commits the outcome.
    pub(super) async fn post(
        self: Arc<Self>,
        cell: Arc<SubscriptionCell>,
        attempt: DeliveryAttempt,
        prepared: Result<(WebhookRequest, Vec<LinkRecord>), String>,
        permit: DeliveryPermit,
    ) {
        let started = tokio::time::Instant::now();
        let (response, snapshot) = match prepared {
            Ok((request, snapshot)) => (self.exchange(request).await, snapshot),
            Err(reason) => (Err(WebhookError::NotSent(reason)), Vec::new()),
        };
        drop(permit);
        let slow = started.elapsed() > SLOW;
        let status = response.as_ref().ok().map(|response| response.status.as_u16());
        let (delivered, failure) = outcome(response, snapshot);
        self.deliveries.count(failure.is_none());
        if let Some(reason) = &failure {
            let known =
                if delivered == DeliveryOutcome::Refused { "refused" } else { "not answered" };
            tracing::warn!(
                subscription = cell.name.id.as_str(),
                tenant = cell.name.tenant(),
                reason,
                "webhook {known}"
            );
        }
        let mut guard = cell.lock().await;
        let Some(subscription) = guard.as_mut() else { return };
        let now = self.engine.steady_now();
        if subscription.in_flight == Some(attempt) {
            subscription.in_flight = None;
            subscription.slow = slow;
        }
        subscription.outcomes.note(self.engine.now(), status, failure);
        let outcome = self.refresh(subscription).await;
        let events =
            subscription.state.posted(attempt.generation, delivered, now, fastrand::u32(..));
        let stored = match outcome {
            Ok(()) => self.commit(subscription, &events).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            // The end of the lease then ends the wake.
            tracing::warn!(subscription = cell.name.id.as_str(), tenant = cell.name.tenant(), %error, "outcome of a webhook not stored");
        }
        drop(guard);
        self.queue(&cell);
    }
}

/// Where the worker calls back.
fn callback_url(base: &str, id: &SubscriptionId) -> String {
    let id = percent_encoding::utf8_percent_encode(id.as_str(), SEGMENT);
    format!("{base}/__ds/subscriptions/{id}/callback")
}

/// The tails of the pending streams that a wake showed.
fn snapshot(streams: &[StreamInfo]) -> Vec<LinkRecord> {
    let pending = streams.iter().filter(|info| info.has_pending);
    let records = pending.filter_map(|info| {
        let cursor = Some((info.stream?, info.tail_offset));
        Some(LinkRecord { path: info.path.clone(), explicit: false, cursor })
    });
    records.collect()
}
