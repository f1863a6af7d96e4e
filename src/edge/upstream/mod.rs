//! The reverse proxy: everything that is not a stream goes to an upstream.
//!
//! Built from Pingora's own parts: `pingora-load-balancing` picks a server and checks its health,
//! the proxy crate pools connections and moves bodies both ways as they arrive.
//!
//! Decisions
//! - Names are resolved in the background, every 30 s. A name that does not resolve at start is a
//!   warning: streams must not wait for somebody else's DNS.
//! - A server its health checks call dead gets nothing. All dead: 502 at once.
//! - Connecting is tried again elsewhere for any request, since nothing was sent. After sending,
//!   only idempotent requests without a body are, and never after a timeout (`retry`).
//! - A response that breaks off breaks off for the client too; it never ends cleanly (`failure`).

mod balancer;
mod ca;
pub(crate) mod failure;
pub(crate) mod headers;
mod health;
mod options;
pub(crate) mod retry;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{StatusCode, header};
use pingora::proxy::Session;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use pingora::{Error, ErrorType, Result};

use super::problem::Problem;
use super::{RequestContext, Route};
use crate::telemetry::metrics::ByStatus;
use balancer::Pool;
use durable_streams_engine::counters::Sharded;
pub use options::{
    Balance, HealthCheck, HealthProbe, HostHeader, UpstreamOptions, UpstreamServer, UpstreamTls,
};

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

/// All upstreams, in the order of [`EdgeOptions::upstreams`](super::EdgeOptions::upstreams).
pub(crate) struct Upstreams(Vec<Arc<Upstream>>);

pub(crate) struct Upstream {
    options: UpstreamOptions,
    answered: Arc<Sharded<ByStatus>>,
    pool: Pool,
    /// Cloned for every request; only the address and the name change.
    template: HttpPeer,
}

impl Upstreams {
    /// Resolves and prepares every upstream. One whose options are among `before` is taken from there,
    /// with its connections and what is known of its health; counts stay with the name.
    ///
    /// # Errors
    /// No servers, an address without a port, an unreadable CA file; authorities of the system that cannot be loaded,
    /// even if there are no upstreams, because Pingora's proxy needs them.
    pub(crate) fn build(
        all: &[UpstreamOptions],
        before: Option<&Upstreams>,
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
            let pool = Pool::build(options, &template).map_err(fail)?;
            let named = before.iter().find(|old| old.options.name == options.name);
            let answered = named.map(|old| old.answered.clone()).unwrap_or_default();
            Ok(Arc::new(Upstream { options: options.clone(), answered, pool, template }))
        });
        built.collect::<Result<_, _>>().map(Upstreams)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.iter()
    }
}

impl Upstream {
    pub(crate) fn name(&self) -> &str {
        &self.options.name
    }

    /// Counts a finished request.
    pub(crate) fn answered(&self, status: Option<StatusCode>) {
        self.answered.mine().add(status);
    }

    /// Finished requests.
    pub(crate) fn requests(&self) -> &Sharded<ByStatus> {
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

/// What happened to a request on its way to an upstream.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// Servers asked so far, in order.
    tried: Vec<SocketAddr>,
    count: usize,
    /// The configured address of the server asked last.
    authority: Option<Arc<str>>,
    /// What the last failed attempt would be answered with: nobody is told that no server is
    /// left, when the reason is that the only one failed.
    failure: Option<Problem>,
}

impl Attempt {
    /// The server asked last.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.tried.last().copied()
    }

    /// Attempts made so far.
    fn count(&self) -> usize {
        self.count
    }

    /// Lets the server asked last be asked again.
    fn forget_last(&mut self) {
        self.tried.pop();
    }
}

/// The upstream of a request.
pub(crate) fn of(ctx: &RequestContext) -> Result<Arc<Upstream>> {
    match ctx.route {
        Route::Upstream(index) => ctx.settings.upstreams.0.get(index).cloned(),
        Route::Stream | Route::NotFound | Route::Ambiguous => None,
    }
    .ok_or_else(|| Error::explain(ErrorType::InternalError, "the route has no upstream"))
}

/// Picks the server for this attempt.
///
/// # Errors
/// 502 when no healthy server is left that was not tried yet.
pub(crate) fn choose(session: &Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    let upstream = of(ctx)?;
    let key = upstream.options.balance.key(session, ctx, &ctx.settings.options.trusted_proxies);
    let Some(server) = upstream.pool.pick(&key, &ctx.attempt.tried) else {
        return Err(failure::none_healthy());
    };
    ctx.attempt.tried.push(server.addr);
    ctx.attempt.count += 1;
    let mut peer = upstream.template.clone();
    peer._address = server.addr.into();
    if peer.is_tls() && peer.sni.is_empty() {
        peer.sni = server.host().to_owned();
    }
    ctx.attempt.authority = Some(server.authority);
    if session.is_upgrade_req() {
        upgrade::prepare(&mut peer, Some(upstream.options.live_timeout));
    } else if wants_event_stream(session) {
        peer.options.read_timeout = Some(upstream.options.live_timeout);
    }
    Ok(Box::new(peer))
}

fn wants_event_stream(session: &Session) -> bool {
    let accept = session.req_header().headers.get(header::ACCEPT);
    accept.is_some_and(|v| memchr::memmem::find(v.as_bytes(), b"text/event-stream").is_some())
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
