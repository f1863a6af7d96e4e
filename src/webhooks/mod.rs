//! Delivers the wakes of subscriptions over HTTP, to the addresses that the rules allow.

mod client;
mod resolver;

pub use client::{HttpWebhookClient, WebhookOptions, WebhookSetupError};
pub use resolver::{HostResolver, ResolvedAddresses, SystemResolver};
