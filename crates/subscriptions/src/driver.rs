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
    Timestamp,
    subscription::{DeliveryConfig, Refusal, WakeAction},
};

use super::{
    SubscriptionsInner, WakeDriver,
    cell::{OpenSubscription, SubscriptionCell},
    lanes::DeliveryPermit,
    wake_id,
};

/// The longest sleep: while a machine is suspended, the timer may stand still and the clock go on.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// The pause after a failed commit before the driver tries a subscription again, milliseconds.
const PAUSE_AFTER_ERROR: u64 = 1_000;

impl WakeDriver {
    /// Runs until `shutdown` resolves. Posts in flight end with the runtime; the next start supersedes
    /// their wakes and posts again.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let now = self.shared.engine.steady_now();
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
                () = self.shared.watcher.changed() => {}
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
        let now = self.engine.steady_now();
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
            let events = subscription.state.poll(
                self.engine.steady_now(),
                may_post,
                wake_id,
                fastrand::u32(..),
            );
            if events.is_empty() {
                return Ok(());
            }
            self.commit(subscription, &events).await?;
        }
    }

    /// Brings one subscription up to date, starts its delivery or announcement, sets its deadline.
    pub(super) async fn advance(
        self: Arc<Self>,
        cell: Arc<SubscriptionCell>,
        permit: Option<DeliveryPermit>,
    ) {
        cell.queued.store(false, Ordering::Release);
        let mut guard = cell.lock().await;
        let Some(subscription) = guard.as_mut() else { return };
        let now = self.engine.steady_now();
        let caught_up = self.catch_up(&cell, subscription, permit.is_some()).await;
        subscription.recount_links();
        let deadline = match caught_up {
            Ok(()) => {
                self.start_work(&cell, subscription, permit);
                subscription.state.deadline()
            }
            Err(error) => {
                tracing::warn!(subscription = cell.name.id.as_str(), tenant = cell.name.tenant(), %error, "not stored; trying again");
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
        permit: Option<DeliveryPermit>,
    ) {
        let now = self.engine.now();
        let announce_now = std::mem::take(&mut subscription.announce_now);
        let steady = self.engine.steady_now();
        let due = if announce_now { Timestamp::from_millis(u64::MAX) } else { steady };
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
}
