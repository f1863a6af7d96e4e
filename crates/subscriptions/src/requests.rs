//! What each control request does.

use std::sync::Arc;

use durable_streams_protocol::{
    StreamPath,
    subscription::{
        AckRequest, ClaimResponse, Claims, DeliveryConfig, JwkSet, LinkRecord, Live, Refusal,
        ReleaseRequest, SigningInfo, Subscription, SubscriptionConfig, SubscriptionEvent,
        SubscriptionId, SubscriptionView, TokenError, WebhookTarget, WebhookView,
    },
};

use super::{
    Shared, Subscriptions,
    entry::{Entry, Slot, unavailable},
    log::Log,
};

/// Links in one event of a new log.
const LINKS_PER_EVENT: usize = 500;

/// Which endpoint moves cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind {
    Callback,
    Ack,
}

impl Subscriptions {
    /// Creates, or confirms (§6.2). The flag tells whether it was created.
    pub(super) async fn create(
        &self,
        id: SubscriptionId,
        config: SubscriptionConfig,
        base_url: String,
    ) -> Result<(bool, SubscriptionView), Refusal> {
        let shared = self.shared.clone();
        self.run(async move { shared.create(id, config, base_url).await }).await
    }

    /// Reads (§6.3).
    pub(super) async fn view(&self, id: SubscriptionId) -> Result<SubscriptionView, Refusal> {
        let shared = self.shared.clone();
        let view = async move {
            let entry = shared.find(&id)?;
            shared.route();
            let mut guard = entry.slot().await;
            let slot = guard.as_mut().ok_or(Refusal::NotFound)?;
            shared.settle(&entry, slot, false).await?;
            Ok(shared.view(&slot.state))
        };
        self.run(view).await
    }

    /// Deletes (§6.3); no error if there is none.
    pub(super) async fn delete(&self, id: SubscriptionId) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        self.run(async move { shared.delete(&id).await }).await
    }

    /// Adds explicit streams (§6.4).
    pub(super) async fn link(
        &self,
        id: SubscriptionId,
        paths: Vec<StreamPath>,
    ) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        self.run(async move { shared.link(&id, &paths).await }).await
    }

    /// Removes an explicit stream (§6.4).
    pub(super) async fn unlink(&self, id: SubscriptionId, path: StreamPath) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        let unlink = async move {
            let entry = shared.find(&id)?;
            let mut guard = entry.slot().await;
            let slot = guard.as_mut().ok_or(Refusal::NotFound)?;
            shared.settle(&entry, slot, false).await?;
            let events = slot.state.unlink(&path);
            shared.commit(slot, &events).await?;
            shared.watcher.unwatch_path(&path, entry.key);
            // A link by the pattern stays only while the stream is there.
            slot.state.observe(&path, shared.live(&path).await?);
            drop(guard);
            shared.queue(&entry);
            Ok(())
        };
        self.run(unlink).await
    }

    /// Claims (§7.2).
    pub(super) async fn claim(
        &self,
        id: SubscriptionId,
        worker: String,
    ) -> Result<ClaimResponse, Refusal> {
        let shared = self.shared.clone();
        let claim = async move {
            let entry = shared.find(&id)?;
            shared.route();
            let mut guard = entry.slot().await;
            let slot = guard.as_mut().ok_or(Refusal::NotFound)?;
            shared.settle(&entry, slot, false).await?;
            let now = shared.engine.now();
            let events = slot.state.claim(worker, now)?;
            shared.commit(slot, &events).await?;
            shared.queue(&entry);
            let state = &slot.state;
            let wake = state.wake().ok_or(Refusal::NoPendingWork)?;
            let generation = state.generation();
            Ok(ClaimResponse {
                wake_id: wake.id.clone(),
                generation,
                token: shared.keys.token_key().issue(state.id(), generation, &wake.id, now),
                streams: state.stream_infos(shared.options.max_wake_streams),
                lease_ttl_ms: state.config().lease_ttl_ms,
            })
        };
        self.run(claim).await
    }

    /// Acks and calls back (§7.1, §7.2). Returns `next_wake`.
    pub(super) async fn ack(
        &self,
        kind: AckKind,
        id: SubscriptionId,
        token: Option<String>,
        request: AckRequest,
    ) -> Result<bool, Refusal> {
        let shared = self.shared.clone();
        self.run(async move { shared.ack(kind, &id, token, request).await }).await
    }

    /// Releases (§7.2).
    pub(super) async fn release(
        &self,
        id: SubscriptionId,
        token: Option<String>,
        request: ReleaseRequest,
    ) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        let release = async move {
            let entry = shared.find(&id)?;
            shared.route();
            let mut guard = entry.slot().await;
            let slot = guard.as_mut().ok_or(Refusal::NotFound)?;
            slot.state.expect_pull_wake()?;
            let claims = shared.verify(&id, token)?;
            shared.refresh(slot).await?;
            let events = slot.state.release(request.fence(&claims)?, shared.engine.now())?;
            shared.commit(slot, &events).await?;
            drop(guard);
            shared.queue(&entry);
            Ok(())
        };
        self.run(release).await
    }

    /// The published keys (§6.5).
    pub(super) fn keys(&self) -> JwkSet {
        self.shared.keys.published(self.shared.engine.now())
    }
}

