//! The streams' own work beside the requests, as one Pingora background service.

use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_engine::Engine;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::sync::watch;

use super::{DurableStreams, StreamOptions};

/// Runs the engine's housekeeping, and tells live readers when a stop begins. Add it to the server as a
/// `background_service`.
pub struct StreamsBackground {
    engine: Arc<Engine>,
    stopping: watch::Sender<bool>,
}

impl DurableStreams {
    /// Routes for the streams of `engine`, and the service that must run beside them.
    pub fn mount(engine: Engine, options: StreamOptions) -> (Self, StreamsBackground) {
        let engine = Arc::new(engine);
        let (stopping, shutdown) = watch::channel(false);
        let streams = DurableStreams::new(engine.clone(), options, shutdown);
        (streams, StreamsBackground { engine, stopping })
    }
}

#[async_trait]
impl BackgroundService for StreamsBackground {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = Engine::housekeeping(Arc::downgrade(&self.engine)) => {}
            _ = shutdown.wait_for(|stopping| *stopping) => {}
        }
        self.stopping.send_replace(true);
    }
}
