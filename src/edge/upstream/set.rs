//! The upstreams of one state of the settings: values, without the requests that use them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use durable_streams_engine::counters::ShardedCounters;
use durable_streams_pingora::transport::StatusCounts;
use http::StatusCode;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::{ALPN, HttpPeer};

use super::balancer::ServerPool;
use super::ca;
use super::options::UpstreamOptions;
use crate::edge::forward_auth::ForwardGate;

/// Why there can be no upstreams as configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// One of them cannot be used.
    #[error("upstream {name:?}: {reason}")]
    Options {
        /// The upstream's name.
        name: String,
        /// What is wrong and what to change.
        reason: String,
    },
    /// The system's certificate authorities cannot be loaded: what is wrong and what to change.
    #[error("{0}")]
    Authorities(String),
}

/// All upstreams, in the order of [`EdgeOptions::upstreams`](crate::edge::EdgeOptions::upstreams).
pub(crate) struct UpstreamSet(pub(super) Vec<Arc<Upstream>>);

pub(crate) struct Upstream {
    pub(super) options: UpstreamOptions,
    answered: Arc<ShardedCounters<StatusCounts>>,
    pub(super) pool: ServerPool,
    /// Cloned for every request; only the address and the name change.
    pub(super) template: HttpPeer,
    /// Forward auth.
    gate: Option<ForwardGate>,
}

impl UpstreamSet {
    /// Resolves and prepares every upstream. One whose options are among `before` is taken from there,
    /// with its connections and what is known of its health; counts stay with the name.
    ///
    /// # Errors
    /// No servers, an address without a port, an unreadable CA file; authorities of the system that cannot be loaded,
    /// even if there are no upstreams, because Pingora's proxy needs them.
    pub(crate) fn build(
        all: &[UpstreamOptions],
        before: Option<&UpstreamSet>,
    ) -> Result<Self, UpstreamError> {
        ca::check_system().map_err(UpstreamError::Authorities)?;
        let before = before.map_or(&[][..], |before| &before.0);
        let built = all.iter().map(|options| {
            // A file of authorities may have changed under its name.
            let reads_file = options.tls.as_ref().is_some_and(|tls| tls.ca.is_some());
            let same = |old: &&Arc<Upstream>| !reads_file && old.options == *options;
            if let Some(kept) = before.iter().find(same) {
                return Ok(kept.clone());
            }
            let name = || options.name.clone();
            let fail = |reason| UpstreamError::Options { name: name(), reason };
            let template = template(options).map_err(fail)?;
            let pool = ServerPool::build(options, &template).map_err(fail)?;
            let gate = options.forward_auth.clone().map(ForwardGate::new).transpose();
            let gate = gate.map_err(fail)?;
            let named = before.iter().find(|old| old.options.name == options.name);
            let answered = named.map(|old| old.answered.clone()).unwrap_or_default();
            Ok(Arc::new(Upstream { options: options.clone(), answered, pool, template, gate }))
        });
        built.collect::<Result<_, _>>().map(UpstreamSet)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.iter()
    }
}

impl Upstream {
    pub(crate) fn name(&self) -> &str {
        &self.options.name
    }

    /// Forward auth; `None` forwards every request.
    pub(crate) fn gate(&self) -> Option<&ForwardGate> {
        self.gate.as_ref()
    }

    /// Counts a finished request.
    pub(crate) fn answered(&self, status: Option<StatusCode>) {
        self.answered.mine().add(status);
    }

    /// Finished requests.
    pub(crate) fn requests(&self) -> &ShardedCounters<StatusCounts> {
        &self.answered
    }

    /// Its servers as far as they are resolved, and whether they get requests.
    pub(crate) fn servers(&self) -> Vec<(SocketAddr, bool)> {
        self.pool.servers()
    }

    /// Name resolution and health checks, to be run while the upstream is in use.
    pub(crate) fn background(&self) -> Arc<dyn BackgroundService + Send + Sync> {
        self.pool.background()
    }
}

fn template(options: &UpstreamOptions) -> Result<HttpPeer, String> {
    let placeholder = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut peer = HttpPeer::new(placeholder, options.tls.is_some(), String::new());
    // Upstreams never share connections, even to one address: their TLS settings may differ. Nor does a
    // changed one share those of its former self.
    static NEXT_GROUP: AtomicU64 = AtomicU64::new(1);
    peer.group_key = NEXT_GROUP.fetch_add(1, Ordering::Relaxed);
    let o = &mut peer.options;
    o.connection_timeout = Some(options.connect_timeout);
    o.total_connection_timeout = Some(options.connect_timeout);
    o.read_timeout = Some(options.read_timeout);
    o.write_timeout = Some(options.write_timeout);
    o.idle_timeout = Some(options.idle_timeout);
    o.max_h2_streams = options.h2_streams;
    o.alpn = match (options.http2, options.tls.is_some()) {
        (false, _) => ALPN::H1,
        (true, true) => ALPN::H2H1,
        // Cleartext HTTP/2 cannot be negotiated, only presumed.
        (true, false) => ALPN::H2,
    };
    if let Some(tls) = &options.tls {
        o.verify_cert = tls.verify;
        o.verify_hostname = tls.verify;
        o.ca = tls.ca.as_deref().map(ca::load).transpose()?;
        peer.sni = tls.server_name.clone().unwrap_or_default();
    }
    Ok(peer)
}