impl Shared {
    fn find(&self, id: &SubscriptionId) -> Result<Arc<Entry>, Refusal> {
        self.registry.find(id).ok_or(Refusal::NotFound)
    }

    async fn create(
        &self,
        id: SubscriptionId,
        config: SubscriptionConfig,
        base_url: String,
    ) -> Result<(bool, SubscriptionView), Refusal> {
        if let DeliveryConfig::Webhook { url } = &config.delivery {
            WebhookTarget::parse(url, &self.options.targets).map_err(Refusal::UrlRejected)?;
        }
        loop {
            let entry = self.registry.claim(&id, self.options.max_subscriptions)?;
            let mut guard = entry.slot().await;
            if let Some(slot) = guard.as_mut() {
                self.settle(&entry, slot, false).await?;
                if slot.state.config().hash() != config.hash() {
                    return Err(Refusal::AlreadyExists);
                }
                return Ok((false, self.view(&slot.state)));
            }
            if !self.registry.holds(&entry) {
                // It failed or was deleted while this waited.
                continue;
            }
            // Watching begins before anything is looked at, so no append falls between the two.
            self.watcher.watch(&config, entry.key);
            match self.write_new(&id, &config, base_url.clone()).await {
                Ok(slot) => {
                    let view = self.view(&slot.state);
                    *guard = Some(slot);
                    drop(guard);
                    self.queue(&entry);
                    return Ok((true, view));
                }
                Err(refusal) => {
                    self.watcher.unwatch(&config, std::iter::empty(), entry.key);
                    self.registry.remove(&entry);
                    return Err(refusal);
                }
            }
        }
    }

    /// Links what exists at its tail, and writes the log.
    async fn write_new(
        &self,
        id: &SubscriptionId,
        config: &SubscriptionConfig,
        base_url: String,
    ) -> Result<Slot, Refusal> {
        let mut links: Vec<(StreamPath, Option<Live>)> = Vec::new();
        let matching = match &config.pattern {
            Some(pattern) => self.matching(pattern).await?,
            None => Vec::new(),
        };
        let globbed = matching.into_iter().filter(|path| config.matches(path));
        for path in globbed.filter(|path| !config.streams.contains(path)) {
            if let Some(live) = self.live(&path).await? {
                links.push((path, Some(live)));
            }
        }
        let globbed = links.len();
        for path in &config.streams {
            links.push((path.clone(), self.live(path).await?));
        }
        let records: Vec<LinkRecord> = links
            .iter()
            .enumerate()
            .map(|(at, (path, live))| LinkRecord {
                path: path.clone(),
                explicit: at >= globbed,
                cursor: live.map(|live| (live.stream, live.tail)),
            })
            .collect();
        let mut events = vec![SubscriptionEvent::Created {
            at: self.engine.now(),
            id: id.clone(),
            config: config.clone(),
            base_url,
        }];
        events.extend(
            records
                .chunks(LINKS_PER_EVENT)
                .map(|links| SubscriptionEvent::Linked { links: links.to_vec() }),
        );
        events.push(SubscriptionEvent::Ready);
        let log = Log::create(&self.engine, id, &events).await.map_err(unavailable)?;
        let mut state = Subscription::replay(events)
            .ok_or_else(|| Refusal::Unavailable("the new log is not whole".into()))?;
        links.iter().for_each(|(path, live)| state.observe(path, *live));
        Ok(Slot::new(state, log))
    }

    async fn delete(&self, id: &SubscriptionId) -> Result<(), Refusal> {
        let Ok(entry) = self.find(id) else { return Ok(()) };
        let mut guard = entry.slot().await;
        let Some(slot) = guard.as_mut() else { return Ok(()) };
        self.erase(slot).await?;
        let explicit = slot
            .state
            .linked_paths()
            .filter(|path| slot.state.link(path).is_some_and(|link| link.explicit));
        self.watcher.unwatch(slot.state.config(), explicit, entry.key);
        self.timers.set(entry.key, None);
        self.registry.remove(&entry);
        // Whoever waits for the lock finds nothing.
        *guard = None;
        Ok(())
    }

