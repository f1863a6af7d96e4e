//! Creation of a subscription (§6.2): judge, watch, link what exists, write the log.

use durable_streams_protocol::{
    StreamPath,
    subscription::{
        DeliveryConfig, LinkRecord, Refusal, StreamHead, Subscription, SubscriptionConfig,
        SubscriptionEvent, SubscriptionName, SubscriptionView, WebhookTarget,
    },
};

use super::{
    SubscriptionsInner,
    access::ControlAuthority,
    announce::not_json,
    cell::{OpenSubscription, SubscriptionCell, unavailable},
    state_log::SubscriptionLog,
};

/// The most links in one event of a new log.
const LINKS_PER_EVENT: usize = 500;

impl SubscriptionsInner {
    /// Creates a subscription, or confirms an equal one.
    pub(super) async fn create(
        &self,
        name: SubscriptionName,
        config: SubscriptionConfig,
        base_url: String,
        authority: ControlAuthority,
    ) -> Result<(bool, SubscriptionView), Refusal> {
        authority.check_config(&config).await?;
        if let DeliveryConfig::Webhook { url } = &config.delivery {
            WebhookTarget::parse(url, &self.options.targets).map_err(Refusal::UrlRejected)?;
        }
        loop {
            let cell = self.registry.claim(&name, self.options.max_subscriptions)?;
            let mut guard = cell.lock().await;
            if let Some(subscription) = guard.as_mut() {
                self.catch_up(&cell, subscription, false).await?;
                if subscription.state.config().hash() != config.hash() {
                    return Err(Refusal::AlreadyExists);
                }
                // It may have been given links that this client may not see.
                authority.check_links(&subscription.state).await?;
                return Ok((false, self.view(&subscription.state, &base_url, None)));
            }
            if !self.registry.holds(&cell) {
                // Its creation failed, or it was deleted, while this request waited for the lock.
                continue;
            }
            // Watching begins before the tails are read, so no append is missed between the two.
            if let Err(refusal) = self.watch_new(&config, &cell).await {
                self.registry.remove(&cell);
                return Err(refusal);
            }
            match self.write_new(&name, &config).await {
                Ok(subscription) => {
                    let view = self.view(&subscription.state, &base_url, None);
                    *guard = Some(subscription);
                    drop(guard);
                    self.queue(&cell);
                    return Ok((true, view));
                }
                Err(refusal) => {
                    let tenant = cell.name.tenant.as_ref();
                    self.watcher.unwatch(tenant, &config, std::iter::empty(), cell.key);
                    self.registry.remove(&cell);
                    return Err(refusal);
                }
            }
        }
    }

    /// Begins to watch what a new subscription names, if the server can serve it.
    async fn watch_new(
        &self,
        config: &SubscriptionConfig,
        cell: &SubscriptionCell,
    ) -> Result<(), Refusal> {
        match &config.delivery {
            DeliveryConfig::Webhook { .. } if self.options.public_url.is_none() => {
                return Err(Refusal::WebhooksNotConfigured);
            }
            DeliveryConfig::Webhook { .. } => {}
            DeliveryConfig::PullWake { wake_stream } => {
                let view = self.view_of(cell.name.tenant.as_ref(), wake_stream).await?;
                if let Some(view) = view.filter(|view| !view.core.content_type.is_json()) {
                    return Err(Refusal::InvalidRequest(not_json(&view.core.content_type)));
                }
            }
        }
        self.watcher.watch_new(cell.name.tenant.as_ref(), config, cell.key)
    }

    /// Links existing streams at their tails, and writes the log.
    async fn write_new(
        &self,
        name: &SubscriptionName,
        config: &SubscriptionConfig,
    ) -> Result<OpenSubscription, Refusal> {
        let tenant = name.tenant.as_ref();
        let mut links: Vec<(StreamPath, Option<StreamHead>)> = Vec::new();
        let matching = match &config.pattern {
            Some(pattern) => {
                let room = self.links.room(tenant, self.options.max_links);
                self.matching(tenant, pattern, room).await?
            }
            None => Vec::new(),
        };
        let globbed = matching.into_iter().filter(|path| config.matches(path));
        for path in globbed.filter(|path| !config.streams.contains(path)) {
            if let Some(head) = self.head(tenant, &path).await? {
                links.push((path, Some(head)));
            }
        }
        let globbed = links.len();
        let new = globbed + config.streams.len();
        self.links.check_room(tenant, new, self.options.max_links)?;
        for path in &config.streams {
            links.push((path.clone(), self.head(tenant, path).await?));
        }
        let records: Vec<LinkRecord> = links
            .iter()
            .enumerate()
            .map(|(at, (path, head))| LinkRecord {
                path: path.clone(),
                explicit: at >= globbed,
                cursor: head.map(|head| (head.stream, head.tail)),
            })
            .collect();
        let now = self.engine.now();
        let mut events = vec![SubscriptionEvent::created(name.clone(), config.clone(), now)];
        events.extend(
            records
                .chunks(LINKS_PER_EVENT)
                .map(|links| SubscriptionEvent::Linked { links: links.to_vec() }),
        );
        events.push(SubscriptionEvent::Ready);
        let log =
            SubscriptionLog::create(&self.engine, name, &events).await.map_err(unavailable)?;
        let mut state = Subscription::replay(events)
            .ok_or_else(|| Refusal::Unavailable("the new log is not whole".into()))?;
        links.iter().for_each(|(path, head)| state.observe(path, *head));
        Ok(OpenSubscription::new(state, log, &self.links))
    }
}
