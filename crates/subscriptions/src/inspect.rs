//! What operators see of subscriptions, and do with them: the part behind the administration API.
//!
//! How deliveries ended is kept in memory, so it is that of this process; everything else is the durable state.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use durable_streams_protocol::{
    StreamPath, TenantId, Timestamp,
    subscription::{
        DeliveryConfig, Refusal, Subscription, SubscriptionEvent, SubscriptionName, WakePhase,
    },
};

use super::{
    Subscriptions, SubscriptionsInner,
    access::ControlAuthority,
    cell::{DeliveryRecord, OpenSubscription, SubscriptionCell},
};

/// The longest text that is kept of a failure, bytes.
const MAX_DETAIL: usize = 500;

/// Whose subscriptions a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionScope {
    /// All of them.
    Everything,
    /// Those of a tenant.
    Tenant(TenantId),
}

/// Why a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryFailure {
    /// When.
    pub at: Timestamp,
    /// The status of the webhook's response, if there was one.
    pub status: Option<u16>,
    /// What happened, at most 500 bytes.
    pub detail: String,
}

/// What a subscription is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionPhase {
    /// No work is pending.
    Idle,
    /// Work is pending and no wake is out: it waits for its turn.
    Pending,
    /// A wake is being posted, or is in the wake stream or on its way there.
    Waking,
    /// A webhook's worker has the wake.
    Delivered,
    /// A worker has claimed the wake.
    Claimed,
    /// The last attempt failed; a retry is scheduled.
    Retrying,
    /// An operator stopped it.
    Paused,
}

/// One subscription as an operator sees it. Times are those of the wall clock.
#[derive(Clone, Debug)]
pub struct SubscriptionReport {
    /// Its tenant and id.
    pub name: SubscriptionName,
    /// A webhook or a wake stream.
    pub delivery: DeliveryConfig,
    /// The pattern by which it links streams.
    pub pattern: Option<String>,
    /// Linked streams.
    pub links: usize,
    /// What it is doing.
    pub phase: SubscriptionPhase,
    /// Whether an operator stopped it.
    pub paused: bool,
    /// The worker that has claimed the wake.
    pub worker: Option<String>,
    /// The end of the lease.
    pub lease_until: Option<Timestamp>,
    /// The number of its wakes.
    pub generation: u64,
    /// Streams with pending work.
    pub lag_streams: usize,
    /// Bytes from the cursors to the tails of those.
    pub lag_bytes: u64,
    /// Failures in a row.
    pub failures: u32,
    /// When the next attempt is due.
    pub next_retry: Option<Timestamp>,
    /// The last failure of this process.
    pub last_error: Option<DeliveryFailure>,
    /// The last success of this process.
    pub last_success: Option<Timestamp>,
    /// When it was created.
    pub created: Timestamp,
    /// What its creator says about it.
    pub description: Option<String>,
}

/// Deliveries and announcements since the start.
#[derive(Default)]
pub(super) struct DeliveryCounts {
    done: AtomicU64,
    failed: AtomicU64,
}

impl DeliveryCounts {
    pub(super) fn count(&self, done: bool) {
        if done { &self.done } else { &self.failed }.fetch_add(1, Relaxed);
    }
}

impl DeliveryRecord {
    /// Notes how a delivery ended.
    pub(super) fn note(&mut self, at: Timestamp, status: Option<u16>, failure: Option<String>) {
        match failure {
            None => self.last_success = Some(at),
            Some(mut detail) => {
                let whole = |at: &usize| detail.is_char_boundary(*at);
                detail.truncate((0..=MAX_DETAIL).rev().find(whole).unwrap_or_default());
                self.last_error = Some(DeliveryFailure { at, status, detail });
            }
        }
    }
}

impl SubscriptionScope {
    fn has(&self, name: &SubscriptionName) -> bool {
        match self {
            SubscriptionScope::Everything => true,
            SubscriptionScope::Tenant(tenant) => name.tenant.as_ref() == Some(tenant),
        }
    }
}

impl Subscriptions {
    /// Deliveries and announcements since the start: those that succeeded, and those that failed.
    pub fn deliveries(&self) -> (u64, u64) {
        let counts = &self.shared.deliveries;
        (counts.done.load(Relaxed), counts.failed.load(Relaxed))
    }

    /// At most `max` subscriptions behind `after`, in the order of tenant and id.
    pub async fn list(
        &self,
        scope: &SubscriptionScope,
        after: Option<&SubscriptionName>,
        max: usize,
    ) -> Vec<SubscriptionReport> {
        let mut reports = Vec::new();
        for cell in self.shared.registry.page(after, max, |name| scope.has(name)) {
            let guard = cell.lock().await;
            reports.extend(guard.as_ref().map(|open| self.shared.report(open)));
        }
        reports
    }

