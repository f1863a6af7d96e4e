//! The settings of subscriptions.

use std::time::Duration;

use durable_streams_protocol::{TenantId, subscription::TargetRules};

use super::KeySource;

/// One tenant may hold the fourth part of what all subscriptions together may. Those of no tenant have no part: without
/// tenants there are no others.
const TENANT_PARTS: usize = 4;

/// What a tenant may hold of a bound on all subscriptions together.
pub(super) fn tenants_part(tenant: Option<&TenantId>, bound: usize) -> usize {
    if tenant.is_some() { bound.div_ceil(TENANT_PARTS) } else { bound }
}

/// Settings of subscriptions.
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    /// The URLs that webhooks may have.
    pub targets: TargetRules,
    /// Where the signing keys are kept.
    pub keys: KeySource,
    /// The stream route as webhook receivers reach it, without a slash at the end, for callback and key URLs.
    /// `None`: webhook subscriptions are refused, and those that are stored are not delivered. It is never
    /// taken from a request, since the worker sends its token there.
    pub public_url: Option<String>,
    /// The longest wait for a webhook's whole response. The rest of the lease bounds it too.
    pub delivery_timeout: Duration,
    /// The most posts at one time to receivers whose last delivery succeeded quickly. One host has at most
    /// half of them, one owner (the first segment of what a subscription links) three quarters.
    pub max_deliveries: usize,
    /// The most posts at one time to receivers whose last delivery failed or was slow; shared out alike.
    pub max_retries: usize,
    /// The most bytes of a webhook's response that are read.
    pub max_answer: usize,
    /// The most streams in one wake, those with work first. The others follow in the next wake.
    pub max_wake_streams: usize,
    /// The most subscriptions; a quarter of them for one tenant.
    pub max_subscriptions: usize,
    /// The most links over all subscriptions; each takes some 300 to 700 bytes of memory. A pattern's new
    /// links are counted, and never refused. A quarter of them for one tenant.
    pub max_links: usize,
    /// The most bytes of a control request's body.
    pub max_body: usize,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        SubscriptionOptions {
            targets: TargetRules::default(),
            keys: KeySource::Ephemeral,
            public_url: None,
            delivery_timeout: Duration::from_secs(10),
            max_deliveries: 192,
            max_retries: 64,
            max_answer: 64 * 1024,
            max_wake_streams: 1_000,
            max_subscriptions: 10_000,
            max_links: 1_000_000,
            max_body: 1024 * 1024,
        }
    }
}

impl SubscriptionOptions {
    /// Posts at one time to all receivers.
    pub fn all_deliveries(&self) -> usize {
        self.max_deliveries + self.max_retries
    }
}
