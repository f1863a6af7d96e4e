//! After a restart: the logs say what was decided, the streams say what is pending.

use std::sync::Arc;

use durable_streams_protocol::{
    StreamPath,
    subscription::{DeliveryConfig, Glob, Phase, Refusal, Subscription, decode_log},
};

use super::{
    Shared,
    entry::{Slot, unavailable},
    log::{self, Log, LogName},
    watch::is_reserved,
};

/// Paths asked for at a time.
const PAGE: usize = 1_000;

impl Shared {
    /// Reads all logs, looks at all streams they link, and queues every subscription for the driver.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), Refusal> {
        let logs = log::list(&self.engine).await.map_err(unavailable)?;
        for logs in logs.chunk_by(|a, b| a.folder == b.folder) {
            if let Err(error) = self.recover_one(logs).await {
                let folder = logs.first().map(|log| log.folder.as_str());
                tracing::error!(folder, %error, "a subscription cannot be read and is left alone");
            }
        }
        if self.registry.len() > 0 {
            self.look_at_all().await?;
        }
        for entry in self.registry.all() {
            let mut guard = entry.slot().await;
            let Some(slot) = guard.as_mut() else { continue };
            let unseen: Vec<StreamPath> = slot
                .state
                .linked_paths()
                .filter(|path| slot.state.link(path).is_some_and(|link| link.live.is_none()))
                .cloned()
                .collect();
            for path in unseen {
                slot.state.observe(&path, None);
            }
            let mut events = slot.state.recovered();
            if self.wake_stream_missing(&slot.state).await? {
                let random = fastrand::u32(..);
                events.extend(slot.state.wake_stream_gone(self.engine.now(), random));
            }
            self.commit(slot, &events).await?;
            drop(guard);
            self.queue(&entry);
        }
        Ok(())
    }

    /// The newest whole log of one subscription. Older ones, and newer that were never finished, are to be
    /// deleted with it or before.
    async fn recover_one(self: &Arc<Self>, logs: &[LogName]) -> Result<(), Refusal> {
        let mut slot = None;
        let mut superseded = Vec::new();
        for name in logs {
            if slot.is_some() {
                superseded.push(name);
                continue;
            }
            let (log, bytes) = Log::open(&self.engine, name).await.map_err(unavailable)?;
            let events = decode_log(&bytes)
                .map_err(|error| Refusal::Unavailable(format!("{}: {error}", name.path)))?;
            match Subscription::replay(events) {
                Some(state) => slot = Some(Slot::new(state, log)),
                None => superseded.push(name),
            }
        }
        let Some(mut slot) = slot else { return Ok(()) };
        superseded.iter().for_each(|name| slot.supersedes(name));
        if let Err(error) = slot.tidy(&self.engine).await {
            tracing::warn!(%error, "superseded subscription logs not deleted yet");
        }
        let state = &slot.state;
        let entry = self.registry.claim(state.id(), usize::MAX)?;
        self.watcher.watch(state.config(), entry.key);
        for path in state.linked_paths() {
            if state.link(path).is_some_and(|link| link.explicit) {
                self.watcher.watch_path(path, entry.key);
            }
        }
        *entry.slot().await = Some(slot);
        Ok(())
    }

    /// Shows every watched stream to those that watch it.
    async fn look_at_all(&self) -> Result<(), Refusal> {
        let mut after: Option<StreamPath> = None;
        loop {
            let page = self.engine.list(after.as_ref(), PAGE).await.map_err(unavailable)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for path in page.iter().filter(|path| !is_reserved(path)) {
                let watchers = self.watcher.watchers(path);
                if watchers.is_empty() {
                    continue;
                }
                let live = match self.live(path).await {
                    Ok(live) => live,
                    Err(error) => {
                        tracing::error!(%path, %error, "a linked stream cannot be read");
                        continue;
                    }
                };
                for entry in watchers.into_iter().filter_map(|key| self.registry.get(key)) {
                    if let Some(slot) = entry.slot().await.as_mut() {
                        slot.state.observe(path, live);
                    }
                }
            }
        }
    }

    async fn wake_stream_missing(&self, state: &Subscription) -> Result<bool, Refusal> {
        let announced = state.wake().is_some_and(|wake| wake.phase == Phase::Announced);
        match &state.config().delivery {
            DeliveryConfig::PullWake { wake_stream } if announced => {
                Ok(self.live(wake_stream).await?.is_none())
            }
            _ => Ok(false),
        }
    }

    /// Existing streams that a pattern matches.
    pub(super) async fn matching(&self, pattern: &Glob) -> Result<Vec<StreamPath>, Refusal> {
        let prefix = pattern.literal_prefix();
        let mut found = Vec::new();
        let mut after = StreamPath::system(&prefix).ok();
        if let Some(first) = after.clone().filter(|path| pattern.matches(path.as_str())) {
            found.push(first);
        }
        loop {
            let page = self.engine.list(after.as_ref(), PAGE).await.map_err(unavailable)?;
            let Some(last) = page.last().cloned() else { return Ok(found) };
            let inside = |path: &&StreamPath| path.as_str().starts_with(&prefix);
            let matching = page.iter().take_while(inside).filter(|path| !is_reserved(path));
            found.extend(matching.filter(|path| pattern.matches(path.as_str())).cloned());
            if !inside(&&last) {
                return Ok(found);
            }
            after = Some(last);
        }
    }
}