    /// At most `max` names of subscriptions that link a stream, which a tenant names by a path.
    pub fn linking(
        &self,
        tenant: Option<&TenantId>,
        path: &StreamPath,
        max: usize,
    ) -> Vec<SubscriptionName> {
        let keys = self.shared.watcher.watchers(tenant, path).into_iter().take(max);
        let cells = keys.filter_map(|key| self.shared.registry.get(key));
        cells.map(|cell| cell.name.clone()).collect()
    }

    /// One subscription.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn report(&self, name: &SubscriptionName) -> Result<SubscriptionReport, Refusal> {
        let cell = self.shared.registry.find(name).ok_or(Refusal::NotFound)?;
        let guard = cell.lock().await;
        guard.as_ref().map(|open| self.shared.report(open)).ok_or(Refusal::NotFound)
    }

    /// Stops the deliveries of a subscription, or lets them go on. Durable: it stays so after a restart.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Unavailable`].
    pub async fn pause(
        &self,
        name: &SubscriptionName,
        pause: bool,
    ) -> Result<SubscriptionReport, Refusal> {
        self.steer(name, move |state, _| state.pause(pause)).await
    }

    /// Makes the scheduled retry of a subscription due now. Does nothing when none is scheduled.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Unavailable`].
    pub async fn retry_now(&self, name: &SubscriptionName) -> Result<SubscriptionReport, Refusal> {
        self.steer(name, |state, now| state.retry_now(now)).await
    }

    /// Deletes a subscription.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Unavailable`].
    pub async fn remove(&self, name: &SubscriptionName) -> Result<(), Refusal> {
        self.report(name).await?;
        self.delete(name.clone(), ControlAuthority::Unrestricted).await
    }

    /// Commits what `decide` returns, in a task of its own.
    async fn steer(
        &self,
        name: &SubscriptionName,
        decide: impl FnOnce(&Subscription, Timestamp) -> Vec<SubscriptionEvent> + Send + 'static,
    ) -> Result<SubscriptionReport, Refusal> {
        let shared = self.shared.clone();
        let cell = shared.registry.find(name).ok_or(Refusal::NotFound)?;
        self.run(async move { shared.steer(&cell, decide).await }).await
    }
}

impl SubscriptionsInner {
    async fn steer(
        &self,
        cell: &Arc<SubscriptionCell>,
        decide: impl FnOnce(&Subscription, Timestamp) -> Vec<SubscriptionEvent>,
    ) -> Result<SubscriptionReport, Refusal> {
        let mut guard = cell.lock().await;
        let subscription = guard.as_mut().ok_or(Refusal::NotFound)?;
        self.refresh(subscription).await?;
        let events = decide(&subscription.state, self.engine.steady_now());
        self.commit(subscription, &events).await?;
        let report = self.report(subscription);
        drop(guard);
        self.queue(cell);
        Ok(report)
    }

    fn report(&self, open: &OpenSubscription) -> SubscriptionReport {
        let state = &open.state;
        let (now, steady) = (self.engine.now().millis(), self.engine.steady_now().millis());
        // Leases and retries go by the steady clock.
        let wall =
            |at: Timestamp| Timestamp::from_millis((now + at.millis()).saturating_sub(steady));
        let (lag_streams, lag_bytes) = state.lag();
        let retry = state.retry();
        let worker = match state.wake().map(|wake| &wake.phase) {
            Some(WakePhase::Claimed { worker }) => Some(worker.clone()),
            _ => None,
        };
        let config = state.config();
        SubscriptionReport {
            name: state.name().clone(),
            delivery: config.delivery.clone(),
            pattern: config.pattern.as_ref().map(ToString::to_string),
            links: state.link_count(),
            phase: phase(state),
            paused: state.is_paused(),
            worker,
            lease_until: state.wake().and_then(|wake| wake.lease_until).map(wall),
            generation: state.generation(),
            lag_streams,
            lag_bytes,
            failures: retry.map_or(0, |retry| retry.failures),
            next_retry: retry.filter(|_| !state.is_paused()).map(|retry| wall(retry.at)),
            last_error: open.outcomes.last_error.clone(),
            last_success: open.outcomes.last_success,
            created: state.created_at(),
            description: config.description.clone(),
        }
    }
}

fn phase(state: &Subscription) -> SubscriptionPhase {
    if state.is_paused() {
        return SubscriptionPhase::Paused;
    }
    match state.wake().map(|wake| &wake.phase) {
        Some(WakePhase::Delivered) => SubscriptionPhase::Delivered,
        Some(WakePhase::Claimed { .. }) => SubscriptionPhase::Claimed,
        Some(WakePhase::Delivering | WakePhase::Announced) => SubscriptionPhase::Waking,
        Some(WakePhase::Failed { .. }) => SubscriptionPhase::Retrying,
        Some(WakePhase::Unannounced) if state.retry().is_some() => SubscriptionPhase::Retrying,
        Some(WakePhase::Unannounced) => SubscriptionPhase::Waking,
        None if state.retry().is_some() && state.has_pending() => SubscriptionPhase::Retrying,
        None if state.has_pending() => SubscriptionPhase::Pending,
        None => SubscriptionPhase::Idle,
    }
}
