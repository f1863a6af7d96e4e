//! Work beside the requests: name resolution, health checks, whatever else the server is given.

use std::sync::Arc;

use async_trait::async_trait;

#[cfg(unix)]
use pingora::server::ListenFds;
use pingora::server::ShutdownWatch;
use pingora::services::Service;
use pingora::services::background::BackgroundService;
use tokio::task::JoinSet;

use super::shutdown::{Stop, WorkTracker};

/// Runs all background work on one thread of its own, so that it never delays a request.
pub(super) struct BackgroundWork {
    work: Vec<Arc<dyn BackgroundService + Send + Sync>>,
    stop: ShutdownWatch,
    open: WorkTracker,
}

impl BackgroundWork {
    pub(super) fn new(work: Vec<Arc<dyn BackgroundService + Send + Sync>>, stop: &Stop) -> Self {
        BackgroundWork { work, stop: stop.watch(), open: stop.connections(1) }
    }
}

#[async_trait]
impl Service for BackgroundWork {
    async fn start_service(
        &mut self,
        #[cfg(unix)] _fds: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
    ) {
        // Held until the last piece of work has ended: the stop waits for it.
        let _open = self.open.try_enter();
        let mut running = JoinSet::new();
        for work in self.work.drain(..) {
            let stop = self.stop.clone();
            running.spawn(async move { work.start(stop).await });
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "background work ended badly");
            }
        }
    }

    fn name(&self) -> &'static str {
        "background"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
