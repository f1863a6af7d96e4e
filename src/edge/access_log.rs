//! One `tracing` event per request, target `access`.
//!
//! The fields are the message: a text line reads `GET /path 200` with the rest behind it, JSON
//! gets one key per fact. Query strings are left out, they carry tokens. Off costs one branch.

use std::net::IpAddr;

use http::{HeaderValue, Method, Version};
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorSource, ErrorType};
use tracing::Level;

use super::context::{RequestContext, RequestTiming};
use super::{forwarded, route::EdgeRoute};
use durable_streams_pingora::transport::WrittenReply;

/// The target to filter on.
pub const TARGET: &str = "access";

/// What is known of a request before it ends.
pub(super) struct AccessEntry {
    request_id: HeaderValue,
    client: Option<IpAddr>,
    method: Method,
    path: Box<str>,
    version: Version,
    timing: RequestTiming,
    route: &'static str,
    upstream: Option<Box<str>>,
}

impl AccessEntry {
    /// `None` when there is no access log.
    pub(super) fn of(session: &ServerSession, ctx: &mut RequestContext) -> Option<Self> {
        if !ctx.settings.options.access_log || !tracing::enabled!(target: TARGET, Level::INFO) {
            return None;
        }
        let request = session.req_header();
        let trusted = &ctx.settings.options.trusted_proxies;
        Some(AccessEntry {
            client: forwarded::client_ip(request, ctx.client, trusted),
            method: request.method.clone(),
            path: request.uri.path().into(),
            version: request.version,
            request_id: ctx.request_id.header().clone(),
            timing: ctx.timing,
            route: match ctx.route {
                EdgeRoute::Stream => "stream",
                EdgeRoute::Upstream(_) => "upstream",
                EdgeRoute::NotFound | EdgeRoute::Ambiguous => "none",
            },
            upstream: ctx.attempt.peer().map(|peer| peer.to_string().into()),
        })
    }

    /// Emits the event of the finished request. `error`: why it ended early, if it did.
    pub(super) fn emit(
        self,
        written: &WrittenReply,
        problem: Option<&'static str>,
        error: Option<&Error>,
    ) {
        let ended = error.map(ended);
        let AccessEntry { method, path, .. } = &self;
        let status = written.status.map_or(0, |status| status.as_u16());
        tracing::info!(
            target: TARGET,
            request_id = self.request_id.to_str().unwrap_or_default(),
            client = self.client.map(tracing::field::display),
            method = method.as_str(),
            path = &**path,
            version = ?self.version,
            status,
            bytes_in = written.received,
            bytes_out = written.sent,
            duration_ms = self.timing.elapsed().as_secs_f64() * 1000.0,
            route = self.route,
            upstream = self.upstream.as_deref(),
            problem,
            ended,
            "{method} {path} {status}",
        );
    }
}

/// Why a request ended early.
pub(crate) fn ended(error: &Error) -> &str {
    match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::WriteError => "client_gone",
        ErrorType::H2Error if *error.esource() == ErrorSource::Downstream => "client_gone",
        ErrorType::WriteTimedout => "client_stalled",
        other => other.as_str(),
    }
}
