//! One `tracing` event per request, target `access`.
//!
//! The fields are the message: a text line reads `GET /path 200` with the rest behind it, JSON
//! gets one key per fact. Query strings are left out, they carry tokens. Off costs one branch.

use std::net::IpAddr;

use http::{HeaderValue, Method, StatusCode, Version};
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType};
use tracing::Level;

use super::context::{RequestContext, Timing};
use super::{Route, forwarded};

/// The target to filter on.
pub const TARGET: &str = "access";

/// Emits the event for a finished request. `error`: why it ended early, if it did.
pub(crate) fn emit(session: &ServerSession, error: Option<&Error>, ctx: &mut RequestContext) {
    if let Some(entry) = Entry::of(session, ctx) {
        entry.emit(session.body_bytes_read(), session.body_bytes_sent(), error);
    }
}

/// What is known of a request before it ends.
pub(crate) struct Entry {
    request_id: HeaderValue,
    client: Option<IpAddr>,
    method: Method,
    path: Box<str>,
    version: Version,
    status: u16,
    timing: Timing,
    route: &'static str,
    upstream: Option<Box<str>>,
    problem: Option<&'static str>,
}

impl Entry {
    /// `None` when nobody wants it.
    pub(crate) fn of(session: &ServerSession, ctx: &mut RequestContext) -> Option<Self> {
        if !ctx.settings.options.access_log || !tracing::enabled!(target: TARGET, Level::INFO) {
            return None;
        }
        let request = session.req_header();
        let trusted = &ctx.settings.options.trusted_proxies;
        Some(Entry {
            client: forwarded::client_ip(request, ctx.outcome.client, trusted),
            method: request.method.clone(),
            path: request.uri.path().into(),
            version: request.version,
            status: session.response_written().map_or(0, |response| response.status.as_u16()),
            request_id: ctx.request_id.header().clone(),
            timing: ctx.timing,
            route: match ctx.route {
                Route::Stream => "stream",
                Route::Upstream(_) => "upstream",
                Route::NotFound | Route::Ambiguous => "none",
            },
            upstream: ctx.attempt.peer().map(|peer| peer.to_string().into()),
            problem: ctx.outcome.problem,
        })
    }

    /// The answer became another one than was known.
    pub(crate) fn answered(self, status: StatusCode, problem: Option<&'static str>) -> Self {
        Entry { status: status.as_u16(), problem, ..self }
    }

    /// Emits the event for the finished request.
    pub(crate) fn emit(self, bytes_in: usize, bytes_out: usize, error: Option<&Error>) {
        let ended = error.map(ended);
        let Entry { method, path, status, .. } = &self;
        tracing::info!(
            target: TARGET,
            request_id = self.request_id.to_str().unwrap_or_default(),
            client = self.client.map(tracing::field::display),
            method = method.as_str(),
            path = &**path,
            version = ?self.version,
            status,
            bytes_in,
            bytes_out,
            duration_ms = self.timing.elapsed().as_secs_f64() * 1000.0,
            route = self.route,
            upstream = self.upstream.as_deref(),
            problem = self.problem,
            ended,
            "{method} {path} {status}",
        );
    }
}

/// Why a request ended early.
pub(crate) fn ended(error: &Error) -> &str {
    match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::WriteError => "client_gone",
        ErrorType::WriteTimedout => "client_stalled",
        other => other.as_str(),
    }
}
