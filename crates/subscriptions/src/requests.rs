//! What each control request does (§6, §7). Each runs in a task of its own, so that a client that
//! disconnects cannot stop a change halfway.

use std::sync::Arc;

use durable_streams_protocol::{
    Offset, StreamPath,
    subscription::{
        AckRequest, ClaimResponse, DeliveryConfig, JwkSet, Refusal, ReleaseRequest, SigningInfo,
        Subscription, SubscriptionConfig, SubscriptionId, SubscriptionName, SubscriptionView,
        TokenClaims, TokenError, WebhookView,
    },
};

use super::{
    Subscriptions, SubscriptionsInner,
    access::ControlAuthority,
    cell::{SubscriptionCell, head_of},
};

/// The most links in one response.
const LINKS_PER_PAGE: usize = 1_000;

/// The endpoint by which a worker moves cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind {
    Callback,
    Ack,
}

impl Subscriptions {
    /// Creates a subscription, or confirms an equal one (§6.2). The flag is `true` when it was created.
    pub(super) async fn create(
        &self,
        name: SubscriptionName,
        config: SubscriptionConfig,
        base_url: String,
        authority: ControlAuthority,
    ) -> Result<(bool, SubscriptionView), Refusal> {
        let shared = self.shared.clone();
        self.run(async move { shared.create(name, config, base_url, authority).await }).await
    }

    /// Reads a subscription (§6.3).
    pub(super) async fn view(
        &self,
        name: SubscriptionName,
        base_url: String,
        after: Option<StreamPath>,
        authority: ControlAuthority,
    ) -> Result<SubscriptionView, Refusal> {
        let shared = self.shared.clone();
        let view = async move {
            let cell = shared.find(&name)?;
            shared.route();
            let mut guard = cell.lock().await;
            let subscription = guard.as_mut().ok_or(Refusal::NotFound)?;
            authority.check_sight(&subscription.state).await?;
            shared.catch_up(&cell, subscription, false).await?;
            Ok(shared.view(&subscription.state, &base_url, after.as_ref()))
        };
        self.run(view).await
    }

