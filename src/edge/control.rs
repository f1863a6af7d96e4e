//! The handle by which the rest of the server changes and reads an edge while it serves.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use durable_streams_pingora::transport::{Stopping, by_status};
use durable_streams_pingora::{DurableStreams, StreamCounters, StreamOptions};
use durable_streams_protocol::Response;
use pingora::http::RequestHeader;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::task::{AbortHandle, JoinSet};

use super::options::EdgeOptions;
use super::settings::CurrentSettings;
use super::upstream::set::{Upstream, UpstreamError};
use crate::telemetry::{Exposition, Metrics, metrics};

/// Changes an [`Edge`](super::Edge) and looks into it while it serves.
#[derive(Clone)]
pub struct EdgeControl {
    settings: Arc<CurrentSettings>,
    metrics: Arc<Metrics>,
    streams: Arc<StreamCounters>,
}

impl EdgeControl {
    pub(super) fn new(
        settings: Arc<CurrentSettings>,
        metrics: Arc<Metrics>,
        streams: &DurableStreams,
    ) -> Self {
        EdgeControl { settings, metrics, streams: streams.counters().clone() }
    }

    /// Replaces the options, all of them or, after an error, none. Upstreams whose options are the
    /// same keep their connections and what is known of their health. May wait for name resolution.
    ///
    /// `limits.max_connections` and the HTTP/2 limits are those of the start.
    ///
    /// # Errors
    /// An upstream that cannot be used: no servers, an unreadable CA file.
    pub fn change(&self, options: EdgeOptions) -> Result<(), UpstreamError> {
        self.settings.replace(options)
    }

    /// The counters of the server around the stream routes.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The counters of the stream routes.
    pub fn streams(&self) -> &Arc<StreamCounters> {
        &self.streams
    }

    /// The settings of the stream routes.
    pub(crate) fn stream_options(&self) -> StreamOptions {
        self.settings.load().options.streams.clone()
    }

    /// The upstreams by name, each with its servers and whether they are healthy.
    pub(crate) fn upstreams(&self) -> Vec<(String, Vec<(SocketAddr, bool)>)> {
        let settings = self.settings.load();
        settings.upstreams.iter().map(|one| (one.name().to_owned(), one.servers())).collect()
    }

    /// Adds everything the edge counts to a scrape.
    pub fn write(&self, out: &mut Exposition) {
        self.metrics.write(&self.streams, out);
        for upstream in self.settings.load().upstreams.iter() {
            for (status, count) in by_status(upstream.requests().all()) {
                out.number(metrics::UPSTREAM_REQUESTS, &[upstream.name(), &status], count as f64);
            }
            for (server, healthy) in upstream.servers() {
                let labels = [upstream.name(), &server.to_string()];
                out.number(metrics::UPSTREAM_HEALTHY, &labels, f64::from(u8::from(healthy)));
            }
        }
    }

    /// Why a request to another listener of this server is refused, if it is: the hosts and origins that requests may
    /// name are restricted there, too.
    pub fn refuse_host(&self, request: &RequestHeader) -> Option<Response> {
        let settings = self.settings.load();
        let hosts = settings.options.allowed_hosts.as_ref()?;
        hosts.refuse(request).map(|problem| problem.response())
    }

    /// Name resolution and health checks of the upstreams, to be run until the server stops.
    pub fn background(&self) -> Arc<dyn BackgroundService + Send + Sync> {
        Arc::new(UpstreamUpkeep(self.settings.clone()))
    }
}

/// Resolves the names and checks the health of the present upstreams, and stops for those that a change removes.
struct UpstreamUpkeep(Arc<CurrentSettings>);

#[async_trait]
impl BackgroundService for UpstreamUpkeep {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut stopping = Stopping::from(shutdown.clone());
        let mut changed = self.0.changes();
        let mut tasks = JoinSet::new();
        let mut kept_up: Vec<(Arc<Upstream>, AbortHandle)> = Vec::new();
        loop {
            changed.mark_unchanged();
            let settings = self.0.load();
            let present =
                |one: &Arc<Upstream>| settings.upstreams.iter().any(|u| Arc::ptr_eq(u, one));
            kept_up.retain(|(upstream, task)| {
                let stays = present(upstream);
                if !stays {
                    task.abort();
                }
                stays
            });
            for upstream in settings.upstreams.iter() {
                if !kept_up.iter().any(|(known, _)| Arc::ptr_eq(known, upstream)) {
                    let (work, shutdown) = (upstream.background(), shutdown.clone());
                    let task = tasks.spawn(async move { work.start(shutdown).await });
                    kept_up.push((upstream.clone(), task));
                }
            }
            drop(settings);
            tokio::select! {
                // The sender lives as long as the settings do.
                _ = changed.changed() => {}
                () = stopping.begun() => return,
            }
            // Those that were ended, or had nothing to do.
            while tasks.try_join_next().is_some() {}
        }
    }
}
