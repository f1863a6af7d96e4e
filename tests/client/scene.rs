//! A server and a client of it.

use std::time::Duration;

use durable_streams_client::{Client, ClientBuilder, StreamBatch, Subscription};

use crate::server::{Server, Setup};

/// Nothing in these tests may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Scene {
    pub(crate) server: Server,
    /// Keeps the data directory.
    _setup: Setup,
}

impl Scene {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// With `settings` as YAML.
    pub(crate) fn with(settings: &str) -> Self {
        let setup = Setup::new(settings);
        Scene { server: setup.start(), _setup: setup }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/stream", self.server.address)
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(&self.url())
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

/// The next batch, which must come.
pub(crate) async fn next(subscription: &mut Subscription) -> StreamBatch {
    let batch = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("nothing comes");
    batch.expect("no failure").expect("the stream goes on")
}

/// Everything until `bytes` have come.
pub(crate) async fn bytes(subscription: &mut Subscription, bytes: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < bytes {
        read.extend_from_slice(&next(subscription).await.to_bytes());
    }
    read
}

/// The end of a closed stream, which must come.
pub(crate) async fn end(subscription: &mut Subscription) {
    let end = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("it goes on");
    assert_eq!(end.expect("no failure"), None);
    assert!(subscription.is_closed());
}
