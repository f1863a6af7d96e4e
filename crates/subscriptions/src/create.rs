//! Creation of a subscription (§6.2): judge, watch, link what exists, write the log.

use durable_streams_protocol::{
    Rejection, StreamPath,
    subscription::{
        DeliveryConfig, LinkRecord, Refusal, StreamHead, Subscription, SubscriptionConfig,
        SubscriptionEvent, SubscriptionId, SubscriptionView, WebhookTarget,
    },
};

use super::{
    SubscriptionsInner,
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
        id: SubscriptionId,
        config: SubscriptionConfig,
        base_url: String,
    ) -> Result<(bool, SubscriptionView), Refusal> {
        if let DeliveryConfig::Webhook { url } = &config.delivery {
            WebhookTarget::parse(url, &self.options.targets).map_err(Refusal::UrlRejected)?;
        }
        loop {
            let cell = self.registry.claim(&id, self.options.max_subscriptions)?;
            let mut guard = cell.lock().await;
            if let Some(subscription) = guard.as_mut() {
                self.catch_up(&cell, subscription, false).await?;
                if subscription.state.config().hash() != config.hash() {
                    return Err(Refusal::AlreadyExists);
                }
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
            match self.write_new(&id, &config).await {
                Ok(subscription) => {
                    let view = self.view(&subscription.state, &base_url, None);
                    *guard = Some(subscription);
                    drop(guard);
                    self.queue(&cell);
                    return Ok((true, view));
                }
                Err(refusal) => {
                    self.watcher.unwatch(&config, std::iter::empty(), cell.key);
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
            DeliveryConfig::PullWake { wake_stream } => match self.engine.head(wake_stream).await {
                Ok(view) if !view.core.content_type.is_json() => {
                    return Err(Refusal::InvalidRequest(not_json(&view.core.content_type)));
                }
                Ok(_) | Err(Rejection::NotFound | Rejection::Gone) => {}
                Err(error) => return Err(unavailable(error)),
            },
        }
        self.watcher.watch_new(config, cell.key)
    }

    /// Links existing streams at their tails, and writes the log.
    async fn write_new(
        &self,
        id: &SubscriptionId,
        config: &SubscriptionConfig,
    ) -> Result<OpenSubscription, Refusal> {
        let mut links: Vec<(StreamPath, Option<StreamHead>)> = Vec::new();
        let matching = match &config.pattern {
            Some(pattern) => {
                self.matching(pattern, self.links.room(self.options.max_links)).await?
            }
            None => Vec::new(),
        };
        let globbed = matching.into_iter().filter(|path| config.matches(path));
        for path in globbed.filter(|path| !config.streams.contains(path)) {
            if let Some(head) = self.head(&path).await? {
                links.push((path, Some(head)));
            }
        }
        let globbed = links.len();
        self.links.check_room(globbed + config.streams.len(), self.options.max_links)?;
        for path in &config.streams {
            links.push((path.clone(), self.head(path).await?));
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
        let mut events = vec![SubscriptionEvent::Created {
            at: self.engine.now(),
            id: id.clone(),
            config: config.clone(),
            base_url: String::new(),
        }];
        events.extend(
            records
                .chunks(LINKS_PER_EVENT)
                .map(|links| SubscriptionEvent::Linked { links: links.to_vec() }),
        );
        events.push(SubscriptionEvent::Ready);
        let log = SubscriptionLog::create(&self.engine, id, &events).await.map_err(unavailable)?;
        let mut state = Subscription::replay(events)
            .ok_or_else(|| Refusal::Unavailable("the new log is not whole".into()))?;
        links.iter().for_each(|(path, head)| state.observe(path, *head));
        Ok(OpenSubscription::new(state, log, &self.links))
    }
}
