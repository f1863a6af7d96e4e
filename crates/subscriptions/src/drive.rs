//! What happens by itself: news of streams is taken in, leases end, wakes go out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use durable_streams_protocol::{
    Append, Timestamp,
    subscription::{
        Attempt, Delivered, DeliveryConfig, LinkRecord, Phase, Refusal, StreamInfo, WakeEvent,
        WakeNotice, WebhookTarget, Work, json,
    },
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Driver, Shared,
    entry::{Entry, Slot},
    wake_id,
    webhook::{WebhookError, WebhookRequest, WebhookResponse, outcome},
};

/// The longest sleep, so that a clock that is set back or forward is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// An answer that takes longer is slow: its receiver posts in the lane of those that fail.
const SLOW: Duration = Duration::from_secs(1);
/// How much longer than its timeout a post may take before its client is given up.
const GRACE: Duration = Duration::from_secs(1);
/// How long to leave a subscription alone whose change could not be stored, milliseconds.
const PAUSE_AFTER_ERROR: u64 = 1_000;

impl Driver {
    /// Runs until `shutdown` resolves. Posts that are under way then end with the runtime; after the
    /// restart they are made anew.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let now = self.shared.engine.now();
            for key in self.shared.timers.take_due(now) {
                if let Some(entry) = self.shared.registry.get(key) {
                    self.shared.queue(&entry);
                }
            }
            self.shared.route();
            let sleep = self.shared.timers.next().map_or(MAX_SLEEP, |next| {
                let left = next.millis().saturating_sub(now.millis());
                Duration::from_millis(left).min(MAX_SLEEP)
            });
            tokio::select! {
                () = &mut shutdown => return,
                () = self.shared.watcher.news() => {}
                () = tokio::time::sleep(sleep) => {}
                entry = self.ready.recv() => if let Some(entry) = entry {
                    tokio::spawn(self.shared.clone().advance(entry, None));
                },
            }
        }
    }
}

impl Shared {
    /// Has a subscription looked at by the driver.
    pub(super) fn queue(&self, entry: &Arc<Entry>) {
        if !entry.queued.swap(true, Ordering::AcqRel) {
            // Without a driver nothing goes out, and at shutdown nothing should.
            let _ = self.ready.send(entry.clone());
        }
    }

    /// Hands news of streams to the subscriptions that watch them. Every append that was answered before
    /// this was called is handed on when it returns.
    pub(super) fn route(&self) {
        self.watcher.route(|key, path, live| {
            if let Some(entry) = self.registry.get(key) {
                entry.tell(path, live);
                self.queue(&entry);
            }
        });
    }

    /// Takes in news, and commits what is due until nothing is.
    pub(super) async fn settle(
        &self,
        entry: &Entry,
        slot: &mut Slot,
        may_post: bool,
    ) -> Result<(), Refusal> {
        self.refresh(slot).await?;
        let now = self.engine.now();
        for (path, live) in entry.take_inbox() {
            slot.state.observe(&path, live);
            let DeliveryConfig::PullWake { wake_stream } = &slot.state.config().delivery else {
                continue;
            };
            if *wake_stream != path {
                continue;
            }
            slot.announce_now = live.is_some();
            if live.is_none() {
                let events = slot.state.wake_stream_gone(now, fastrand::u32(..));
                self.commit(slot, &events).await?;
            }
        }
        loop {
            let events = slot.state.poll(self.engine.now(), may_post, wake_id, fastrand::u32(..));
            if events.is_empty() {
                return Ok(());
            }
            self.commit(slot, &events).await?;
        }
    }

    /// Brings one subscription up to date, starts what must be under way, sets its timer.
    async fn advance(self: Arc<Self>, entry: Arc<Entry>, permit: Option<OwnedSemaphorePermit>) {
        entry.queued.store(false, Ordering::Release);
        let mut guard = entry.slot().await;
        let Some(slot) = guard.as_mut() else { return };
        let now = self.engine.now();
        let deadline = match self.settle(&entry, slot, permit.is_some()).await {
            Ok(()) => {
                self.start_work(&entry, slot, permit);
                slot.state.deadline()
            }
            Err(error) => {
                tracing::warn!(subscription = %entry.id, %error, "not stored; trying again");
                Some(Timestamp::from_millis(now.millis() + PAUSE_AFTER_ERROR))
            }
        };
        if self.timers.set(entry.key, deadline) {
            self.watcher.nudge();
        }
    }

