//! Subscriptions with the server's HTTP client, real processes and load. What they do on an engine is tested in
//! crates/subscriptions/tests/subscriptions, whose engine, receiver and requests these tests use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

mod client;
mod kill;
#[path = "../../crates/subscriptions/tests/subscriptions/receiver.rs"]
mod receiver;
#[allow(dead_code, reason = "the tests of the crate use all of it")]
#[path = "../../crates/subscriptions/tests/subscriptions/rig.rs"]
mod rig;
mod scale;
mod webhooks;
mod workers;

use std::sync::Arc;

use durable_streams_server::webhooks::{HttpWebhookClient, WebhookOptions};
use durable_streams_subscriptions::WebhookClient;

pub(crate) fn http_client() -> Arc<dyn WebhookClient> {
    Arc::new(HttpWebhookClient::new(WebhookOptions::default()).unwrap())
}
