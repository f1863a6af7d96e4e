//! The driver: takes in changes of streams, ends leases, sends wakes.
//!
//! A cell is queued at most once. Whatever queued it (a changed stream, a deadline, a finished delivery),
//! [`SubscriptionsInner::advance`] does the same: take in changes, commit what is due, start the work, set
//! the next deadline.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use durable_streams_protocol::{
    Append, Timestamp,
    subscription::{
        DeliveryAttempt, DeliveryConfig, DeliveryOutcome, LinkRecord, Refusal, StreamInfo,
        WakeAction, WakeEvent, WakeNotice, WakePhase, WebhookTarget, json,
    },
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    SubscriptionsInner, WakeDriver,
    cell::{OpenSubscription, SubscriptionCell},
    wake_id,
    webhook::{WebhookError, WebhookRequest, WebhookResponse, outcome},
};

/// The longest sleep, so that the driver notices a clock that was set back or forward.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// A delivery that takes longer is slow; the next ones of its subscription use the retry lane.
const SLOW: Duration = Duration::from_secs(1);
/// How much longer than its timeout a post may run before the driver drops it.
const GRACE: Duration = Duration::from_secs(1);
/// The pause after a failed commit before the driver tries a subscription again, milliseconds.
const PAUSE_AFTER_ERROR: u64 = 1_000;

impl WakeDriver {
    /// Runs until `shutdown` resolves. Posts in flight end with the runtime; the next start supersedes
    /// their wakes and posts again.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let now = self.shared.engine.now();
            for key in self.shared.deadlines.take_due(now) {
                if let Some(cell) = self.shared.registry.get(key) {
                    self.shared.queue(&cell);
                }
            }
            self.shared.route();
            let sleep = self.shared.deadlines.next().map_or(MAX_SLEEP, |next| {
                let left = next.millis().saturating_sub(now.millis());
                Duration::from_millis(left).min(MAX_SLEEP)
            });
            tokio::select! {
                () = &mut shutdown => return,
                () = self.shared.watcher.news() => {}
                () = tokio::time::sleep(sleep) => {}
                cell = self.ready.recv() => if let Some(cell) = cell {
                    tokio::spawn(self.shared.clone().advance(cell, None));
                },
            }
        }
    }
}

impl SubscriptionsInner {
    /// Queues a subscription for the driver.
    pub(super) fn queue(&self, cell: &Arc<SubscriptionCell>) {
        if !cell.queued.swap(true, Ordering::AcqRel) {
            // The send fails only when the driver has ended; then nothing should go out.
            let _ = self.ready.send(cell.clone());
        }
    }

    /// Hands changes of streams to the subscriptions that link them. On return, every append that was
    /// acknowledged before the call has been handed on.
    pub(super) fn route(&self) {
        self.watcher.route(|key, path, head| {
            if let Some(cell) = self.registry.get(key) {
                cell.note(path, head);
                self.queue(&cell);
            }
        });
    }

    /// Takes in changes of streams, then commits what is due until nothing is.
    pub(super) async fn catch_up(
        &self,
        cell: &SubscriptionCell,
        subscription: &mut OpenSubscription,
        may_post: bool,
    ) -> Result<(), Refusal> {
        self.refresh(subscription).await?;
        let now = self.engine.now();
        for (path, head) in cell.take_inbox() {
            subscription.state.observe(&path, head);
            let DeliveryConfig::PullWake { wake_stream } = &subscription.state.config().delivery
            else {
                continue;
            };
            if *wake_stream != path {
                continue;
            }
            subscription.announce_now = head.is_some();
            if head.is_none() {
                let events = subscription.state.wake_stream_gone(now, fastrand::u32(..));
                self.commit(subscription, &events).await?;
            }
        }
        loop {
            let events =
                subscription.state.poll(self.engine.now(), may_post, wake_id, fastrand::u32(..));
            if events.is_empty() {
                return Ok(());
            }
            self.commit(subscription, &events).await?;
        }
    }

    /// Brings one subscription up to date, starts its delivery or announcement, sets its deadline.
    async fn advance(
        self: Arc<Self>,
        cell: Arc<SubscriptionCell>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        cell.queued.store(false, Ordering::Release);
        let mut guard = cell.lock().await;
        let Some(subscription) = guard.as_mut() else { return };
        let now = self.engine.now();
        let deadline = match self.catch_up(&cell, subscription, permit.is_some()).await {
            Ok(()) => {
                self.start_work(&cell, subscription, permit);
                subscription.state.deadline()
            }
            Err(error) => {
                tracing::warn!(subscription = %cell.id, %error, "not stored; trying again");
                Some(Timestamp::from_millis(now.millis() + PAUSE_AFTER_ERROR))
            }
        };
        if self.deadlines.set(cell.key, deadline) {
            self.watcher.nudge();
        }
    }