    fn start_work(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        slot: &mut Slot,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let now = self.engine.now();
        let announce_now = std::mem::take(&mut slot.announce_now);
        let due = if announce_now { Timestamp::from_millis(u64::MAX) } else { now };
        match (slot.state.work(due), permit) {
            (Some(Work::Post(attempt)), Some(permit)) if slot.under_way != Some(attempt) => {
                slot.under_way = Some(attempt);
                let prepared = self.prepare(slot, now);
                let shared = self.clone();
                tokio::spawn(shared.post(entry.clone(), attempt, prepared, permit));
            }
            (Some(Work::Announce(attempt)), _) if slot.under_way != Some(attempt) => {
                slot.under_way = Some(attempt);
                let event = Bytes::from(self.wake_event(slot, now));
                tokio::spawn(self.clone().announce(entry.clone(), attempt, event));
            }
            (None, None) if slot.state.wants_slot(now) => self.wait_for_slot(entry, slot),
            _ => {}
        }
    }

    /// The wake is issued only when it can be posted at once, so its lease is not spent in a queue.
    fn wait_for_slot(self: &Arc<Self>, entry: &Arc<Entry>, slot: &Slot) {
        if entry.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let lane = self.lanes.lane(slot.slow || slot.state.retry().is_some());
        let (shared, entry) = (self.clone(), entry.clone());
        tokio::spawn(async move {
            let permit = lane.acquire_owned().await;
            entry.waiting.store(false, Ordering::Release);
            if let Ok(permit) = permit {
                shared.advance(entry, Some(permit)).await;
            }
        });
    }

    /// The request of a wake, and the tails that `{"done": true}` acknowledges.
    fn prepare(
        &self,
        slot: &Slot,
        now: Timestamp,
    ) -> Result<(WebhookRequest, Vec<LinkRecord>), String> {
        let state = &slot.state;
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

    /// Posts a request. A client that does not return in time loses its place in the lane.
    async fn exchange(&self, request: WebhookRequest) -> Result<WebhookResponse, WebhookError> {
        let timeout = request.timeout;
        match tokio::time::timeout(timeout + GRACE, self.webhooks.post(request)).await {
            Ok(response) => response,
            Err(_) => Err(WebhookError::NoResponse("no answer in time".into())),
        }
    }

    async fn post(
        self: Arc<Self>,
        entry: Arc<Entry>,
        attempt: Attempt,
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
            let known = if delivered == Delivered::Refused { "refused" } else { "not answered" };
            tracing::warn!(subscription = %entry.id, reason, "webhook {known}");
        }
        let mut guard = entry.slot().await;
        let Some(slot) = guard.as_mut() else { return };
        let now = self.engine.now();
        if slot.under_way == Some(attempt) {
            slot.under_way = None;
            slot.slow = slow;
        }
        let outcome = self.refresh(slot).await;
        let events = slot.state.posted(attempt.generation, delivered, now, fastrand::u32(..));
        let stored = match outcome {
            Ok(()) => self.commit(slot, &events).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            // The lease ends the attempt then.
            tracing::warn!(subscription = %entry.id, %error, "outcome of a webhook not stored");
        }
        drop(guard);
        self.queue(&entry);
    }

    fn wake_event(&self, slot: &Slot, now: Timestamp) -> Vec<u8> {
        json(&WakeEvent {
            kind: "wake",
            subscription_id: slot.state.id(),
            stream: slot.state.first_pending().map_or("", |path| path.as_str()),
            generation: slot.state.generation(),
            ts: now.millis(),
        })
    }

    async fn announce(self: Arc<Self>, entry: Arc<Entry>, attempt: Attempt, event: Bytes) {
        let wake_stream = {
            let guard = entry.slot().await;
            match guard.as_ref().map(|slot| &slot.state.config().delivery) {
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
            tracing::warn!(subscription = %entry.id, %wake_stream, %error, "wake not announced");
        }
        let mut guard = entry.slot().await;
        let Some(slot) = guard.as_mut() else { return };
        if slot.under_way == Some(attempt) {
            slot.under_way = None;
        }
        let now = self.engine.now();
        if self.refresh(slot).await.is_ok() {
            let random = fastrand::u32(..);
            let events = slot.state.announced(attempt.generation, appended.is_ok(), now, random);
            if let Err(error) = self.commit(slot, &events).await {
                tracing::warn!(subscription = %entry.id, %error, "announcement not stored");
            }
        }
        let announced = slot.state.wake().is_some_and(|wake| wake.phase == Phase::Announced);
        drop(guard);
        if !announced {
            self.queue(&entry);
        }
    }
}

/// The tails of a wake.
fn snapshot(streams: &[StreamInfo]) -> Vec<LinkRecord> {
    let pending = streams.iter().filter(|info| info.has_pending);
    let records = pending.filter_map(|info| {
        let cursor = Some((info.stream?, info.tail_offset));
        Some(LinkRecord { path: info.path.clone(), explicit: false, cursor })
    });
    records.collect()
}
