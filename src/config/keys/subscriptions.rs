//! Webhooks and pull subscriptions.

use durable_streams_subscriptions::SubscriptionOptions;

use crate::config::net::{HostPattern, PublicUrl};
use crate::config::reader::setting::settings;
use crate::config::units::HumanDuration;

settings! {
    /// Webhooks and pull subscriptions.
    pub struct SubscriptionsConfig {
        /// Whether a webhook may point at `http://localhost`; for development.
        allow_http_localhost: bool = false;
        /// Hosts that webhooks may point at; every public host when empty.
        allowed_hosts: Vec<HostPattern> = Vec::new();
        /// Longest time for a webhook to answer.
        webhook_timeout: HumanDuration = SubscriptionOptions::default().delivery_timeout.into()
            => HumanDuration::millis(100), HumanDuration::secs(600);
        /// Most webhook calls in flight at once. A quarter of them is for receivers that failed or
        /// were slow the last time, so that those never hold up the rest.
        max_deliveries: usize = SubscriptionOptions::default().all_deliveries() => 1, 65_536;
        /// The URL of this server as subscribers reach it, for the links that webhooks carry. Webhook
        /// subscriptions need it outside development.
        public_url: Option<PublicUrl> = None;
    }
}
