//! One `tracing` event per request, target `access`.
//!
//! The fields are the message: a text line reads `GET /path 200` with the rest behind it, JSON
//! gets one key per fact. Query strings are left out, they carry tokens. Off costs one branch.

use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType};
use tracing::Level;

use super::context::RequestContext;
use super::{Route, forwarded};

/// The target to filter on.
pub const TARGET: &str = "access";

/// Emits the event for a finished request. `error`: why it ended early, if it did.
pub(crate) fn emit(session: &ServerSession, error: Option<&Error>, ctx: &mut RequestContext) {
    if !ctx.settings.options.access_log || !tracing::enabled!(target: TARGET, Level::INFO) {
        return;
    }
    let request = session.req_header();
    let status = session.response_written().map_or(0, |response| response.status.as_u16());
    let trusted = &ctx.settings.options.trusted_proxies;
    let client = forwarded::client_ip(request, ctx.outcome.client, trusted);
    let route = match ctx.route {
        Route::Stream => "stream",
        Route::Upstream(_) => "upstream",
        Route::NotFound | Route::Ambiguous => "none",
    };
    let ended = error.map(ended);
    tracing::info!(
        target: TARGET,
        request_id = ctx.request_id.text(),
        client = client.map(tracing::field::display),
        method = request.method.as_str(),
        path = request.uri.path(),
        version = ?request.version,
        status,
        bytes_in = session.body_bytes_read(),
        bytes_out = session.body_bytes_sent(),
        duration_ms = ctx.timing.elapsed().as_secs_f64() * 1000.0,
        route,
        upstream = ctx.attempt.peer().map(tracing::field::display),
        problem = ctx.outcome.problem,
        ended,
        "{} {} {status}",
        request.method,
        request.uri.path(),
    );
}

/// Why a request ended early.
pub(crate) fn ended(error: &Error) -> &str {
    match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::WriteError => "client_gone",
        ErrorType::WriteTimedout => "client_stalled",
        other => other.as_str(),
    }
}
