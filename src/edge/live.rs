//! The settings in force. A request takes them once, at its start, and keeps them to its end; a change
//! takes effect with the next request. Taking them is one atomic operation, never a lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    DurableStreams, EdgeOptions,
    upstream::{Upstream, UpstreamError, Upstreams},
};
use crate::telemetry::metrics::{self, by_status};
use crate::telemetry::{Exposition, Metrics};

/// One state of the settings, with the upstreams made from them.
pub(crate) struct Settings {
    pub(crate) options: EdgeOptions,
    pub(crate) upstreams: Upstreams,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Settings").field(&self.options).finish()
    }
}

/// See the module.
pub(crate) struct Live {
    settings: ArcSwap<Settings>,
    changed: watch::Sender<()>,
}

impl Live {
    pub(crate) fn new(options: EdgeOptions) -> Result<Self, UpstreamError> {
        let upstreams = Upstreams::build(&options.upstreams, None)?;
        let settings = ArcSwap::from_pointee(Settings { options, upstreams });
        Ok(Live { settings, changed: watch::Sender::new(()) })
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }
}

/// Changes an [`Edge`](super::Edge) and looks into it while it serves.
#[derive(Clone)]
pub struct EdgeControl {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

impl EdgeControl {
    pub(super) fn new(live: Arc<Live>, streams: &DurableStreams) -> Self {
        EdgeControl { live, metrics: streams.metrics().clone() }
    }

    /// Puts other options in force, all of them or, after an error, none. Upstreams whose options are the
    /// same keep their connections and what is known of their health. May wait for name resolution.
    ///
    /// `limits.max_connections` and the HTTP/2 limits are those of the start.
    ///
    /// # Errors
    /// An upstream that cannot be used: no servers, an unreadable CA file.
    pub fn change(&self, options: EdgeOptions) -> Result<(), UpstreamError> {
        let before = self.live.settings();
        let upstreams = Upstreams::build(&options.upstreams, Some(&before.upstreams))?;
        self.live.settings.store(Arc::new(Settings { options, upstreams }));
        self.live.changed.send_replace(());
        Ok(())
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Adds everything the edge counts to a scrape.
    pub fn write(&self, out: &mut Exposition) {
        self.metrics.write(out);
        for upstream in self.live.settings().upstreams.iter() {
            for (status, count) in by_status(upstream.requests().all()) {
                out.number(metrics::UPSTREAM_REQUESTS, &[upstream.name(), &status], count as f64);
            }
            for (server, healthy) in upstream.servers() {
                let labels = [upstream.name(), &server.to_string()];
                out.number(metrics::UPSTREAM_HEALTHY, &labels, f64::from(u8::from(healthy)));
            }
        }
    }

    /// Name resolution and health checks of the upstreams in force, to be run until the server stops.
    pub fn background(&self) -> Arc<dyn BackgroundService + Send + Sync> {
        Arc::new(Care(self.live.clone()))
    }
}

/// Looks after the upstreams in force, and no longer after those that are not.
struct Care(Arc<Live>);

#[async_trait]
impl BackgroundService for Care {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut changed = self.0.changed.subscribe();
        let mut tasks = JoinSet::new();
        let mut cared: Vec<(Arc<Upstream>, AbortHandle)> = Vec::new();
        loop {
            changed.mark_unchanged();
            let settings = self.0.settings();
            let in_force =
                |one: &Arc<Upstream>| settings.upstreams.iter().any(|u| Arc::ptr_eq(u, one));
            cared.retain(|(upstream, task)| {
                let stays = in_force(upstream);
                if !stays {
                    task.abort();
                }
                stays
            });
            for upstream in settings.upstreams.iter() {
                if !cared.iter().any(|(known, _)| Arc::ptr_eq(known, upstream)) {
                    let (work, shutdown) = (upstream.background(), shutdown.clone());
                    let task = tasks.spawn(async move { work.start(shutdown).await });
                    cared.push((upstream.clone(), task));
                }
            }
            drop(settings);
            tokio::select! {
                // The sender lives as long as the settings do.
                _ = changed.changed() => {}
                _ = shutdown.wait_for(|stopping| *stopping) => return,
            }
            // Those that were ended, or had nothing to do.
            while tasks.try_join_next().is_some() {}
        }
    }
}
