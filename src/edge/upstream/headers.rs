//! What changes on a message's way through: path, `Host`, `X-Forwarded-*`, `Via`, hop-by-hop.
//!
//! Pingora takes the hop-by-hop fields off requests (the standard ones and those named in
//! `Connection`; a `Connection` that names `Host` or `X-Forwarded-*` is refused) and keeps the
//! two fields of a WebSocket upgrade. It leaves responses as they are, so this file takes those fields off.

use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::{choose::upstream_of, http10, options::HostHeader};
use crate::edge::forward_auth::identity;
use crate::edge::request_id::X_REQUEST_ID;
use crate::edge::{connection, context::RequestContext, forwarded, span};
use durable_streams_pingora::transport::is_under;

/// How this proxy calls itself in `Via` (RFC 9110 §7.6.3).
const PSEUDONYM: &str = "durable-streams-server";

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Turns the client's request into the one the upstream gets.
pub(crate) fn request(
    session: &Session,
    upstream_request: &mut RequestHeader,
    ctx: &mut RequestContext,
) -> Result<()> {
    let upstream = upstream_of(ctx)?;
    let downstream = session.req_header();
    let trusted = forwarded::is_trusted(ctx.client, &ctx.settings.options.trusted_proxies);
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    forwarded::write(downstream, upstream_request, ctx.client, trusted, tls)?;
    if let Some(gate) = upstream.gate() {
        let identity = ctx.identity.as_deref().unwrap_or_default();
        identity::identify(upstream_request, gate.copied(), identity)?;
    }
    upstream_request.insert_header(X_REQUEST_ID.clone(), ctx.request_id.header().clone())?;
    span::propagate(&ctx.span, upstream_request)?;
    join_cookies(upstream_request)?;
    upstream_request.append_header(header::VIA, via(downstream.version))?;
    if upstream.options.strip_prefix {
        strip_prefix(upstream_request, &upstream.options.prefix)?;
    }
    let host = match &upstream.options.host {
        HostHeader::Preserve => None,
        HostHeader::Server => ctx.attempt.authority.as_deref(),
        HostHeader::Rewrite(host) => Some(host.as_str()),
    };
    if let Some(host) = host {
        upstream_request.insert_header(header::HOST, host)?;
    }
    Ok(())
}

/// Turns the upstream's response into the one the client gets.
pub(crate) fn response(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut RequestContext,
) -> Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        if !session.is_upgrade_req() {
            let why = "101 without a request for an upgrade";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
        }
        // The socket now belongs to the two ends; only they know when silence is too long.
        session.set_read_timeout(None);
        connection::tunnel(session, ctx.attempt.half_close.take());
    }
    if response.status.is_informational() {
        return Ok(());
    }
    for name in named_by_connection(response) {
        response.remove_header(&name);
    }
    for name in [&header::CONNECTION, &header::UPGRADE, &header::TE, &KEEP_ALIVE, &PROXY_CONNECTION]
    {
        response.remove_header(name);
    }
    if response.status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6, RFC 9112 §6.1: a recipient would wait for the body that they announce.
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    http10::end_by_closing(session, response);
    let event_stream = response.headers.get(header::CONTENT_TYPE);
    if event_stream.is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream")) {
        connection::endless(session);
    }
    if let Some(hsts) = ctx.hsts(session) {
        response.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    response.append_header(header::VIA, via(response.version))?;
    response.insert_header(X_REQUEST_ID.clone(), ctx.request_id.header().clone())?;
    Ok(())
}

/// Makes one field of a client's cookies. HTTP/2 may split them (RFC 9113 §8.2.3); servers of HTTP/1.1 read one field.
/// Pingora passes them on as they came (cloudflare/pingora issue 892).
fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let mut cookies = request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return Ok(()) };
    let mut joined = [first, b"; ", second].concat();
    for cookie in cookies {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie);
    }
    request.insert_header(header::COOKIE, joined)
}

/// The fields `Connection` claims, save those that frame the message.
fn named_by_connection(response: &ResponseHeader) -> Vec<HeaderName> {
    let lines = response.headers.get_all(header::CONNECTION).iter();
    let tokens = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    tokens
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| *name != header::TRANSFER_ENCODING && *name != header::CONTENT_LENGTH)
        .collect()
}

fn via(version: Version) -> HeaderValue {
    let protocol = match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    HeaderValue::try_from(format!("{protocol} {PSEUDONYM}"))
        .unwrap_or_else(|_| HeaderValue::from_static(PSEUDONYM))
}

/// Takes `prefix` off the path; the query stays. `/api` becomes `/`.
fn strip_prefix(request: &mut RequestHeader, prefix: &str) -> Result<()> {
    let path = request.uri.path();
    if !is_under(path, prefix) {
        // The route matched another spelling's owner; nothing to take off.
        return Ok(());
    }
    let rest = &path[prefix.trim_end_matches('/').len()..];
    let mut target = String::with_capacity(path.len() + 1);
    if !rest.starts_with('/') {
        target.push('/');
    }
    target.push_str(rest);
    if let Some(query) = request.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let authority = request.uri.authority().cloned();
    let scheme = request.uri.scheme().cloned();
    match (authority, scheme) {
        (Some(authority), Some(scheme)) => {
            let uri = http::Uri::builder().scheme(scheme).authority(authority);
            match uri.path_and_query(target).build() {
                Ok(uri) => {
                    request.set_uri(uri);
                    Ok(())
                }
                Err(e) => pingora::Error::e_because(
                    pingora::ErrorType::InvalidHTTPHeader,
                    "taking the prefix off the path",
                    e,
                ),
            }
        }
        _ => request.set_raw_path(target.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(path: &str, prefix: &str) -> String {
        let mut request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        strip_prefix(&mut request, prefix).unwrap();
        String::from_utf8(request.raw_path().to_vec()).unwrap()
    }

    #[test]
    fn the_prefix_comes_off_on_a_segment_boundary() {
        for (path, prefix, expected) in [
            ("/api/users?x=/api", "/api", "/users?x=/api"),
            ("/api", "/api", "/"),
            ("/api/", "/api/", "/"),
            ("/api?q", "/api", "/?q"),
            ("/api/a%2Fb", "/api", "/a%2Fb"),
            ("/x", "/", "/x"),
        ] {
            assert_eq!(stripped(path, prefix), expected, "{path} without {prefix}");
        }
    }
}
