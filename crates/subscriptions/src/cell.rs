//! One subscription at run time, and the registry of all of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use durable_streams_engine::{Engine, StreamView};
use durable_streams_protocol::{
    Rejection, StreamPath, TenantId, Timestamp, stored_path,
    subscription::{
        DeliveryAttempt, Refusal, StreamHead, Subscription, SubscriptionEvent, SubscriptionName,
        decode_log,
    },
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use super::{
    DeliveryFailure, SubscriptionsInner,
    link_budget::{CountedLinks, LinkBudget},
    options::tenants_part,
    state_log::{LogName, SubscriptionLog},
};

/// Identifies a subscription within one process run. A subscription that is deleted and created again under
/// the same id gets another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SubscriptionKey(pub(super) u64);

/// One subscription at run time: its lock, and what arrives without the lock.
pub(super) struct SubscriptionCell {
    pub(super) key: SubscriptionKey,
    pub(super) name: SubscriptionName,
    /// `None` until the creation is committed, and again after the deletion.
    subscription: AsyncMutex<Option<OpenSubscription>>,
    /// The latest state of each changed stream, until the holder of the lock takes it in.
    inbox: Mutex<HashMap<StreamPath, Option<StreamHead>>>,
    /// Whether the driver's queue holds this cell.
    pub(super) queued: AtomicBool,
    /// Whether a task waits for a permit to post.
    pub(super) waiting: AtomicBool,
}

/// What the lock of a cell guards.
pub(super) struct OpenSubscription {
    pub(super) state: Subscription,
    log: SubscriptionLog,
    links: CountedLinks,
    /// The attempt that a task is making now.
    pub(super) in_flight: Option<DeliveryAttempt>,
    /// Whether the last delivery took longer than `SLOW`.
    pub(super) slow: bool,
    /// The wake stream was created: announce at once instead of at the next retry.
    pub(super) announce_now: bool,
    /// How the last deliveries of this process ended.
    pub(super) outcomes: DeliveryRecord,
    /// A commit failed, so the log may hold events that the state lacks.
    stale: bool,
}

/// How the last deliveries of a subscription ended.
#[derive(Default)]
pub(super) struct DeliveryRecord {
    pub(super) last_error: Option<DeliveryFailure>,
    pub(super) last_success: Option<Timestamp>,
}

impl OpenSubscription {
    pub(super) fn new(state: Subscription, log: SubscriptionLog, budget: &Arc<LinkBudget>) -> Self {
        OpenSubscription {
            links: CountedLinks::new(budget, state.tenant(), state.link_count()),
            state,
            log,
            in_flight: None,
            slow: false,
            announce_now: false,
            outcomes: DeliveryRecord::default(),
            stale: false,
        }
    }

    /// Counts the links again, after they may have changed.
    pub(super) fn recount_links(&mut self) {
        self.links.set(self.state.link_count());
    }

    /// Remembers a log that this subscription's has replaced, for deletion.
    pub(super) fn supersedes(&mut self, name: &LogName) {
        self.log.replaces(name);
    }

    /// Deletes replaced logs.
    pub(super) async fn tidy(&mut self, engine: &Engine) -> Result<(), Rejection> {
        self.log.delete_older(engine).await
    }
}

impl SubscriptionCell {
    /// Records the latest state of a stream; `None` when it is gone.
    pub(super) fn note(&self, path: &StreamPath, head: Option<StreamHead>) {
        self.inbox.lock().insert(path.clone(), head);
    }

    /// Takes the lock.
    pub(super) async fn lock(&self) -> MutexGuard<'_, Option<OpenSubscription>> {
        self.subscription.lock().await
    }

    pub(super) fn take_inbox(&self) -> HashMap<StreamPath, Option<StreamHead>> {
        std::mem::take(&mut *self.inbox.lock())
    }
}

impl SubscriptionsInner {
    /// Commits events to the log, then applies them. A log that has grown is rewritten.
    pub(super) async fn commit(
        &self,
        subscription: &mut OpenSubscription,
        events: &[SubscriptionEvent],
    ) -> Result<(), Refusal> {
        if events.is_empty() {
            return Ok(());
        }
        if let Err(error) = subscription.log.commit(&self.engine, events).await {
            subscription.stale = true;
            return Err(unavailable(error));
        }
        events.iter().for_each(|event| subscription.state.apply(event));
        if subscription.log.is_long() {
            let events = subscription.state.rewritten();
            if let Err(error) =
                subscription.log.rewrite(&self.engine, subscription.state.name(), &events).await
            {
                tracing::warn!(subscription = subscription.state.id().as_str(), tenant = subscription.state.name().tenant(), %error, "log not rewritten");
            }
        }
        Ok(())
    }

    /// Reads the state back from the log after a failed commit.
    pub(super) async fn refresh(&self, subscription: &mut OpenSubscription) -> Result<(), Refusal> {
        if !subscription.stale {
            return Ok(());
        }
        let bytes = subscription.log.read(&self.engine).await.map_err(unavailable)?;
        let events = decode_log(&bytes).map_err(|_| unavailable(Rejection::Damaged))?;
        let mut state =
            Subscription::replay(events).ok_or_else(|| unavailable(Rejection::Damaged))?;
        let known: Vec<StreamPath> = subscription.state.linked_paths().cloned().collect();
        for path in known.iter().chain(&state.linked_paths().cloned().collect::<Vec<_>>()) {
            state.observe(path, self.head(state.tenant().cloned().as_ref(), path).await?);
        }
        subscription.state = state;
        subscription.stale = false;
        Ok(())
    }

