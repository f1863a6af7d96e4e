//! Which server a request goes to.

use std::borrow::Cow;
use std::sync::Arc;

use http::header;
use ipnet::IpNet;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::options::Balance;
use super::{failure, set::Upstream, upgrade};
use crate::edge::{context::RequestContext, forwarded, route::EdgeRoute};

/// The upstream of a request.
pub(crate) fn upstream_of(ctx: &RequestContext) -> Result<Arc<Upstream>> {
    match ctx.route {
        EdgeRoute::Upstream(index) => ctx.settings.upstreams.0.get(index).cloned(),
        EdgeRoute::Stream | EdgeRoute::NotFound | EdgeRoute::Ambiguous => None,
    }
    .ok_or_else(|| Error::explain(ErrorType::InternalError, "the route has no upstream"))
}

/// Picks the server for this attempt.
///
/// # Errors
/// 502 when no healthy server is left that was not tried yet.
pub(crate) fn choose(session: &Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    let upstream = upstream_of(ctx)?;
    let trusted = &ctx.settings.options.trusted_proxies;
    let key = balance_key(&upstream.options.balance, session, ctx, trusted);
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
        ctx.attempt.half_close = upgrade::prepare(&mut peer, Some(upstream.options.live_timeout));
    } else if wants_event_stream(session) {
        peer.options.read_timeout = Some(upstream.options.live_timeout);
    }
    Ok(Box::new(peer))
}

fn wants_event_stream(session: &Session) -> bool {
    let accept = session.req_header().headers.get(header::ACCEPT);
    accept.is_some_and(|v| memchr::memmem::find(v.as_bytes(), b"text/event-stream").is_some())
}

/// The bytes that decide where a request goes. Empty for round robin.
fn balance_key<'a>(
    balance: &Balance,
    session: &'a Session,
    ctx: &RequestContext,
    trusted: &[IpNet],
) -> Cow<'a, [u8]> {
    let request = session.req_header();
    let client = || {
        let ip = forwarded::client_ip(request, ctx.client, trusted);
        Cow::Owned(ip.map(|ip| ip.to_string().into_bytes()).unwrap_or_default())
    };
    match balance {
        Balance::RoundRobin => Cow::Borrowed(&[]),
        Balance::ClientAddress => client(),
        Balance::Path => Cow::Borrowed(request.uri.path().as_bytes()),
        Balance::Header(name) => match request.headers.get(name) {
            Some(value) => Cow::Borrowed(value.as_bytes()),
            None => client(),
        },
    }
}
