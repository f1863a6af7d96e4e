//! The work beside the requests, as one Pingora background service.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use durable_streams_engine::Engine;
use durable_streams_subscriptions::{
    SubscriptionOptions, Subscriptions, WakeDriver, WebhookClient,
};
use parking_lot::Mutex;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::sync::watch;

use super::{DurableStreams, Stopping, StreamOptions};

/// Runs the engine's housekeeping and the deliveries of subscriptions, and ends live reads when a stop begins.
///
/// Without it, expired streams stay, idle ones keep their memory, and no subscription is woken.
pub struct StreamsBackground {
    engine: Weak<Engine>,
    driver: Mutex<Option<WakeDriver>>,
    /// Ends the live reads of routes that were mounted with it.
    stopping: Option<watch::Sender<bool>>,
}

impl StreamsBackground {
    /// The work of an engine whose routes watch the stop themselves.
    pub fn new(engine: &Arc<Engine>, driver: Option<WakeDriver>) -> Self {
        let engine = Arc::downgrade(engine);
        StreamsBackground { engine, driver: Mutex::new(driver), stopping: None }
    }
}

impl DurableStreams {
    /// Routes for the streams of `engine`, and the service that must run beside them: add it to the Pingora server
    /// with `background_service`.
    pub fn mount(engine: Engine, options: StreamOptions) -> (Self, StreamsBackground) {
        let engine = Arc::new(engine);
        let mut background = StreamsBackground::new(&engine, None);
        let (stopping, shutdown) = watch::channel(false);
        background.stopping = Some(stopping);
        (DurableStreams::new(engine, options, shutdown), background)
    }

    /// Like [`mount`](Self::mount), with subscriptions, whose wakes go out through `webhooks`.
    ///
    /// The future needs a tokio runtime, any one, only while it is polled.
    ///
    /// # Errors
    /// The stored subscriptions or their keys cannot be read.
    pub async fn mount_with_subscriptions(
        engine: Engine,
        options: StreamOptions,
        subscriptions: SubscriptionOptions,
        webhooks: Arc<dyn WebhookClient>,
    ) -> Result<(Self, StreamsBackground), durable_streams_subscriptions::OpenError> {
        let (mut streams, background) = DurableStreams::mount(engine, options);
        let opened = Subscriptions::open(streams.engine.clone(), subscriptions, webhooks).await?;
        let (subscriptions, driver) = opened;
        streams.serve_subscriptions(subscriptions);
        *background.driver.lock() = Some(driver);
        Ok((streams, background))
    }
}

#[async_trait]
impl BackgroundService for StreamsBackground {
    async fn start(&self, shutdown: ShutdownWatch) {
        let stopping = Stopping::from(shutdown);
        let driver = self.driver.lock().take();
        let mut until = stopping.clone();
        let deliveries = async {
            if let Some(driver) = driver {
                driver.run(until.begun()).await;
            }
        };
        let mut until = stopping.clone();
        let retention = async {
            tokio::select! {
                () = Engine::retention(self.engine.clone()) => {}
                () = until.begun() => {}
            }
        };
        let mut until = stopping;
        let housekeeping = async {
            tokio::select! {
                () = Engine::housekeeping(self.engine.clone()) => {}
                () = until.begun() => {}
            }
            if let Some(stopping) = &self.stopping {
                stopping.send_replace(true);
            }
        };
        tokio::join!(deliveries, retention, housekeeping);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use durable_streams_subscriptions::{WebhookError, WebhookRequest, WebhookResponse};

    use super::*;

    struct NoWebhooks;

    #[async_trait]
    impl WebhookClient for NoWebhooks {
        async fn post(&self, _: WebhookRequest) -> Result<WebhookResponse, WebhookError> {
            Err(WebhookError::NotSent("no webhooks in this test".to_owned()))
        }
    }

    #[tokio::test]
    async fn the_work_ends_with_the_stop_and_so_do_live_reads() {
        let mounted = DurableStreams::mount_with_subscriptions(
            Engine::in_memory(),
            StreamOptions::default(),
            SubscriptionOptions::default(),
            Arc::new(NoWebhooks),
        );
        let (streams, background) = mounted.await.unwrap();
        let (begin, shutdown) = watch::channel(false);
        let work = tokio::spawn(async move { background.start(shutdown).await });
        tokio::task::yield_now().await;
        assert!(!streams.stopping.has_begun() && !work.is_finished());
        begin.send_replace(true);
        tokio::time::timeout(Duration::from_secs(10), work).await.unwrap().unwrap();
        assert!(streams.stopping.has_begun());
    }
}
