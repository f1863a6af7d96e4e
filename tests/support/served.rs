//! What a server has besides streams: access control and subscriptions.

use std::sync::Arc;

use durable_streams_auth::AccessGuard;
use durable_streams_engine::Engine;
use durable_streams_server::edge::AccessCaching;
use durable_streams_server::webhooks::{HttpWebhookClient, WebhookOptions};
use durable_streams_subscriptions::{SubscriptionOptions, Subscriptions};

/// What a test's server has besides streams.
#[derive(Default)]
pub struct ServedFeatures {
    pub access: Option<(AccessGuard, AccessCaching)>,
    pub subscriptions: Option<SubscriptionOptions>,
}

/// Opens the subscriptions of `engine` and runs their driver in the test's runtime.
pub fn open_subscriptions(engine: &Arc<Engine>, options: SubscriptionOptions) -> Subscriptions {
    let webhooks = Arc::new(HttpWebhookClient::new(WebhookOptions::default()).unwrap());
    let opened = Subscriptions::open(engine.clone(), options, webhooks);
    let runtime = tokio::runtime::Handle::current();
    let (subscriptions, driver) = tokio::task::block_in_place(|| runtime.block_on(opened)).unwrap();
    runtime.spawn(driver.run(std::future::pending()));
    subscriptions
}
