//! What a control request may do, as the embedding server decides it.

use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_protocol::{
    StreamPath, TenantId,
    subscription::{DeliveryConfig, Glob, Refusal, Subscription, SubscriptionConfig},
};

/// Decides what the client of one control request may do. Paths and patterns are in that client's words.
#[async_trait]
pub trait ControlAccess: Send + Sync {
    /// Whose subscriptions and streams the client names.
    fn tenant(&self) -> Option<&TenantId>;

    /// Whether the client may subscribe to, and read, every stream that a pattern can match.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`], [`Refusal::Unauthorized`] or [`Refusal::Unavailable`], here and below.
    async fn follow_pattern(&self, pattern: &Glob) -> Result<(), Refusal>;

    /// Whether the client may subscribe to, and read, a stream.
    async fn follow_stream(&self, path: &StreamPath) -> Result<(), Refusal>;

    /// Whether the client may append to a wake stream.
    async fn announce_in(&self, wake_stream: &StreamPath) -> Result<(), Refusal>;

    /// Whether a subscription that the client may not see looks as if it did not exist.
    fn conceals(&self) -> bool;
}

/// By what right a control request is made.
#[derive(Clone)]
pub enum ControlAuthority {
    /// Every client may do everything; subscriptions belong to no tenant.
    Unrestricted,
    /// By the token that the server issued with a wake, and by nothing else: callback, ack and release.
    WakeToken,
    /// By what a client may do.
    Client(Arc<dyn ControlAccess>),
}

impl ControlAuthority {
    /// Whose subscriptions the request names.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] for a request that only a client may make.
    pub(super) fn tenant(&self) -> Result<Option<TenantId>, Refusal> {
        match self {
            ControlAuthority::Unrestricted => Ok(None),
            ControlAuthority::WakeToken => Err(Refusal::Unauthorized),
            ControlAuthority::Client(client) => Ok(client.tenant().cloned()),
        }
    }

    fn client(&self) -> Result<Option<&dyn ControlAccess>, Refusal> {
        match self {
            ControlAuthority::Unrestricted => Ok(None),
            ControlAuthority::WakeToken => Err(Refusal::Unauthorized),
            ControlAuthority::Client(client) => Ok(Some(&**client)),
        }
    }

    /// Refuses a client that may not create a subscription with this configuration.
    pub(super) async fn check_config(&self, config: &SubscriptionConfig) -> Result<(), Refusal> {
        let Some(client) = self.client()? else { return Ok(()) };
        if let Some(pattern) = &config.pattern {
            client.follow_pattern(pattern).await?;
        }
        for path in &config.streams {
            client.follow_stream(path).await?;
        }
        if let DeliveryConfig::PullWake { wake_stream } = &config.delivery {
            client.announce_in(wake_stream).await?;
        }
        Ok(())
    }

    /// Refuses a client that may not link these streams.
    pub(super) async fn check_streams(&self, paths: &[StreamPath]) -> Result<(), Refusal> {
        let Some(client) = self.client()? else { return Ok(()) };
        for path in paths {
            client.follow_stream(path).await?;
        }
        Ok(())
    }

    /// Refuses a client that may not follow all that an existing subscription links.
    pub(super) async fn check_links(&self, subscription: &Subscription) -> Result<(), Refusal> {
        let Some(client) = self.client()? else { return Ok(()) };
        if let Some(pattern) = &subscription.config().pattern {
            client.follow_pattern(pattern).await?;
        }
        for path in subscription.explicit_paths() {
            client.follow_stream(path).await?;
        }
        Ok(())
    }

    /// The same for a request that reads a subscription: a client that may not is refused as if there were
    /// none, unless the operator wants such refusals plain.
    pub(super) async fn check_sight(&self, subscription: &Subscription) -> Result<(), Refusal> {
        match self.check_links(subscription).await {
            Err(Refusal::Forbidden) if self.client()?.is_some_and(ControlAccess::conceals) => {
                Err(Refusal::NotFound)
            }
            checked => checked,
        }
    }
}