    fn start_work(
        self: &Arc<Self>,
        cell: &Arc<SubscriptionCell>,
        subscription: &mut OpenSubscription,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let now = self.engine.now();
        let announce_now = std::mem::take(&mut subscription.announce_now);
        let due = if announce_now { Timestamp::from_millis(u64::MAX) } else { now };
        match (subscription.state.work(due), permit) {
            (Some(WakeAction::Post(attempt)), Some(permit))
                if subscription.in_flight != Some(attempt) =>
            {
                subscription.in_flight = Some(attempt);
                let prepared = self.prepare(subscription, now);
                let shared = self.clone();
                tokio::spawn(shared.post(cell.clone(), attempt, prepared, permit));
            }
            (Some(WakeAction::Announce(attempt)), _) if subscription.in_flight != Some(attempt) => {
                subscription.in_flight = Some(attempt);
                let event = Bytes::from(self.wake_event(subscription, now));
                tokio::spawn(self.clone().announce(cell.clone(), attempt, event));
            }
            (None, None) if subscription.state.wants_permit(now) => {
                self.wait_for_permit(cell, subscription)
            }
            _ => {}
        }
    }

    /// Waits for a permit to post. The wake is committed only once the permit is there, so its lease does not
    /// run while it waits.
    fn wait_for_permit(
        self: &Arc<Self>,
        cell: &Arc<SubscriptionCell>,
        subscription: &OpenSubscription,
    ) {
        if cell.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let lane = self.lanes.lane(subscription.slow || subscription.state.retry().is_some());
        let (shared, cell) = (self.clone(), cell.clone());
        tokio::spawn(async move {
            let permit = lane.acquire_owned().await;
            cell.waiting.store(false, Ordering::Release);
            if let Ok(permit) = permit {
                shared.advance(cell, Some(permit)).await;
            }
        });
    }

    /// The request that delivers the wake in flight, and the tails that `{"done": true}` acknowledges.
    fn prepare(
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
        let streams = state.stream_infos(self.options.max_wake_streams);
        let notice = WakeNotice {
            subscription_id: state.id(),
            wake_id: &wake.id,
            generation: state.generation(),
            streams: &streams,
            callback_url: self.action_url(state, "callback"),
            callback_token: self.keys.token_key().issue(
                state.id(),
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

    async fn post(
        self: Arc<Self>,
        cell: Arc<SubscriptionCell>,
        attempt: DeliveryAttempt,
        prepared: Result<(WebhookRequest, Vec<LinkRecord>), String>,
        permit: OwnedSemaphorePermit,
    ) {
        let started = tokio::time::Instant::now();
        let (response, snapshot) = match prepared {
            Ok((request, snapshot)) => (self.exchange(request).await, snapshot),
            Err(reason) => (Err(WebhookError::NotSent(reason)), Vec::new()),
        };
        drop(permit);
        let slow = started.elapsed() > SLOW;
        let (delivered, failure) = outcome(response, snapshot);
        if let Some(reason) = failure {
            let known =
                if delivered == DeliveryOutcome::Refused { "refused" } else { "not answered" };
            tracing::warn!(subscription = %cell.id, reason, "webhook {known}");
        }
        let mut guard = cell.lock().await;
        let Some(subscription) = guard.as_mut() else { return };
        let now = self.engine.now();
        if subscription.in_flight == Some(attempt) {
            subscription.in_flight = None;
            subscription.slow = slow;
        }
        let outcome = self.refresh(subscription).await;
        let events =
            subscription.state.posted(attempt.generation, delivered, now, fastrand::u32(..));
        let stored = match outcome {
            Ok(()) => self.commit(subscription, &events).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            // The end of the lease then ends the wake.
            tracing::warn!(subscription = %cell.id, %error, "outcome of a webhook not stored");
        }
        drop(guard);
        self.queue(&cell);
    }

    fn wake_event(&self, subscription: &OpenSubscription, now: Timestamp) -> Vec<u8> {
        json(&WakeEvent {
            kind: "wake",
            subscription_id: subscription.state.id(),
            stream: subscription.state.first_pending().map_or("", |path| path.as_str()),
            generation: subscription.state.generation(),
            ts: now.millis(),
        })
    }

    async fn announce(
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
        let appended = match self.engine.head(&wake_stream).await {
            Ok(view) => {
                let append = Append {
                    content_type: Some(Ok(view.core.content_type.clone())),
                    stream_seq: None,
                    producer: None,
                    close: false,
                };
                self.engine.append_system(&wake_stream, &append, event).await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &appended {
            tracing::warn!(subscription = %cell.id, %wake_stream, %error, "wake not announced");
        }
        let mut guard = cell.lock().await;
        let Some(subscription) = guard.as_mut() else { return };
        if subscription.in_flight == Some(attempt) {
            subscription.in_flight = None;
        }
        let now = self.engine.now();
        if self.refresh(subscription).await.is_ok() {
            let random = fastrand::u32(..);
            let events =
                subscription.state.announced(attempt.generation, appended.is_ok(), now, random);
            if let Err(error) = self.commit(subscription, &events).await {
                tracing::warn!(subscription = %cell.id, %error, "announcement not stored");
            }
        }
        let announced =
            subscription.state.wake().is_some_and(|wake| wake.phase == WakePhase::Announced);
        drop(guard);
        if !announced {
            self.queue(&cell);
        }
    }
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
