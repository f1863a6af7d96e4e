//! What one request carries through the hooks.
//!
//! Built for every request, streams included, so it allocates nothing until a value is needed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora::protocols::http::ServerSession;

use super::forward_auth::ClientIdentity;
use super::request_id::RequestId;
use super::route::EdgeRoute;
use super::settings::EdgeSettings;
use super::upstream::attempts::UpstreamAttempts;
use crate::telemetry::trace::Span;

/// The `CTX` of [`Edge`](super::Edge).
#[derive(Debug)]
pub struct RequestContext {
    /// In force when the request began; kept to its end, whatever is changed meanwhile.
    pub(crate) settings: Arc<EdgeSettings>,
    /// Decided once, in `Edge::route`.
    pub(crate) route: EdgeRoute,
    pub(crate) timing: RequestTiming,
    pub(crate) request_id: RequestId,
    /// Reverse proxy only: where the request went and what was tried.
    pub(crate) attempt: UpstreamAttempts,
    /// Reverse proxy only: what the upstream's authorization service says about the client.
    pub(crate) identity: Option<ClientIdentity>,
    /// The address the client's connection comes from.
    pub(crate) client: Option<SocketAddr>,
    /// The code of the problem that the response reports, if it does.
    pub(crate) problem: Option<&'static str>,
    pub(crate) span: Span,
    /// The reply is written by a writer that sends files.
    pub(crate) sends_files: bool,
}

/// When things happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestTiming {
    started: Instant,
}

impl RequestTiming {
    /// Time since the request head was read.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl RequestContext {
    /// The `Strict-Transport-Security` of a response to this session, if it gets one: never in cleartext, where
    /// anybody could have written it (RFC 6797 §7.2).
    pub(crate) fn hsts(&self, session: &ServerSession) -> Option<HeaderValue> {
        let hsts = self.settings.options.hsts.as_ref()?;
        let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        secure.then(|| hsts.clone())
    }

    pub(crate) fn new(settings: Arc<EdgeSettings>) -> Self {
        RequestContext {
            settings,
            route: EdgeRoute::NotFound,
            timing: RequestTiming { started: Instant::now() },
            request_id: RequestId::default(),
            attempt: UpstreamAttempts::default(),
            identity: None,
            client: None,
            problem: None,
            span: Span::default(),
            sends_files: false,
        }
    }
}