    async fn link(&self, id: &SubscriptionId, paths: &[StreamPath]) -> Result<(), Refusal> {
        let entry = self.find(id)?;
        let mut guard = entry.slot().await;
        let slot = guard.as_mut().ok_or(Refusal::NotFound)?;
        if let DeliveryConfig::PullWake { wake_stream } = &slot.state.config().delivery
            && paths.contains(wake_stream)
        {
            return Err(Refusal::InvalidRequest(
                "wake_stream cannot be one of the subscription's own streams".into(),
            ));
        }
        self.settle(&entry, slot, false).await?;
        paths.iter().for_each(|path| self.watcher.watch_path(path, entry.key));
        let mut streams = Vec::with_capacity(paths.len());
        for path in paths {
            streams.push((path.clone(), self.live(path).await?));
        }
        let events = slot.state.link_explicit(&streams);
        self.commit(slot, &events).await?;
        streams.iter().for_each(|(path, live)| slot.state.observe(path, *live));
        drop(guard);
        self.queue(&entry);
        Ok(())
    }

    async fn ack(
        &self,
        kind: AckKind,
        id: &SubscriptionId,
        token: Option<String>,
        request: AckRequest,
    ) -> Result<bool, Refusal> {
        let entry = self.find(id)?;
        self.route();
        let mut guard = entry.slot().await;
        let slot = guard.as_mut().ok_or(Refusal::NotFound)?;
        match kind {
            AckKind::Ack => slot.state.expect_pull_wake()?,
            AckKind::Callback => slot.state.expect_webhook()?,
        }
        let claims = self.verify(id, token)?;
        self.settle(&entry, slot, false).await?;
        let acks = request.acks.as_deref().unwrap_or_default();
        for ack in acks {
            // The worker may have read further than news has reached us.
            if let Ok(path) = StreamPath::new(ack.stream.trim_start_matches('/'))
                && slot.state.link(&path).is_some()
            {
                let live = self.live(&path).await?;
                slot.state.observe(&path, live);
            }
        }
        let done = request.done == Some(true);
        let now = self.engine.now();
        let events = slot.state.ack(request.fence(&claims)?, acks, done, now)?;
        self.commit(slot, &events).await?;
        let next_wake = done && slot.state.has_pending();
        drop(guard);
        self.queue(&entry);
        Ok(next_wake)
    }

    fn verify(&self, id: &SubscriptionId, token: Option<String>) -> Result<Claims, Refusal> {
        let token = token.ok_or(Refusal::TokenInvalid)?;
        self.keys.token_key().verify(&token, id, self.engine.now()).map_err(|error| match error {
            TokenError::Invalid => Refusal::TokenInvalid,
            TokenError::Expired => Refusal::TokenExpired,
        })
    }

    /// The stream route as the outside reaches it.
    fn base_url<'a>(&'a self, state: &'a Subscription) -> &'a str {
        self.options.public_url.as_deref().unwrap_or(state.base_url())
    }

    /// The URL of one of a subscription's actions.
    pub(super) fn action_url(&self, state: &Subscription, action: &str) -> String {
        let id = percent_encoding::utf8_percent_encode(state.id().as_str(), super::http::SEGMENT);
        format!("{}/__ds/subscriptions/{id}/{action}", self.base_url(state))
    }

    fn view(&self, state: &Subscription) -> SubscriptionView {
        let config = state.config();
        let (kind, webhook, wake_stream) = match &config.delivery {
            DeliveryConfig::Webhook { url } => {
                let signing = SigningInfo {
                    alg: "ed25519",
                    kid: self.keys.active_id(self.engine.now()),
                    jwks_url: format!("{}/__ds/jwks.json", self.base_url(state)),
                };
                ("webhook", Some(WebhookView { url: url.clone(), signing }), None)
            }
            DeliveryConfig::PullWake { wake_stream } => {
                ("pull-wake", None, Some(wake_stream.clone()))
            }
        };
        SubscriptionView {
            id: state.id().clone(),
            subscription_id: state.id().clone(),
            kind,
            pattern: config.pattern.as_ref().map(ToString::to_string),
            streams: state.link_infos(),
            webhook,
            wake_stream,
            lease_ttl_ms: config.lease_ttl_ms,
            created_at: state.created_at().to_string(),
            status: state.status(),
            description: config.description.clone(),
        }
    }
}
