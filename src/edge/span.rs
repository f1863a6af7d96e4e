//! One span per request, when there is a tracer: what OpenTelemetry's HTTP conventions ask for, and what a
//! stream's client would ask about.
//!
//! Names say the route, not the path, so that there are few. Query strings are left out, they carry tokens; of
//! a stream's only the offset is recorded.

use http::StatusCode;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, Result};

use super::context::RequestContext;
use super::{access_log, forwarded, route::EdgeRoute, upstream::choose::upstream_of};
use crate::telemetry::trace::{Span, Tracer};
use durable_streams_pingora::transport::WrittenReply;

/// Offsets are short; what is longer is none.
const MAX_OFFSET: usize = 64;

/// Opens the span of a request whose head has been read.
pub(crate) fn begin(tracer: &Tracer, session: &ServerSession, ctx: &mut RequestContext) {
    if !tracer.is_on() {
        return;
    }
    let trusted = &ctx.settings.options.trusted_proxies;
    let trusted = forwarded::is_trusted(ctx.client, trusted);
    ctx.span = tracer.server(&session.req_header().headers, trusted);
}

/// Makes the upstream's spans children of this one.
pub(crate) fn propagate(span: &Span, upstream_request: &mut RequestHeader) -> Result<()> {
    let mut result = Ok(());
    span.propagate(|name, value| {
        if result.is_ok() {
            result = upstream_request.insert_header(name, value);
        }
    });
    result
}

/// Describes the request in its span.
pub(super) fn describe(session: &ServerSession, ctx: &mut RequestContext) {
    if !ctx.span.is_recorded() {
        return;
    }
    let mut span = std::mem::take(&mut ctx.span);
    let request = session.req_header();
    let method = request.method.as_str();
    let route = match ctx.route {
        EdgeRoute::Stream => Some(format!("{}/{{path}}", ctx.settings.options.streams.route)),
        EdgeRoute::Upstream(_) => upstream_of(ctx).ok().map(|upstream| upstream.name().to_owned()),
        EdgeRoute::NotFound | EdgeRoute::Ambiguous => None,
    };
    span.rename(match &route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    });
    span.text("http.request.method", method);
    span.text("http.route", route.as_deref().unwrap_or("none"));
    span.text("url.path", request.uri.path());
    span.text("durable_streams.request_id", ctx.request_id.text());
    let trusted = &ctx.settings.options.trusted_proxies;
    if let Some(client) = forwarded::client_ip(request, ctx.client, trusted) {
        span.text("client.address", &client.to_string());
    }
    if ctx.route == EdgeRoute::Stream {
        let query = request.uri.query().unwrap_or_default();
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("offset="));
        if let Some(asked) = asked.filter(|asked| asked.len() <= MAX_OFFSET) {
            span.text("durable_streams.offset", asked);
        }
    }
    if let Some(server) = ctx.attempt.peer() {
        span.text("durable_streams.upstream", &server.to_string());
    }
    ctx.span = span;
}

/// Ends the span with what became of the request. `error`: why it ended early, if it did.
pub(super) fn end(
    mut span: Span,
    written: &WrittenReply,
    problem: Option<&'static str>,
    error: Option<&Error>,
) {
    if !span.is_recorded() {
        return;
    }
    span.number("http.request.body.size", written.received as u64);
    span.number("http.response.body.size", written.sent as u64);
    if let Some(problem) = problem {
        span.text("durable_streams.problem", problem);
    }
    if let Some(status) = written.status {
        span.number("http.response.status_code", status.as_u16().into());
    }
    let ended = error.map(access_log::ended);
    if let Some(ended) = ended {
        span.text("durable_streams.ended", ended);
    }
    // What the client did, such as leaving, is no error of a server.
    let failed = written.status.filter(StatusCode::is_server_error);
    let failed = failed.map(|status| status.as_str().to_owned());
    span.end(failed.as_deref().or(ended.filter(|ended| !ended.starts_with("client_"))));
}