    /// Deletes a subscription (§6.3); succeeds when there is none.
    pub(super) async fn delete(
        &self,
        name: SubscriptionName,
        authority: ControlAuthority,
    ) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        self.run(async move { shared.delete(&name, &authority).await }).await
    }

    /// Adds explicit streams (§6.4).
    pub(super) async fn link(
        &self,
        name: SubscriptionName,
        paths: Vec<StreamPath>,
        authority: ControlAuthority,
    ) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        self.run(async move { shared.link(&name, &paths, &authority).await }).await
    }

    /// Removes an explicit stream (§6.4).
    pub(super) async fn unlink(
        &self,
        name: SubscriptionName,
        path: StreamPath,
        authority: ControlAuthority,
    ) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        let unlink = async move {
            let cell = shared.find(&name)?;
            let mut guard = cell.lock().await;
            let subscription = guard.as_mut().ok_or(Refusal::NotFound)?;
            authority.check_sight(&subscription.state).await?;
            shared.catch_up(&cell, subscription, false).await?;
            let events = subscription.state.unlink(&path);
            shared.commit(subscription, &events).await?;
            let tenant = cell.name.tenant.as_ref();
            shared.watcher.unwatch_path(tenant, &path, cell.key);
            // A link by the pattern remains only while the stream exists.
            subscription.state.observe(&path, shared.head(tenant, &path).await?);
            drop(guard);
            shared.queue(&cell);
            Ok(())
        };
        self.run(unlink).await
    }

    /// Claims the wake for a worker (§7.2).
    pub(super) async fn claim(
        &self,
        name: SubscriptionName,
        worker: String,
        authority: ControlAuthority,
    ) -> Result<ClaimResponse, Refusal> {
        let shared = self.shared.clone();
        let claim = async move {
            let cell = shared.find(&name)?;
            shared.route();
            let mut guard = cell.lock().await;
            let subscription = guard.as_mut().ok_or(Refusal::NotFound)?;
            authority.check_sight(&subscription.state).await?;
            shared.catch_up(&cell, subscription, false).await?;
            let now = shared.engine.now();
            let events = subscription.state.claim(worker, shared.engine.steady_now())?;
            shared.commit(subscription, &events).await?;
            shared.queue(&cell);
            let state = &subscription.state;
            let wake = state.wake().ok_or(Refusal::NoPendingWork)?;
            let generation = state.generation();
            Ok(ClaimResponse {
                wake_id: wake.id.clone(),
                generation,
                token: shared.keys.token_key().issue(state.name(), generation, &wake.id, now),
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
            let claims = shared.verify(&id, token)?;
            let cell = shared.find(&claims.name())?;
            shared.route();
            let mut guard = cell.lock().await;
            let subscription = guard.as_mut().ok_or(Refusal::NotFound)?;
            subscription.state.expect_pull_wake()?;
            shared.refresh(subscription).await?;
            let events =
                subscription.state.release(request.fence(&claims)?, shared.engine.steady_now())?;
            shared.commit(subscription, &events).await?;
            drop(guard);
            shared.queue(&cell);
            Ok(())
        };
        self.run(release).await
    }

    /// The published keys (§6.5).
    pub(super) fn keys(&self) -> JwkSet {
        self.shared.keys.published(self.shared.engine.now())
    }
}

impl SubscriptionsInner {
    fn find(&self, name: &SubscriptionName) -> Result<Arc<SubscriptionCell>, Refusal> {
        self.registry.find(name).ok_or(Refusal::NotFound)
    }

    async fn delete(
        &self,
        name: &SubscriptionName,
        authority: &ControlAuthority,
    ) -> Result<(), Refusal> {
        let Ok(cell) = self.find(name) else { return Ok(()) };
        let mut guard = cell.lock().await;
        let Some(subscription) = guard.as_mut() else { return Ok(()) };
        // Plain: 204 would say that it is gone.
        authority.check_links(&subscription.state).await?;
        self.erase(subscription).await?;
        let explicit = subscription.state.explicit_paths();
        let tenant = cell.name.tenant.as_ref();
        self.watcher.unwatch(tenant, subscription.state.config(), explicit, cell.key);
        self.deadlines.set(cell.key, None);
        self.registry.remove(&cell);
        // Requests that wait for the lock find `None`.
        *guard = None;
        Ok(())
    }

    async fn link(
        &self,
        name: &SubscriptionName,
        paths: &[StreamPath],
        authority: &ControlAuthority,
    ) -> Result<(), Refusal> {
        let cell = self.find(name)?;
        let mut guard = cell.lock().await;
        let subscription = guard.as_mut().ok_or(Refusal::NotFound)?;
        authority.check_sight(&subscription.state).await?;
        authority.check_streams(paths).await?;
        if let DeliveryConfig::PullWake { wake_stream } = &subscription.state.config().delivery
            && paths.contains(wake_stream)
        {
            return Err(Refusal::InvalidRequest(
                "wake_stream cannot be one of the subscription's own streams".into(),
            ));
        }
        self.catch_up(&cell, subscription, false).await?;
        let new = paths.iter().filter(|path| subscription.state.link(path).is_none()).count();
        let tenant = name.tenant.as_ref();
        self.links.check_room(tenant, new, self.options.max_links)?;
        paths.iter().for_each(|path| self.watcher.watch_path(tenant, path, cell.key));
        let mut streams = Vec::with_capacity(paths.len());
        for path in paths {
            streams.push((path.clone(), self.head(tenant, path).await?));
        }
        let events = subscription.state.link_explicit(&streams);
        self.commit(subscription, &events).await?;
        streams.iter().for_each(|(path, head)| subscription.state.observe(path, *head));
        drop(guard);
        self.queue(&cell);
        Ok(())
    }

    async fn ack(
        &self,
        kind: AckKind,
        id: &SubscriptionId,
        token: Option<String>,
        request: AckRequest,
    ) -> Result<bool, Refusal> {
        // First of all, so that a client without a token learns nothing about subscriptions.
        let claims = self.verify(id, token)?;
        let cell = self.find(&claims.name())?;
        self.route();
        let mut guard = cell.lock().await;
        let subscription = guard.as_mut().ok_or(Refusal::NotFound)?;
        match kind {
            AckKind::Ack => subscription.state.expect_pull_wake()?,
            AckKind::Callback => subscription.state.expect_webhook()?,
        }
        self.catch_up(&cell, subscription, false).await?;
        let acks = request.acks.as_deref().unwrap_or_default();
        let mut foreign = None;
        for ack in acks {
            // The worker may have read past the tail that this subscription knows.
            if let Ok(path) = StreamPath::new(ack.stream.trim_start_matches('/'))
                && subscription.state.link(&path).is_some()
            {
                let view = self.view_of(cell.name.tenant.as_ref(), &path).await?;
                subscription.state.observe(&path, view.as_ref().map(head_of));
                let offset = Offset::parse(&ack.offset);
                if let Some((offset, view)) = offset.zip(view)
                    && let Err(why) = view.core.resolve(offset, view.tail.offset)
                {
                    let what = format!("ack of {:?} at {:?}: {why}", ack.stream, ack.offset);
                    foreign = Some(Refusal::InvalidOffset(what));
                }
            }
        }
        let done = request.done == Some(true);
        let now = self.engine.steady_now();
        let events = subscription.state.ack(request.fence(&claims)?, acks, done, now)?;
        foreign.map_or(Ok(()), Err)?;
        self.commit(subscription, &events).await?;
        let next_wake = done && subscription.state.has_pending();
        drop(guard);
        self.queue(&cell);
        Ok(next_wake)
    }

    fn verify(&self, id: &SubscriptionId, token: Option<String>) -> Result<TokenClaims, Refusal> {
        let token = token.ok_or(Refusal::TokenInvalid)?;
        self.keys.token_key().verify(&token, id, self.engine.now()).map_err(|error| match error {
            TokenError::Invalid => Refusal::TokenInvalid,
            TokenError::Expired => Refusal::TokenExpired,
        })
    }

    /// The response to a client that reached the stream route at `base_url`, with the page of links after
    /// `after`.
    pub(super) fn view(
        &self,
        state: &Subscription,
        base_url: &str,
        after: Option<&StreamPath>,
    ) -> SubscriptionView {
        let base_url = self.options.public_url.as_deref().unwrap_or(base_url);
        let mut streams = state.link_infos(after, LINKS_PER_PAGE + 1);
        let more = streams.len() > LINKS_PER_PAGE;
        streams.truncate(LINKS_PER_PAGE);
        let config = state.config();
        let (kind, webhook, wake_stream) = match &config.delivery {
            DeliveryConfig::Webhook { url } => {
                let signing = SigningInfo {
                    alg: "ed25519",
                    kid: self.keys.active_id(self.engine.now()),
                    jwks_url: format!("{base_url}/__ds/jwks.json"),
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
            streams_next: streams.last().filter(|_| more).map(|link| link.path.clone()),
            streams,
            streams_total: state.link_count(),
            webhook,
            wake_stream,
            lease_ttl_ms: config.lease_ttl_ms,
            created_at: state.created_at().to_string(),
            status: state.status(),
            description: config.description.clone(),
        }
    }
}