    /// The stream that a tenant names by a path, and its durable tail.
    pub(super) async fn head(
        &self,
        tenant: Option<&TenantId>,
        path: &StreamPath,
    ) -> Result<Option<StreamHead>, Refusal> {
        Ok(self.view_of(tenant, path).await?.as_ref().map(head_of))
    }

    /// The stream that a tenant names by a path.
    pub(super) async fn view_of(
        &self,
        tenant: Option<&TenantId>,
        path: &StreamPath,
    ) -> Result<Option<StreamView>, Refusal> {
        // A path that the tenant's prefix leaves no room for names no stream.
        let Ok(stored) = stored_path(tenant, path) else { return Ok(None) };
        match self.engine.head(&stored).await {
            Ok(view) => Ok(Some(view)),
            Err(Rejection::NotFound | Rejection::Gone) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Deletes the log, and with it the subscription.
    pub(super) async fn erase(&self, subscription: &mut OpenSubscription) -> Result<(), Refusal> {
        subscription.log.delete(&self.engine).await.map_err(unavailable)
    }
}

/// A stream and its durable tail.
pub(super) fn head_of(view: &StreamView) -> StreamHead {
    StreamHead { stream: view.core.id, tail: view.tail.offset }
}

/// A failure of the server, as a refusal for the client.
pub(super) fn unavailable(error: Rejection) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

/// All subscriptions, by name and by key.
#[derive(Default)]
pub(super) struct SubscriptionRegistry {
    maps: RwLock<RegistryMaps>,
    next: AtomicU64,
}

#[derive(Default)]
struct RegistryMaps {
    by_name: HashMap<SubscriptionName, Arc<SubscriptionCell>>,
    by_key: HashMap<SubscriptionKey, Arc<SubscriptionCell>>,
    /// How many each tenant has, if it has any.
    of_tenants: HashMap<TenantId, usize>,
}

impl SubscriptionRegistry {
    pub(super) fn find(&self, name: &SubscriptionName) -> Option<Arc<SubscriptionCell>> {
        self.maps.read().by_name.get(name).cloned()
    }

    pub(super) fn get(&self, key: SubscriptionKey) -> Option<Arc<SubscriptionCell>> {
        self.maps.read().by_key.get(&key).cloned()
    }

    /// The cell of a name, created if there is none and there are fewer than `limit`, and of its tenant fewer than its
    /// part of them.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub(super) fn claim(
        &self,
        name: &SubscriptionName,
        limit: usize,
    ) -> Result<Arc<SubscriptionCell>, Refusal> {
        let mut maps = self.maps.write();
        if let Some(cell) = maps.by_name.get(name) {
            return Ok(cell.clone());
        }
        if maps.by_name.len() >= limit {
            return Err(Refusal::TooMany { what: "subscriptions", limit });
        }
        if let Some(tenant) = &name.tenant {
            let part = tenants_part(Some(tenant), limit);
            let held = maps.of_tenants.get(tenant).copied().unwrap_or(0);
            if held >= part {
                return Err(Refusal::TooMany { what: "subscriptions of one tenant", limit: part });
            }
            maps.of_tenants.insert(tenant.clone(), held + 1);
        }
        let key = SubscriptionKey(self.next.fetch_add(1, Ordering::Relaxed));
        let cell = Arc::new(SubscriptionCell {
            key,
            name: name.clone(),
            subscription: AsyncMutex::new(None),
            inbox: Mutex::default(),
            queued: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
        });
        maps.by_name.insert(name.clone(), cell.clone());
        maps.by_key.insert(key, cell.clone());
        Ok(cell)
    }

    /// Removes a cell; a later one of the same name stays.
    pub(super) fn remove(&self, cell: &SubscriptionCell) {
        let mut maps = self.maps.write();
        maps.by_key.remove(&cell.key);
        if maps.by_name.get(&cell.name).is_some_and(|found| found.key == cell.key) {
            maps.by_name.remove(&cell.name);
            if let Some(tenant) = &cell.name.tenant {
                match maps.of_tenants.get(tenant).copied() {
                    Some(held) if held > 1 => maps.of_tenants.insert(tenant.clone(), held - 1),
                    _ => maps.of_tenants.remove(tenant),
                };
            }
        }
    }

    /// Whether the cell is still registered.
    pub(super) fn holds(&self, cell: &SubscriptionCell) -> bool {
        self.maps.read().by_key.contains_key(&cell.key)
    }

    pub(super) fn len(&self) -> usize {
        self.maps.read().by_name.len()
    }

    /// At most `max` cells behind `after`, in the order of their names: those that `belongs` accepts.
    pub(super) fn page(
        &self,
        after: Option<&SubscriptionName>,
        max: usize,
        belongs: impl Fn(&SubscriptionName) -> bool,
    ) -> Vec<Arc<SubscriptionCell>> {
        let maps = self.maps.read();
        let mut first = BTreeMap::new();
        for (name, cell) in &maps.by_name {
            if !belongs(name) || after.is_some_and(|after| name <= after) {
                continue;
            }
            let full = first.len() >= max;
            if full && first.last_key_value().is_some_and(|(last, _)| *last < name) {
                continue;
            }
            first.insert(name, cell);
            if full {
                first.pop_last();
            }
        }
        first.into_values().cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<SubscriptionCell>> {
        self.maps.read().by_key.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
