//! After a restart: the logs hold what was committed, the streams show what is pending.

use std::sync::Arc;

use durable_streams_protocol::{
    StreamPath, TenantId, client_path, stored_prefix,
    subscription::{DeliveryConfig, Glob, Refusal, Subscription, WakePhase, decode_log},
};

use super::{
    SubscriptionsInner,
    cell::{OpenSubscription, unavailable},
    state_log::{self, LogName, SubscriptionLog},
    watcher::owner_of,
};

/// Paths listed at a time.
const PAGE: usize = 1_000;

impl SubscriptionsInner {
    /// Replays all logs, reads the tails of all linked streams, and queues every subscription for the driver.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), Refusal> {
        let logs = state_log::list(&self.engine).await.map_err(unavailable)?;
        for logs in logs.chunk_by(|a, b| a.folder == b.folder) {
            if let Err(error) = self.recover_one(logs).await {
                let folder = logs.first().map(|log| log.folder.as_str());
                tracing::error!(folder, %error, "a subscription cannot be read and is left alone");
            }
        }
        if self.registry.len() > 0 {
            self.observe_streams().await?;
        }
        for cell in self.registry.all() {
            let mut guard = cell.lock().await;
            let Some(subscription) = guard.as_mut() else { continue };
            let unseen: Vec<StreamPath> = subscription
                .state
                .linked_paths()
                .filter(|path| {
                    subscription.state.link(path).is_some_and(|link| link.head.is_none())
                })
                .cloned()
                .collect();
            for path in unseen {
                subscription.state.observe(&path, None);
            }
            let mut events = subscription.state.recovered();
            if self.wake_stream_missing(&subscription.state).await? {
                let random = fastrand::u32(..);
                events
                    .extend(subscription.state.wake_stream_gone(self.engine.steady_now(), random));
            }
            self.commit(subscription, &events).await?;
            drop(guard);
            self.queue(&cell);
        }
        Ok(())
    }

    /// Opens the newest complete log of one subscription, and deletes the older ones and the incomplete.
    async fn recover_one(self: &Arc<Self>, logs: &[LogName]) -> Result<(), Refusal> {
        let mut subscription = None;
        let mut superseded = Vec::new();
        for name in logs {
            if subscription.is_some() {
                superseded.push(name);
                continue;
            }
            let (log, bytes) =
                SubscriptionLog::open(&self.engine, name).await.map_err(unavailable)?;
            let events = decode_log(&bytes)
                .map_err(|error| Refusal::Unavailable(format!("{}: {error}", name.path)))?;
            match Subscription::replay(events) {
                Some(mut state) => {
                    state.bound_deadlines(self.engine.steady_now());
                    subscription = Some(OpenSubscription::new(state, log, &self.links));
                }
                None => superseded.push(name),
            }
        }
        let Some(mut subscription) = subscription else { return Ok(()) };
        superseded.iter().for_each(|name| subscription.supersedes(name));
        if let Err(error) = subscription.tidy(&self.engine).await {
            tracing::warn!(%error, "superseded subscription logs not deleted yet");
        }
        let state = &subscription.state;
        let cell = self.registry.claim(state.name(), usize::MAX)?;
        self.watcher.watch(state.tenant(), state.config(), cell.key);
        for path in state.explicit_paths() {
            self.watcher.watch_path(state.tenant(), path, cell.key);
        }
        *cell.lock().await = Some(subscription);
        Ok(())
    }

    /// Reads the tail of every watched stream into the subscriptions that link it.
    async fn observe_streams(&self) -> Result<(), Refusal> {
        let mut after: Option<StreamPath> = None;
        loop {
            let page = self.engine.list(after.as_ref(), PAGE).await.map_err(unavailable)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for stored in &page {
                let Some((tenant, path)) = owner_of(stored) else { continue };
                let watchers = self.watcher.watchers(tenant.as_ref(), &path);
                if watchers.is_empty() {
                    continue;
                }
                let head = match self.head(tenant.as_ref(), &path).await {
                    Ok(head) => head,
                    Err(error) => {
                        tracing::error!(path = stored.as_str(), %error, "a linked stream cannot be read");
                        continue;
                    }
                };
                for cell in watchers.into_iter().filter_map(|key| self.registry.get(key)) {
                    if let Some(subscription) = cell.lock().await.as_mut() {
                        subscription.state.observe(&path, head);
                    }
                }
            }
        }
    }

    async fn wake_stream_missing(&self, state: &Subscription) -> Result<bool, Refusal> {
        let announced = state.wake().is_some_and(|wake| wake.phase == WakePhase::Announced);
        match &state.config().delivery {
            DeliveryConfig::PullWake { wake_stream } if announced => {
                Ok(self.head(state.tenant(), wake_stream).await?.is_none())
            }
            _ => Ok(false),
        }
    }

    /// Existing streams of a tenant that its pattern matches, at most one more than `max`.
    pub(super) async fn matching(
        &self,
        tenant: Option<&TenantId>,
        pattern: &Glob,
        max: usize,
    ) -> Result<Vec<StreamPath>, Refusal> {
        let root = tenant.map(stored_prefix).unwrap_or_default();
        let prefix = format!("{root}{}", pattern.literal_prefix());
        let named = |stored: &StreamPath| {
            client_path(tenant, stored).filter(|path| pattern.matches(path.as_str()))
        };
        let mut after = StreamPath::system(&prefix).ok();
        let mut found: Vec<StreamPath> = after.as_ref().and_then(named).into_iter().collect();
        loop {
            let page = self.engine.list(after.as_ref(), PAGE).await.map_err(unavailable)?;
            let Some(last) = page.last().cloned() else { return Ok(found) };
            let inside = |path: &&StreamPath| path.as_str().starts_with(&prefix);
            found.extend(page.iter().take_while(inside).filter_map(named));
            if !inside(&&last) || found.len() > max {
                found.truncate(max.saturating_add(1));
                return Ok(found);
            }
            after = Some(last);
        }
    }
}
